"""Who the client is behind trusted proxies, and what counts as this machine."""

from __future__ import annotations

import ipaddress

import pytest

from stormcellar.addresses import client_address, is_loopback

NOBODY = ()
ONE = (ipaddress.ip_network("10.0.0.1/32"),)
MANY = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    """Whatever the header says."""
    assert client_address("10.0.0.1", ["203.0.113.9"], NOBODY) == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9,10.0.0.2 , 10.0.0.3"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        ("10.0.0.1", ["2001:DB8::0:1"], "2001:db8::1"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
    ],
)
def test_only_what_trusted_proxies_added_counts(peer: str, headers: list[str], client: str) -> None:
    """From the right, up to the first address that is not a trusted proxy's."""  # I5
    assert client_address(peer, headers, MANY) == client


@pytest.mark.parametrize(
    "hop",
    [
        "unknown",
        "203.0.113.9:",
        "203.0.113.9:4711:1",
        "[2001:db8::1",
        "fe80::1%<script>",
        "010.0.0.1",
        "1.2.3",
        "0x7f.1",
        "a" * 9000,
        "é",
    ],
)
def test_what_is_no_address_is_not_passed_on(hop: str) -> None:
    """A proxy that adds such a thing vouches for nobody further than itself."""
    assert client_address("10.0.0.1", [f"6.6.6.6, {hop}"], MANY) == "10.0.0.1"


def test_one_trusted_proxy_does_not_vouch_for_its_neighbours() -> None:
    """An address beside the one that is trusted ends the chain."""
    assert client_address("10.0.0.1", ["6.6.6.6, 10.0.0.2"], ONE) == "10.0.0.2"


def test_a_peer_without_an_address_is_told_as_it_is() -> None:
    """Such as that of a Unix socket."""
    assert client_address("0.0.0.0", ["203.0.113.9"], MANY) == "0.0.0.0"
    assert client_address("", ["203.0.113.9"], MANY) == ""


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost",
        "localhost.",
        "app.localhost",
        "app.localhost.",
        "127.0.0.1",
        "127.0.0.1.",
        "127.8.9.10",
        "::1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
    ],
)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    """What a browser resolves to itself, and the addresses of the loopback interface."""
    assert is_loopback(host)  # A5


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        ".localhost",
        "localhost..",
        "0.0.0.0",
        "::",
        "192.168.0.1",
        "localhost.evil.example",
        "localhost.evil.example.",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "::ffff:1.2.3.4",
        "fe80::1%lo",
        "[[::1]]",
        "[::1",
        "[127.0.0.1]",
        "2130706433",
        "127.1",
    ],
)
def test_everything_else_is_beyond_this_machine(host: str) -> None:
    """Names that merely begin or end like it, and every other address."""
    assert not is_loopback(host)  # A5
