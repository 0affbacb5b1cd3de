"""The peers, without a network: pinned versions, commands and environments."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peers import HERE, PEERS, Peer

EXPRESS = PEERS[0]


@dataclass(frozen=True)
class FakeEnvironment:
    """An environment that only records that it was built."""

    error: str = ""
    built: list[Path] = field(default_factory=list)

    def missing(self) -> str | None:
        """Return None."""
        return None

    def build(self, folder: Path, pins: Path) -> None:
        """Record *folder*; fail if an error is given."""
        self.built.append(folder)
        if self.error:
            raise RuntimeError(self.error)

    def interpreter(self, folder: Path) -> list[str]:
        """Return a command that does not exist."""
        return ["fake"]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Use a temporary folder for the environments."""
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    return tmp_path


def test_every_peer_has_its_files_and_known_stores() -> None:
    """Names are unique, and the files of each peer exist."""
    assert len({peer.name for peer in PEERS}) == len(PEERS) == 4
    for peer in PEERS:
        assert set(peer.stores) <= {"memory", "redis", "mongo"} and peer.stores
        assert (HERE / peer.server).is_file() and (HERE / peer.pins).is_file()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_version_is_exact_and_has_no_url(peer: Peer) -> None:
    """All machines measure the same release, from any package index."""
    text = (HERE / peer.pins).read_text()
    if peer.pins.endswith(".json"):
        versions = list(json.loads(text)["dependencies"].values())
    else:
        versions = [line.partition("==")[2] for line in text.splitlines()]

    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions) and versions
    assert "://" not in text


def test_readme_names_the_versions_pinned() -> None:
    """The versions in the README are the pinned ones."""
    readme = (HERE / "README.md").read_text()
    pins = {}
    for peer in PEERS:
        pins |= dict(re.findall(r'"?([\w-]+)(?:": "|==)([\d.]+)', (HERE / peer.pins).read_text().lower()))
    documented = dict(re.findall(r"`([\w-]+)` (\d+\.[\d.]*\d)", readme.lower()))

    assert {"express", "starsessions", "aiohttp-session", "django"} <= documented.keys()
    assert documented == {name: pins[name] for name in documented}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_command_has_server_store_url_and_port(peer: Peer) -> None:
    """A server gets all its settings from the command line."""
    for store in peer.stores:
        command = peer.command(store, "scheme://somewhere", 12345)

        assert command[-4:] == [str(HERE / peer.server), store, "scheme://somewhere", "12345"]


def test_store_that_a_peer_lacks_is_rejected() -> None:
    """A library without a store for MongoDB cannot be measured with it."""
    lacking = next(peer for peer in PEERS if "mongo" not in peer.stores)

    with pytest.raises(ValueError, match="does not support the mongo store"):
        lacking.command("mongo", "mongodb://127.0.0.1", 12345)


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "no node on PATH"),
        ({"node": "echo v24.0.0"}, "no npm on PATH"),
        (
            {"node": "echo v20.18.3", "npm": "true"},
            "needs node 20.19 or later; found v20.18.3",
        ),
        (
            {"node": "exit 1", "npm": "true"},
            "needs node 20.19 or later; found no version",
        ),
        ({"node": "echo v20.19.0", "npm": "true"}, None),
    ],
)
def test_express_names_a_missing_program(
    programs: dict[str, str], reason: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If node is missing or too old, the reason is one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    assert EXPRESS.missing() == reason


def test_prepare_of_a_missing_peer_raises_the_reason(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No part of its environment is built."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match=r"^express: no node on PATH$"):
        EXPRESS.prepare()
    assert list(folder.iterdir()) == []


def test_environment_is_built_once(folder: Path) -> None:
    """A second run uses the environment of the first."""
    environment = FakeEnvironment()
    peer = replace(EXPRESS, environment=environment)

    peer.prepare()
    peer.prepare()

    assert environment.built == [folder / "express"]


def test_environment_is_built_again_for_other_pins(folder: Path) -> None:
    """No file of the old versions remains."""
    environment = FakeEnvironment()
    peer = replace(EXPRESS, environment=environment)
    peer.prepare()
    (folder / "express" / "old").touch()

    replace(peer, pins="requirements/django.txt").prepare()

    assert len(environment.built) == 2
    assert not (folder / "express" / "old").exists()


def test_failed_environment_is_built_again(folder: Path) -> None:
    """The error names the peer, and the failed environment is not used."""
    environment = FakeEnvironment(error="no network")
    peer = replace(EXPRESS, environment=environment)

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^express: no network$"):
            peer.prepare()

    assert len(environment.built) == 2


def test_failed_install_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    """Of the output of npm, the line that names the error."""
    npm = "printf 'npm warn old\\nnpm error code ENOTFOUND\\nnpm error more\\n' >&2; exit 1"
    for name, script in {"node": "echo v24.0.0", "npm": npm}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(shutil.which('sh') or '/bin/sh').parent}")

    with pytest.raises(RuntimeError) as caught:
        EXPRESS.prepare()

    assert str(caught.value) == "express: npm error code ENOTFOUND"
