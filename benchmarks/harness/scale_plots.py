"""Plots of `make scale`: how each axis changes the rate and the latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.plots import COLOURS, MARKS, TARGET, legend, median, save, whiskers
from benchmarks.harness.tables import Results
from benchmarks.harness.targets import MANY_TO_FEW, P99_TO_BARE


@dataclass(frozen=True, slots=True)
class Axis:
    """How an axis of `make scale` is drawn, and what is aimed at there."""

    title: str
    label: str
    is_to_first: bool = False
    """Whether the rate is shown as a ratio to that of the first place, rather than to the bare handler's."""
    rate: float | None = None
    p99: float | None = None


AXES = {
    "sessions": Axis(
        "How many sessions there are", "sessions in the store", is_to_first=True, rate=MANY_TO_FEW
    ),
    "users": Axis("One user with a thousand sessions", "whose requests", is_to_first=True, rate=MANY_TO_FEW),
    "keys": Axis("How many keys a session has", "keys, besides its own two"),
    "concurrency": Axis("How many ask at once", "connections", p99=P99_TO_BARE),
}


def axis(results: Results, name: str, out: Path) -> None:
    """Draw one axis of `make scale`: the rate above, the 99th percentile below, both as ratios, by store."""
    rows, how = results["axes"][name], AXES[name]
    stores = list(dict.fromkeys(row["store"] for row in rows))
    drawn = Figure(figsize=(3.6 * len(stores) + 1.2, 6.4), layout="constrained")
    above, below = drawn.subplots(2, len(stores), sharex="col", sharey="row", squeeze=False)
    for panels, figure, target in (
        (above, "to_first" if how.is_to_first else "ratio", how.rate),
        (below, "p99_ratio", how.p99),
    ):
        for panel, store in zip(panels, stores, strict=True):
            _lines(panel, [row for row in rows if row["store"] == store], figure)
            if target is not None:
                panel.axhline(target, **TARGET, linestyle="--", label="target", zorder=1)
        # Beyond twice the first there is only noise, which would hide the rest.
        highest = 2.0 if figure == "to_first" else float("inf")
        panels[0].set_ylim(0, min(highest, panels[0].get_ylim()[1]))
    for top, bottom, store in zip(above, below, stores, strict=True):
        top.set_title(store, loc="left")
        bottom.set_xlabel(how.label)
    above[0].set_ylabel(
        f"rate: ratio to “{rows[0]['at']}”" if how.is_to_first else "rate: ratio to bare handler"
    )
    below[0].set_ylabel("p99: ratio to bare handler")
    drawn.suptitle(f"{how.title}\nmedian, lowest and highest of the rounds", fontsize=12, fontweight="bold")
    legend(drawn, [*above, *below])
    save(drawn, out / f"{name}.png")


def _lines(panel: Axes, rows: Sequence[Results], figure: str) -> None:
    """Draw a line for each kind of request; over numbers on a logarithmic axis, over names side by side."""
    places = list(dict.fromkeys(row["at"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    are_numbers = all(isinstance(place, int) for place in places)
    for number, kind in enumerate(kinds):
        mine = [row for row in rows if row["kind"] == kind and row[figure]]
        beside = 0.16 * (number - (len(kinds) - 1) / 2)
        at: list[Any] = [row["at"] if are_numbers else places.index(row["at"]) + beside for row in mine]
        spreads = [row[figure] for row in mine]
        panel.errorbar(
            at,
            list(map(median, spreads)),
            yerr=whiskers(spreads),
            color=COLOURS[number],
            marker=MARKS[number],
            linestyle="-" if are_numbers else "none",
            capsize=2,
            label=kind,
        )
    if are_numbers:
        panel.set_xscale("log")
        panel.set_xticks(places, [_short(place) for place in places])
        panel.minorticks_off()
    else:
        panel.set_xticks(range(len(places)), [str(place).replace(" ", "\n") for place in places])
        panel.margins(x=0.2)


def _short(number: int) -> str:
    """Return a number as an axis has room for it: 1000000 is `1M`."""
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:g}{sign}"
    return str(number)


def memory(results: Results, out: Path) -> None:
    """Draw how many bytes a session takes, by store and number."""
    rows = [row for row in results["axes"].get("sessions", ()) if row["kind"] == "read" and row["bytes_each"]]
    if not rows:
        return
    drawn = Figure(figsize=(7, 4), layout="constrained")
    panel = drawn.subplots()
    for number, store in enumerate(dict.fromkeys(row["store"] for row in rows)):
        mine = [row for row in rows if row["store"] == store]
        style = {"color": COLOURS[number], "marker": MARKS[number], "label": store}
        panel.plot([row["at"] for row in mine], [row["bytes_each"] for row in mine], **style)
    places = sorted({row["at"] for row in rows})
    panel.set(xscale="log", xlabel="sessions in the store", ylabel="bytes a session")
    panel.set_xticks(places, [_short(place) for place in places])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_title("Memory a session with 300 bytes of data takes, everything included")
    panel.legend()
    save(drawn, out / "memory.png")
