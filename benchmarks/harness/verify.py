"""Whether a subject does the work that is timed, before it is timed.

A peer that answers reads out of a cache, saves after the answer, or leaves the old session ID alive would win
for the wrong reason; and so would we.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.client import Client, Response, connected_client
from benchmarks.harness.databases import Database, told
from benchmarks.harness.server_under_test import ServerUnderTest

REQUESTS = 20
KINDS = ("bare", "read", "write", "login")
# One in twenty may be a touch, or what the server does for itself now and then.
_STRAY = 1
_ANSWERS = {"bare": "hello", "read": "somebody", "write": "hello", "login": "hello"}

Operations = dict[str, dict[str, float]]
"""For each kind of request, how often a request had the database carry out each operation."""


class Refused(Exception):
    """A subject does not do the work; the message says what is wrong."""


def verify(server: ServerUnderTest, database: Database | None, *, reads_write: bool = False) -> Operations:
    """Send some of each kind of request to *server*, and return what its database did for them.

    Args:
        reads_write: It is known, and told, that its reads write.

    Raises:
        Refused: It answers something else, or does less, or more.
    """
    with connected_client(server.port) as client:
        # What only the first request costs, such as a connection or a script, is no part of the figures.
        first = client.start_session()
        for kind in KINDS:
            client.get(f"/{kind}", first)
        cookie = client.start_session()
        _expect_anonymous(client, None, "without a cookie")
        _expect_anonymous(client, _forged(cookie), "with a cookie that is not its own")
        done: Operations = {}
        for kind in KINDS:
            before = database.counts() if database else {}
            cookies = [cookie, *_asked(client, kind, cookie)]
            after = database.counts() if database else {}
            done[kind] = {
                name: (count - before.get(name, 0)) / REQUESTS
                for name, count in sorted(after.items())
                if count > before.get(name, 0)
            }
            cookie = cookies[-1]
        _expect(client.get("/read", cookie), "somebody", "read after login")
        for old in cookies[:-1]:
            _expect_anonymous(client, old, "with the ID from before a login")
    if database:
        check_operations(done, database, reads_write=reads_write)
    return done


def _asked(client: Client, kind: str, cookie: str) -> Iterator[str]:
    """Send *kind* so often; yields the cookies that logins bring."""
    for _ in range(REQUESTS):
        answer = client.get(f"/{kind}", cookie)
        _expect(answer, _ANSWERS[kind], kind)
        if kind == "login":
            if len(answer.cookies) != 1 or answer.cookies[0] == cookie:
                raise Refused(f"a login does not bring one new cookie but {len(answer.cookies)}")
            cookie = answer.cookies[0]
            yield cookie
        elif answer.cookies not in ((), (cookie,)):
            raise Refused(f"a {kind} changes the cookie")


def _expect(answer: Response, body: str, what: str) -> None:
    if answer.status_and_text != (200, body):
        raise Refused(f"{what}: answered {answer.status} {answer.text[:40]!r} instead of 200 {body!r}")


def _expect_anonymous(client: Client, cookie: str | None, how: str) -> None:
    said = client.get("/read", cookie).status_and_text
    if said != (401, "anonymous"):
        raise Refused(f"a read {how} is answered {said[0]} {said[1][:40]!r} instead of 401 'anonymous'")


def _forged(cookie: str) -> str:
    """Return *cookie* with another value of the same length."""
    name, _, value = cookie.partition("=")
    # Every character, since the last of some encodings holds bits that mean nothing.
    return f"{name}={value.translate(str.maketrans('abcdef012345', 'bcdefa123450'))}"


def check_operations(done: Operations, database: Database, *, reads_write: bool = False) -> None:
    """Raise Refused if the operations are not those of the work."""
    writes = {
        kind: sum(count for name, count in counts.items() if database.is_write(name))
        for kind, counts in done.items()
    }
    if sum(done["bare"].values()) * REQUESTS > _STRAY:
        raise Refused(f"a bare request asks the database: {told(done['bare'])}")
    if writes["read"] * REQUESTS > _STRAY and not reads_write:
        raise Refused(f"a read also writes: {told(done['read'])}")
    if sum(done["read"].values()) < 1:
        raise Refused(f"a read does not ask the database each time: {told(done['read'])}")
    for kind in ("write", "login"):
        if writes[kind] < 1:
            raise Refused(f"a {kind} does not write each time: {told(done[kind])}")
