"""The benchmark of the memory store runs and returns all its figures."""

from __future__ import annotations

from benchmarks.memory import DATA, figures


def test_benchmark_measures_every_kind_of_call() -> None:
    """A small run returns a positive figure for each."""
    found = figures(2000, signed_in=True)

    assert sum(len(key) + len(value) for key, value in DATA.items()) == 300
    assert [name.partition(",")[0] for name in found] == [
        "RSS a session",
        "full garbage collection",
        "create",
        "longest create",
        "load",
        "rate of load against 1000 sessions",
        "touch",
        "apply",
        "rotate",
        "destroy",
        "longest pause by expiry",
        "second longest",
    ]
    assert all(figure > 0 for figure in found.values())
