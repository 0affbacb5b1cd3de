"""Commands of one iteration of the loop are sent together, and each caller gets its own outcome."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Self

import pytest
import redis
from redis.asyncio.cluster import ClusterNode

from stormcellar.stores import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    StoreFull,
    StoreUnavailable,
    Verifier,
)
from stormcellar.stores.conformance.cases import (
    NOTHING,
    NOW,
    SUPERSEDED,
    THREE,
    UNKNOWN,
    new_key,
    new_record,
    new_verifier,
)
from stormcellar.stores.redis.client import BATCH
from tests.stores.redis.samples import OpenRedis, eventually, full, now, paused, redis_client, sign_in
from tests.support.backends import Backend
from tests.support.proxy import DroppingProxy, _redis_requests

OURS = (b"EVALSHA", b"HGETALL")


class CurtServer:
    """A Redis that answers so many commands of a connection, as it is told, and hangs up, or hangs.

    An async context manager; connect to `port` while it is open.
    """

    def __init__(self, reply: bytes, *, answers: int, hangs: bool = False) -> None:
        self.port = 0
        self.asked: list[bytes] = []
        self._reply = reply
        self._answers = answers
        self._hangs = hangs

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer, left = bytearray(), self._answers
        while (left >= 0 or self._hangs) and (chunk := await reader.read(65536)):
            buffer += chunk
            for request in _redis_requests(buffer):
                is_ours = any(word in request for word in OURS)
                if is_ours:
                    self.asked.append(request)
                    left -= 1
                if left >= 0:
                    writer.write(self._reply if is_ours else b"+OK\r\n")
        await writer.drain()
        writer.close()


def credentials(count: int) -> list[Credential]:
    """Return those of so many sessions that exist nowhere."""
    return [new_record().credential for _ in range(count)]


def clients(admin: redis.Redis) -> int:
    """Return how many clients the server has."""
    info: Any = admin.info("clients")
    return int(info["connected_clients"])


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("loads", "applies", "batches"), [(1, 0, 1), (BATCH, 0, 1), (BATCH + 1, 0, 2), (BATCH, BATCH, 2)]
)
async def test_what_one_turn_asks_leaves_by_one_connection(
    redis8: Backend, open_redis: OpenRedis, loads: int, applies: int, batches: int
) -> None:
    """Reads and changes apart, each as few batches as hold them; a batch in flight needs one connection."""
    store = open_redis(redis8.url)
    asked = [store.load(credential, now_ms=NOW) for credential in credentials(loads)]
    written = [
        store.apply(credential, NOTHING, now_ms=NOW, expires_ms=None) for credential in credentials(applies)
    ]
    with redis_client(redis8.port) as admin:
        before = clients(admin)

        answers = await asyncio.gather(*asked, *written)

        assert answers == [UNKNOWN] * loads + [Outcome.GONE] * applies
        assert clients(admin) - before == batches


@pytest.mark.gen_test
async def test_each_caller_of_a_batch_has_its_own_outcome(
    each_redis: Backend, open_redis: OpenRedis, admin: redis.Redis
) -> None:
    """Live, superseded, missing, in conflict or of a foreign type: the neighbours do not notice."""
    store = open_redis(each_redis.url)
    live, missing, foreign = new_record(), new_record(), new_record()
    other = Credential(live.handle, new_verifier())
    await store.create(live)
    admin.set(f"{store._prefix}:s:{foreign.handle}", "x")
    asked = [live.credential, missing.credential, foreign.credential, other]
    unmet = Delta(put={"x": b"1"}, expect={"nowhere": b"1"})

    loaded = await asyncio.gather(*(store.load(credential, now_ms=now()) for credential in asked))
    applied = await asyncio.gather(
        *(store.apply(credential, NOTHING, now_ms=now(), expires_ms=None) for credential in asked),
        store.apply(live.credential, unmet, now_ms=now(), expires_ms=None),
    )

    assert loaded == [live, UNKNOWN, UNKNOWN, SUPERSEDED]
    assert applied == [Outcome.APPLIED, *[Outcome.GONE] * 3, Outcome.CONFLICT]


@pytest.mark.gen_test
async def test_a_full_server_refuses_those_of_a_batch_that_need_memory(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """In one batch a destroy happens, a put is StoreFull, and who is gone is told so."""
    store = open_redis(each_redis.url)
    kept, ended = new_record(), new_record()
    await store.create(kept)
    await store.create(ended)
    put = Delta(put={"x": b"1"})

    with full(each_redis):
        refused, destroyed, gone = await asyncio.gather(
            store.apply(kept.credential, put, now_ms=now(), expires_ms=None),
            store.destroy(ended.handle, now_ms=now()),
            store.apply(new_record().credential, put, now_ms=now(), expires_ms=None),
            return_exceptions=True,
        )

    assert isinstance(refused, StoreFull)
    assert (destroyed, gone) == (True, Outcome.GONE)
    assert await store.load(kept.credential, now_ms=now()) == kept


@pytest.mark.gen_test
async def test_a_batch_of_forgotten_scripts_happens_once(
    each_redis: Backend, open_redis: OpenRedis, admin: redis.Redis
) -> None:
    """A server that forgot the script is sent the text for each of the batch, and counts each once."""
    store = open_redis(each_redis.url)
    counters, key = store.counters(), new_key()
    admin.script_flush()

    tallies = await asyncio.gather(*(counters.take(key, THREE, now_ms=NOW) for _ in range(3)))

    assert sorted(tally.count for tally in tallies) == [1, 2, 3]
    assert (await counters.peek(key, now_ms=NOW)).count == 3


@pytest.mark.gen_test
@pytest.mark.parametrize("hangs", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("told", [0, 1, 4])
async def test_changes_that_were_answered_before_the_line_broke_are_told(
    open_redis: OpenRedis, told: int, hangs: bool
) -> None:
    """Whose reply was read gets it; the others are told that nobody knows; each was sent once."""
    async with CurtServer(b"$7\r\napplied\r\n", answers=told, hangs=hangs) as server:
        store = open_redis(f"redis://127.0.0.1:{server.port}", timeout_s=0.3)

        outcomes = await asyncio.gather(
            *(store.apply(each, NOTHING, now_ms=NOW, expires_ms=None) for each in credentials(5)),
            return_exceptions=True,
        )
        await store.aclose()

    assert outcomes[:told] == [Outcome.APPLIED] * told
    assert [type(outcome) for outcome in outcomes[told:]] == [StoreUnavailable] * (5 - told)
    assert len(set(server.asked)) == len(server.asked) == 5


@pytest.mark.gen_test
async def test_loads_that_were_not_answered_are_asked_once_more(open_redis: OpenRedis) -> None:
    """Two of five are answered, then two of the three others; the last is told."""
    async with CurtServer(b"*0\r\n", answers=2) as server:
        store = open_redis(f"redis://127.0.0.1:{server.port}")

        answers = await asyncio.gather(
            *(store.load(each, now_ms=NOW) for each in credentials(5)), return_exceptions=True
        )
        await store.aclose()

    assert answers[:4] == [UNKNOWN] * 4
    assert isinstance(answers[4], StoreUnavailable)


@pytest.mark.gen_test
async def test_a_fault_is_each_callers_own(open_redis: OpenRedis) -> None:
    """No two callers are raised the same exception, whose traceback would grow with each."""
    store = open_redis("redis://127.0.0.1:1")

    answers = await asyncio.gather(
        *(store.load(each, now_ms=NOW) for each in credentials(3)), return_exceptions=True
    )

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert len({id(answer) for answer in answers}) == 3


@pytest.mark.gen_test
async def test_a_cancelled_caller_of_a_batch_harms_nobody(each_redis: Backend, open_redis: OpenRedis) -> None:
    """While the batch waits for its replies two of five leave; the others get their own."""  # D8
    store = open_redis(each_redis.url, timeout_s=5.0)
    records = [new_record(data={"of": b"%d" % number}) for number in range(5)]
    await asyncio.gather(*(store.create(record) for record in records))
    put = Delta(put={"x": b"1", "y": b"1"})

    with paused(each_redis):
        loads = [asyncio.ensure_future(store.load(each.credential, now_ms=now())) for each in records]
        await asyncio.sleep(0.05)
        applies = [
            asyncio.ensure_future(store.apply(each.credential, put, now_ms=now(), expires_ms=None))
            for each in records
        ]
        await asyncio.sleep(0.05)
        for call in (loads[0], loads[3], applies[1], applies[3]):
            call.cancel()
        await asyncio.sleep(0)

    loaded = await asyncio.gather(*loads, return_exceptions=True)
    applied = await asyncio.gather(*applies, return_exceptions=True)
    assert [loaded[number] for number in (1, 2, 4)] == [records[number] for number in (1, 2, 4)]
    assert [applied[number] for number in (0, 2, 4)] == [Outcome.APPLIED] * 3
    assert [call.cancelled() for call in (loads[0], loads[3], applies[1], applies[3])] == [True] * 4
    for record in records:
        after = await store.load(record.credential, now_ms=now())
        assert not isinstance(after, Absent) and ("x" in after.data) == ("y" in after.data)


@pytest.mark.gen_test
async def test_a_batch_of_large_sessions(each_redis: Backend, open_redis: OpenRedis) -> None:
    """64 sessions of 64 KiB are written by one batch and read by another."""
    store = open_redis(each_redis.url, timeout_s=10.0)
    records = [new_record(data={"big": b"%05d" % number * 13_107}) for number in range(BATCH)]

    await asyncio.gather(*(store.create(record) for record in records))
    loaded = await asyncio.gather(*(store.load(record.credential, now_ms=now()) for record in records))

    assert loaded == records


@pytest.mark.gen_test
async def test_a_script_without_an_answer_delays_no_load(redis8: Backend, open_redis: OpenRedis) -> None:
    """A load in one iteration with a write that gets no reply has its result at once."""
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        store = open_redis(redis8.url.replace(str(redis8.port), str(proxy.port)), timeout_s=0.5)
        record = new_record()
        await store.create(record)
        proxy.drop_replies(lambda request: b"EVALSHA" in request, hang=True)
        stuck = asyncio.ensure_future(store.destroy(new_record().handle, now_ms=now()))
        load = asyncio.ensure_future(store.load(record.credential, now_ms=now()))

        done, _ = await asyncio.wait([stuck, load], return_when=asyncio.FIRST_COMPLETED)

        assert done == {load}
        assert load.result() == record
        with pytest.raises(StoreUnavailable):
            await stuck
        await store.aclose()
        await asyncio.sleep(0.05)  # The proxy sees the connections end before it is closed itself.


@pytest.mark.gen_test
async def test_closing_tells_who_is_waiting(each_redis: Backend, open_redis: OpenRedis) -> None:
    """Calls on a frozen server end with the store, not with their budget, and leave no connection."""
    with redis_client(each_redis.port) as admin:
        before = clients(admin)
        store = open_redis(each_redis.url, timeout_s=60.0)
        await eventually(store.ping)
        with paused(each_redis):
            calls = [
                asyncio.ensure_future(store.load(new_record().credential, now_ms=NOW)),
                asyncio.ensure_future(store.destroy(new_record().handle, now_ms=now())),
            ]
            await asyncio.sleep(0.05)
            await store.aclose()
            answers = await asyncio.gather(*calls, return_exceptions=True)

        assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
        for _ in range(100):
            if clients(admin) == before:
                break
            await asyncio.sleep(0.02)
        assert clients(admin) == before


@pytest.mark.gen_test
async def test_what_is_another_nodes_is_sent_there_once(
    redis_cluster: Backend, open_redis: OpenRedis
) -> None:
    """Of a batch to two nodes, what one refuses as another's is sent there, and happens once."""
    store = open_redis(redis_cluster.url)
    counters, keys = store.counters(), [new_key() for _ in range(4)]
    await counters.take(keys[0], THREE, now_ms=NOW)
    client: Any = store._client._driver
    slot = client.keyslot(f"{store._prefix}:t:{keys[0]}")
    moved = b"-MOVED %d 127.0.0.1:%d\r\n" % (slot, redis_cluster.port)

    async with CurtServer(moved, answers=1000) as former:
        nodes = client.nodes_manager
        node = ClusterNode("127.0.0.1", former.port, **nodes.connection_kwargs)
        nodes.slots_cache[slot] = [node]
        tallies = await asyncio.gather(*(counters.take(key, THREE, now_ms=NOW) for key in keys))
        after = [(await counters.peek(key, now_ms=NOW)).count for key in keys]
        await node.disconnect()

    assert [tally.count for tally in tallies] == after == [2, 1, 1, 1]
    assert len(former.asked) == 1


