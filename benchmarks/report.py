"""Put the tables and plots of var/bench/ into docs/performance.md: `python -m benchmarks.report`."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from benchmarks.harness import ROOT
from benchmarks.harness.tables import RESULTS, bench_report, scale_report
from benchmarks.sockets.tables import live_report

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
REPORTS = {"bench": bench_report, "scale": scale_report, "live": live_report}


def replace_section(page: str, name: str, text: str) -> str:
    """Return *page* with *text* between the markers called *name*.

    Raises:
        ValueError: The page does not contain this pair of markers exactly once.
    """
    pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
    page, count = re.subn(pattern, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.S)
    if count != 1:
        raise ValueError(f"the page has {count} pairs of markers called {name!r}; it must have one")
    return page


def main() -> int:
    """Replace the tables of the page for which there are results, and copy the plots."""
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=main.__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: var/bench")
    results = parser.parse_args().results
    page = PAGE.read_text()
    for name, report in REPORTS.items():
        file = results / f"{name}.json"
        if file.exists():
            page = replace_section(page, name, report(json.loads(file.read_text())))
    PAGE.write_text(page)
    PLOTS.mkdir(exist_ok=True)
    for plot in sorted(results.glob("*.png")):
        shutil.copy(plot, PLOTS / plot.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
