"""`open_store` picks a store by URL, tells a mistake in one line, and imports no driver it does not need."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest
from tornado.ioloop import IOLoop

import stormcellar.stores
from stormcellar.stores import StoreOptions, StoreURL, open_store
from stormcellar.stores.memory import MemoryStore

ROOT = Path(__file__).parents[2]


class RecordingStore(MemoryStore):
    """A third party's store, which shows what it was given."""

    given: tuple[str, StoreOptions]

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Keep *url* and *options*; refuse an option that it does not know."""
        if "unknown=" in url:
            raise ValueError("RecordingStore knows no such option")
        store = cls()
        store.given = (url, options)
        return store


def not_a_store() -> None:
    """Stand where a class should be."""


@pytest.mark.parametrize(
    ("url", "driver", "expected"),
    [
        ("memory", "tornado", "stormcellar.stores.memory.store.MemoryStore"),
        ("memory:", "tornado", "stormcellar.stores.memory.store.MemoryStore"),
        ("sqlite:sessions.db", "sqlite3", "stormcellar.stores.sqlite.store.SQLiteStore"),
        ("redis", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("redis://localhost/0", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("rediss://localhost:6380/1", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("redis+unix:///run/redis.sock", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("unix:///run/redis.sock", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("valkey://localhost/0", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("valkeys://localhost/0", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("redis+sentinel://one,two/primary", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("redis+cluster://localhost:7000", "redis", "stormcellar.stores.redis.store.RedisStore"),
        ("mongo", "pymongo", "stormcellar.stores.mongo.store.MongoStore"),
        ("mongodb://localhost/sessions", "pymongo", "stormcellar.stores.mongo.store.MongoStore"),
        (
            f"{__name__}:RecordingStore",
            "tornado",
            f"{__name__}.RecordingStore",
        ),
    ],
)
def test_url_picks_the_store(url: str, driver: str, expected: str, io_loop: IOLoop) -> None:
    """Each word, scheme and dotted name opens its class, without any server to talk to."""
    pytest.importorskip(driver)

    store = open_store(url)

    assert f"{type(store).__module__}.{type(store).__name__}" == expected
    io_loop.run_sync(store.aclose)


def test_options_reach_a_third_partys_store_with_the_whole_url() -> None:
    """A store of one's own is given the string as written, query included, and every option."""
    url = "tests.stores.test_open_store:RecordingStore?x=1&y=a%20b:c"

    store = open_store(url, prefix="app", timeout_s=0.5, connect_timeout_s=0.25, max_sessions=9)

    assert isinstance(store, RecordingStore)
    assert store.given == (url, StoreOptions("app", 0.5, 0.25, 9))