@pytest.mark.gen_test
async def test_a_node_that_is_down_fails_its_own_share_alone(
    redis_cluster: Backend, open_redis: OpenRedis
) -> None:
    """Commands to other nodes in the same iteration get their replies, reads and writes alike."""
    store = open_redis(redis_cluster.url)
    lost, kept = new_record(), new_record()
    await store.create(kept)
    client: Any = store._client._driver
    nodes = client.nodes_manager
    slot = client.keyslot(f"{store._prefix}:s:{lost.handle}")
    nodes.slots_cache[slot] = [ClusterNode("127.0.0.1", 1, **nodes.connection_kwargs)]

    answers = await asyncio.gather(
        store.destroy(lost.handle, now_ms=now()),
        store.apply(kept.credential, NOTHING, now_ms=now(), expires_ms=None),
        return_exceptions=True,
    )

    assert isinstance(answers[0], StoreUnavailable)
    assert answers[1] is Outcome.APPLIED
    assert await store.destroy(lost.handle, now_ms=now()) is False  # who owns the slot was asked again


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["create", "rotate"])
async def test_on_one_server_a_binding_is_one_script(
    redis8: Backend, open_redis: OpenRedis, name: str
) -> None:
    """Record and index change in the same step, in one command."""
    store = open_redis(redis8.url)
    bind: dict[str, Callable[[], Any]] = {
        "create": lambda: store.create(new_record(user="alice")),
        "rotate": lambda: sign_in(store, anonymous, "alice"),
    }
    anonymous = new_record()
    await store.create(anonymous)
    await sign_in(store, new_record(), None)  # the scripts are known from here on
    with redis_client(redis8.port) as admin:
        admin.config_resetstat()

        await bind[name]()

        stats: Any = admin.info("commandstats")
    assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_zadd"]["calls"]) == (1, 1)
    assert len(await store.of_user("alice", now_ms=now())) == 1


