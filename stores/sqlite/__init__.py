"""Sessions in an SQLite file."""

from stormcellar.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
