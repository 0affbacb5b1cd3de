"""Redis and MongoDB behind a network that fails, by the suite that store authors have."""

from __future__ import annotations

import pytest

from stormcellar.stores.conformance import FaultsContract
from tests.support.backends import Backend


class TestRedis(FaultsContract):
    @pytest.fixture
    def backend_port(self, redis8: Backend) -> int:
        """Redis 8."""
        return redis8.port

    def url_at(self, port: int) -> str:
        """Return the URL of one server."""
        return f"redis://127.0.0.1:{port}/0"


class TestMongo(FaultsContract):
    @pytest.fixture
    def backend_port(self, mongo: Backend) -> int:
        """A standalone server."""
        return mongo.port

    def url_at(self, port: int) -> str:
        """Return the URL of one server."""
        return f"mongodb://127.0.0.1:{port}/stormcellar?serverSelectionTimeoutMS=1000"
