"""What the tests of commands share: no settings from outside, and a `serve` that does not listen."""

from __future__ import annotations

import os

import pytest

from stormcellar.runtime import startup


@pytest.fixture
def no_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `serve` end with status 0 where it would begin to listen."""

    async def end(*_: object) -> None:
        pass

    monkeypatch.setattr(startup, "listen", lambda _: None)
    monkeypatch.setattr(startup, "_serve", end)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment hold no settings."""
    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)
