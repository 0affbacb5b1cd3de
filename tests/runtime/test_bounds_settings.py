"""The settings of connections, memory and the stop, and what follows from them."""

from __future__ import annotations

import pytest

from stormcellar.runtime import connections
from stormcellar.runtime.connections import ConnectionLimits
from stormcellar.runtime.load_settings import load_settings
from stormcellar.runtime.option_types import size_bytes, size_text
from stormcellar.runtime.settings import SettingsError
from tests.support.running import ROOT


@pytest.mark.parametrize(
    ("descriptors", "most", "per_address"),
    [(1024, 896, 224), (256, 128, 32), (64, 32, 8), (20_000, 10_000, 2500), (1_048_576, 10_000, 2500)],
)
def test_limits_follow_from_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int, per_address: int
) -> None:  # H2
    """The store and files keep some descriptors; more than 10 000 connections are not taken by default."""
    monkeypatch.setattr(connections, "descriptor_limit", lambda: descriptors)

    assert load_settings({}, {}).connection_limits == ConnectionLimits(most, per_address)


def test_more_connections_than_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:  # H2
    """The line names both numbers and how to raise the limit; one fewer starts."""
    monkeypatch.setattr(connections, "descriptor_limit", lambda: 1024)

    with pytest.raises(SettingsError) as caught:
        load_settings({}, {"STORMCELLAR_MAX_CONNECTIONS": "897"})

    assert caught.value.problems == (
        "STORMCELLAR_MAX_CONNECTIONS: the limit of file descriptors allows 896 connections; raise it first "
        "(ulimit -n, or LimitNOFILE= of systemd)",
    )
    assert load_settings({"max_connections": "896"}, {}).connection_limits == ConnectionLimits(896, 224)


@pytest.mark.parametrize(
    ("flags", "drain_s"),
    [
        ({}, 0.0),
        ({"drain": "10s"}, 10.0),
        ({"behind_proxy": "127.0.0.1"}, 5.0),
        ({"behind_proxy": "127.0.0.1", "drain": "0s"}, 0.0),
        ({"address": "0.0.0.0", "tls_cert": "/c", "tls_key": "/k"}, 5.0),
        ({"tls_cert": "/c", "tls_key": "/k"}, 0.0),
    ],
)
def test_only_a_balancer_is_waited_for(flags: dict[str, str], drain_s: float) -> None:
    """By default a server on loopback stops at once, unless there is a proxy."""
    assert load_settings(flags, {}).drain_s == drain_s


@pytest.mark.parametrize("text", ["1MB", "1025KB", "64MB", "2GB", "1024GB"])
def test_a_size_is_shown_as_it_is_given(text: str) -> None:
    """A whole number in the largest unit."""
    assert size_text(size_bytes(text)) == text


def test_memory_of_a_shared_store_is_not_ours_to_limit() -> None:
    """The option would have no effect, so it is refused."""
    given = f"tests.support.running:GatedStore?{ROOT}"

    with pytest.raises(SettingsError, match="--max-memory: it is for the memory store"):
        load_settings({"store": given, "max_memory": "64MB"}, {})
