"""The profile assigns each frame to a part of the project by its file."""

from __future__ import annotations

import inspect
from types import ModuleType

import pymongo.asynchronous.pool
import pytest
import redis.asyncio.connection
import tornado.http1connection
import tornado.web

from benchmarks import profile
from benchmarks.harness import ROOT, app
from stormcellar.sessions import cookies, csrf, manager, signing
from stormcellar.stores.memory import store
from stormcellar.web import csrf_mixin, mixin


@pytest.mark.parametrize(
    ("module", "part"),
    [
        *((cookies, "cookie"), (signing, "cookie"), (csrf, "cookie"), (csrf_mixin, "cookie")),
        *((store, "store"), (redis.asyncio.connection, "store"), (pymongo.asynchronous.pool, "store")),
        *((manager, "session"), (mixin, "session"), (app, "handler")),
        *((tornado.web, "Tornado's handler"), (tornado.http1connection, "HTTP")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else value,
)
def test_a_module_belongs_to_its_part(module: ModuleType, part: str) -> None:
    """The file names are those of the installed packages, as a frame has them."""
    assert profile.part_of(inspect.getfile(module)) == part


def test_every_file_of_the_table_exists() -> None:
    """A module that is renamed takes its line of the table along."""
    for package, file, _ in profile.PARTS:
        assert profile.path_in(package, file).exists(), file


def test_the_name_of_the_repository_is_no_part() -> None:
    """A clone in a folder called stormcellar, or below one called tornado, gives the same table."""
    assert profile.part_of("/src/tornado/stormcellar/.venv/lib/python3/asyncio/events.py") is None
    assert profile.part_of(str(ROOT / "tests" / "support" / "fakes.py")) is None
