"""The store contract, its values and errors, and `open_store`, which selects a store by URL."""

from __future__ import annotations

import importlib

from stormcellar.stores.base import Announcing, Scannable, Store
from stormcellar.stores.counters import Counters, Rule, Tally
from stormcellar.stores.errors import (
    DuplicateSession,
    Problem,
    ReplicasMissing,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from stormcellar.stores.records import (
    DEFAULT_OPTIONS,
    TOMBSTONE_MS,
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    StoreOptions,
    Verifier,
    Why,
    are_times,
    check_keys,
    check_record,
    check_user,
)
from stormcellar.stores.url import StoreURL

__all__ = [
    "TOMBSTONE_MS",
    "Absent",
    "Announcing",
    "Counters",
    "Credential",
    "Delta",
    "DuplicateSession",
    "Handle",
    "Outcome",
    "Problem",
    "Record",
    "ReplicasMissing",
    "Rotation",
    "Rule",
    "Scannable",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreOptions",
    "StoreRefused",
    "StoreURL",
    "StoreUnavailable",
    "Tally",
    "Verifier",
    "Why",
    "are_times",
    "check_keys",
    "check_record",
    "check_user",
    "open_store",
]

WORDS = {
    "memory": "memory:",
    "redis": "redis://127.0.0.1:6379/0",
    "mongo": "mongodb://127.0.0.1:27017/stormcellar",
}

# scheme -> (module, class, the extra that installs its driver)
SCHEMES = {
    "memory": ("stormcellar.stores.memory", "MemoryStore", None),
    "sqlite": ("stormcellar.stores.sqlite", "SQLiteStore", None),
    "redis": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "rediss": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "redis+unix": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "unix": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "valkey": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "valkeys": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "redis+sentinel": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "redis+cluster": ("stormcellar.stores.redis", "RedisStore", "redis"),
    "mongodb": ("stormcellar.stores.mongo", "MongoStore", "mongo"),
    "mongodb+srv": ("stormcellar.stores.mongo", "MongoStore", "mongo"),
}


def open_store(
    url: str,
    *,
    prefix: str = DEFAULT_OPTIONS.prefix,
    timeout_s: float = DEFAULT_OPTIONS.timeout_s,
    connect_timeout_s: float = DEFAULT_OPTIONS.connect_timeout_s,
    max_sessions: int = DEFAULT_OPTIONS.max_sessions,
    max_memory: int = DEFAULT_OPTIONS.max_memory,
) -> Store:
    """Make the store that *url* names. Does no I/O; the store connects on first use or `ping()`.

    Args:
        url: `memory:`, `sqlite:PATH`, `redis://`, `rediss://`, `redis+unix://`, `redis+sentinel://`,
            `redis+cluster://`, `mongodb://` or `mongodb+srv://`; `valkey://`, `valkeys://` and `unix://` are
            the same as the first three of Redis; or `memory`, `redis` or `mongo` for the usual local address;
            or `package.module:Class?...` for your own store, whose `from_url` gets a `StoreURL`.
        prefix, timeout_s, connect_timeout_s, max_sessions, max_memory: See `StoreOptions`.

    Raises:
        ValueError: One line: what is wrong with the URL, or which extra to install.
    """
    options = StoreOptions(prefix, timeout_s, connect_timeout_s, max_sessions, max_memory)
    return _store_class(url).from_url(StoreURL(WORDS.get(url, url)), options)


def _store_class(url: str) -> type[Store]:
    scheme, colon, rest = WORDS.get(url, url).partition(":")
    if colon and scheme in SCHEMES:
        module_name, class_name, extra = SCHEMES[scheme]
    elif _is_dotted_name(scheme) and rest.partition("?")[0].isidentifier():
        module_name, class_name, extra = scheme, rest.partition("?")[0], None
    else:
        known = ", ".join([*WORDS, *(f"{name}:" for name in SCHEMES), "package.module:Class"])
        # Without any part of the URL: each can be a password.
        raise ValueError(f"unknown store: it must be one of {known}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        if extra is None or (exc.name or "").startswith("stormcellar"):
            is_missing = _is_missing(module_name, exc)
            # A name without a dot can be the user or the password of a URL that lacks its scheme.
            if is_missing and "." not in module_name:
                raise ValueError("there is no module of the name before the colon of that store") from None
            advice = "; is its folder on PYTHONPATH?" if is_missing else ""
            raise ValueError(f"cannot import {module_name!r}: {exc}{advice}") from exc
        raise ValueError(f"{scheme} needs its driver: pip install 'stormcellar[{extra}]'") from exc
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Store)):
        is_secret = found is None and "." not in module_name
        told = f"the name after {module_name}:" if is_secret else f"{module_name}:{class_name}"
        raise ValueError(f"{told} is not a stormcellar.stores.Store")
    return found


def _is_missing(module_name: str, exc: ImportError) -> bool:
    """Whether *exc* reports the module itself or its package, not a module that it imports."""
    return isinstance(exc, ModuleNotFoundError) and f"{module_name}.".startswith(f"{exc.name}.")


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
