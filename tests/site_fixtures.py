"""Sites for one test, closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Store
from stormcellar.stores.memory import MemoryStore
from tests.site import OpenSite, Site


@pytest.fixture
def open_site(io_loop: IOLoop) -> Iterator[OpenSite]:
    """A function that starts a site; given no store, on one in memory. All are closed after the test."""
    sites: list[Site] = []

    def open_one(store: Store | None = None, **options: Any) -> Site:
        sites.append(Site(MemoryStore() if store is None else store, **options))
        return sites[-1]

    yield open_one
    for site in sites:
        io_loop.run_sync(site.close)


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """A site on a store in memory."""
    return open_site()
