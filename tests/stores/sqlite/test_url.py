"""The path in the URL."""

from __future__ import annotations

from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import StoreOptions, open_store
from stormcellar.stores.sqlite import SQLiteStore
from stormcellar.stores.sqlite.file import path_in


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:sessions.db", "{here}/sessions.db"),
        ("sqlite:a/../b c.db", "{here}/b c.db"),
        ("sqlite:/var/lib/sessions.db", "/var/lib/sessions.db"),
        ("sqlite:///sessions.db", "{here}/sessions.db"),
        ("sqlite:////var/lib/sessions.db", "/var/lib/sessions.db"),
        ("sqlite:100%25#1.db", "{here}/100%25#1.db"),
    ],
)
def test_path_is_taken_as_it_is(
    url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is relative to the working directory; slashes count as in SQLAlchemy, and nothing is decoded."""
    monkeypatch.chdir(tmp_path)

    assert path_in(url) == Path(expected.format(here=tmp_path))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:", "needs the path of a file, such as sqlite:sessions.db"),
        ("sqlite:///", "needs the path of a file"),
        ("sqlite:hunter2/", "needs the path of a file"),
        ("sqlite:hunter2\0", "needs the path of a file"),
        ("sqlite://", "has no host"),
        ("sqlite://hunter2", "has no host"),
        ("sqlite://hunter2/sessions.db", "has no host"),
        ("sqlite::memory:", "use the store 'memory:'"),
        ("sqlite:///:memory:", "use the store 'memory:'"),
        ("sqlite:sessions.db?hunter2=1", "has no parameters"),
        ("sqlite:sessions.db?", "has no parameters"),
    ],
)
def test_wrong_url_is_refused(url: str, message: str) -> None:
    """One line says what to write instead, and repeats nothing of the URL."""
    with pytest.raises(ValueError, match=message) as raised:
        open_store(url)

    assert "hunter2" not in str(raised.value)


def test_nothing_is_opened_before_the_first_call(path: Path) -> None:
    """`open_store` does no I/O, and says that other processes use the same sessions."""
    store = open_store(f"sqlite:{path}")

    assert store.shared
    assert not path.exists()


def test_later_change_of_the_working_directory_is_harmless(
    tmp_path: Path, io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is that at the time when the store was made."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore.from_url("sqlite:sessions.db", StoreOptions())
    monkeypatch.chdir("/")

    io_loop.run_sync(store.ping)
    io_loop.run_sync(store.aclose)

    assert (tmp_path / "sessions.db").exists()
