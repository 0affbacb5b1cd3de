"""The command line that both fault suites have: select faults, run them, write their table."""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Outcome(Protocol):
    @property
    def problems(self) -> Sequence[str]:
        """The promises that were broken."""


R = TypeVar("R", bound=Outcome)
SetUp = tuple[str, Callable[[Path], AsyncIterator[R]]]
"""The store of a set-up, and what runs its selected faults in a directory."""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return a parser with the options of both suites."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description="Run the faults that the command line selects."
    )
    parser.add_argument("--store", default="", help="part of the name of the set-ups to run")
    parser.add_argument("--fault", default="", help="part of the name of the faults to run")
    parser.add_argument("--out", type=Path, default=Path("var/faults"), help="where the table goes")
    return parser


def run_all(
    set_ups: Iterable[SetUp[R]], *, show: Callable[[R], None], table: Callable[[list[R]], str], out: Path
) -> int:
    """Run *set_ups* one after the other, and write the table to *out*; return the exit status."""
    results: list[R] = []
    # Otherwise the servers stay when the run is ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="stormcellar-faults-") as directory:
            failed = asyncio.run(_run(set_ups, Path(directory), results, show))
    finally:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(table(results))
    broken = [result for result in results if result.problems]
    print(f"{len(results)} faults, {len(broken)} with a broken promise; table in {out}")
    if failed:
        print(f"these set-ups failed: {', '.join(failed)}")
    return 1 if broken or failed or not results else 0


async def _run(
    set_ups: Iterable[SetUp[R]], directory: Path, results: list[R], show: Callable[[R], None]
) -> list[str]:
    """Add what each fault did to *results*, and return the set-ups that failed."""
    failed: list[str] = []
    for number, (store, run) in enumerate(set_ups):
        try:
            async for result in run(directory / str(number)):
                results.append(result)
                show(result)
                for problem in result.problems:
                    print(f"    BROKEN: {problem}", flush=True)
        except Exception:  # the other set-ups and the table go on
            traceback.print_exc()
            failed.append(store)
    return failed
