"""Load test: users who browse, sign in, write in parallel, read back and log out.

Each response must name the expected user and contain all acknowledged changes, so a load test that became
anonymous or lost an update fails. To test your own server::

    LOAD_USERS=demo LOAD_PASSWORD=... locust -f locustfile.py --host http://127.0.0.1:8888

LOAD_USERS: account names, separated by commas. LOAD_PASSWORD: the password of all of them.
"""

from __future__ import annotations

import os
import random
from http.cookiejar import Cookie
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, between, task
from locust.exception import RescheduleTask

USERS = os.environ.get("LOAD_USERS", "demo").split(",")
PASSWORD = os.environ.get("LOAD_PASSWORD", "")
PARALLEL = 4
ROUNDS = 5


class Mismatch(Exception):
    """A response is wrong."""


class SiteUser(FastHttpUser):
    """A user with one browser at a time, from the first page to the logout."""

    wait_time = between(0.05, 0.25)
    default_headers: ClassVar = {"Accept": "application/json"}

    @task
    def journey(self) -> None:
        """Make one complete visit; start again after a mismatch."""
        self.client.cookiejar.clear()
        self.expected: dict[str, Any] = {}
        try:
            self.browse()
            self.sign_in()
            for _ in range(ROUNDS):
                self.write_in_parallel()
                self.count_in_parallel()
                self.read_back()
                self.wait()
            self.log_out()
        except Mismatch as exc:
            raise RescheduleTask(str(exc)) from exc

    def browse(self) -> None:
        """Browse without an account, then save a value."""
        self.call("GET", "/session", name="browse", check=lambda r: as_user(r, None) and has(r, {}))
        if session_cookie(self) is not None:
            raise Mismatch("a visitor received a cookie for a read")
        basket = {"basket": random.randrange(10**6)}
        self.call(
            "PATCH", "/session", basket, name="keep", check=lambda r: as_user(r, None) and has(r, basket)
        )
        self.call("GET", "/session", name="browse", check=lambda r: as_user(r, None) and has(r, basket))

    def sign_in(self) -> None:
        """Sign in; expect a new session ID and no data of the anonymous session."""
        before = session_cookie(self)
        self.user = random.choice(USERS)
        credentials = {"username": self.user, "password": PASSWORD}
        self.call("POST", "/login", credentials, name="sign in", check=lambda r: as_user(r, self.user))
        if session_cookie(self) in (before, None):
            raise Mismatch("the session ID did not change at sign-in")
        self.call("GET", "/session", name="read", check=lambda r: as_user(r, self.user) and has(r, {}))

    def write_in_parallel(self) -> None:
        """Write different keys at the same time; every acknowledged write must persist."""
        changes = [{f"key{n}": random.randrange(10**6)} for n in range(PARALLEL)]
        self.run_in_parallel(self.write, changes)

    def write(self, change: dict[str, Any]) -> None:
        """Replace one key."""
        self.call(
            "PATCH",
            "/session",
            change,
            name="write",
            check=lambda r: as_user(r, self.user) and has(r, change),
        )
        self.expected |= change

    def count_in_parallel(self) -> None:
        """Increment a counter at the same time; every increment must count."""
        self.run_in_parallel(lambda _: self.count(), range(PARALLEL))
        self.expected["counter"] = self.expected.get("counter", 0) + PARALLEL

    def count(self) -> None:
        """Add one; the result must be one of the next `PARALLEL` numbers."""
        before = self.expected.get("counter", 0)
        self.call(
            "POST",
            "/session/increment",
            {"key": "counter", "by": 1},
            name="count",
            check=lambda r: before < r["value"] <= before + PARALLEL,
        )

    def read_back(self) -> None:
        """Expect all acknowledged data, and nothing else."""
        self.call(
            "GET",
            "/session",
            name="read",
            check=lambda r: as_user(r, self.user) and r["data"] == self.expected,
        )

    def log_out(self) -> None:
        """Log out, then use the old cookie: the requests are anonymous and write nothing."""
        old = session_cookie(self)
        self.call("POST", "/logout", {}, name="log out", expect=204)
        if session_cookie(self) is not None:
            raise Mismatch("the cookie still exists after the logout")
        stale = {"Cookie": f"{old.name}={old.value}"} if old else {}
        self.call(
            "PATCH",
            "/session",
            {"late": 1},
            name="write after logout",
            expect=409,
            headers=stale,
            check=lambda r: r["error"]["code"] == "session_ended",
        )
        self.client.cookiejar.clear()
        self.call(
            "GET",
            "/session",
            name="read after logout",
            headers=stale,
            check=lambda r: as_user(r, None) and has(r, {}) and "late" not in r["data"],
        )

    def run_in_parallel(self, work: Any, items: Any) -> None:
        """Run *work* on each of *items* at the same time; raise Mismatch if one fails."""
        running = [gevent.spawn(work, item) for item in items]
        gevent.joinall(running)
        if errors := [each.exception for each in running if each.exception]:
            raise Mismatch(str(errors[0]))

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        name: str,
        check: Any = None,
        expect: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send one request; a wrong status, or a body that *check* rejects, is a failure."""
        with self.client.request(
            method, path, json=body, name=name, headers=headers or {}, catch_response=True
        ) as response:
            if response.status_code != expect:
                response.failure(f"{name}: status {response.status_code} instead of {expect}")
                raise Mismatch(name)
            if check is not None and not check(response.json()):
                response.failure(f"{name}: wrong user, or acknowledged data is missing: {response.text}")
                raise Mismatch(name)
            # Otherwise locust counts an expected 409 as a failure.
            response.success()


def as_user(response: dict[str, Any], user: str | None) -> bool:
    """Whether the response is for *user*."""
    return response.get("user", "missing") == user


def has(response: dict[str, Any], data: dict[str, Any]) -> bool:
    """Whether the session holds at least *data*."""
    return all(response["data"].get(key) == value for key, value in data.items())


def session_cookie(user: SiteUser) -> Cookie | None:
    """Return the session cookie of the user."""
    return next((c for c in user.client.cookiejar if c.name.endswith("id")), None)
