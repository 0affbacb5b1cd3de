"""Sessions in the memory of this process."""

from stormcellar.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
