"""Imports run one way: run.py -> server -> stores -> stores.base. Read from the source, nothing is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Where alone each of these may be imported: a store of that kind, or what is named in full.
CONFINED = {
    "redis": "stores.redis",
    "hiredis": "stores.redis",
    "pymongo": "stores.mongo",
    "bson": "stores.mongo",
    "gridfs": "stores.mongo",
    "motor": "nowhere",
    "pytest": "stores.conformance",
    "locust": "nowhere",
    "tests": "nowhere",
    "run": "nowhere",
    "nowhere": "nowhere",
}

# No HTTP in these, so that they are tested, and reused, without a server.
WITHOUT_TORNADO = {
    *("server.session", "server.state", "server.contents", "server.request", "server.keeper"),
    "server.cookies",
    "server.events",
    *("server.lifecycle", "server.writer", "server.rules", "server.manager", "server.values", "server.csrf"),
}

# Tornado keeps its signed values in tornado.web; nothing else of that module belongs here.
SIGNING = {"tornado.web.decode_signed_value"}


def module_name(path: Path) -> str:
    """Return the dotted name of the module in the file *path* of this repository."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(source: str, *, package: str) -> set[str]:
    """Return the dotted names that *source* imports anywhere in it, those taken from a module in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(folder_name(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = relative(node, package) if node.level else folder_name(node.module or "")
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return names


def relative(node: ast.ImportFrom, package: str) -> str:
    """Return what *node*, an import relative to *package*, takes its names from."""
    parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
    return ".".join(parents + [node.module] * bool(node.module))


def folder_name(name: str) -> str:
    """Return the import *name* as the folders of this repository spell it; those names cannot be imported."""
    if name.partition(".")[0] in ("server", "stores"):
        return "nowhere"
    return re.sub(r"^stormcellar\b", "server", re.sub(r"^stormcellar\.stores\b", "stores", name))


def wrong_arrows(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """Return the names that *source*, as the module called *module*, must not import."""
    package = module if is_package else module.rpartition(".")[0]
    return {name for name in imported(source, package=package) if not may_import(module, name)}


def may_import(module: str, name: str) -> bool:
    """Tell whether *module* may import *name*."""
    top = name.partition(".")[0]
    if top in CONFINED:
        return kind_of(module) == CONFINED[top] != "nowhere"
    if module == "run":
        return top in ("server", "__future__")
    if module.partition(".")[0] == "stores":
        return store_may_import(module, name)
    if top == "tornado":
        is_signing = module == "server.signing" and name in SIGNING
        is_web = name == "tornado.web" or name.startswith("tornado.web.")
        return module not in WITHOUT_TORNADO and (module != "server.signing" or is_signing or not is_web)
    return top != "stores" or is_contract(name) or not is_store_module(name)


def store_may_import(module: str, name: str) -> bool:
    """Tell whether *module*, one of the stores, may import *name*."""
    top = name.partition(".")[0]
    if top == "importlib":
        return module == "stores"
    if top != "stores":
        return top not in ("server", "tornado")
    is_own = module != "stores" and kind_of(name) == kind_of(module)
    return is_contract(name) or is_own or name.split(".")[:2] == ["stores", "batches"]


def is_contract(name: str) -> bool:
    """Tell whether *name* is, or is taken from, the contract that everybody may know."""
    return name.split(".")[:2] in (["stores", "base"], ["stores", "counters"], ["stores", "errors"])


def is_store_module(name: str) -> bool:
    """Tell whether *name* is, or is taken from, a module of one store, not an export of the package."""
    part = name.removeprefix("stores").removeprefix(".").partition(".")[0]
    home = ROOT / "stores" / part
    return part == "*" or (part != "" and (home.is_dir() or home.with_suffix(".py").is_file()))


def kind_of(module: str) -> str:
    """Return `stores.redis` for `stores.redis` and for its own parts `stores.redis_scripts` and so on."""
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0].partition('_')[0]}"


SOURCES = sorted([ROOT / "run.py", *(ROOT / "stores").rglob("*.py"), *(ROOT / "server").rglob("*.py")])


@pytest.mark.parametrize("path", [path for path in SOURCES if path.is_file()], ids=module_name)
def test_module_imports_only_what_it_may(path: Path) -> None:
    """No module of the product imports against the arrows."""
    wrong = wrong_arrows(module_name(path), path.read_text(), is_package=path.name == "__init__.py")

    assert wrong == set()


@pytest.mark.parametrize(
    "name",
    [
        *("stores/base.py", "stores/memory.py", "stores/redis.py", "stores/mongo.py"),
        *("server/session.py", "server/manager.py", "server/cookies.py", "run.py"),
    ],
)
def test_modules_that_the_arrows_name_exist(name: str) -> None:
    """A module that was moved takes its rule along, instead of leaving it to guard nothing."""
    assert ROOT / name in SOURCES
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stores.base", "import stormcellar"),
        ("stores.redis", "from stormcellar.session import Session"),
        ("stores.redis", "def late():\n    from stormcellar import Session"),
        (
            "stores.memory",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import stormcellar.manager",
        ),
        ("stores.redis", "from stormcellar.stores import Store"),
        ("stores.redis", "from . import Store"),
        ("stores.redis", "from .memory import MemoryStore"),
        ("stores.redis", "from stormcellar.stores.memory import MemoryStore"),
        ("stores.redis", "import stormcellar.stores"),
        ("stores.redis", "import stormcellar.stores.mongo"),
        ("stores.redis_scripts", "from stormcellar.stores.mongo_documents import x"),
        ("stores.memory", "from stormcellar.stores.conformance.cases import NOW"),
        ("stores.base", "from stormcellar.stores.memory import MemoryStore"),
        ("stores.mongo", "import importlib"),
        ("stores.mongo", "import redis"),
        ("stores.memory", "from tornado.ioloop import IOLoop"),
        ("stores.memory", "import pytest"),
        ("stores.redis", "from tests.backends import Server"),
        ("server.app", "from stormcellar.stores.redis import RedisStore"),
        ("server.app", "from stormcellar.stores import memory"),
        ("server.app", "from stormcellar.stores import *"),
        ("server.app", "from redis import asyncio"),
        ("server.app", "import pymongo.errors"),
        ("server.handlers.account", "from bson import ObjectId"),
        ("server.session", "import tornado"),
        ("server.session", "from tornado.web import RequestHandler"),
        ("server.manager", "from tornado import web"),
        ("server.manager", "def late():\n    import tornado.web"),
        ("server.signing", "import tornado.web"),
        ("server.signing", "from tornado.web import decode_signed_value, RequestHandler"),
        ("server.signing", "from tornado import web"),
        ("run", "from stormcellar.stores import open_store"),
        ("run", "import sys"),
        ("server.cli", "import run"),
    ],
)
def test_wrong_arrow_is_found(module: str, source: str) -> None:
    """The check sees an import against the arrows, wherever it stands and however it is written."""
    assert len(wrong_arrows(module, source)) == 1


def test_lazy_package_may_not_import_a_store() -> None:
    """`stores/__init__.py` itself names no store in an import, only the contract."""
    source = "import importlib\nfrom .base import Store\nfrom stormcellar.stores.memory import MemoryStore"

    assert wrong_arrows("stores", source, is_package=True) == {"stores.memory.MemoryStore"}
    assert wrong_arrows("stores", "from .redis import RedisStore", is_package=True) == {
        "stores.redis.RedisStore"
    }


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("run", "from stormcellar.cli import main"),
        (
            "server.app",
            "from stormcellar.stores import Store\nfrom stormcellar.stores.base import check_keys",
        ),
        ("server.signing", "from tornado.web import decode_signed_value"),
        ("server.signing", "from tornado.util import unicode_type"),
        ("server.handlers.account", "from ..mixin import SessionMixin\nfrom tornado.web import HTTPError"),
        (
            "stores.redis",
            "from redis import asyncio as aioredis\nfrom stormcellar.stores.redis_scripts import APPLY",
        ),
        (
            "stores.redis_wire",
            "from stormcellar.stores.errors import StoreFull\nfrom .redis_url import connect",
        ),
        (
            "stores.conformance",
            "import pytest\nfrom stormcellar.stores.conformance.races import RaceContract",
        ),
    ],
)
def test_right_arrow_is_not_found(module: str, source: str) -> None:
    """What the design provides for passes the check."""
    assert wrong_arrows(module, source) == set()
