"""`FaultyStore`: a store that fails when a test says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, ParamSpec, Self, TypeVar

from stormcellar.stores import (
    Absent,
    Announcing,
    Counters,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    Rule,
    Scannable,
    Store,
    StoreError,
    StoreOptions,
    StoreUnavailable,
    StoreURL,
    Tally,
    Why,
    open_store,
)

P = ParamSpec("P")
T = TypeVar("T")
_RECORDS = ("create", "load", "find", "apply", "rotate", "destroy", "of_user", "states", "ping")
_COUNTERS = ("take", "peek", "give_back", "forget")


class FaultyStore(Announcing, Scannable):
    """Passes each call on to another store, unless a test makes it fail::

        with store.failing():
            response = await client.get("/")
        assert response.code == 503

    Args:
        inner: None: a new store in memory.

    Raises:
        TypeError: *inner* is no store.
    """

    shared = False

    def __init__(self, inner: Store | None = None) -> None:
        inner = open_store("memory") if inner is None else inner
        if not isinstance(inner, Store):
            raise TypeError(f"inner must be a Store, not {type(inner).__name__}: write open_store(url)")
        self.inner = inner
        self.calls: Counter[str] = Counter()
        """How often each operation was called, whether it failed or not."""
        self._failures: list[tuple[frozenset[str], StoreError, bool]] = []

    @classmethod
    def from_url(cls, url: StoreURL, options: StoreOptions) -> Self:
        """Make one on a store in memory, for `open_store("stormcellar.testing:FaultyStore")`."""
        if url.query:
            raise ValueError("a FaultyStore has no parameters: its URL is 'stormcellar.testing:FaultyStore'")
        return cls(open_store("memory", max_sessions=options.max_sessions, max_memory=options.max_memory))

    @contextmanager
    def failing(
        self, *operations: str, error: StoreError | None = None, is_done: bool = False
    ) -> Iterator[None]:
        """Let operations fail while the block runs.

        Args:
            operations: Their names, such as `apply`. None at all: every operation.
            error: What they raise. None: StoreUnavailable.
            is_done: The operation is done before it fails, as if its reply were lost.

        Raises:
            ValueError: There is no such operation.
        """
        known = (*_RECORDS, *_COUNTERS)
        if unknown := set(operations) - set(known):
            wrong = ", ".join(sorted(map(repr, unknown)))
            raise ValueError(f"no operation of a store: {wrong}; there are {', '.join(known)}")
        failure = (
            frozenset(operations or known),
            error or StoreUnavailable("a failure made by a test"),
            is_done,
        )
        self._failures.append(failure)
        try:
            yield
        finally:
            self._failures.remove(failure)

    async def call(
        self, name: str, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call *operation*, whose name is *name*, with what the test wants to happen; override it for more.

        Raises:
            StoreError: As `failing` says.
        """
        self.calls[name] += 1
        self._fail(name, is_done=False)
        result = await operation(*args, **kwargs)
        self._fail(name, is_done=True)
        return result

    def _fail(self, name: str, *, is_done: bool) -> None:
        for names, error, happens_after in self._failures:
            if name in names and happens_after is is_done:
                raise error

    async def create(self, record: Record) -> None:
        """See `Store`."""
        await self.call("create", self.inner.create, record)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """See `Store`."""
        return await self.call("load", self.inner.load, credential, now_ms=now_ms)

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """See `Store`."""
        return await self.call("find", self.inner.find, handle, now_ms=now_ms)

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """See `Store`."""
        return await self.call(
            "apply", self.inner.apply, credential, delta, now_ms=now_ms, expires_ms=expires_ms
        )

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """See `Store`."""
        return await self.call("rotate", self.inner.rotate, credential, rotation, now_ms=now_ms)

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """See `Store`."""
        return await self.call("destroy", self.inner.destroy, handle, now_ms=now_ms)

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """See `Store`."""
        return await self.call("of_user", self.inner.of_user, user, now_ms=now_ms)

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """See `Announcing`."""
        states = self.inner.states if isinstance(self.inner, Announcing) else self._states
        return await self.call("states", states, credentials, now_ms=now_ms)

    async def _states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return what `states` does, from a store that is not `Announcing`."""
        found: dict[Credential, Record | Absent] = {}
        for each in credentials:
            state: Record | Absent | None = await self.inner.load(each, now_ms=now_ms)
            if isinstance(state, Absent) and state.why is Why.SUPERSEDED:
                state = await self.inner.find(each.handle, now_ms=now_ms)
            found[each] = state or Absent(Why.UNKNOWN)
        return found

    async def gone(self) -> AsyncGenerator[Handle | None, None]:
        """See `Announcing`. A store that is not `Announcing` announces nothing."""
        if isinstance(self.inner, Announcing):
            async with aclosing(self.inner.gone()) as announced:
                async for handle in announced:
                    yield handle

    def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """See `Scannable`.

        Raises:
            TypeError: The store is not `Scannable`.
        """
        if not isinstance(self.inner, Scannable):
            raise TypeError(f"a {type(self.inner).__name__} cannot list its sessions")
        return self.inner.scan(now_ms=now_ms)

    def counters(self) -> Counters | None:
        """See `Store`."""
        counters = self.inner.counters()
        return None if counters is None else FaultyCounters(counters, self.call)

    async def ping(self) -> None:
        """See `Store`."""
        await self.call("ping", self.inner.ping)

    async def aclose(self) -> None:
        """See `Store`."""
        await self.inner.aclose()


class FaultyCounters(Counters):
    """The counters of a `FaultyStore`; *call* is the one of that store."""

    def __init__(self, inner: Counters, call: Callable[..., Awaitable[Any]]) -> None:
        self.inner = inner
        self._call = call

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """See `Counters`."""
        tally: Tally = await self._call("take", self.inner.take, key, rule, now_ms=now_ms)
        return tally

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """See `Counters`."""
        tally: Tally = await self._call("peek", self.inner.peek, key, now_ms=now_ms)
        return tally

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """See `Counters`."""
        await self._call("give_back", self.inner.give_back, key, tally, now_ms=now_ms)

    async def forget(self, key: str) -> None:
        """See `Counters`."""
        await self._call("forget", self.inner.forget, key)
