"""A store that refuses the running server: a changed password, a revoked right. No request is a 500."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any, NamedTuple

import pymongo
import pytest

from stormcellar.events import Kind
from stormcellar.stores import StoreRefused, open_store
from tests.app.test_store_down import CALLS
from tests.conftest import StartServer
from tests.stores.redis.samples import redis_client
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, sign_in


@pytest.mark.gen_test
async def test_every_request_is_asked_to_come_back(site: Site) -> None:
    """Pages, calls and sign-out are 503 with Retry-After; the cookie stays; one event for each."""
    browser = await site.signed_in()
    cookies = dict(browser.cookies)
    xsrf = token(await browser.get("/"))
    site.store.fail = dict.fromkeys((*CALLS, "find", "take", "peek"), StoreRefused("refused"))
    site.events.clear()

    statuses = [answer.code for answer in await answers_of(browser, xsrf)]

    assert statuses == [503] * len(statuses)
    assert browser.cookies == cookies
    # `/readyz` is not a request of a user, and emits none.
    assert [event.kind for event in site.events] == [Kind.STORE_FAILED] * (len(statuses) - 1)
    assert {event.reason for event in site.events} == {"StoreRefused"}


async def answers_of(browser: Browser, xsrf: str) -> list[Any]:
    """Return the answers to one request of each kind, sign-out and `/readyz` included."""
    answers = [
        *[await browser.get(path) for path in ("/", "/account/sessions", "/session", "/readyz")],
        await browser.post_form("/logout", xsrf),
        await browser.post_form("/account/sessions/revoke-others", xsrf),
        await browser.post_form("/login", xsrf, username="alice", password=PASSWORD),
        await browser.fetch("PATCH", "/session", body=b'{"a": 1}', headers={"Content-Type": JSON}),
    ]
    for answer in answers:
        assert answer.headers.get("Retry-After") == "2", (answer.code, answer.effective_url)
    return answers


class Rights(NamedTuple):
    """An account of a store that serves, how to take its rights away, and how to give them back."""

    url: str
    refuse: Callable[[], Any]
    restore: Callable[[], Any]


def redis_rights(start_server: StartServer, name: str, *, fault: str) -> Rights:
    """Return an account of Redis. *fault*: its commands, its password, or the account itself."""
    server = start_server(name)
    admin = redis_client(server.port)
    command: Callable[..., Any] = admin.execute_command
    killed: Callable[..., Any] = lambda: command("CLIENT", "KILL", "USER", "app", "SKIPME", "yes")  # noqa: E731
    given = ("ACL", "SETUSER", "app", "reset", "on", ">hunter2", "~*", "&*", "+@all")
    command(*given)
    refusals: dict[str, Callable[[], Any]] = {
        "commands": lambda: command("ACL", "SETUSER", "app", "-@all"),
        "keys": lambda: command("ACL", "SETUSER", "app", "resetkeys"),
        "password": lambda: (command("ACL", "SETUSER", "app", "resetpass", ">other"), killed()),
        "account": lambda: command("ACL", "DELUSER", "app"),
        "account is off": lambda: (command("ACL", "SETUSER", "app", "off"), killed()),
    }
    scheme, _, place = server.url.partition("//")
    return Rights(f"{scheme}//app:hunter2@{place}", refusals[fault], lambda: command(*given))


def mongo_rights(start_server: StartServer, name: str, *, fault: str) -> Rights:
    """Return an account of MongoDB. *fault*: its roles, its password, or the account itself."""
    server = start_server(name, extra=["--auth"])
    admin: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient("127.0.0.1", server.port) as admin:
        admin.admin.command("createUser", "root", pwd="root-pw", roles=["root"])
    place = f"127.0.0.1:{server.port}/stormcellar"

    def run(command: str, **arguments: Any) -> None:
        with pymongo.MongoClient("127.0.0.1", server.port, username="root", password="root-pw") as client:
            client.stormcellar.command(command, "app", **arguments)

    def restarted(command: str, **arguments: Any) -> None:
        run(command, **arguments)
        server.stop()
        server.start()

    run("createUser", pwd="hunter2", roles=["readWrite"])
    faults: dict[str, Rights] = {
        "roles": Rights(
            f"mongodb://app:hunter2@{place}",
            lambda: run("revokeRolesFromUser", roles=["readWrite"]),
            lambda: run("grantRolesToUser", roles=["readWrite"]),
        ),
        "password": Rights(
            f"mongodb://app:hunter2@{place}",
            # An existing connection stays authenticated, so a new one is needed to see it.
            lambda: restarted("updateUser", pwd="other"),
            lambda: run("updateUser", pwd="hunter2"),
        ),
        "account": Rights(
            f"mongodb://app:hunter2@{place}",
            lambda: run("dropUser"),
            lambda: run("createUser", pwd="hunter2", roles=["readWrite"]),
        ),
    }
    return faults[fault]


REDIS_FAULTS = ["commands", "keys", "password", "account", "account is off"]
CASES = [
    *[("redis8", redis_rights, fault) for fault in REDIS_FAULTS],
    *[("redis6", redis_rights, fault) for fault in ("commands", "password")],
    *[("redis_cluster", redis_rights, fault) for fault in ("commands", "password")],
    *[("mongo", mongo_rights, fault) for fault in ("roles", "password", "account")],
]


@pytest.mark.gen_test(timeout=90)
@pytest.mark.parametrize(("name", "rights", "fault"), CASES, ids=[f"{a}-{c}" for a, _, c in CASES])
async def test_real_store_that_refuses_is_an_outage_that_ends_by_itself(
    open_site: OpenSite,
    start_server: StartServer,
    caplog: pytest.LogCaptureFixture,
    name: str,
    rights: Callable[..., Rights],
    fault: str,
) -> None:  # G13
    """503 everywhere, one line of log a request, and served again with the same cookie afterwards."""
    account = rights(start_server, name, fault=fault)
    site = open_site(open_store(account.url, prefix=f"test-{token_urlsafe(6)}", timeout_s=5))
    browser = await site.signed_in()
    xsrf = token(await browser.get("/"))
    cookies = dict(browser.cookies)
    await asyncio.to_thread(account.refuse)
    site.events.clear()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        statuses = [answer.code for answer in await answers_of(browser, xsrf)]
    failures = [event for event in site.events if event.kind is Kind.STORE_FAILED]
    traces = [record for record in caplog.records if record.exc_info]
    lines = [record for record in caplog.records if "StoreRefused" in record.getMessage()]
    await asyncio.to_thread(account.restore)
    await eventually_served(browser)

    assert statuses == [503] * len(statuses)
    assert len(failures) == len(statuses) - 1
    assert all(event.reason and "hunter2" not in event.reason for event in failures)
    assert traces == []
    assert len(lines) == len(statuses) - 1
    assert browser.cookies == cookies
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"
    assert (await sign_in(site.browser())).code == 303
    assert (await browser.post_form("/logout", xsrf)).code == 303


async def eventually_served(browser: Browser) -> None:
    """Return as soon as the store serves `/readyz` and this browser again."""
    for _ in range(400):
        if {(await browser.get(path)).code for path in ("/readyz", "/session")} == {200}:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the store does not serve again")
