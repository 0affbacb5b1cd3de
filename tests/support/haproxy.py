"""HAProxy in front of two servers, with health checks, as docs/operations.md describes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.running import WAIT_S, get, until

CONFIGURATION = """
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout check 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-Proto https
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET /readyz
    http-reuse always
    default-server check inter 200ms fall 2 rise 1 pool-purge-delay 60s {options}
    server a 127.0.0.1:{first}
    server b 127.0.0.1:{second}
"""


@contextmanager
def haproxy(directory: Path, port: int, first: int, second: int, *, options: str = "") -> Iterator[str]:
    """Run HAProxy at *port* in front of two servers, and yield its base URL once one of them is up.

    Args:
        options: Options of both servers, which win over those of the configuration.
    """
    base, path = f"http://127.0.0.1:{port}", directory / "haproxy.cfg"
    path.write_text(CONFIGURATION.format(port=port, first=first, second=second, options=options))
    with (directory / "haproxy.log").open("w") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", path], stdout=log, stderr=log)
    try:
        until(lambda: answers(base))
        yield base
    finally:
        process.kill()
        process.wait(WAIT_S)


def answers(base: str, *, trusted: Path | None = None) -> bool:
    """Whether the server at *base* is ready; *trusted* is the CA file for TLS."""
    try:
        return get(base, "/readyz", trusted=trusted) == 200
    except OSError:
        return False
