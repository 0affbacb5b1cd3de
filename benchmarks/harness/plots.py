"""Plots of results. They show ratios, because requests per second depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.tables import Results
from benchmarks.harness.targets import P99_TO_BARE, TO_BARE

# The palette of Okabe and Ito, for colour-blind readers; each colour also has its own marker.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
MARKERS = "osD^vP"
TARGET: dict[str, Any] = {"color": "#000000", "linewidth": 2.5}
KINDS = ("read", "write", "login")

mpl.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.grid": True,
        "grid.color": "#DDDDDD",
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
)


def save(figure: Figure, file: Path) -> None:
    """Write *figure* as PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def median_of(spread: Results | None) -> float:
    """Return the median of *spread*; 0 if the case failed."""
    return spread["median"] if spread else 0.0


def error_bars(spreads: Sequence[Results | None]) -> list[list[float]]:
    """Return the distances from each median to the lowest and highest round, for `xerr` and `yerr`."""
    found = [spread or {"median": 0.0, "low": 0.0, "high": 0.0} for spread in spreads]
    below = [spread["median"] - spread["low"] for spread in found]
    return [below, [spread["high"] - spread["median"] for spread in found]]


def legend(drawn: Figure, panels: Sequence[Axes]) -> None:
    """Draw one legend for all panels below them."""
    known = {
        text: handle
        for panel in panels
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawn.legend(known.values(), known.keys(), loc="outside lower center", ncols=4)


def _text_colour(colour: str) -> str:
    """Return black or white, whichever is readable on *colour*."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.45 else "white"


# --- make bench ---


def ratios(results: Results, out: Path) -> None:
    """Draw the rate of each request as a ratio to the bare handler, for us and the peers, by store."""
    bars = [row for row in results["rows"] if row["kind"] != "bare"]
    _bars(
        bars,
        lambda row: row["ratio"],
        lambda row: TO_BARE[row["store"], row["kind"]],
        title="Requests per second with a session, as a ratio to a bare Tornado handler",
        label="ratio to bare in the same round: median, lowest and highest (higher is better)",
        file=out / "ratios.png",
    )


def latency(results: Results, out: Path) -> None:
    """Draw the 99th percentile of each request as a ratio to the bare handler's."""
    bars = [row for row in results["rows"] if row["kind"] != "bare"]
    _bars(
        bars,
        lambda row: row["p99_ratio"],
        lambda row: P99_TO_BARE,
        title="99th percentile of latency, as a ratio to a bare Tornado handler's",
        label="ratio to bare in the same round: median, lowest and highest (lower is better)",
        file=out / "latency.png",
    )


def _bars(
    rows: Sequence[Results],
    value_of: Callable[[Results], Results | None],
    target_of: Callable[[Results], float],
    *,
    title: str,
    label: str,
    file: Path,
) -> None:
    """Draw one panel per store, with one group of bars per kind of request and one bar per server."""
    stores = list(dict.fromkeys(row["store"] for row in rows))
    names = list(dict.fromkeys(row["server"] for row in rows))
    count = {store: len({row["server"] for row in rows if row["store"] == store}) for store in stores}
    heights = [3 * (count[store] + 1) for store in stores]
    drawn = Figure(figsize=(9.5, 1.6 + 0.24 * sum(heights)), layout="constrained")
    panels = drawn.subplots(len(stores), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for panel, store in zip(panels, stores, strict=True):
        mine = [row for row in rows if row["store"] == store]
        _panel(panel, mine, names, value_of, target_of)
        panel.set_title(store, loc="left")
    panels[-1].set_xlabel(label)
    panels[-1].set_xlim(left=0)
    drawn.suptitle(title, fontsize=12, fontweight="bold")
    legend(drawn, list(panels))
    save(drawn, file)


def _panel(
    panel: Axes,
    rows: Sequence[Results],
    names: Sequence[str],
    value_of: Callable[[Results], Results | None],
    target_of: Callable[[Results], float],
) -> None:
    here = [name for name in names if any(row["server"] == name for row in rows)]
    step = len(here) + 1
    for name in here:
        mine = [row for row in rows if row["server"] == name]
        at = [KINDS.index(row["kind"]) * step + here.index(name) for row in mine]
        spreads = [value_of(row) for row in mine]
        colour = COLOURS[names.index(name) % len(COLOURS)]
        style: dict[str, Any] = {"ecolor": "#444444", "capsize": 2, "error_kw": {"linewidth": 1}}
        panel.barh(
            at,
            list(map(median_of, spreads)),
            0.85,
            xerr=error_bars(spreads),
            color=colour,
            label=name,
            **style,
        )
        for y, spread in zip(at, spreads, strict=True):
            # At the start of the bar, where no error bar crosses the text.
            text = f" {median_of(spread):.2f}" if spread else " failed"
            panel.text(0, y, text, va="center", fontsize=8, color=_text_colour(colour), weight="bold")
    targets = {row["kind"]: target_of(row) for row in rows}
    for number, (kind, target) in enumerate(targets.items()):
        y = KINDS.index(kind) * step
        panel.plot([target] * 2, [y - 0.5, y + 0.5], **TARGET, label="our target" if number == 0 else None)
    panel.axvline(1, color="#444444", linewidth=1.2, linestyle=":", label="bare Tornado handler")
    panel.set_yticks([KINDS.index(kind) * step + (len(here) - 1) / 2 for kind in KINDS], KINDS)
    panel.grid(visible=False, axis="y")
    panel.invert_yaxis()


# --- make load ---


def load(rows: Sequence[Results], title: str, file: Path) -> None:
    """Draw rate, percentiles and failures of the load test by store."""
    stores = [row["store"] for row in rows]
    drawn = Figure(figsize=(10, 3.8), layout="constrained")
    rate, percentiles, failures = drawn.subplots(1, 3, width_ratios=(1, 1.8, 1))
    bars = rate.bar(stores, [row["rate"] for row in rows], 0.6, color=COLOURS[0])
    rate.bar_label(bars, fmt="%.0f", padding=2)
    rate.set(title="Requests per second", ylabel="requests/s")
    for number, name in enumerate(("p50", "p95", "p99")):
        at = [place + 0.27 * (number - 1) for place in range(len(stores))]
        drawn_bars = percentiles.bar(at, [row[name] for row in rows], 0.25, color=COLOURS[number], label=name)
        percentiles.bar_label(drawn_bars, fmt="%.0f", padding=2, fontsize=8)
    percentiles.set_xticks(range(len(stores)), stores)
    percentiles.set(title="Response time", ylabel="ms")
    percentiles.legend()
    bars = failures.bar(stores, [row["failures"] for row in rows], 0.6, color=COLOURS[4])
    failures.bar_label(bars, labels=[f"{row['failures']} of\n{row['requests']}" for row in rows], padding=2)
    failures.set(title="Failures", ylabel="requests")
    failures.yaxis.get_major_locator().set_params(integer=True)
    failures.set_ylim(0, max(1, *(1.3 * row["failures"] for row in rows)))
    for panel in (rate, percentiles, failures):
        panel.grid(visible=False, axis="x")
        panel.margins(y=0.12)
    drawn.suptitle(title, fontsize=12, fontweight="bold")
    save(drawn, file)
