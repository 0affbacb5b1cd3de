"""`mongodb+srv://`: PyMongo gets the URL as it is, and finds the servers in DNS on first use."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncresolver
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from stormcellar.stores import StoreOptions, StoreRefused, StoreUnavailable, open_store
from stormcellar.stores.mongo import MongoStore, client
from tests.support.backends import Backend

NAME, HOST = "cluster.example.test", "one.example.test"
URL = f"mongodb+srv://{NAME}/sessions?tls=false&srvMaxHosts=1&connectTimeoutMS=700"


class Dns(asyncio.DatagramProtocol):
    """A DNS server that knows one SRV record: *NAME* is at *port* of *HOST*, once *is_known* is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_known = False
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        """Keep the way to answer."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Answer a query."""
        query = dns.message.from_wire(data)
        [question] = query.question
        self.asked.append(f"{dns.rdatatype.to_text(question.rdtype)} {question.name}")
        answer = dns.message.make_response(query)
        if question.rdtype == dns.rdatatype.SRV and self.is_known:
            record = f"0 0 {self.port} {HOST}."
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "SRV", record))
        self._transport.sendto(answer.to_wire(), address)


@asynccontextmanager
async def dns_server(monkeypatch: pytest.MonkeyPatch, port: int) -> AsyncIterator[Dns]:
    """Run a DNS server that PyMongo asks; *HOST* is this machine."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Dns(port), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        yield server
    finally:
        transport.close()


def test_pymongo_gets_the_url_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up when the store is made, and times in the URL win."""
    seen: list[Any] = []
    made = client.AsyncMongoClient

    def make(url: str, **options: Any) -> Any:
        seen.append((url, options))
        return made(url, **options)

    monkeypatch.setattr(client, "AsyncMongoClient", make)
    monkeypatch.setattr(dns.asyncresolver, "resolve", None)
    store = open_store(URL, prefix="app")

    [(url, options)] = seen
    assert isinstance(store, MongoStore)
    assert url == URL
    assert "connectTimeoutMS" not in options and "serverSelectionTimeoutMS" in options
    assert store._sessions.full_name == "sessions.app_sessions"


@pytest.mark.gen_test
async def test_servers_are_found_in_dns_once_it_knows_them(
    mongo: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it is an outage that says what to check, and nothing has to be restarted."""
    async with dns_server(monkeypatch, mongo.port) as server:
        store = MongoStore.from_url(URL, StoreOptions("srv", timeout_s=5))
        with pytest.raises(StoreUnavailable) as caught:
            await store.ping()
        server.is_known = True
        await store.ping()
        await store.aclose()

    assert not isinstance(caught.value, StoreRefused)
    assert str(caught.value.problem).startswith("DNS gives no servers for the name in a mongodb+srv:// URL; ")
    assert f"SRV _mongodb._tcp.{NAME}." in server.asked


def test_missing_dnspython_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMongo requires it, but an operator may have removed it."""
    monkeypatch.setitem(sys.modules, "dns", None)

    with pytest.raises(ValueError, match="needs the package dnspython: pip install dnspython"):
        open_store("mongodb+srv://user:hunter2@cluster.example.test/sessions")
