"""Sessions in Redis 6.2 or newer, alone or as a cluster."""

from stormcellar.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
