"""Plots of `make scale`: rate and latency along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.plots import COLOURS, MARKERS, TARGET, error_bars, legend, median_of, save
from benchmarks.harness.tables import Results
from benchmarks.harness.targets import MANY_TO_FEW, P99_TO_BARE


@dataclass(frozen=True, slots=True)
class Axis:
    """How to draw an axis of `make scale`, and its targets."""

    title: str
    label: str
    is_to_first: bool = False
    """Whether the rate is a ratio to the rate at the first point instead of the bare handler."""
    rate: float | None = None
    p99: float | None = None


AXES = {
    "sessions": Axis("Number of sessions", "sessions in the store", is_to_first=True, rate=MANY_TO_FEW),
    "users": Axis("One user with a thousand sessions", "whose requests", is_to_first=True, rate=MANY_TO_FEW),
    "keys": Axis("Number of keys in a session", "keys, in addition to two"),
    "concurrency": Axis("Number of connections", "connections", p99=P99_TO_BARE),
}


def axis(results: Results, name: str, out: Path) -> None:
    """Draw one axis: the rate above, the 99th percentile below, both as ratios, by store."""
    rows, style = results["axes"][name], AXES[name]
    stores = list(dict.fromkeys(row["store"] for row in rows))
    drawn = Figure(figsize=(3.6 * len(stores) + 1.2, 6.4), layout="constrained")
    above, below = drawn.subplots(2, len(stores), sharex="col", sharey="row", squeeze=False)
    for panels, metric, target in (
        (above, "to_first" if style.is_to_first else "ratio", style.rate),
        (below, "p99_ratio", style.p99),
    ):
        for panel, store in zip(panels, stores, strict=True):
            _draw_lines(panel, [row for row in rows if row["store"] == store], metric)
            if target is not None:
                panel.axhline(target, **TARGET, linestyle="--", label="target", zorder=1)
        # A ratio above 2 is noise; it would compress the rest of the plot.
        highest = 2.0 if metric == "to_first" else float("inf")
        panels[0].set_ylim(0, min(highest, panels[0].get_ylim()[1]))
    for top, bottom, store in zip(above, below, stores, strict=True):
        top.set_title(store, loc="left")
        bottom.set_xlabel(style.label)
    above[0].set_ylabel(
        f"rate: ratio to “{rows[0]['at']}”" if style.is_to_first else "rate: ratio to bare handler"
    )
    below[0].set_ylabel("p99: ratio to bare handler")
    drawn.suptitle(f"{style.title}\nmedian, lowest and highest of the rounds", fontsize=12, fontweight="bold")
    legend(drawn, [*above, *below])
    save(drawn, out / f"{name}.png")


def _draw_lines(panel: Axes, rows: Sequence[Results], metric: str) -> None:
    """Draw each kind of request: lines over numbers on a logarithmic axis, points over names."""
    points = list(dict.fromkeys(row["at"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    are_numbers = all(isinstance(point, int) for point in points)
    for number, kind in enumerate(kinds):
        mine = [row for row in rows if row["kind"] == kind and row[metric]]
        offset = 0.16 * (number - (len(kinds) - 1) / 2)
        at: list[Any] = [row["at"] if are_numbers else points.index(row["at"]) + offset for row in mine]
        spreads = [row[metric] for row in mine]
        panel.errorbar(
            at,
            list(map(median_of, spreads)),
            yerr=error_bars(spreads),
            color=COLOURS[number],
            marker=MARKERS[number],
            linestyle="-" if are_numbers else "none",
            capsize=2,
            label=kind,
        )
    if are_numbers:
        panel.set_xscale("log")
        panel.set_xticks(points, [_short(point) for point in points])
        panel.minorticks_off()
    else:
        panel.set_xticks(range(len(points)), [str(point).replace(" ", "\n") for point in points])
        panel.margins(x=0.2)


def _short(number: int) -> str:
    """Return *number* as a short label: `1M` for 1000000."""
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:g}{sign}"
    return str(number)


def memory(results: Results, out: Path) -> None:
    """Draw the bytes per session by store and number of sessions."""
    rows = [row for row in results["axes"].get("sessions", ()) if row["kind"] == "read" and row["bytes_each"]]
    if not rows:
        return
    drawn = Figure(figsize=(7, 4), layout="constrained")
    panel = drawn.subplots()
    for number, store in enumerate(dict.fromkeys(row["store"] for row in rows)):
        mine = [row for row in rows if row["store"] == store]
        style = {"color": COLOURS[number], "marker": MARKERS[number], "label": store}
        panel.plot([row["at"] for row in mine], [row["bytes_each"] for row in mine], **style)
    points = sorted({row["at"] for row in rows})
    panel.set(xscale="log", xlabel="sessions in the store", ylabel="bytes per session")
    panel.set_xticks(points, [_short(point) for point in points])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_title("Memory per session with 300 bytes of data, overhead included")
    panel.legend()
    save(drawn, out / "memory.png")
