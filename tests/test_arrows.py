"""Imports point one way, from a level to those below it, and never in a circle. Read from the source alone.

Imports for type checkers and inside functions count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"server": "stormcellar", "stores": "stormcellar.stores"}

# From the bottom up. A room imports from itself and from what is named for it; each module that stands in no
# room of its own belongs to the room of its folder.
STORE = {"contract", "batching", "changes"}
BELOW = {
    "contract": set(),
    "batching": {"contract"},
    "changes": {"contract"},
    "memory": STORE,
    "sqlite": STORE,
    "redis": STORE,
    "mongo": STORE,
    "stores": {"contract"},
    "conformance": {"contract", "stores"},
    "ground": {"contract", "stores"},
    "sessions": {"ground", "contract", "stores"},
    "web": {"sessions", "ground", "contract", "stores"},
    "accounts": {"sessions", "ground", "contract", "stores"},
    "app": {"web", "accounts", "sessions", "ground", "contract", "stores"},
    "runtime": {"app", "web", "accounts", "sessions", "ground", "contract", "stores"},
    "cli": {"runtime", "app", "web", "accounts", "sessions", "ground", "contract", "stores"},
    "run": {"cli"},
    "main": {"cli"},
    "library": {"web", "sessions", "ground"},
    # For the tests of applications; nothing of the product imports it.
    "testing": {"web", "sessions", "ground", "contract", "stores"},
}
CONTRACT = {"base", "records", "counters", "errors", "url"}

# Who alone may import each of these. A package that is not named here may be imported by anybody.
CONFINED = {
    "redis": {"redis"},
    "hiredis": {"redis"},
    "pymongo": {"mongo"},
    "bson": {"mongo"},
    "gridfs": {"mongo"},
    "motor": set(),
    "sqlite3": {"sqlite"},
    "argon2": {"accounts"},
    "importlib": {"stores", "library", "cli"},
    "pytest": {"conformance", "testing"},
    "locust": set(),
    "tornado": {"web", "app", "runtime", "cli", "testing"},
    "tests": set(),
    "benchmarks": set(),
    "run": set(),
    # The folders by their own names: what is installed is called stormcellar.
    "server": set(),
    "stores": set(),
}


def module_name(path: Path) -> str:
    """Return the import name of the module in the file *path* of this repository."""
    folder, _, rest = ".".join(path.relative_to(ROOT).with_suffix("").parts).partition(".")
    return f"{FOLDERS.get(folder, folder)}.{rest}".removesuffix(".").removesuffix(".__init__")


SOURCES = {
    module_name(path): path
    for path in [ROOT / "run.py", *(ROOT / "stores").rglob("*.py"), *(ROOT / "server").rglob("*.py")]
}


def room_of(module: str) -> str:
    """Return the room that *module*, a module of the product, stands in."""
    match module.split("."):
        case ["stormcellar"]:
            return "library"
        case ["stormcellar", "__main__"]:
            return "main"
        case ["stormcellar", "stores", name, *_] if name in CONTRACT:
            return "contract"
        case ["stormcellar", "stores", *rest]:
            return rest[0] if rest else "stores"
        case ["stormcellar", folder, _, *_]:
            return folder
        case ["stormcellar", name]:
            return name if (ROOT / "server" / name).is_dir() else "ground"
    return module


def imported(source: str, *, package: str) -> Iterator[str]:
    """Yield what *source* imports anywhere in it: modules, and names taken from a module in full."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """Return the module that the import of *name* runs: *name* itself, or what it is taken from."""
    return name if name in SOURCES else name.rpartition(".")[0] if "." in name else name


def wrong_arrows(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """Return the names that *source*, as the module called *module*, must not import."""
    package = module if is_package else module.rpartition(".")[0]
    return {name for name in imported(source, package=package) if not may_import(module, name)}


def may_import(module: str, name: str) -> bool:
    """Whether *module* may import *name*."""
    top, room = name.partition(".")[0], room_of(module)
    if top != "stormcellar":
        is_named = room in CONFINED.get(top, {room})
        return is_named and (room != "run" or top == "__future__")
    other = room_of(module_of(name))
    return other == room or other in BELOW[room]


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return one circle of *arrows*, from each module to those it imports; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def arrows_of_the_product() -> dict[str, set[str]]:
    """Return for each module of the product those of the product that it imports."""
    arrows = {}
    for module, path in SOURCES.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        named = {module_of(name) for name in imported(path.read_text(), package=package)}
        arrows[module] = {each for each in named if each in SOURCES and each != module}
    return arrows


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_module_imports_only_what_it_may(module: str) -> None:
    """No module of the product imports against the arrows."""
    path = SOURCES[module]

    assert wrong_arrows(module, path.read_text(), is_package=path.name == "__init__.py") == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no circle, imports for type checkers counted."""
    assert circles(arrows_of_the_product()) == []


def test_every_room_has_modules() -> None:
    """A room that was renamed takes its rule along, instead of leaving it to guard nothing."""
    assert {room_of(module) for module in SOURCES} == BELOW.keys()
    assert {f"stormcellar.stores.{name}" for name in CONTRACT} <= SOURCES.keys()


