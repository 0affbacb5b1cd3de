"""The benchmark of calls counts exactly the calls that it documents."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import calls
from benchmarks.harness.loop import run

MODULE = """
import json
from dataclasses import dataclass


@dataclass
class Pair:
    left: int
    right: int


def double(number):
    return 2 * number


def quadruple(number):
    json.dumps(number)
    return double(double(number))


def numbers():
    yield 1
    yield 2
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ModuleType]:
    """Return a module in a separate folder, `ours/known.py`."""
    path = tmp_path / "ours" / "known.py"
    path.parent.mkdir()
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("known", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["known"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["known"]


def counted(found: calls.Calls) -> Counter[tuple[str, str]]:
    """Return the counts by file and by the last part of the name."""
    return Counter({(file, name.rpartition(".")[2]): count for (file, name), count in found.items()})


def test_each_call_and_each_continuation_is_counted(module: ModuleType, tmp_path: Path) -> None:
    """Three calls; a generator that runs three times; the `__init__` that dataclass generated."""
    with calls.counting(tmp_path / "ours") as seen:
        module.quadruple(1)
        list(module.numbers())
        module.Pair(1, 2)

    expected = {"quadruple": 1, "double": 2, "numbers": 3, "__init__": 1}
    assert counted(seen) == {("ours/known.py", name): count for name, count in expected.items()}
    assert calls.by_module(seen) == {"ours/known.py": 7}


def test_a_thread_that_starts_during_the_measurement_is_counted(module: ModuleType, tmp_path: Path) -> None:
    """Such a thread hashes passwords."""
    with calls.counting(tmp_path / "ours") as seen:
        thread = threading.Thread(target=module.double, args=(1,))
        thread.start()
        thread.join()

    assert seen == {("ours/known.py", "double"): 1}


def test_nothing_else_is_counted(module: ModuleType, tmp_path: Path) -> None:
    """Neither calls in other folders, nor calls before or after the measurement."""
    (tmp_path / "theirs").mkdir()
    before = sys.getprofile()
    module.double(1)
    with calls.counting(tmp_path / "theirs") as seen:
        module.double(1)
    module.double(1)

    assert seen == {}
    assert sys.getprofile() is before


def test_the_most_common_count_is_the_result() -> None:
    """Two of three rounds made four calls; the result is the first of the two."""
    rounds = [Counter({("a.py", "f"): count}) for count in (5, 4, 4)]

    assert calls.most_common(rounds) is rounds[1]


def test_every_scenario_is_measured() -> None:
    """Each calls functions in both folders, even with the memory store; a write makes more than a read."""
    found = run(calls.measure("memory"))

    assert tuple(found) == calls.SCENARIOS
    for each in found.values():
        assert {file.partition("/")[0] for file, _ in each} == {"server", "stores"}
    assert found["write"].total() > found["read"].total()
