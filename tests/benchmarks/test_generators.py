"""The load generators: their commands, requests and results."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.harness import generator
from benchmarks.harness.generator import Sample
from benchmarks.harness.python_generator import Connection, Load, summary

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


def test_the_line_of_wrk_is_found() -> None:
    """The other lines of wrk are ignored."""
    found = generator.parse(WRK)

    assert found == Sample(4576, 1.0015, 6.98, 7.03, 7.383, 2)
    assert not found.is_valid


def test_a_generator_without_a_result_line_is_an_error() -> None:
    """A broken script does not count as zero requests."""
    with pytest.raises(RuntimeError, match="printed no RESULT line: 'unable to connect'"):
        generator.parse("unable to connect")


def test_wrk_gets_whole_seconds() -> None:
    """It rejects fractions."""
    assert "-d1s" in generator.command("wrk", 1, "/", Path("c"), connections=1, seconds=0.2, rotates=False)


def test_fixed_cookies_are_sent_in_turn() -> None:
    """After the last cookie comes the first again."""
    load = Load(80, "/read", [b"id=1", b"id=2"], rotates=False)
    sent = [load.next_request() for _ in range(3)]

    assert sent[0] == b"GET /read HTTP/1.1\r\nHost: 127.0.0.1:80\r\nCookie: id=1\r\n\r\n"
    assert b"id=2" in sent[1]
    assert sent[2] == sent[0]


def test_a_rotating_cookie_is_used_by_one_request_at_a_time() -> None:
    """A request removes it from the queue, and its response appends the new cookie."""
    load = Load(80, "/login", [b"id=1", b"id=2"], rotates=True)
    load.next_request()
    load.record_response(b"HTTP/1.1 200 OK\r\nset-cookie: id=3; Path=/\r\nContent-Length: 5", 0.1)

    assert list(load.cookies) == [b"id=2", b"id=3"]
    assert load.failures == 0


@pytest.mark.parametrize(
    ("head", "rotates"),
    [(b"HTTP/1.1 401 Unauthorized", False), (b"HTTP/1.1 302 Found", False), (b"HTTP/1.1 200 OK", True)],
)
def test_a_wrong_response_is_a_failure(head: bytes, rotates: bool) -> None:
    """Any status except 200, and a login without a cookie."""
    load = Load(80, "/", [b"id=1"], rotates=rotates)
    load.record_response(head, 0.1)

    assert load.failures == 1


class Wire:
    """A transport that records what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Record *data*."""
        self.written.append(data)

    def close(self) -> None:
        """Record the call."""
        self.is_closed = True


def test_a_response_in_pieces_is_one_response() -> None:
    """The next request is sent after the last byte of a response, and none after the end of the period."""

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
    """The percentiles of a hundred responses that took 1 to 100 ms."""
    load = Load(80, "/", [], rotates=False)
    load.took_s = [n / 1000 for n in range(1, 101)]

    found = summary(load, 2.0)

    assert found["requests"] == 100
    assert [found["p50_ms"], found["p90_ms"], found["p99_ms"]] == pytest.approx([50, 90, 99], abs=1)
