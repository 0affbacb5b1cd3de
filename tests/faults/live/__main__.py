"""Every fault under open sockets, whose sessions end or live on; prints and writes a table.

    python -m tests.faults.live                         # all, about twelve minutes
    python -m tests.faults.live --store redis --fault frozen

The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

from functools import partial

from tests.faults.command import make_parser, run_all
from tests.faults.live.set_ups import SET_UPS
from tests.faults.live.table import markdown, row
from tests.faults.live.trial import run


def main() -> int:
    """Run the faults that the command line selects."""
    given = make_parser("tests.faults.live").parse_args()
    selected = [
        (trials, [each for each in trials.trials if given.fault in each.fault.name])
        for trials in SET_UPS
        if given.store.lower() in trials.store.lower()
    ]
    set_ups = [(trials.store, partial(run, trials, faults)) for trials, faults in selected if faults]
    return run_all(
        set_ups,
        show=lambda verdict: print(" | ".join(row(verdict)), flush=True),
        table=markdown,
        out=given.out / "live.md",
    )


if __name__ == "__main__":
    raise SystemExit(main())
