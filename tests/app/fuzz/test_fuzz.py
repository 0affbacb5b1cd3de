"""Thousands of hostile requests to the whole server; after each the same few things must hold."""

from __future__ import annotations

import ipaddress
import logging
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from tornado.ioloop import IOLoop

from stormcellar.app import logging_setup
from stormcellar.lifetime import Lifetime
from stormcellar.web.tornado_request import SAFE_METHODS
from tests.app.fuzz.judge import Judge
from tests.app.fuzz.requests import TAPE_BYTES, Sent, make_request
from tests.app.fuzz.samples import FORM
from tests.app.fuzz.wire import Answer, Log, Wire
from tests.app.fuzz.world import World, make_world
from tests.support.site import OpenSite

REQUESTS = 10_000
"""What one test sends at most, in all places together."""

LOGGERS = ("stormcellar", "tornado", "asyncio")
PLACES: dict[str, dict[str, Any]] = {
    "loopback": {},
    "behind a proxy": {
        "proxies": (ipaddress.ip_network("127.0.0.0/8"),),
        "lifetime": Lifetime(remember_s=86_400 * 30),
        "samesite": "Strict",
    },
}

Try = Callable[[Sent], list[Answer]]


@pytest.fixture(params=PLACES.values(), ids=list(PLACES))
def world(request: pytest.FixtureRequest, open_site: OpenSite, io_loop: IOLoop) -> World:
    """The server and everybody who has a cookie of it, in each place where it may stand."""
    made: World = io_loop.run_sync(lambda: make_world(open_site, **request.param))
    return made


@pytest.fixture
def log() -> Iterator[Log]:
    """What is logged from INFO on."""
    handler = Log()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(each.level, each.propagate) for each in loggers]
    logging_setup.redact()
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
        each.propagate = False
    yield handler
    for each, (level, propagate) in zip(loggers, before, strict=True):
        each.removeHandler(handler)
        each.setLevel(level)
        each.propagate = propagate


@pytest.fixture
def attempt(world: World, log: Log, io_loop: IOLoop) -> Iterator[Try]:
    """A function that sends a request, judges all that comes of it, and puts the world back."""
    wire, judge = Wire(world.site.port), Judge(world)
    run = io_loop.asyncio_loop.run_until_complete  # type: ignore[attr-defined]

    async def send_and_judge(sent: Sent) -> list[Answer]:
        log.take()
        answers = await wire.exchange(sent)
        after = await world.records()
        if sent.method not in SAFE_METHODS or after != world.before:
            await world.restore()
        judge.log(sent, log.take())
        judge.records(sent, after)
        for answer in answers:
            judge.answer(sent, answer, after)
        return answers

    yield lambda sent: run(send_and_judge(sent))
    wire.close()


def fuzz(world: World, attempt: Callable[[Sent], object], *, examples: int, number: int) -> None:
    """Attempt that many requests, the same for the same *number*; a failure shows the smallest that fails."""

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=(HealthCheck.too_slow,),
    )
    @given(st.binary(min_size=TAPE_BYTES, max_size=TAPE_BYTES))
    def each(tape: bytes) -> None:
        sent = make_request(tape, world)
        note(str(sent))
        attempt(sent)

    each()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread many requests over several tests, each of which ends within the limit."""
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(parts(metafunc.config)))


def parts(config: pytest.Config) -> int:
    """Return how many tests share the requests that were asked for."""
    return math.ceil(config.getoption("--fuzz-examples") / REQUESTS)


@pytest.mark.timeout(600)  # a request that fails is made smaller for up to 300 s
def test_no_request_gets_more_than_it_may(
    world: World, attempt: Try, part: int, pytestconfig: pytest.Config
) -> None:  # A2, A7, A9, A11, A15, C9, D9, E13, F1, F9, F10, G2, H4
    """No server error, no other identity, no record for a visitor, nobody's secret, no way off the site."""
    number = pytestconfig.getoption("--fuzz-seed")
    number = random.randrange(2**32) if number == "random" else int(number) + part
    print(f"--fuzz-seed={number}")  # shown if it fails
    examples = pytestconfig.getoption("--fuzz-examples") // parts(pytestconfig) // len(PLACES)
    fuzz(world, attempt, examples=examples, number=number)


@pytest.mark.parametrize("world", [PLACES["behind a proxy"]], indirect=True)
def test_the_requests_reach_everything(world: World, attempt: Try) -> None:
    """Each method of each route does its work for some of them, and each kind of refusal comes too."""
    done: set[tuple[str, str]] = set()
    forms: set[str] = set()
    refusals: set[int] = set()

    def watch(sent: Sent) -> None:
        for answer in attempt(sent)[:1]:
            names = {each.name for each in world.routes if each.takes(sent.path)}
            if answer.status >= 400:
                refusals.add(answer.status)
            else:
                done.update((name, sent.method) for name in names)
                forms.update(names if sent.is_form else ())

    fuzz(world, watch, examples=2000, number=0)

    assert done >= {(each.name, method) for each in world.routes for method in each.methods}
    assert forms >= {each.name for each in world.routes if FORM in each.types and "POST" in each.methods}
    assert refusals >= {400, 401, 403, 404, 405, 409, 415, 421, 422, 429}
