"""The benchmark suite: what it makes of figures, and that it sees through a server that does other work."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tornado.web import RequestHandler

from benchmarks import bench, report, scale
from benchmarks.harness import app, bulk_sessions, generator, rounds, tables
from benchmarks.harness.generator import Sample
from benchmarks.harness.loop import run
from benchmarks.harness.python_generator import Connection, Load, summary
from benchmarks.harness.server_under_test import ServerUnderTest
from benchmarks.harness.targets import verdict
from benchmarks.harness.verify import VerificationError, check_operations, verify
from stormcellar import Lifetime, SessionMixin
from stormcellar.sessions.cookies import Cookies
from stormcellar.sessions.session import state_of
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import open_store

WRK = """Running 1s test @ http://127.0.0.1:45391/read
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     7.02ms  430.12us  12.51ms   93.60%
    Req/Sec     4.58k    66.94     4.67k    70.00%
  4576 requests in 1.00s, 0.93MB read
Requests/sec:   4569.06
Transfer/sec:      0.93MB
RESULT {"requests": 4576, "seconds": 1.0015, "p50_ms": 6.98, "p90_ms": 7.03, "p99_ms": 7.383, "failures": 2}
"""


def sample(rate: float, *, p99_ms: float = 10, failures: int = 0) -> Sample:
    """Return a sample of two seconds."""
    return Sample(round(2 * rate), 2.0, 1.0, 5.0, p99_ms, failures)


# --- rounds ---


def test_spread_is_the_median_and_the_ends() -> None:
    """One figure far off moves an end, not the median."""
    assert rounds.spread([3, 100, 1, 2]) == rounds.Spread(2.5, 1, 100)
    assert rounds.spread([]) is None


def test_every_other_round_goes_backwards() -> None:
    """Whatever comes after something in one round comes before it in the next."""
    order: list[str] = []

    def measure(name: str) -> Any:
        return lambda: order.append(name) or sample(1)

    found = rounds.measure_rounds({name: measure(name) for name in "abc"}, 3)

    assert "".join(order) == "abccbaabc"
    assert [set(each) for each in found] == [set("abc")] * 3


def test_ratios_are_within_a_round() -> None:
    """A machine that becomes half as fast in the middle of a run changes no ratio."""
    found = [{"bare": sample(1000), "read": sample(800)}, {"bare": sample(500), "read": sample(400)}]

    assert rounds.ratio_spread(found, "read", "bare") == rounds.Spread(0.8, 0.8, 0.8)


def test_a_round_that_failed_is_not_counted() -> None:
    """Neither its own figures nor a ratio with it, whichever side failed; it is told how many did."""
    found = [
        {"bare": sample(1000), "read": sample(500)},
        {"bare": sample(1000), "read": sample(9000, failures=1)},
        {"bare": sample(10, failures=1), "read": sample(500)},
    ]

    assert rounds.ratio_spread(found, "read", "bare") == rounds.Spread(0.5, 0.5, 0.5)
    assert rounds.result_row(found, "read", "bare")["rate"] == {"median": 500, "low": 500, "high": 500}
    assert rounds.failures(found, "read") == 1


def test_a_row_compares_the_99th_percentile_too() -> None:
    """Ours is twice the bare handler's in the same round."""
    found = [{"bare": sample(1000, p99_ms=7), "read": sample(800, p99_ms=14)}]

    assert rounds.result_row(found, "read", "bare")["p99_ratio"] == {"median": 2, "low": 2, "high": 2}


def test_a_case_that_always_failed_has_no_figures() -> None:
    """None stands for it, never a zero that could be taken for a figure."""
    found = [{"bare": sample(1000), "read": sample(0)}]

    assert rounds.result_row(found, "read", "bare")["ratio"] is None


def test_what_the_server_spent_is_told_by_request() -> None:
    """A second and a half of a core in two seconds, for 3000 requests."""
    found = replace(sample(1500), server_s=1.5)

    assert found.cpu_us == pytest.approx(500)
    assert found.busy == pytest.approx(0.75)


# --- generators ---


def test_the_line_of_wrk_is_found() -> None:
    """The other lines of wrk are ignored."""
    found = generator.parse(WRK)

    assert found == Sample(4576, 1.0015, 6.98, 7.03, 7.383, 2)
    assert not found.is_valid


def test_a_generator_without_a_result_line_is_an_error() -> None:
    """A broken script does not count as zero requests."""
    with pytest.raises(RuntimeError, match="printed no RESULT line: 'unable to connect'"):
        generator.parse("unable to connect")


