"""Sessions in MongoDB 6.0 or newer."""

from stormcellar.stores.mongo.store import MongoStore

__all__ = ["MongoStore"]
