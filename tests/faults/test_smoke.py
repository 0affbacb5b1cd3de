"""Some of the faults of `make faults`: that they can be inflicted, and that nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.set_ups import SUITES
from tests.faults.suite import Result, Suite, run

SMOKE = [suite for suite in SUITES if any(fault.in_smoke for fault in suite.faults)]


@pytest.mark.needs_server
@pytest.mark.parametrize("suite", SMOKE, ids=lambda suite: suite.store)
def test_nothing_is_lost(suite: Suite, tmp_path: Path) -> None:
    """Everybody keeps what they were told, and is served again."""

    async def suffer() -> list[Result]:
        faults = tuple(fault for fault in suite.faults if fault.in_smoke)
        return [result async for result in run(suite, faults, tmp_path / "site")]

    for result in asyncio.run(suffer()):
        assert result.problems == []
        assert result.journal.errors or result.fault.is_seamless, "the fault was not felt"
