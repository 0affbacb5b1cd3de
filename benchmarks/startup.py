"""How long the server takes to its first answer, and what it then holds: `python -m benchmarks.startup`.

In turn with a Tornado server that knows one handler. Bytecode is compiled before, as an installation has it.
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
"""For each server the medians of `answer_s`, `cpu_s`, `rss_mib` and `pss_mib`."""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="of each (default: 7)")
    figures = measure(parser.parse_args().starts)
    print(f"{'':14}{'first answer, s':>17}{'CPU time, s':>14}{'RSS, MiB':>11}{'PSS, MiB':>11}")
    for name, of in figures.items():
        print(f"{name:14}{of['answer_s']:17.2f}{of['cpu_s']:14.2f}{of['rss_mib']:11.1f}{of['pss_mib']:11.1f}")


def measure(starts: int = 7) -> Figures:
    """Start each server so many times, in turn, and return the medians."""
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
    begun = time.perf_counter()
    with run_server(command, directory) as (process, port):
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/healthz")
            if (status := connection.getresponse().status) != 200:
                raise SystemExit(f"the first answer was {status}")
        answer_s = time.perf_counter() - begun
        time.sleep(IDLE_S)
        return {"answer_s": answer_s, "cpu_s": cpu_time_s(process.pid), **_memory(process.pid)}


def _memory(pid: int) -> dict[str, float]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.M))
    return {"rss_mib": int(kib["Rss"]) / 1024, "pss_mib": int(kib["Pss"]) / 1024}


if __name__ == "__main__":
    main()
