"""Verify that a server does the work before it is measured.

A peer that reads from a cache, saves after the response or keeps the old session ID valid would be faster for
the wrong reason. The same holds for our own application.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.client import Client, Response, connected_client
from benchmarks.harness.databases import Database, format_operations
from benchmarks.harness.server_under_test import ServerUnderTest

REQUESTS = 20
KINDS = ("bare", "read", "write", "login")
# One operation in twenty requests can be a touch, or work that the server does from time to time.
_TOLERATED = 1
_EXPECTED_TEXT = {"bare": "hello", "read": "somebody", "write": "hello", "login": "hello"}

Operations = dict[str, dict[str, float]]
"""For each kind of request: the number of calls of each database operation per request."""


class VerificationError(Exception):
    """A server does not do the work; the message names the difference."""


def verify(server: ServerUnderTest, database: Database | None, *, reads_write: bool = False) -> Operations:
    """Send 20 requests of each kind to *server*; return the database operations per request.

    Args:
        reads_write: The reads of this server are known to write; the report notes this.

    Raises:
        VerificationError: A response is wrong, or the database does less or more than the request needs.
    """
    with connected_client(server.port) as client:
        # Only a first request opens connections and loads scripts; this is not counted.
        first = client.start_session()
        for kind in KINDS:
            client.get(f"/{kind}", first)
        cookie = client.start_session()
        _expect_anonymous(client, None, "without a cookie")
        _expect_anonymous(client, _forged(cookie), "with a forged cookie")
        operations: Operations = {}
        for kind in KINDS:
            before = database.counts() if database else {}
            cookies = [cookie, *_send(client, kind, cookie)]
            after = database.counts() if database else {}
            operations[kind] = {
                name: (count - before.get(name, 0)) / REQUESTS
                for name, count in sorted(after.items())
                if count > before.get(name, 0)
            }
            cookie = cookies[-1]
        _expect(client.get("/read", cookie), "somebody", "read after login")
        for old in cookies[:-1]:
            _expect_anonymous(client, old, "with the ID from before a login")
    if database:
        check_operations(operations, database, reads_write=reads_write)
    return operations


def _send(client: Client, kind: str, cookie: str) -> Iterator[str]:
    """Send 20 requests of *kind*; yield the new cookies of logins."""
    for _ in range(REQUESTS):
        response = client.get(f"/{kind}", cookie)
        _expect(response, _EXPECTED_TEXT[kind], kind)
        if kind == "login":
            if len(response.cookies) != 1 or response.cookies[0] == cookie:
                raise VerificationError(f"a login must set one new cookie; it set {len(response.cookies)}")
            cookie = response.cookies[0]
            yield cookie
        elif response.cookies not in ((), (cookie,)):
            raise VerificationError(f"a {kind} changes the cookie")


def _expect(response: Response, text: str, request: str) -> None:
    if response.status_and_text != (200, text):
        raise VerificationError(
            f"{request}: response {response.status} {response.text[:40]!r}, expected 200 {text!r}"
        )


def _expect_anonymous(client: Client, cookie: str | None, condition: str) -> None:
    status, text = client.get("/read", cookie).status_and_text
    if (status, text) != (401, "anonymous"):
        raise VerificationError(
            f"read {condition}: response {status} {text[:40]!r}, expected 401 'anonymous'"
        )


def _forged(cookie: str) -> str:
    """Return *cookie* with a different value of the same length."""
    name, _, value = cookie.partition("=")
    # All characters change, because some bits of the last character mean nothing in some encodings.
    return f"{name}={value.translate(str.maketrans('abcdef012345', 'bcdefa123450'))}"


def check_operations(operations: Operations, database: Database, *, reads_write: bool = False) -> None:
    """Raise VerificationError if the database operations are not those that each kind of request needs."""
    writes = {
        kind: sum(count for name, count in counts.items() if database.is_write(name))
        for kind, counts in operations.items()
    }
    listed = {kind: format_operations(counts) for kind, counts in operations.items()}
    if sum(operations["bare"].values()) * REQUESTS > _TOLERATED:
        raise VerificationError(f"a bare request must not use the database: {listed['bare']}")
    if writes["read"] * REQUESTS > _TOLERATED and not reads_write:
        raise VerificationError(f"a read must not write: {listed['read']}")
    if sum(operations["read"].values()) < 1:
        raise VerificationError(f"every read must use the database: {listed['read']}")
    for kind in ("write", "login"):
        if writes[kind] < 1:
            raise VerificationError(f"every {kind} request must write: {listed[kind]}")
