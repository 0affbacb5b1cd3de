"""A site over TLS that runs beside the test, and two browsers with their own profiles."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tornado.ioloop import IOLoop

from stormcellar.app.edge import Edge
from stormcellar.runtime.tls import KeyPair
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores.memory import MemoryStore
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.support.running import until
from tests.support.site import Site

T = TypeVar("T")


class LiveSite:
    """A site whose event loop runs in a thread, so that a browser can be driven meanwhile."""

    site: Site

    def __init__(self, directory: Path) -> None:
        files = Authority(directory).issue()
        self._tls = KeyPair(files.certificate, files.key).load()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.call(self._open())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the event loop of the site."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        IOLoop.current()
        self.site = Site(
            MemoryStore(),
            edge=Edge(is_secure=True, has_tls=True),
            tls=self._tls,
            rechecks=Rechecks(every_s=0.5),
        )

    def wait_for_streams(self, count: int) -> None:
        """Wait until so many streams are open: no other request of these tests takes long."""
        until(lambda: self.site.context.in_flight.count == count, f"{count} streams")

    async def cut(self) -> None:
        """Close every connection."""
        await self.site._http.close_all_connections()

    def close(self) -> None:
        """Stop everything."""
        self.call(self.site.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveSite]:
    """A site of this test alone."""
    live = LiveSite(tmp_path)
    yield live
    live.close()


OpenChromium = Callable[..., Chromium]

COUNTING = """
window.told = 0;
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, listener) {
  add.call(this, kind, event => { listener(event); if (kind === "session") window.told += 1; });
};
"""


def told(browser: Chromium) -> int:
    """Return how many events `session` the page of the first browser has had."""
    return int(browser.script("return window.told"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Chromium]:
    """A function that starts a Chromium with a profile of its own."""
    return lambda *switches: Chromium(tmp_path_factory.mktemp("profile"), "", *switches)


@pytest.fixture(scope="module")
def first(chromium: OpenChromium) -> Iterator[Chromium]:
    """One Chromium for all tests."""
    with chromium() as browser:
        browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNTING})
        yield browser


@pytest.fixture(scope="module")
def second(chromium: OpenChromium) -> Iterator[Chromium]:
    """Another one."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(live: LiveSite, first: Chromium) -> Iterator[Chromium]:
    """The first, without cookies, at the site of this test; nothing violates the CSP."""
    first.forget()
    first.base = live.site.base
    yield first
    assert first.complaints() == []
    first.driver.get("about:blank")


@pytest.fixture
def other(live: LiveSite, second: Chromium) -> Iterator[Chromium]:
    """The second, in the same way."""
    second.forget()
    second.base = live.site.base
    yield second
    assert second.complaints() == []
    second.driver.get("about:blank")
