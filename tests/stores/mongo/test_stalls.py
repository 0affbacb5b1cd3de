"""A server whose network to MongoDB stalls and breaks serves as before. `make stalls` is the long form."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.stores.mongo.stalls import Plan, stalls
from tests.support.backends import Backend


def test_serves_as_before_after_stalls(mongo: Backend, tmp_path: Path) -> None:
    """Every request is answered in time and none is a 500; afterwards each is answered as before."""
    report = asyncio.run(stalls(Plan(cycles=4, store_timeout=0.4, longest_stop=0.3), mongo.port, tmp_path))

    assert report.is_well, report
