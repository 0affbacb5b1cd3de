"""The plot of `make bench-live`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.plots import COLOURS, MARKERS, TARGET, legend, save
from benchmarks.harness.tables import Results
from benchmarks.harness.targets import PUSH_MEDIAN_MS, PUSH_P99_MS
from benchmarks.sockets.tables import CHECK, PUSH

TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200)
QUANTILES = {"p50": "median", "p99": "99th percentile", "max": "maximum"}


def draw(results: Results, out: Path) -> None:
    """Draw the times of pushes on the left, those of regular checks on the right."""
    rows = results["latency"]
    pushed = [row for row in rows if row["found_by"] == PUSH and row["bare"] and row["request"]]
    checked = [row for row in rows if row["found_by"] == CHECK and row["answer"]]
    drawn = Figure(figsize=(9, 1.4 + 0.16 * max(len(pushed), len(checked))), layout="constrained")
    left, right = drawn.subplots(1, 2)
    _draw_rows(left, pushed, [row["request"] for row in pushed])
    for target_ms, dashes in ((PUSH_MEDIAN_MS, "--"), (PUSH_P99_MS, ":")):
        left.axvline(target_ms, **{**TARGET, "linewidth": 1.5}, linestyle=dashes)
    left.set(xscale="log", xlabel="ms from the request; lines: the two targets")
    left.set_xlim(1, max(200, left.get_xlim()[1]))
    left.set_xticks(TICKS_MS, [str(tick) for tick in TICKS_MS])
    left.minorticks_off()
    left.set_title("Announced by the store", loc="left")
    shares = [{name: row["answer"][name] / 1000 / row["interval_s"] for name in QUANTILES} for row in checked]
    _draw_rows(right, checked, shares)
    right.axvline(1.0, **{**TARGET, "linewidth": 1.5}, linestyle="--")
    right.set(xlim=(0, 1.2), xlabel="intervals of the regular check; line: target")
    right.set_title("Found by the regular check", loc="left")
    legend(drawn, [left])
    save(drawn, out / "live.png")


def _draw_rows(panel: Axes, rows: Sequence[Results], times: Sequence[Results]) -> None:
    """Draw a line of points for each row, the first one at the top."""
    lines = range(len(rows))
    for number, (name, text) in enumerate(QUANTILES.items()):
        colour, marker = COLOURS[number], MARKERS[number]
        found = [each[name] for each in times]
        panel.plot(found, lines, color=colour, marker=marker, markersize=4, label=text, linestyle="none")
    panel.set_yticks(lines, [f"{row['store']}: {row['way']}" for row in rows], fontsize=8)
    panel.invert_yaxis()
