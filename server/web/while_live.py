"""Work that ends with the session: long handlers, downloads and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stormcellar.sessions.live.watch import SessionWatch
from stormcellar.sessions.live.watched import Watched
from stormcellar.stores import Record


@asynccontextmanager
async def while_live(watch: SessionWatch, record: Record) -> AsyncIterator[Watched]:
    """Cancel the block when the session of *record* is over; the statement then ends without an error.

    Whether that happened is in `Watched.end`.
    """
    watched = watch.hold(record)
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watched.on_end(lambda end: limit.reschedule(0))
            yield watched
    except TimeoutError:
        if not limit.expired():
            raise
    finally:
        watch.release(watched)
