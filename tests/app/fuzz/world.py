"""A site with people on it, put back as it was before each request of the fuzz test."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

from tornado.routing import PathMatches
from tornado.web import RequestHandler

from stormcellar.accounts.directory import MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.app.routes import make_app
from stormcellar.stores import Handle, Record
from stormcellar.stores.memory import MemoryStore
from stormcellar.stores.memory.counters import MemoryCounters
from tests.support.browser import Browser, token
from tests.support.site import ACCOUNTS, CHEAP, OpenSite, Site, sign_in

SCRIPT = "\"'><script>fuzz()</script>"
"""What every session holds, and no page may show as it is."""

# Tornado's own, for files that are not there.
_NO_FILES = (r"/(favicon\.ico)$", r"/(robots\.txt)$")
PATIENCE_S = 5.0
_FIELD = re.compile(r"<(?:input|select|textarea|button)\b[^>]*>")
_ATTRIBUTE = re.compile(r'([a-z]+)="([^"]*)"')
_LINK = re.compile(r'(?:href|src|action)="(/[^"]*)"')


class Restored:
    """Passes for the object that *make* returned last."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._inner = make()

    def restore(self, make: Callable[[], object] | None = None) -> None:
        """Have it made anew, from now on by *make*."""
        self._make = make or self._make
        self._inner = self._make()

    def keep(self) -> None:
        """Have later ones made as this one is now."""
        kept = deepcopy(self._inner)
        self.restore(lambda: deepcopy(kept))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TallyingStore(MemoryStore):
    """A store in memory whose tallies can be put back."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies = Restored(MemoryCounters)

    def counters(self) -> MemoryCounters:
        """Return its tallies."""
        return cast(MemoryCounters, self.tallies)


@dataclass(frozen=True)
class Holder:
    """Somebody with a cookie, and what a request with it may see and change."""

    name: str
    cookie: bytes
    """The value of the session cookie; empty for the visitor, who has none."""
    secret: str
    """What the cookie proves; of the visitor the nonce of their forms."""
    token: str
    """What their forms hold."""
    user: str | None
    """Who they are to the site: nobody, unless the session is live and the account too."""
    handle: Handle | None
    """Of the one record that they may change; None if there is none."""
    marker: bytes
    """What their session holds, and nobody else may ever see."""


@dataclass(frozen=True)
class Route:
    """One line of the application's table, and the links to it on the pages."""

    matcher: PathMatches
    methods: tuple[str, ...]
    types: tuple[str, ...]
    links: list[str]

    @property
    def name(self) -> str:
        """The pattern of its paths."""
        return self.matcher.regex.pattern

    @property
    def arguments(self) -> int:
        """How many parts of the path may vary."""
        return self.matcher.regex.groups

    def takes(self, path: str) -> bool:
        """Whether *path* leads here."""
        return self.matcher.regex.match(path) is not None

    def path(self, *arguments: str) -> str:
        """Return the path with these parts."""
        return self.matcher.reverse(*arguments) or "/"


class World:
    """The site, its routes, what its forms ask for, and who holds what.

    `before` are the records as every request finds them, `fields` the names in forms with their values,
    `boxes` those that can be ticked.
    """

    def __init__(self, site: Site, accounts: Restored, tallies: Restored) -> None:
        self.site = site
        self.cookie_name = site.sessions.cookies.name.encode()
        self.nonce_name = site.sessions.cookies.nonce_name.encode()
        self.routes = list(_routes(site))
        self.fields: dict[str, str] = {}
        self.boxes: set[str] = set()
        self.holders: list[Holder] = []
        self.before: dict[Handle, Record] = {}
        self._accounts = accounts
        self._tallies = tallies

    @property
    def visitor(self) -> Holder:
        """Who has no session."""
        return self.holders[0]

    def holder_of(self, headers: Iterable[bytes]) -> Holder:
        """Return for whom the Cookie *headers* speak: by the one value of ours, exactly, or the visitor."""
        wanted = self.cookie_name + b"="
        pairs = [pair.strip(b" \t") for header in headers for pair in header.split(b";")]
        values = [pair.removeprefix(wanted) for pair in pairs if pair.startswith(wanted)]
        found = [holder for holder in self.holders if values == [holder.cookie] != [b""]]
        return found[0] if found else self.visitor

    async def records(self) -> dict[Handle, Record]:
        """Return every record, once no work is in flight."""
        in_flight = self.site.context.in_flight
        try:
            async with asyncio.timeout(PATIENCE_S):
                while in_flight.count:  # noqa: ASYNC110  the work of clients that have hung up
                    await asyncio.sleep(0)
        except TimeoutError:
            in_flight.count = 0
            raise AssertionError("a request that never ends") from None
        await self.site.sessions.drain()
        return {record.handle: record for record in await self.site.records()}

    async def restore(self) -> None:
        """Put the records, the accounts and the tallies of the throttle back."""
        self.site.store.inner = MemoryStore()
        for record in self.before.values():
            await self.site.store.inner.create(record)
        self._accounts.restore()
        self._tallies.restore()
        self.site.events.clear()


