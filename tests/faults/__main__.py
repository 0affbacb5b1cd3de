"""Every fault of every set-up under a load that checks what it is told; prints and writes a table.

    python -m tests.faults                         # all, about a quarter of an hour
    python -m tests.faults --store redis --fault frozen

The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from tests.faults.set_ups import SUITES
from tests.faults.suite import Fault, Result, run
from tests.faults.table import markdown, row


def _is_selected(fault: Fault, arguments: argparse.Namespace) -> bool:
    return arguments.fault in fault.name and (fault.in_smoke or not arguments.smoke)


async def _run(arguments: argparse.Namespace, directory: Path, results: list[Result]) -> list[str]:
    """Run the faults, add what each did to *results*, and return the set-ups that failed."""
    failed: list[str] = []
    for number, suite in enumerate(SUITES):
        faults = tuple(each for each in suite.faults if _is_selected(each, arguments))
        if arguments.store not in suite.store or not faults:
            continue
        try:
            async for result in run(suite, faults, directory / str(number)):
                results.append(result)
                _print(result)
        except Exception:  # the other set-ups and the table go on
            traceback.print_exc()
            failed.append(suite.store)
    return failed


def _print(result: Result) -> None:
    print(" | ".join(row(result)), flush=True)
    for problem in result.problems:
        print(f"    BROKEN: {problem}", flush=True)
    journal = result.journal
    for name in ("lost", "back", "signed_out", "somebody_else"):
        for line in getattr(journal, name):
            print(f"    {name}: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the faults that the command line selects."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=main.__doc__)
    parser.add_argument("--store", default="", help="part of the name of the set-ups to run")
    parser.add_argument("--fault", default="", help="part of the name of the faults to run")
    parser.add_argument("--smoke", action="store_true", help="only those faults that `make test` has as well")
    parser.add_argument("--out", type=Path, default=Path("var/faults"), help="where the table goes")
    arguments = parser.parse_args()
    results: list[Result] = []
    # Otherwise the servers stay when the run is ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="stormcellar-faults-") as directory:
            failed = asyncio.run(_run(arguments, Path(directory), results))
    finally:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "table.md").write_text(markdown(results))
    broken = [result for result in results if result.problems]
    print(f"{len(results)} faults, {len(broken)} with a broken promise; table in {arguments.out}/table.md")
    if failed:
        print(f"these set-ups failed: {', '.join(failed)}")
    return 1 if broken or failed or not results else 0


if __name__ == "__main__":
    raise SystemExit(main())