def test_no_folder_is_crowded_and_no_module_long() -> None:
    """A folder has 17 modules at most, its `__init__.py` included, and a module 300 lines."""
    counts: dict[Path, int] = {}
    for path in SOURCES.values():
        counts[path.parent] = counts.get(path.parent, 0) + 1

    assert {folder: count for folder, count in counts.items() if count > 17} == {}
    assert [path for path in SOURCES.values() if path.read_text().count("\n") > 300] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stormcellar.stores.base", "import stormcellar"),
        ("stormcellar.stores.base", "import server"),
        ("stormcellar.stores.base", "from stores.errors import StoreError"),
        ("stormcellar.stores.redis.store", "from stormcellar.sessions.session import Session"),
        ("stormcellar.stores.redis.store", "def late():\n    from stormcellar import Session"),
        (
            "stormcellar.stores.memory.store",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import stormcellar.sessions.manager",
        ),
        ("stormcellar.stores.redis.store", "from stormcellar.stores import Store"),
        ("stormcellar.stores.redis.store", "from .. import Store"),
        ("stormcellar.stores.redis.store", "from ..memory import MemoryStore"),
        ("stormcellar.stores.redis.store", "from stormcellar.stores.memory.store import MemoryStore"),
        ("stormcellar.stores.redis.store", "import stormcellar.stores"),
        ("stormcellar.stores.redis.store", "import stormcellar.stores.mongo"),
        ("stormcellar.stores.redis.scripts", "from stormcellar.stores.mongo.documents import x"),
        ("stormcellar.stores.memory.store", "from stormcellar.stores.conformance.cases import NOW"),
        ("stormcellar.stores.base", "from stormcellar.stores.memory import MemoryStore"),
        ("stormcellar.stores.mongo.store", "import importlib"),
        ("stormcellar.stores.mongo.store", "import redis"),
        ("stormcellar.stores.memory.store", "from tornado.ioloop import IOLoop"),
        ("stormcellar.stores.memory.store", "import pytest"),
        ("stormcellar.stores.redis.store", "from tests.support.backends import Server"),
        ("stormcellar.runtime.server", "from stormcellar.stores.redis import RedisStore"),
        ("stormcellar.runtime.server", "from stormcellar.stores import memory"),
        ("stormcellar.app.context", "from redis import asyncio"),
        ("stormcellar.app.context", "import pymongo.errors"),
        ("stormcellar.app.handlers.account", "from bson import ObjectId"),
        ("stormcellar.app.context", "from stormcellar.runtime.options import OPTIONS"),
        ("stormcellar.web.mixin", "from stormcellar.accounts.directory import AccountDirectory"),
        ("stormcellar.accounts.directory", "from stormcellar.web.mixin import SessionMixin"),
        ("stormcellar.web.mixin", "import argon2"),
        ("stormcellar.sessions.session", "import tornado"),
        ("stormcellar.sessions.session", "from stormcellar.web.mixin import SessionMixin"),
        ("stormcellar.sessions.manager", "from tornado import web"),
        ("stormcellar.sessions.manager", "def late():\n    import tornado.web"),
        ("stormcellar.events", "import tornado.util"),
        ("stormcellar.events", "from stormcellar.sessions.session import Session"),
        ("stormcellar.sessions.session", "from stormcellar import SessionMixin"),
        ("stormcellar.web.mixin", "from stormcellar.testing import Client"),
        ("stormcellar.runtime.server", "import stormcellar.testing.clock"),
        ("stormcellar.testing.client", "from stormcellar.stores.memory import MemoryStore"),
        ("stormcellar.testing.client", "from stormcellar.app.routes import make_app"),
        ("run", "from stormcellar.stores import open_store"),
        ("run", "import sys"),
        ("stormcellar.cli.main", "import run"),
    ],
)
def test_wrong_arrow_is_found(module: str, source: str) -> None:
    """The check sees an import against the arrows, wherever it stands and however it is written."""
    assert len(wrong_arrows(module, source)) == 1


def test_lazy_package_may_not_import_a_store() -> None:
    """`stores/__init__.py` itself names no store in an import, only the contract."""
    source = "import importlib\nfrom .base import Store\nfrom .memory import MemoryStore"

    assert wrong_arrows("stormcellar.stores", source, is_package=True) == {
        "stormcellar.stores.memory.MemoryStore"
    }


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("run", "from stormcellar.cli.main import main"),
        ("stormcellar.runtime.server", "from stormcellar.stores import Store, open_store"),
        ("stormcellar.runtime.server", "from stormcellar.stores.records import check_keys"),
        ("stormcellar.app.handlers.account", "from ...web.mixin import SessionMixin"),
        ("stormcellar.app.handlers.account", "from tornado.web import HTTPError"),
        (
            "stormcellar.stores.redis.store",
            "from redis import asyncio as aioredis\nfrom .scripts import APPLY",
        ),
        ("stormcellar.stores.redis.client", "from stormcellar.stores.errors import StoreFull"),
        ("stormcellar.stores.conformance.races", "import pytest\nfrom .cases import NOW"),
        ("stormcellar.accounts.passwords", "import argon2"),
        ("stormcellar.events", "import asyncio"),
    ],
)
def test_right_arrow_is_not_found(module: str, source: str) -> None:
    """What the design provides for passes the check."""
    assert wrong_arrows(module, source) == set()


def test_circle_is_found() -> None:
    """Three modules that import each other in turn are named; a chain is not."""
    assert set(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
