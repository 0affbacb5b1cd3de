"""Measure how sign-ins delay other requests, and whether their duration reveals which accounts exist."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from benchmarks.harness.login_server import add_account, disable_account, run_login_server
from stormcellar.accounts.passwords import ARGON2, hash_password

PARALLEL = 30
PROBE_EVERY_S = 0.005
# All sign-ins come from one address, which the throttle would block.
UNTHROTTLED = ("--login-attempts=100000", "--login-attempts-per-address=100000")
# Fewer than the failures after which the throttle slows an account down; a restart clears its counters.
SAMPLES_PER_START = 20


def main() -> int:
    """Print both measurements."""
    options = _options()
    password = secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory() as data_dir:
        for name in ("alice", "disabled"):
            add_account(name, password, data_dir)
        disable_account("disabled", data_dir)
        if options.rounds:
            with run_login_server(*UNTHROTTLED, data_dir=data_dir) as base:
                _show_latency(urlsplit(base).netloc, password, rounds=options.rounds, seconds=options.seconds)
        if options.samples:
            _show_timing(data_dir, password, samples=options.samples)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.sign_in", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="each idle and busy (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement (default: 3)")
    parser.add_argument("--samples", type=int, default=200, help="per kind of failed sign-in (default: 200)")
    return parser.parse_args()


def _sign_in(connection: HTTPConnection, name: str, password: str) -> int:
    body = json.dumps({"username": name, "password": password})
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    connection.request("POST", "/login", body, headers)
    with connection.getresponse() as response:
        response.read()
        return response.status


# --- delay of other requests ---


def _show_latency(address: str, password: str, *, rounds: int, seconds: float) -> None:
    quiet: list[float] = []
    busy: list[float] = []
    count = 0
    with multiprocessing.get_context("spawn").Pool(1) as probe:
        for _ in range(rounds):
            quiet += probe.apply(_probe, (address, seconds))
            with _signing_in(address, password) as count_sign_ins:
                busy += probe.apply(_probe, (address, seconds))
            count += count_sign_ins()
    print(f"GET /healthz, {rounds} rounds of {seconds:g} s each; milliseconds")
    print(f"{'':28}{'p50':>8}{'p99':>8}{'worst':>8}{'requests':>10}")
    for name, samples in (("without sign-ins", quiet), (f"with {PARALLEL} concurrent sign-ins", busy)):
        cuts = statistics.quantiles(samples, n=100)
        figures = "".join(f"{1000 * value:8.1f}" for value in (cuts[49], cuts[98], max(samples)))
        print(f"{name:28}{figures}{len(samples):10}")
    print(f"{count / (rounds * seconds):.0f} sign-ins per second", flush=True)


def _probe(address: str, seconds: float) -> list[float]:
    """Return the duration of each request in seconds."""
    durations_s = []
    until = time.perf_counter() + seconds
    with closing(HTTPConnection(address, timeout=30)) as connection:
        while (start_s := time.perf_counter()) < until:
            connection.request("GET", "/healthz")
            with connection.getresponse() as response:
                response.read()
            durations_s.append(time.perf_counter() - start_s)
            time.sleep(PROBE_EVERY_S)
    return durations_s


@contextmanager
def _signing_in(address: str, password: str) -> Iterator[Callable[[], int]]:
    """Send `PARALLEL` sign-ins at a time; yield a function that returns their number afterwards."""
    is_done = threading.Event()

    def user() -> int:
        count = 0
        with closing(HTTPConnection(address, timeout=30)) as connection:
            while not is_done.is_set():
                if (status := _sign_in(connection, "alice", password)) != 200:
                    raise SystemExit(f"POST /login returned {status}")
                count += 1
        return count

    with ThreadPoolExecutor(PARALLEL) as pool:
        users = [pool.submit(user) for _ in range(PARALLEL)]
        try:
            yield lambda: sum(each.result() for each in users)
        finally:
            is_done.set()


# --- duration of failed sign-ins ---


def _show_timing(data_dir: str, password: str, *, samples: int) -> None:
    attempts = {
        "wrong": ("alice", password + "x"),
        "unknown": ("nobody", password),
        "disabled": ("disabled", password),
    }
    took: dict[str, list[float]] = {kind: [] for kind in attempts}
    for first in range(0, samples, SAMPLES_PER_START):
        with (
            run_login_server(*UNTHROTTLED, data_dir=data_dir) as base,
            closing(HTTPConnection(urlsplit(base).netloc, timeout=30)) as connection,
        ):
            _sign_in(connection, "somebody", password)  # the first sign-in starts threads
            for _ in range(min(SAMPLES_PER_START, samples - first)):
                for kind in random.sample(sorted(attempts), len(attempts)):
                    took[kind].append(_refusal_s(connection, *attempts[kind]))
    hash_s = _hash_s()
    wrong_s = statistics.median(took["wrong"])
    print(f"\nPOST /login, {samples} of each alternately; one hash takes {1000 * hash_s:.1f} ms")
    print(f"{'':12}{'median, ms':>12}{'compared to wrong':>19}")
    for kind, durations_s in took.items():
        median_s = statistics.median(durations_s)
        print(f"{kind:12}{1000 * median_s:12.2f}{100 * (median_s - wrong_s) / hash_s:+18.2f}%")


def _refusal_s(connection: HTTPConnection, name: str, password: str) -> float:
    start_s = time.perf_counter()
    if (status := _sign_in(connection, name, password)) != 401:
        raise SystemExit(f"POST /login with wrong credentials returned {status}")
    return time.perf_counter() - start_s


def _hash_s() -> float:
    stored = hash_password("x")
    took = []
    for _ in range(50):
        start_s = time.perf_counter()
        ARGON2.verify(stored, "x")
        took.append(time.perf_counter() - start_s)
    return statistics.median(took)


if __name__ == "__main__":
    raise SystemExit(main())
