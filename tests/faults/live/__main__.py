"""Every fault under open sockets, whose sessions end or live on; prints and writes a table.

    python -m tests.faults.live                         # all, about twelve minutes
    python -m tests.faults.live --store redis --fault frozen

The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import traceback
from pathlib import Path

from tests.faults.live.set_ups import SET_UPS
from tests.faults.live.table import markdown, row
from tests.faults.live.trial import Verdict, run


async def _run(arguments: argparse.Namespace, directory: Path, verdicts: list[Verdict]) -> list[str]:
    """Run the faults, add what each did to *verdicts*, and return the set-ups that failed."""
    failed: list[str] = []
    for number, trials in enumerate(SET_UPS):
        selected = [each for each in trials.trials if arguments.fault in each.fault.name]
        if arguments.store.lower() not in trials.store.lower() or not selected:
            continue
        try:
            async for verdict in run(trials, selected, directory / str(number)):
                verdicts.append(verdict)
                print(" | ".join(row(verdict)), flush=True)
                for problem in verdict.problems:
                    print(f"    BROKEN: {problem}", flush=True)
        except Exception:  # the other set-ups and the table go on
            traceback.print_exc()
            failed.append(trials.store)
    return failed


def main() -> int:
    """Run the faults that the command line selects."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.live", description=main.__doc__)
    parser.add_argument("--store", default="", help="part of the name of the set-ups to run")
    parser.add_argument("--fault", default="", help="part of the name of the faults to run")
    parser.add_argument("--out", type=Path, default=Path("var/faults"), help="where the table goes")
    arguments = parser.parse_args()
    verdicts: list[Verdict] = []
    # Otherwise the servers stay when the run is ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="stormcellar-faults-") as directory:
            failed = asyncio.run(_run(arguments, Path(directory), verdicts))
    finally:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "live.md").write_text(markdown(verdicts))
    broken = [verdict for verdict in verdicts if verdict.problems]
    print(f"{len(verdicts)} faults, {len(broken)} with a broken promise; table in {arguments.out}/live.md")
    if failed:
        print(f"these set-ups failed: {', '.join(failed)}")
    return 1 if broken or failed or not verdicts else 0


if __name__ == "__main__":
    raise SystemExit(main())