def test_third_partys_own_refusal_is_passed_on() -> None:
    """A ValueError of `from_url` arrives as it is."""
    with pytest.raises(ValueError, match=r"^RecordingStore knows no such option$"):
        open_store("tests.stores.test_open_store:RecordingStore?unknown=1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "unknown store: "),
        ("nonsense", "unknown store: "),
        ("Redis", "unknown store: "),
        ("postgres://user:hunter2@host/0", "unknown store: "),
        ("http://localhost", "unknown store: "),
        ("hunter2@host:6379", "unknown store: "),
        ("redis+foo://localhost", "unknown store"),
        (":RecordingStore", "unknown store: "),
        ("tests.stores.test_open_store:", "unknown store: "),
        (".relative:Class", "unknown store: "),
        ("..:Class", "unknown store: "),
        ("json..decoder:Class", "unknown store"),
        ("two\nlines:Class", "unknown store"),
        ("no_such_package.store:Class", "cannot import 'no_such_package.store'"),
        ("tests.no_such_module:Class", "cannot import 'tests.no_such_module'"),
        (
            f"{__name__}:Missing",
            f"{__name__}:Missing is not a stormcellar.stores.Store",
        ),
        ("tests.stores.test_open_store:not_a_store", "not_a_store is not a stormcellar.stores.Store"),
        ("json:JSONDecoder", "json:JSONDecoder is not a stormcellar.stores.Store"),
        ("secrets:hunter2", "the name after secrets: is not a stormcellar.stores.Store"),
        ("user:hunter2", "there is no module of the name before the colon"),
        ("hunter2:x", "there is no module of the name before the colon"),
        ("memory:x", "takes no address"),
        ("memory://x", "takes no address"),
        ("sqlite", "unknown store: "),
        ("sqlite:", "such as sqlite:sessions.db"),
    ],
)
def test_bad_url_is_one_line(url: str, message: str) -> None:
    """Whatever is wrong with a URL is told in one line, without what can be a password."""
    with pytest.raises(ValueError) as raised:
        open_store(url)

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("module", "missing", "advice"),
    [
        ("no_such.store", "no_such", "; is its folder on PYTHONPATH?"),
        ("tests.no_such", "tests.no_such", "; is its folder on PYTHONPATH?"),
        ("needs_more", "no_such_driver", ""),
    ],
)
def test_module_that_is_not_found_names_the_path(
    module: str, missing: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice is about the module of the URL; one that it imports is missing for another reason."""
    (tmp_path / "needs_more.py").write_text("import no_such_driver")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError) as raised:
        open_store(f"{module}:Class")

    assert str(raised.value) == f"cannot import {module!r}: No module named {missing!r}{advice}"


def test_unknown_store_lists_the_known() -> None:
    """The line about an unknown store says what may be written instead."""
    with pytest.raises(ValueError) as raised:
        open_store("mysql:///sessions.db")

    for known in (
        "memory",
        "redis",
        "mongo",
        "rediss:",
        "redis+cluster:",
        "mongodb:",
        "package.module:Class",
    ):
        assert known in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:hunter2@host",
        "redis://user:hunter2@host:port/0",
        "redis://user:hunter2@host/zero",
        "rediss://user:hunter2@host:99999",
        "redis+cluster://user:hunter2@host/5",
        "mongodb://user:hunter2@host:port/sessions",
        "mongodb://user:hunter2@host/sessions?no_such_option=1&w=hunter2",
    ],
)
def test_bad_url_does_not_show_its_password(url: str) -> None:
    """The line about a bad URL can go to a log: it holds no password."""
    pytest.importorskip("redis")
    pytest.importorskip("pymongo")

    with pytest.raises(ValueError) as raised:
        open_store(url)

    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": "a" * 65},
        {"prefix": "a$b"},
        {"prefix": "caf\u00e9"},
        {"prefix": "a\n"},
        {"prefix": "a\0"},
        {"prefix": "system.sessions"},
        {"timeout_s": 0},
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
        {"connect_timeout_s": 0},
        {"max_sessions": 0},
        {"max_sessions": -5},
    ],
    ids=ascii,
)
def test_impossible_option_is_one_line_that_names_it(options: dict[str, Any]) -> None:
    """A limit that is not positive and a prefix that a backend cannot carry are refused by name."""
    with pytest.raises(ValueError, match=rf"^store {next(iter(options))} must be [^\n]*$"):
        open_store("memory", **options)


@pytest.mark.parametrize("prefix", ["a", "a" * 64, "my app:*{x}[1]", "system"])
def test_any_printable_prefix_is_accepted(prefix: str) -> None:
    """Characters that mean something to a backend are the store's business to escape."""
    store = open_store(f"{__name__}:RecordingStore", prefix=prefix)

    assert isinstance(store, RecordingStore)
    assert store.given[1].prefix == prefix


@pytest.mark.parametrize(("url", "driver"), [("redis", "redis"), ("mongo", "pymongo")])
def test_missing_driver_names_the_extra(url: str, driver: str) -> None:
    """Without its driver a store is refused by a line that is the command to run."""
    said = _python(
        f"import sys; sys.modules[{driver!r}] = None",
        "from stormcellar.stores import open_store",
        f"try: open_store({url!r})",
        "except ValueError as exc: print(exc)",
    )

    assert said.splitlines() == [said.strip()]
    assert f"pip install 'stormcellar[{url}]'" in said


def test_a_store_author_imports_all_from_one_place() -> None:
    """Whatever a store is made of comes from `stormcellar.stores`, without Tornado, a driver or a store."""
    names = [
        *("Absent", "Announcing", "Counters", "Credential", "Delta", "DuplicateSession", "Handle", "Outcome"),
        *("Record", "Rotation", "Rule", "Scannable", "Store", "StoreError", "StoreFull", "StoreOptions"),
        *("StoreRefused", "StoreUnavailable", "Tally", "Verifier", "check_keys", "check_user", "open_store"),
        *("TOMBSTONE_MS", "Why", "are_times", "check_record", "StoreURL"),
    ]
    said = _python(
        "import sys",
        f"from stormcellar.stores import {', '.join(names)}",
        "wanted = {'redis', 'hiredis', 'pymongo', 'bson', 'tornado'}",
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in wanted))",
        "print(sorted(name for name in sys.modules if name.startswith('stormcellar.stores.')))",
    )

    assert said.splitlines() == [
        "[]",
        str([f"stormcellar.stores.{name}" for name in ("base", "counters", "errors", "records", "url")]),
    ]
    assert set(names) <= set(stormcellar.stores.__all__)


def test_defaults_are_those_of_the_options() -> None:
    """A store opened without options is given `StoreOptions()`; the signature shows the same values."""
    store = open_store(f"{__name__}:RecordingStore")

    assert isinstance(store, RecordingStore)
    assert store.given[1] == StoreOptions()
    defaults = [each.default for each in inspect.signature(open_store).parameters.values()][1:]
    assert StoreOptions(*defaults) == StoreOptions()


def test_memory_needs_no_driver() -> None:
    """Opening the memory store imports neither a driver nor another store."""
    said = _python(
        "import sys",
        "from stormcellar.stores import open_store",
        "open_store('memory')",
        "stores = {'stormcellar.stores.redis', 'stormcellar.stores.mongo'}",
        "print(sorted(({'redis', 'pymongo', 'tornado'} | stores) & set(sys.modules)))",
    )

    assert said.strip() == "[]"


def _python(*lines: str) -> str:
    """Run *lines* in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_an_own_store_gets_its_parameters() -> None:
    """They are decoded, and the whole URL is there as well."""
    url = StoreURL("my_package.store:MyStore?host=db%201&tls=&port=5")

    assert url.query == {"host": "db 1", "tls": "", "port": "5"}
    assert url == "my_package.store:MyStore?host=db%201&tls=&port=5"
    assert StoreURL("mystore:MyStore").query == {}


@pytest.mark.parametrize("query", ["host", "host=a&host=b", "=a&b", "a=1&&b"])
def test_parameters_that_mean_nothing_are_refused(query: str) -> None:
    """The line does not repeat them: each can be a password."""
    with pytest.raises(ValueError, match=r"^(the parameters of the store have|a parameter of the store is)"):
        _ = StoreURL(f"mystore:MyStore?{query}").query
