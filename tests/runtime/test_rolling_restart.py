"""Two servers behind HAProxy are restarted in turn, under load: no request fails."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import Backend, free_port
from tests.support.haproxy import answers, haproxy
from tests.support.running import WAIT_S, Running, until

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (Debian: haproxy)")

CLIENTS = 8


class Load:
    """Clients that send one request after the other and count the answers."""

    def __init__(self, base: str) -> None:
        self._port = int(base.rpartition(":")[2])
        self.answers: Counter[str] = Counter()
        self.is_over = False

    def run(self) -> None:
        """Send requests until `is_over`."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        head = b"PATCH /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        while not self.is_over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(head + b'Connection: close\r\nContent-Length: 8\r\n\r\n{"a": 1}')
                line = await asyncio.wait_for(reader.readline(), 10)
                writer.close()
                self.answers[line.decode().strip()] += 1
            except OSError as exc:
                self.answers[type(exc).__name__] += 1
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_request_fails(tmp_path: Path, redis8: Backend, processes: str) -> None:  # H10
    """Each server is told to stop and started again at its port; every write of the clients is answered."""
    ports = free_port(), free_port()
    flags = (
        *(f"--store={redis8.url}", f"--store-prefix={tmp_path.name}", f"--processes={processes}"),
        *("--behind-proxy=127.0.0.1/32", "--drain=1500ms", "--visitors-per-address=1000000"),
    )

    def start(number: int) -> Running:
        server = Running(tmp_path, *flags, f"--port={ports[number]}")
        stack.callback(server.__exit__)
        until(lambda: answers(f"http://127.0.0.1:{ports[number]}"))
        return server

    with ExitStack() as stack:
        servers = [start(0), start(1)]
        load = Load(stack.enter_context(haproxy(tmp_path, free_port(), *ports)))
        statuses = []
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(load.run)
            for number in (0, 1):
                time.sleep(1)
                statuses.append(servers[number].end(signal.SIGTERM))
                servers[number] = start(number)
            time.sleep(1)
            load.is_over = True
            running.result(WAIT_S)

    assert statuses == [0, 0]
    assert set(load.answers) == {"HTTP/1.1 200 OK"}, load.answers
    assert load.answers["HTTP/1.1 200 OK"] > 100