@pytest.mark.gen_test
async def test_no_binding_without_an_index(
    each_redis: Backend, open_redis: OpenRedis, admin: redis.Redis
) -> None:
    """Where something else lies in the place of a user's index, nothing is bound to that user."""
    store = open_redis(each_redis.url)
    record, direct = new_record(), new_record(user="alice")
    await store.create(record)
    admin.set(f"{store._prefix}:u:{hashlib.sha256(b'alice').hexdigest()}", "x")

    with pytest.raises(StoreUnavailable):
        await sign_in(store, record, "alice")
    with pytest.raises(StoreUnavailable):
        await store.create(direct)

    assert await store.load(record.credential, now_ms=now()) == record
    assert await store.load(direct.credential, now_ms=now()) == UNKNOWN


@pytest.mark.gen_test
async def test_a_call_that_cannot_be_sent_harms_no_other(each_redis: Backend, open_redis: OpenRedis) -> None:
    """What no server could be told, a lone surrogate, is the error of who asked it."""
    store = open_redis(each_redis.url)
    record = new_record()
    await store.create(record)
    broken = Credential(Handle("\ud800"), Verifier("v"))

    answers = await asyncio.gather(
        store.load(broken, now_ms=now()), store.load(record.credential, now_ms=now()), return_exceptions=True
    )

    assert isinstance(answers[0], UnicodeEncodeError)
    assert answers[1] == record
