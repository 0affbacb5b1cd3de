"""Whether a subject of the benchmarks does what it is timed for, and what that costs its database."""

from __future__ import annotations

import http.client
import select
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import pymongo
import redis

REQUESTS = 20
START_S = 30
STOP_S = 10
NO_DATA = ("auth", "client", "hello", "info", "ping", "select")
"""Commands of Redis that clients send on their own account, or that count the others."""
DATA = ("aggregate", "delete", "find", "findAndModify", "insert", "update")
"""Commands of MongoDB that touch sessions."""

Counts = Mapping[str, int]
Cookies = dict[str, str]


class WrongAnswer(Exception):
    """The subject does not do what it would be timed for; the message says what."""


class Client:
    """A client on one kept-alive connection, which holds no cookies but is given them."""

    def __init__(self, base_url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)

    def get(self, path: str, cookies: Cookies, wanted: tuple[int, str]) -> Cookies:
        """Get *path*, insist on status and body *wanted*, and return *cookies* as the answer changes them."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        self._connection.request("GET", path, headers=headers if cookies else {})
        response = self._connection.getresponse()
        got = response.status, response.read().decode(errors="replace")
        if got != wanted:
            raise WrongAnswer(f"{path} answered {got}, not {wanted}")
        changed = [SimpleCookie(line) for line in response.headers.get_all("Set-Cookie", [])]
        return cookies | {name: morsel.value for cookie in changed for name, morsel in cookie.items()}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def verify(base_url: str, count_operations: Callable[[], Counts]) -> dict[str, dict[str, float]]:
    """Send 20 requests of each kind to the subject at *base_url* and check each answer.

    Args:
        base_url: Where it listens, as http://127.0.0.1:PORT.
        count_operations: Returns how often its database has run each command so far; {} for memory.

    Returns:
        Commands a request, by kind of request and name of command.

    Raises:
        WrongAnswer: A body, a status or a cookie is not as it must be.
    """
    client = Client(base_url)
    costs: dict[str, dict[str, float]] = {}

    def run(kind: str, path: str, people: list[Cookies], wanted: tuple[int, str]) -> list[Cookies]:
        before = count_operations()
        after_requests = [client.get(path, cookies, wanted) for cookies in people]
        after = count_operations()
        told = {name: (after[name] - before.get(name, 0)) / len(people) for name in after}
        costs[kind] = {name: per_request for name, per_request in told.items() if per_request}
        return after_requests

    try:
        # What only the first request costs, such as a connection or a collection, is no part of the figures.
        client.get("/start", {}, (200, "somebody"))
        nobody: list[Cookies] = [{}] * REQUESTS
        _insist(run("bare", "/bare", nobody, (200, "hello")) == nobody, "/bare sets a cookie")
        people = run("start", "/start", nobody, (200, "somebody"))
        _insist(len({str(cookies) for cookies in people}) == REQUESTS, "/start gave one cookie twice")
        _insist(run("read", "/read", people, (200, "somebody")) == people, "/read changes the cookie")
        _insist(run("write", "/write", people, (200, "hello")) == people, "/write changes the cookie")
        renewed = run("login", "/login", people, (200, "hello"))
        _insist(all(new != old for new, old in zip(renewed, people, strict=True)), "/login keeps the cookie")
        run("anonymous", "/read", nobody, (401, "anonymous"))
        run("old", "/read", people, (401, "anonymous"))
        run("read", "/read", renewed, (200, "somebody"))
    finally:
        client.close()
    return costs


def _insist(claim: bool, otherwise: str) -> None:
    if not claim:
        raise WrongAnswer(otherwise)


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run *command*, which says `ready`, in the meantime; RuntimeError if it does not say so in time."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            heard, _, _ = select.select([process.stdout], [], [], START_S)
            if not heard or not process.stdout.readline().startswith("ready"):
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def counting(store: str, url: str) -> Iterator[Callable[[], Counts]]:
    """Count the commands of the database at *url* in the meantime; yields `count_operations` of `verify`."""
    if store == "redis":
        with redis.Redis.from_url(url) as client:
            yield lambda: _redis_commands(client)
    elif store == "mongo":
        mongo: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(url) as mongo:
            yield lambda: _mongo_commands(mongo)
    else:
        yield dict


def _redis_commands(client: redis.Redis) -> Counts:
    stats = client.info("commandstats")
    named = {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}
    return {name: calls for name, calls in named.items() if name.split("|")[0] not in NO_DATA}


def _mongo_commands(client: pymongo.MongoClient[dict[str, Any]]) -> Counts:
    commands = client.admin.command("serverStatus")["metrics"]["commands"]
    return {name: commands[name]["total"] for name in DATA}
