"""The contract suite as a store author runs it: in a folder of their own, with pytest and no plug-in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PLAIN = ("no:tornado", "no:timeout", "no:randomly", "no:cacheprovider", "no:hypothesispytest")
"""pytest-tornado and the others that happen to be installed here."""

STORES = '''
from typing import ClassVar

from stormcellar.stores.memory import MemoryStore


class SaysShared(MemoryStore):
    """No other instance sees its sessions."""

    shared = True

    @classmethod
    def from_url(cls, url, options):
        return cls()


class IgnoresPrefix(SaysShared):
    """All instances use the same sessions, whatever their prefix."""

    one: ClassVar[MemoryStore | None] = None

    @classmethod
    def from_url(cls, url, options):
        IgnoresPrefix.one = IgnoresPrefix.one or cls()
        return IgnoresPrefix.one

    async def aclose(self):
        pass


class LosesWrites(SaysShared):
    """A write answers as if it were done."""

    async def apply(self, credential, delta, *, now_ms, expires_ms):
        return await super().apply(credential, type(delta)(), now_ms=now_ms, expires_ms=expires_ms)
'''

SUITE = """
from stormcellar.stores.conformance import CountersContract, StoreContract


class TestStore(StoreContract):
    url = "memory:" if {name!r} == "memory" else "author_stores:{name}?host=db1"


class TestCounters(CountersContract):
    url = TestStore.url
"""


def run(folder: Path, name: str, *arguments: str) -> str:
    """Run the suite on the store *name*, and return what pytest printed."""
    (folder / "author_stores.py").write_text(STORES)
    (folder / "test_store.py").write_text(SUITE.format(name=name))
    (folder / "pytest.ini").write_text("[pytest]\n")
    plain = [each for plugin in PLAIN for each in ("-p", plugin)]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *plain, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_a_correct_store_passes_without_a_plugin(tmp_path: Path) -> None:
    """Nothing fails, and no warning is given."""
    printed = run(tmp_path, "memory")

    assert re.search(r"\d{3} passed, \d+ skipped", printed), printed[-2000:]


@pytest.mark.parametrize(
    ("name", "tests", "failing"),
    [
        ("SaysShared", "instance", "test_a_second_instance_sees_every_change"),
        ("SaysShared", "instance", "test_instances_of_one_prefix_count_together"),
        ("IgnoresPrefix", "prefix", "test_another_prefix_is_another_store"),
    ],
)
def test_a_store_that_is_wrong_among_instances_fails(
    tmp_path: Path, name: str, tests: str, failing: str
) -> None:
    """One that says it is shared and is not, and one that ignores its prefix."""
    assert re.search(rf"FAILED .*::{failing}\b", run(tmp_path, name, "-k", tests))


def test_a_failure_shows_values(tmp_path: Path) -> None:
    """Without a line in a conftest.py of the author's."""
    printed = run(tmp_path, "LosesWrites", "-k", "test_fifty_writers_lose_nothing")

    assert "assert {} == {'key0': b'0'" in printed
