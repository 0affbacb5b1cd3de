"""Faults of the network between a site and its store, for every set-up that has `networks`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from stormcellar.stores.conformance.faults import Network
from tests.faults.suite import Fault

LONG_S = 4.0
"""Longer than the time-out of a store call."""
SHORT_S = 2.0


class Networked(Protocol):
    """A set-up whose servers are each behind a network."""

    networks: list[Network]


async def _black_hole(set_up: Networked) -> None:
    for network in set_up.networks:
        network.stall()
    await asyncio.sleep(LONG_S)
    for network in set_up.networks:
        network.resume()


async def _reset(set_up: Networked) -> None:
    for _ in range(5):
        for network in set_up.networks:
            network.cut()
        await asyncio.sleep(0.3)


def _while(seconds: float, **faults: object) -> Callable[[Networked], Awaitable[None]]:
    """Return a fault that gives each network these attributes for a while."""

    async def inflict(set_up: Networked) -> None:
        before = [{name: getattr(network, name) for name in faults} for network in set_up.networks]
        try:
            for network in set_up.networks:
                vars(network).update(faults)
            await asyncio.sleep(seconds)
        finally:
            for network, values in zip(set_up.networks, before, strict=True):
                vars(network).update(values)

    return inflict


async def _refused(set_up: Networked) -> None:
    for network in set_up.networks:
        await network.refuse()
        network.cut()
    await asyncio.sleep(SHORT_S)
    for network in set_up.networks:
        await network.accept()


NETWORK_FAULTS = (
    Fault("the network is a black hole for 4 s", _black_hole),
    Fault("connections are reset, five times", _reset),
    Fault("replies are cut in the middle for 2 s", _while(SHORT_S, breaks_replies=True)),
    Fault("replies are lost for 4 s", _while(LONG_S, loses_replies=True)),
    Fault("the network takes 200 ms each way", _while(LONG_S, delay_s=0.2)),
    Fault("connections are refused for 2 s", _refused),
)
