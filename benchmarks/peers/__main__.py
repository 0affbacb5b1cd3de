"""Make the peers' environments, and check that each does the work it is timed for.

python -m benchmarks.peers [NAME ...]       # --prepare: make the environments and no more
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.peers import PEERS, Peer
from benchmarks.peers.check import WrongAnswer, counting, running, verify
from benchmarks.server import backend
from tests.backends import BackendMissing, free_port

READS = {"find", "get"}


def main() -> int:
    """Prepare the peers named, check them and print what each request costs their databases."""
    options = _options()
    peers = [peer for peer in PEERS if not options.names or peer.name in options.names]
    failed = False
    for peer in peers:
        try:
            peer.prepare()
            for store in () if options.prepare else peer.stores:
                _print(peer, store, _checked(peer, store))
        except (RuntimeError, BackendMissing, WrongAnswer) as exc:
            failed = True
            print(exc, file=sys.stderr)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=main.__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--prepare", action="store_true", help="make their environments and no more")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def _checked(peer: Peer, store: str) -> dict[str, dict[str, float]]:
    with backend(store) as told:
        url = "" if store == "memory" else told
        port = free_port()
        try:
            with running(peer.command(store, url, port)), counting(store, url) as count:
                costs = verify(f"http://127.0.0.1:{port}", count)
        except (OSError, RuntimeError, WrongAnswer) as exc:
            raise WrongAnswer(f"{peer.name} on {store}: {exc}") from exc
    if store != "memory":
        _insist_on_work(peer, store, costs)
    return costs


def _insist_on_work(peer: Peer, store: str, costs: dict[str, dict[str, float]]) -> None:
    for kind in ("read", "write", "login"):
        if not costs[kind].keys() & READS:
            raise WrongAnswer(f"{peer.name} on {store}: {kind} reads nothing from the database")
        writes = bool(costs[kind].keys() - READS)
        if writes != (peer.reads_write if kind == "read" else True):
            raise WrongAnswer(f"{peer.name} on {store}: {kind} costs {costs[kind]}")


def _print(peer: Peer, store: str, costs: dict[str, dict[str, float]]) -> None:
    for kind, commands in costs.items():
        told = ", ".join(f"{times:.4g} {name}" for name, times in sorted(commands.items()))
        print(f"{peer.name:16} {store:7} {kind:10} {told or '-'}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
