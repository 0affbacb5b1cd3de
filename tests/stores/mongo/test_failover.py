"""What the driver is told about its servers, and how soon a store is served again after an election."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stormcellar.stores import StoreOptions
from stormcellar.stores.mongo.client import connect
from tests.stores.mongo.failover import fail_over
from tests.support.backends import Backend
from tests.support.replica_set import ReplicaSet

OPTIONS = StoreOptions("test", connect_timeout_s=0.7)
# The name of an option in a URL, a value there, and where the client shows it.
CHOICES: list[tuple[str, str, Any, Any]] = [
    ("connectTimeoutMS", "300", lambda options: options.pool_options.connect_timeout, (0.7, 0.3)),
    ("serverSelectionTimeoutMS", "300", lambda options: options.server_selection_timeout, (0.7, 0.3)),
    ("heartbeatFrequencyMS", "5000", lambda options: options.heartbeat_frequency, (1.0, 5.0)),
    ("SERVERMONITORINGMODE", "stream", lambda options: options.server_monitoring_mode, ("poll", "stream")),
    ("retryReads", "true", lambda options: options.retry_reads, (False, False)),
    ("retryWrites", "true", lambda options: options.retry_writes, (False, True)),
]


@pytest.mark.parametrize(("name", "value", "shown", "expected"), CHOICES, ids=[each[0] for each in CHOICES])
def test_a_time_in_the_url_wins(name: str, value: str, shown: Any, expected: tuple[Any, Any]) -> None:
    """Without it the driver has our own value: it asks each server once a second. Reads are retried by us."""
    urls = ("mongodb://localhost/", f"mongodb://localhost/?{name}={value}")

    assert tuple(shown(connect(url, OPTIONS).database.client.options) for url in urls) == expected


REPEATED: dict[str, bool] = {
    "mongodb://localhost/": False,
    "mongodb://localhost/?replicaSet=rs0": True,
    "mongodb://localhost,127.0.0.1/": True,
    "mongodb+srv://cluster.example.net/": True,
    "mongodb://localhost/?replicaSet=rs0&retryWrites=false": False,
}


@pytest.mark.parametrize(("url", "expected"), REPEATED.items())
def test_writes_are_repeated_on_a_replica_set(url: str, expected: bool) -> None:
    """Only its servers recognise a write that they have already; one host may be a standalone server."""
    assert connect(url, OPTIONS).database.client.options.retry_writes is expected


def test_served_within_two_seconds_of_an_election(mongo: Backend) -> None:
    """A primary that hangs is left as soon as there is another; `make failovers` has MongoDB's own times."""
    with ReplicaSet(election_timeout_s=2.0) as replicas:
        found = asyncio.run(fail_over(replicas))

    assert found.late < 2.0
