"""Build the environments of the peers, and verify that each peer does the work that is measured.

python -m benchmarks.peers [NAME ...]       # --prepare: only build the environments
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness.databases import backend, connected_database, format_operations
from benchmarks.harness.server_under_test import start_server
from benchmarks.harness.verify import Operations, VerificationError, verify
from benchmarks.peers import PEERS, Peer
from tests.support.backends import BackendMissing, free_port


def main() -> int:
    """Build the environments of peers, verify the peers and print the database operations per request."""
    options = _options()
    peers = [peer for peer in PEERS if not options.names or peer.name in options.names]
    failed = False
    for peer in peers:
        try:
            peer.prepare()
            for store in () if options.prepare else peer.stores:
                _print(peer, store, _verify(peer, store))
        except (RuntimeError, BackendMissing, VerificationError) as exc:
            failed = True
            print(exc, file=sys.stderr)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=main.__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--prepare", action="store_true", help="only build the environments")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown peer: {', '.join(sorted(unknown))}; known peers: {', '.join(names)}")
    return options


def _verify(peer: Peer, store: str) -> Operations:
    with backend(store) as url:
        port = free_port()
        command = peer.command(store, "" if store == "memory" else url, port)
        with (
            start_server(peer.name, store, command, port=port) as server,
            connected_database(store, url) as stored,
        ):
            try:
                return verify(server, stored, reads_write=peer.reads_write)
            except VerificationError as exc:
                raise VerificationError(f"{peer.name} on {store}: {exc}") from exc


def _print(peer: Peer, store: str, operations: Operations) -> None:
    for kind, counts in operations.items():
        print(f"{peer.name:16} {store:7} {kind:6} {format_operations(counts)}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
