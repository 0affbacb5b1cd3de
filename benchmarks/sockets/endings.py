"""Each way to end a session, and how soon the client of its socket sees the close frame."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.sockets.client import Answer, Requests
from benchmarks.sockets.site import Open, Outcome, Pace, Site
from stormcellar.accounts.account_file import Account, AccountFile
from stormcellar.accounts.passwords import PasswordChecker

SESSION_OVER, GOING_AWAY = 4401, 1001
USERS_WITH_ACCOUNTS, DISABLED = 20, 5
SETTLED_S = 0.5
"""The pause before the first end: the check of each new socket is over by then."""


def _closed_s(each: Open) -> float:
    return each.socket.closed_s or float("nan")


# --- ended by a request, one after the other ---

End = Callable[[Site, Requests, Open], Awaitable[Answer]]


async def _logout(site: Site, requests: Requests, ended: Open) -> Answer:
    return await requests.get("/logout", ended.cookie)


async def _replace(site: Site, requests: Requests, ended: Open) -> Answer:
    return await requests.get("/login", ended.cookie)


async def _revoke(site: Site, requests: Requests, ended: Open) -> Answer:
    _, cookie = await site.start(requests, ended.user)
    return await requests.get(f"/revoke?handle={ended.handle}", cookie)


def by_request(end: End) -> Callable[[Site, Pace], Awaitable[Outcome]]:
    """Return a measurement that ends one session after the other, through each process in turn."""

    async def measure(site: Site, pace: Pace) -> Outcome:
        outcome, answers = Outcome(), []
        await site.fill(pace.sockets)
        await asyncio.sleep(SETTLED_S)
        ending = site.take(pace.ends)
        began_s = time.monotonic()
        for number, each in enumerate(ending):
            # The socket of every other pair is on the same process as the request that ends it.
            requests = site.requests[number // 2 % len(site.requests)]
            bare = await requests.get("/bare")
            outcome.bare_s.append(bare.answered_s - bare.sent_s)
            # Or the close frame would be the first thing that the server sends, and never wait for Nagle.
            each.socket.say()
            answers.append(await end(site, requests, each))
            await asyncio.sleep(max(0.0, began_s + (number + 1) / pace.per_s - time.monotonic()))
        await site.judge(ending, outcome, code=SESSION_OVER, patience_s=pace.patience_s)
        pairs = [
            (each, answer)
            for each, answer in zip(ending, answers, strict=True)
            if each.socket.closed_s is not None
        ]
        outcome.from_answer_s = [_closed_s(each) - answer.answered_s for each, answer in pairs]
        outcome.from_request_s = [_closed_s(each) - answer.sent_s for each, answer in pairs]
        return outcome

    return measure


# --- many at once ---


async def everywhere(site: Site, pace: Pace) -> Outcome:
    """End all sessions of one user by one request; as many sockets of others stay open."""
    await site.fill(pace.sockets)
    return await sign_out(site, *await open_many(site, pace.sockets), patience_s=pace.patience_s)


async def open_many(site: Site, count: int) -> tuple[list[Open], str]:
    """Open sockets of one user, each with a session of its own; return them and the cookie of one more."""
    others, site.open = site.open, []
    opened = await site.fill(count, user="many")
    site.open = others
    _, cookie = await site.start(site.requests[0], "many")
    await asyncio.sleep(SETTLED_S)
    return opened, cookie


async def sign_out(site: Site, ending: Sequence[Open], cookie: str, *, patience_s: float) -> Outcome:
    """End all sessions of a user but the one with this *cookie*."""
    outcome = Outcome()
    answer = await site.requests[0].get("/revoke_others", cookie)
    await site.judge(ending, outcome, code=SESSION_OVER, patience_s=patience_s)
    outcome.from_answer_s = _since(ending, answer.answered_s)
    outcome.from_request_s = _since(ending, answer.sent_s)
    outcome.after_all_s = max(outcome.from_answer_s, default=None)
    return outcome


async def account(site: Site, pace: Pace, file: Path) -> Outcome:
    """Disable an account, as the command line does in another process."""
    outcome, accounts = Outcome(), AccountFile(file)
    await site.fill(pace.sockets)
    await asyncio.sleep(SETTLED_S)
    for number in range(DISABLED):
        user = account_name(number)
        ending = [each for each in site.open if each.user == user]
        site.open = [each for each in site.open if each.user != user]
        accounts.replace(user, _disabled, clock=time.time)
        disabled_s = time.time()
        await site.judge(ending, outcome, code=SESSION_OVER, patience_s=pace.patience_s)
        outcome.from_answer_s += _since(ending, disabled_s)
    return outcome


def account_name(number: int) -> str:
    """Return the user of a session when there are accounts."""
    return f"user{number % USERS_WITH_ACCOUNTS}"


def make_accounts(file: Path) -> None:
    """Write an account file with the users of `account_name`."""
    hashed = PasswordChecker().form.hash_of_nothing()
    AccountFile(file).edit(
        lambda accounts: accounts.update(
            {account_name(number): Account(hashed, 0, id="1") for number in range(USERS_WITH_ACCOUNTS)}
        )
    )


def _disabled(found: Account | None) -> Account:
    assert found is not None
    return replace(found, disabled=True)


async def drain(site: Site, pace: Pace, pids: Sequence[int]) -> Outcome:
    """Stop the server processes."""
    outcome = Outcome()
    await site.fill(pace.sockets)
    await asyncio.sleep(SETTLED_S)
    ending, site.open = site.open, []
    stopped_s = time.time()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    await site.judge(ending, outcome, code=GOING_AWAY, patience_s=pace.patience_s)
    outcome.from_request_s = _since(ending, stopped_s)
    return outcome


# --- ended by time ---


async def expiry(site: Site, pace: Pace, *, query: str = "") -> Outcome:
    """Let sessions expire; the times are from the instant at which each of them does."""
    outcome = Outcome()
    others, site.open = site.open, []
    ending = await site.fill(pace.ends, query=query)
    site.open = others
    left_s = max(each.over_ms for each in ending) / 1000 - time.time()
    await site.judge(ending, outcome, code=SESSION_OVER, patience_s=left_s + pace.patience_s)
    outcome.from_answer_s = [
        _closed_s(each) - each.over_ms / 1000 for each in ending if each.socket.closed_s is not None
    ]
    return outcome


def _since(ended: Sequence[Open], then_s: float) -> list[float]:
    return [_closed_s(each) - then_s for each in ended if each.socket.closed_s is not None]


ONE_BY_ONE = {
    "logout": by_request(_logout),
    "revoke": by_request(_revoke),
    "sign in again": by_request(_replace),
}