def test_wrk_is_given_whole_seconds() -> None:
    """It refuses others."""
    assert "-d1s" in generator.command("wrk", 1, "/", Path("c"), connections=1, seconds=0.2, rotates=False)


def test_cookies_that_stay_are_sent_in_turn() -> None:
    """Each, then the first again."""
    load = Load(80, "/read", [b"id=1", b"id=2"], rotates=False)
    sent = [load.next_request() for _ in range(3)]

    assert sent[0] == b"GET /read HTTP/1.1\r\nHost: 127.0.0.1:80\r\nCookie: id=1\r\n\r\n"
    assert b"id=2" in sent[1]
    assert sent[2] == sent[0]


def test_a_cookie_that_rotates_is_in_use_once() -> None:
    """It is taken out, and the one that the response brings is put at the end."""
    load = Load(80, "/login", [b"id=1", b"id=2"], rotates=True)
    load.next_request()
    load.record_response(b"HTTP/1.1 200 OK\r\nset-cookie: id=3; Path=/\r\nContent-Length: 5", 0.1)

    assert list(load.cookies) == [b"id=2", b"id=3"]
    assert load.failures == 0


@pytest.mark.parametrize(
    ("head", "rotates"),
    [(b"HTTP/1.1 401 Unauthorized", False), (b"HTTP/1.1 302 Found", False), (b"HTTP/1.1 200 OK", True)],
)
def test_an_answer_that_is_not_the_work_is_a_failure(head: bytes, rotates: bool) -> None:
    """Any status but 200, and a login without a cookie."""
    load = Load(80, "/", [b"id=1"], rotates=rotates)
    load.record_response(head, 0.1)

    assert load.failures == 1


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Keep *data*."""
        self.written.append(data)

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


def test_a_response_in_pieces_is_one_response() -> None:
    """The next request leaves when the last byte is there, and none after the time is over."""

    async def talk() -> tuple[Load, Wire, list[int]]:
        load, wire, counts = Load(80, "/", [b"id=1"], rotates=False), Wire(), []
        load.until_s = float("inf")
        connection = Connection(load)
        connection.connection_made(wire)  # type: ignore[arg-type]
        for piece in (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\nhe", b"llo"):
            connection.data_received(piece)
            counts.append(len(wire.written))
        load.until_s = 0
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.connection_lost(None)
        return load, wire, counts

    load, wire, counts = asyncio.run(talk())

    assert counts == [1, 1, 2]
    assert (len(wire.written), wire.is_closed) == (2, True)
    assert (len(load.took_s), load.failures) == (2, 0)


def test_percentiles_in_milliseconds() -> None:
    """Of a hundred answers that took 1 to 100 ms."""
    load = Load(80, "/", [], rotates=False)
    load.took_s = [n / 1000 for n in range(1, 101)]

    found = summary(load, 2.0)

    assert found["requests"] == 100
    assert [found["p50_ms"], found["p90_ms"], found["p99_ms"]] == pytest.approx([50, 90, 99], abs=1)


# --- what a server does ---


class Counting:
    """A database that knows a read and a write."""

    def counts(self) -> Counter[str]:
        """Return nothing."""
        return Counter()

    def is_write(self, operation: str) -> bool:
        """Whether it is the write."""
        return operation == "put"

    def used_bytes(self) -> int:
        """Return nothing."""
        return 0


GOOD: dict[str, dict[str, float]] = {
    "bare": {},
    "read": {"get": 1},
    "write": {"get": 1, "put": 1},
    "login": {"get": 1, "put": 3},
}


def test_the_work_is_accepted() -> None:
    """One stray write in twenty reads may be a touch."""
    check_operations(GOOD, Counting())
    check_operations({**GOOD, "read": {"get": 1, "put": 0.05}}, Counting())


@pytest.mark.parametrize(
    ("kind", "counts", "reason"),
    [
        ("bare", {"get": 1}, "a bare request must not use the database"),
        ("read", {"get": 1, "put": 1}, "a read must not write: get 1, put 1"),
        ("read", {"get": 0.5}, "every read must use the database"),
        ("write", {"get": 1}, "every write request must write"),
        ("login", {"get": 1, "put": 0.5}, "every login request must write"),
    ],
)
def test_other_work_is_refused(kind: str, counts: dict[str, float], reason: str) -> None:
    """Whoever does less than is timed, or more, is told what."""
    with pytest.raises(VerificationError, match=reason):
        check_operations({**GOOD, kind: counts}, Counting())


def test_a_library_known_to_write_on_reads_is_let() -> None:
    """It is timed all the same, and the report says it."""
    check_operations({**GOOD, "read": {"get": 1, "put": 1}}, Counting(), reads_write=True)


@contextmanager
def handlers(**others: type[RequestHandler]) -> Iterator[None]:
    """Replace handlers of the application under test."""
    before = dict(app.HANDLERS)
    app.HANDLERS.update(others)  # type: ignore[arg-type]
    try:
        yield
    finally:
        app.HANDLERS.update(before)


def verified() -> None:
    """Verify our application, served by this process."""

    async def work() -> None:
        async with app.serve_in_loop("memory") as (port, _):
            served = ServerUnderTest("ours", "memory", port, os.getpid())
            await asyncio.to_thread(verify, served, None)

    run(work())


def test_our_own_application_does_the_work() -> None:
    """Through the real mixin: who it is, that nobody is nobody, and that a login ends the old ID."""
    verified()


class AnyoneIsSomebody(RequestHandler):
    def get(self) -> None:
        """Answer without looking."""
        self.write("somebody")


class LoginThatRenewsNothing(SessionMixin, RequestHandler):
    def get(self) -> None:
        """Leave the ID as it is."""
        self.write("hello")


class LoginThatLeavesTheOldOne(SessionMixin, RequestHandler):
    async def get(self) -> None:
        """Begin another session beside the old one."""
        data = dict(self.session)
        held = self._stormcellar
        fresh = await held.sessions.load(None, state_of(self.session).request)
        fresh.update(data)
        await fresh.login(str(self.session.user), keep=data)
        held.session, held.state = fresh, state_of(fresh)
        self.write("hello")


@pytest.mark.parametrize(
    ("kind", "handler", "reason"),
    [
        ("read", AnyoneIsSomebody, "read without a cookie: response 200"),
        ("login", LoginThatRenewsNothing, "a login must set one new cookie; it set 0"),
        ("login", LoginThatLeavesTheOldOne, "read with the ID from before a login: response 200"),
    ],
)
def test_a_server_that_cheats_is_refused(kind: str, handler: type[RequestHandler], reason: str) -> None:
    """What would be faster for the wrong reason is never timed."""
    with handlers(**{kind: handler}), pytest.raises(VerificationError, match=reason):
        verified()


# --- peers ---


@dataclass(frozen=True)
class Peer:
    """A peer that may be missing, and whose server is some Python."""

    name: str = "somebody"
    stores: tuple[str, ...] = ("memory",)
    program: str = ""
    why: str | None = None
    reads_write: bool = False

    def missing(self) -> str | None:
        """Return why it cannot run here."""
        return self.why

    def prepare(self) -> None:
        """Fail."""
        raise RuntimeError("no network")

    def command(self, store: str, url: str, port: int) -> list[str]:
        """Return what to start."""
        return [sys.executable, "-c", self.program]


@pytest.mark.parametrize("why", [None, "no node"])
def test_a_peer_that_cannot_run_is_named(why: str | None) -> None:
    """Whether it is missing or its environment cannot be made; the run goes on without it."""
    figures: Any = {"notes": {}}

    assert not bench._is_ready(Peer(why=why), ["memory"], figures)
    assert figures["notes"] == {"somebody": f"not measured: {why or 'no network'}"}


def test_a_peer_that_does_not_start_says_why() -> None:
    """The end of what it said goes into the report."""
    options, peer = argparse.Namespace(cores=()), Peer(program="raise SystemExit('no such module')")
    with ExitStack() as stack:
        why = bench._start(peer, "memory", "", None, options, stack)

    assert why == "somebody with memory did not start: no such module"


def test_a_server_that_ended_fails_the_stretch(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told, and nothing is taken for a figure; the sessions for logins are not used any more."""
    gone = ServerUnderTest("somebody", "memory", 1, 2**22 + 1, cookies=["id=1"], rotating=["id=2"])
    options = argparse.Namespace(generator="python", connections=1, seconds=0.1)

    assert not gone.sample("read", options).is_valid
    assert gone.rotating == []
    assert capsys.readouterr().err.startswith("somebody with memory: read: ")


