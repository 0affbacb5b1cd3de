"""Run the load test against the standalone server on each store in turn: `make load`."""

from __future__ import annotations

import argparse
import csv
import os
import secrets
import subprocess
import sys
import tempfile

from benchmarks.harness import ROOT, plots
from benchmarks.harness.databases import AND_SQLITE, backend
from benchmarks.harness.login_server import add_account, run_login_server

REPORTS = ROOT / "var" / "load"
ACCOUNTS = 10


def main() -> int:
    """Measure each store; return 1 if a request failed."""
    options = _options()
    REPORTS.mkdir(parents=True, exist_ok=True)
    rows = [_measure(store, options) for store in options.store]
    print(f"\n{options.users} users, {options.seconds} s each; milliseconds")
    print(f"{'store':8}{'requests/s':>12}{'p50':>8}{'p95':>8}{'p99':>8}{'requests':>10}{'failures':>10}")
    for row in rows:
        print(
            f"{row['store']:8}{float(row['Requests/s']):12.0f}{row['50%']:>8}{row['95%']:>8}{row['99%']:>8}"
            f"{row['Request Count']:>10}{row['Failure Count']:>10}"
        )
    _draw(rows, options)
    print(f"reports: {REPORTS.relative_to(ROOT)}/*.html, load.png")
    return int(any(int(row["Failure Count"]) for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("--users", type=int, default=20, help="concurrent users (default: 20)")
    parser.add_argument("--seconds", type=int, default=30, help="per store (default: 30)")
    parser.add_argument("--store", nargs="+", choices=AND_SQLITE, default=AND_SQLITE, help="default: all")
    return parser.parse_args()


def _measure(store: str, options: argparse.Namespace) -> dict[str, str]:
    with backend(store) as url, tempfile.TemporaryDirectory() as data_dir:
        password = secrets.token_urlsafe(12)
        names = [f"load{n}" for n in range(ACCOUNTS)]
        for name in names:
            add_account(name, password, data_dir)
        with run_login_server(f"--store={url}", data_dir=data_dir) as base:
            _locust(store, base, {"LOAD_USERS": ",".join(names), "LOAD_PASSWORD": password}, options)
    return _aggregated(store)


def _locust(store: str, base: str, environment: dict[str, str], options: argparse.Namespace) -> None:
    report = REPORTS / store
    command = [
        *(sys.executable, "-m", "locust", "-f", "locustfile.py", "--headless", "--only-summary"),
        *("--host", base, "--users", str(options.users), "--spawn-rate", str(options.users)),
        *("--run-time", f"{options.seconds}s", "--csv", str(report), "--html", f"{report}.html"),
        # Pending requests may finish at the end, so that none counts as failed.
        *("--stop-timeout", "10", "--loglevel", "WARNING"),
    ]
    print(f"--- {store}: {base}", flush=True)
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False)


def _aggregated(store: str) -> dict[str, str]:
    with (REPORTS / f"{store}_stats.csv").open(newline="") as file:
        total = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    return {**total, "store": store}


def _draw(rows: list[dict[str, str]], options: argparse.Namespace) -> None:
    results = [
        {
            "store": row["store"],
            "rate": float(row["Requests/s"]),
            **{f"p{n}": float(row[f"{n}%"]) for n in (50, 95, 99)},
            "requests": int(row["Request Count"]),
            "failures": int(row["Failure Count"]),
        }
        for row in rows
    ]
    title = f"The standalone server: {options.users} concurrent users, {options.seconds} s per store"
    plots.load(results, title, REPORTS / "load.png")


if __name__ == "__main__":
    raise SystemExit(main())
