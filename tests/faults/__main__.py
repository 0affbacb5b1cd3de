"""Every fault of every set-up under a load that checks what it is told; prints and writes a table.

    python -m tests.faults                         # all, about a quarter of an hour
    python -m tests.faults --store redis --fault frozen

The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import sys
from functools import partial

from tests.faults.command import make_parser, run_all
from tests.faults.set_ups import SUITES
from tests.faults.suite import Result, run
from tests.faults.table import markdown, row


def main() -> int:
    """Run the faults that the command line selects."""
    parser = make_parser("tests.faults")
    parser.add_argument("--smoke", action="store_true", help="only those faults that `make test` has as well")
    given = parser.parse_args()
    selected = [
        (
            suite,
            [
                each
                for each in suite.faults
                if given.fault in each.name and (each.in_smoke or not given.smoke)
            ],
        )
        for suite in SUITES
        if given.store in suite.store
    ]
    set_ups = [(suite.store, partial(run, suite, tuple(faults))) for suite, faults in selected if faults]
    return run_all(set_ups, show=_show, table=markdown, out=given.out / "table.md")


def _show(result: Result) -> None:
    print(" | ".join(row(result)), flush=True)
    for name in ("lost", "back", "signed_out", "somebody_else"):
        for line in getattr(result.journal, name):
            print(f"    {name}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