# --- many sessions ---


def test_a_bulk_session_is_signed_in_and_needs_no_touch() -> None:
    """The server reads its cookie, its record is live, and an hour of reads writes nothing."""
    key = b"k" * 32
    cookie = bulk_sessions.cookie_headers([7], key=key)[0]
    store, now_ms = open_store("memory"), 1_000_000
    asyncio.run(bulk_sessions.create_sessions(store, 10, now_ms=now_ms))
    read = Cookies(KeyRing([key]), name="id", secure=False, max_age_s=60, clock=lambda: 0, samesite="Lax")
    sid = read.read([cookie])
    assert sid is not None
    record: Any = asyncio.run(store.load(sid.credential, now_ms=now_ms))

    assert record.user == "user7"
    assert not Lifetime().wants_touch(record, now_ms=now_ms + 3_600_000)


def test_levels_are_powers_of_ten() -> None:
    """From a thousand up to the most; the most alone where that is fewer."""
    assert scale._levels(1_000_000) == [1_000, 10_000, 100_000, 1_000_000]
    assert scale._levels(50_000) == [1_000, 10_000]
    assert scale._levels(500) == [500]


# --- the report ---


def spread(median: float) -> dict[str, float]:
    """Return a spread as JSON has it."""
    return {"median": median, "low": median - 0.1, "high": median + 0.1}


