"""Addresses: the client behind trusted proxies, host names, loopback."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 1123, 2.1, plus the underscore, which occurs in private networks; or an IPv6 address in brackets.
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*\.?|\[[0-9a-f:.]{{2,45}}\])(?::\d{{1,5}})?")


def client_address(peer: str, forwarded_for: Sequence[str], proxies: Sequence[Network]) -> str:
    """Return the address of the client, as far as trusted *proxies* confirm it.

    Args:
        peer: The address at the other end of the connection.
        forwarded_for: The X-Forwarded-For headers. Only addresses that a trusted proxy added are used.
        proxies: The networks of trusted proxies.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    hops = [_without_port(hop.strip()) for header in forwarded_for for hop in header.split(",")]
    for hop in map(_parsed, reversed(hops)):
        if hop is None or not any(address in network for network in proxies):
            break
        address = hop
    return str(address)


def host_name(host: str) -> str | None:
    """Return the name in a Host header in normal form: lower case, no port, no final dot.

    None if it is not a valid name or address. An IPv6 address keeps its brackets and is compressed.
    """
    match = _HOST.fullmatch(host.lower()) if len(host) <= 260 else None
    if match is None:
        return None
    if not match[1].startswith("["):
        return match[1].removesuffix(".")
    try:
        return f"[{ipaddress.IPv6Address(match[1][1:-1])}]"
    except ValueError:
        return None


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether *address* is in one of *networks*."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is a loopback one.

    Spellings such as 127.1 are not: browsers replace them by 127.0.0.1 before they send them. 0.0.0.0 is
    not, either: it is no address of a server (RFC 1122, 3.2.1.3).
    """
    name = host_name(host)
    if name is not None and (name == "localhost" or name.endswith(".localhost")):
        return True
    # An IPv6 address without brackets is no host name.
    address = _parsed(host if name is None else name.strip("[]"))
    return address is not None and address.is_loopback


def _without_port(hop: str) -> str:
    """Return *hop* without the port that some proxies add: `192.0.2.7:4711`, `[2001:db8::1]:4711`."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?|\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?", hop)
    return match[1] or match[2] if match else hop


@lru_cache(maxsize=256)
def _parsed(text: str) -> Address | None:
    """Return the address in *text*, an IPv4-mapped IPv6 address as IPv4; None if it is not valid."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # The scope after a % is free text, chosen by the client.
    return None if address.scope_id is not None else address.ipv4_mapped or address
