"""What all contracts share: the store under test, opened by its URL, and an event loop for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from secrets import token_hex
from typing import Any, ClassVar, TypeVar

import pytest

from stormcellar.stores import open_store
from stormcellar.stores.base import Store

T = TypeVar("T")
OpenAgain = Callable[[str], Store]
"""Opens the URL under test once more, with the given prefix."""

PREFIX = f"contract-{token_hex(8)}"
LONGEST_S = 60.0
"""How long one test may take."""


class Loop:
    """The event loop of one test."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def run_sync(self, call: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Call a coroutine function, and return its result.

        Args:
            timeout: Seconds; None: no limit.

        Raises:
            TimeoutError: It took longer.
        """

        async def limited() -> T:
            async with asyncio.timeout(timeout):
                return await call()

        return self._runner.run(limited())


class OpenedContract:
    """Opens the store by its URL, and runs coroutine functions as tests; it needs no plug-in of pytest.

    Set the class attribute `url`, or override the fixture `store_url` if the address is known later. A
    contract whose fixture `store` is overridden instead skips the tests that open a second instance.
    """

    url: ClassVar[str] = ""
    """The URL of the store under test, as for `open_store`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in dir(cls):
            if name.startswith("test_") and iscoroutinefunction(method := getattr(cls, name)):
                setattr(cls, name, _on_the_loop(method))

    @pytest.fixture(autouse=True)
    def io_loop(self) -> Iterator[Loop]:
        """The event loop of this test; its name and `run_sync` are those of pytest-tornado."""
        with asyncio.Runner() as runner:
            self._loop = Loop(runner)
            yield self._loop

    @pytest.fixture
    def store_url(self) -> str:
        """Return the URL of the store under test."""
        if not self.url:
            pytest.skip("it needs the class attribute `url`, or the fixture `store_url`")
        return self.url

    @pytest.fixture
    def contract_prefix(self) -> str:
        """Return the prefix of this run: a new one for each test would mean new indexes each time."""
        return PREFIX

    @pytest.fixture
    def open_again(self, store_url: str, io_loop: Loop) -> Iterator[OpenAgain]:
        """Return a function that opens the URL once more; what it opened is closed after the test."""
        opened: list[Store] = []

        def open_one(prefix: str) -> Store:
            opened.append(open_store(store_url, prefix=prefix, timeout_s=10.0, connect_timeout_s=10.0))
            io_loop.run_sync(opened[-1].ping) if len(opened) == 1 else None
            return opened[-1]

        yield open_one
        for store in opened:
            io_loop.run_sync(store.aclose)

    @pytest.fixture
    def store(self, open_again: OpenAgain, contract_prefix: str) -> Store:
        """Return the store under test."""
        return open_again(contract_prefix)


def _on_the_loop(method: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(method)
    def test(self: OpenedContract, *args: Any, **kwargs: Any) -> None:
        self._loop.run_sync(lambda: method(self, *args, **kwargs), timeout=LONGEST_S)

    return test
