"""What very many sockets of one process cost."""

from __future__ import annotations

import pytest

from benchmarks.sockets.capacity import KINDS, measure, require_descriptors


def test_too_few_descriptors_are_told_before_the_measurement() -> None:
    """With a number that is possible."""
    require_descriptors(10_000, 20_000)
    with pytest.raises(SystemExit, match="try --many 2896"):
        require_descriptors(10_000, 4096)


def test_each_kind_of_socket_is_measured() -> None:
    """Every figure is there, and no socket of a live session was closed."""
    found = measure("memory", 120, every_s=0.5)

    assert all(found[f"{kind}_bytes"] > 0 and found[f"{kind}_open_us"] > 0 for kind in KINDS)
    assert min(found[name] for name in ("check_share", "check_block_ms", "everywhere_block_ms")) > 0
    assert (found["signed_out"], found["closed"]) == (120, 0)