async def make_world(open_site: OpenSite, **options: Any) -> World:
    """Return a world on a new site over a store in memory."""
    checker, store = PasswordChecker(argon2_hasher=CHEAP), TallyingStore()
    accounts = Restored(lambda: MemoryAccounts(ACCOUNTS, checker=checker))
    site = open_site(store, accounts=accounts, checker=checker, **options)
    world = World(site, accounts, store.tallies)
    await _populate(world)
    world.before = await world.records()
    store.tallies.keep()
    without_carol = ACCOUNTS | {"carol": replace(ACCOUNTS["carol"], disabled=True)}
    accounts.restore(lambda: MemoryAccounts(without_carol, checker=checker))
    await _read_pages(world)
    await world.restore()
    return world


def _routes(site: Site) -> Iterable[Route]:
    """Read the routes from the application, so that a new page needs no line here."""
    stock = RequestHandler._unimplemented_method
    for rule in make_app(site.sessions, site.context).wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        if rule.matcher.regex.pattern in _NO_FILES:
            continue
        has = {m: getattr(rule.target, m.lower()) is not stock for m in rule.target.SUPPORTED_METHODS}
        methods = [m for m in has if has["GET" if m == "HEAD" else m]]
        yield Route(rule.matcher, tuple(methods), getattr(rule.target, "body_types", ()), [])


async def _populate(world: World) -> None:
    """Let everybody get their cookie: live, superseded, ended, of a disabled account, without a user.

    "alice of before" proved who she is longer ago than what matters takes. On carol's account somebody has
    just tried too many passwords.
    """
    site = world.site
    users = {"alice": "alice", "bob": "bob", "alice of before": "alice", "carol": "carol"}
    browsers = {"visitor": site.browser(), "anonymous": site.browser()}
    browsers["alice of before"] = await site.signed_in("alice")
    site.clock.advance(site.sessions.lifetime.reauth_s + 1)
    for name, user in (users | {"superseded": "bob", "ended": "bob"}).items():
        browsers[name] = browsers.get(name) or await site.signed_in(user)
    for name, browser in browsers.items():
        if name != "visitor":
            held = {"marker": _marker(name), "n": 1, "html": SCRIPT}
            assert (await browser.json("PATCH", "/session", held))[0] == 200
        form = token(await browser.get("/login"))
        world.holders.append(_holder(site, name, browser, form, users.get(name)))
    await sign_in(browsers["superseded"].copy(), "bob")
    assert (await browsers["ended"].copy().json("POST", "/logout"))[0] == 204
    guess = {"username": "carol", "password": "wrong"}
    while (await site.browser().json("POST", "/login", guess))[0] != 429:
        pass


def _marker(name: str) -> str:
    return f"marker-of-{name.replace(' ', '-')}."


def _holder(site: Site, name: str, browser: Browser, form: str, user: str | None) -> Holder:
    cookies = site.sessions.cookies
    value = browser.cookies.get(cookies.name, "")
    sid = cookies.read([f"{cookies.name}={value}"])
    secret = sid.secret if sid else browser.cookies[cookies.nonce_name]
    return Holder(
        name=name,
        cookie=value.encode(),
        secret=secret,
        token=form,
        user=user if user != "carol" else None,
        handle=sid.handle if sid and name not in ("superseded", "ended") else None,
        marker=_marker(name).encode(),
    )


async def _read_pages(world: World) -> None:
    """Take from all pages what their forms ask for, and where they link."""
    targets = {route.path() for route in world.routes if not route.arguments}
    for holder in (world.visitor, *world.holders[-4:]):
        browser = world.site.browser()
        browser.cookies[world.cookie_name.decode()] = holder.cookie.decode()
        for target in sorted(targets):
            if (await browser.fetch("HEAD", target)).headers.get("Content-Type") == "text/event-stream":
                continue  # it has no end, and no links
            page = (await browser.get(target)).body.decode()
            fields = [dict(_ATTRIBUTE.findall(tag)) for tag in _FIELD.findall(page)]
            world.boxes |= {field["name"] for field in fields if field.get("type") == "checkbox"}
            world.fields |= {field["name"]: field.get("value", "") for field in fields if "name" in field}
            for link in map(html.unescape, _LINK.findall(page)):
                for route in world.routes:
                    if route.takes(link.partition("?")[0]) and link not in route.links:
                        route.links.append(link)
    del world.fields["_xsrf"]
