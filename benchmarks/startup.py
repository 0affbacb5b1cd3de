"""Measure the time to the first response and the memory after it: `python -m benchmarks.startup`.

Alternates with a Tornado server that has one handler. Bytecode is compiled before, as in an installation.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.harness.login_server import RUN, cpu_time_s, run_server

IDLE_S = 0.3
BARE = """
import asyncio, tornado.web, uvloop
class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("hello")
async def main():
    server = tornado.web.Application([("/healthz", Hello)]).listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""

Figures = dict[str, dict[str, float]]
"""For each server the medians of `response_s`, `cpu_s`, `rss_mib` and `pss_mib`."""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="of each server (default: 7)")
    figures = measure(parser.parse_args().starts)
    print(f"{'':14}{'first response, s':>19}{'CPU time, s':>14}{'RSS, MiB':>11}{'PSS, MiB':>11}")
    for name, values in figures.items():
        print(
            f"{name:14}{values['response_s']:19.2f}{values['cpu_s']:14.2f}{values['rss_mib']:11.1f}{values['pss_mib']:11.1f}"
        )


def measure(starts: int = 7) -> Figures:
    """Start each server *starts* times, alternately; return the medians."""
    found: dict[str, list[dict[str, float]]] = {"stormcellar": [], "bare Tornado": []}
    with tempfile.TemporaryDirectory() as directory:
        commands = _commands(directory)
        for command in commands.values():
            _start(command, directory)
        for _ in range(starts):
            for name, command in commands.items():
                found[name].append(_start(command, directory))
    return {
        name: {figure: statistics.median(one[figure] for one in each) for figure in each[0]}
        for name, each in found.items()
    }


def _commands(directory: str) -> dict[str, list[str]]:
    quiet = ("--log-level=warning", f"--audit-log={directory}/audit.log")
    return {
        "stormcellar": [*RUN, "--port=0", f"--data-dir={directory}/data", *quiet],
        "bare Tornado": [sys.executable, "-c", BARE],
    }


def _start(command: list[str], directory: str) -> dict[str, float]:
    start_s = time.perf_counter()
    with run_server(command, directory) as (process, port):
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/healthz")
            if (status := connection.getresponse().status) != 200:
                raise SystemExit(f"GET /healthz returned {status}")
        response_s = time.perf_counter() - start_s
        time.sleep(IDLE_S)
        return {"response_s": response_s, "cpu_s": cpu_time_s(process.pid), **_memory(process.pid)}


def _memory(pid: int) -> dict[str, float]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.M))
    return {"rss_mib": int(kib["Rss"]) / 1024, "pss_mib": int(kib["Pss"]) / 1024}


if __name__ == "__main__":
    main()