def row(name: str, kind: str, ratio: float) -> dict[str, Any]:
    """Return a row of results with Redis."""
    timed = {figure: spread(9) for figure in rounds.REPORTED}
    compared = {"ratio": spread(ratio), "cpu_ratio": spread(ratio), "p99_ratio": spread(1.5)}
    return {
        "server": name,
        "store": "redis",
        "kind": kind,
        **timed,
        **compared,
        "operations": {"hgetall": 1.0},
    }


FIGURES = {
    "about": {
        "when": "2026-01-02T03:04:05+00:00",
        **{"cores": 2, "pinned": True, "python": "3.11", "tornado": "6.6", "generator": "wrk -t1"},
        **{"connections": 32, "rounds": 9, "seconds": 2},
    },
    "notes": {"django": "not measured: no network"},
    "rows": [row("stormcellar", "read", 0.8), row("stormcellar", "write", 0.7), row("express", "read", 0.5)],
    "against": [
        {
            "peer": "express",
            "store": "redis",
            "kind": "read",
            **dict.fromkeys(("ratio", "cpu_ratio"), spread(1.6)),
        }
    ],
}


@pytest.mark.parametrize(
    ("figure", "target", "at_most", "word"),
    [
        (0.9, 0.9, False, "met"),
        (0.899, 0.9, False, "missed"),
        (2.0, 2.0, True, "met"),
        (2.1, 2, True, "missed"),
    ],
)
def test_a_target_is_met_at_its_figure(figure: float, target: float, at_most: bool, word: str) -> None:
    """And missed on the other side of it."""
    assert verdict(figure, target, at_most=at_most) == word


def test_the_report_puts_each_target_beside_its_figure() -> None:
    """Ours to the bare handler, and to Express; who was skipped is named."""
    lines = tables.bench_report(FIGURES).splitlines()

    assert "django: not measured: no network." in lines
    read, latency = [line for line in lines if line.startswith("| redis | read | 9")]
    assert "0.800 (0.70–0.90) | ≥ 0.80 met" in read
    assert "≤ 2.00 met" in latency
    assert any(line.startswith("| redis | write | 9") and "≥ 0.75 missed" in line for line in lines)
    (peer,) = [line for line in lines if "| express |" in line and "1.600" in line]
    assert "≥ 1.30 met" in peer


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """A case that failed in every round."""
    assert tables.format_spread(None) == "failed"
    assert tables.format_target(None, 0.9) == "≥ 0.90 not measured"


def test_figures_go_between_their_marks() -> None:
    """What the page says around them stays, and so it does the second time."""
    page = "before\n<!-- begin: bench -->\nold\n<!-- end: bench -->\nafter\n"
    once = report.replace_section(page, "bench", r"| new \1 |")

    assert once == "before\n<!-- begin: bench -->\n\n| new \\1 |\n\n<!-- end: bench -->\nafter\n"
    assert report.replace_section(once, "bench", r"| new \1 |") == once
    with pytest.raises(ValueError, match="0 pairs of markers called 'scale'"):
        report.replace_section(page, "scale", "")


def test_the_page_has_a_place_for_each_report() -> None:
    """The command that fills it finds its marks."""
    page = report.PAGE.read_text()

    for name in report.REPORTS:
        assert report.replace_section(page, name, "x") != page
