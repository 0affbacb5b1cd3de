"""`doctor` and the start on stores that are set up wrongly: each says what it is and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.world import PASSWORD, World, running_world, told_by


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every server that a row of the table needs."""
    with running_world(tmp_path_factory) as running:
        yield running


# The URL, the fields of `World` in braces; what is wrong, or two texts with ` | ` between; a part of the
# advice; status of `serve`, None if it starts and waits for the store.
ROWS: list[tuple[str, str, str, int | None]] = [
    # --- Redis: address and network ---
    ("redis://127.0.0.1:{closed}", "nothing accepts connections at the address", "host and port", None),
    (
        "redis+cluster://127.0.0.1:{closed}",
        "nothing accepts connections at the address",
        "host and port",
        None,
    ),
    ("redis://nohost.invalid", "the host name of the store is not known", "DNS", None),
    ("redis://127.0.0.1:{silent}", "the store does not reply in time", "--store-timeout", None),
    ("redis://127.0.0.1:{slow_redis}", "the store does not reply in time", "are not too short", None),
    ("redis+unix:///nonexistent/hunter2.sock", "does not exist", "check the path", None),
    ("unix:///nonexistent/hunter2.sock", "does not exist", "check the path", None),
    ("unix://{closed_socket}", "nothing accepts connections at the address", "start the store", None),
    ("valkey://127.0.0.1:{closed}", "nothing accepts connections at the address", "host and port", None),
    ("redis://127.0.0.1:{mongo}", "closes the connection without a reply", "port is that of the store", None),
    # --- Redis: credentials ---
    ("redis://127.0.0.1:{locked}", "requires a password, and the URL has none", "redis://user:pass", 2),
    ("redis://:wrong-hunter2@127.0.0.1:{locked}", "does not accept the user and password", "correct them", 2),
    ("redis://nobody:hunter2@127.0.0.1:{locked}", "does not accept the user and password", "exists", 2),
    ("redis://:hunter2@127.0.0.1:{redis}", "has a password, but Redis has none", "requirepass", 2),
    ("redis+cluster://127.0.0.1:{locked}", "requires a password, and the URL has none", "redis://user", 2),
    ("redis://127.0.0.1:{protected}", "is in protected mode", "set a password", 2),
    ("redis://:hunter2/x@127.0.0.1:{redis}", "", "percent-encode", 2),
    ("redis://:hunter2@x@127.0.0.1:{locked}", "does not accept", "percent-encode", 2),
    # --- Redis: what it is ---
    ("redis://127.0.0.1:{redis}/99", "no database with the number in the URL", "such as 0", 2),
    ("redis://127.0.0.1:{cluster}/0", "is a node of a cluster", "redis+cluster://", 2),
    ("redis://127.0.0.1:{cluster}/1", "is a node of a cluster", "redis+cluster://", 2),
    ("redis+cluster://127.0.0.1:{redis}", "is not a node of a cluster", "redis://", 2),
    ("redis+cluster://127.0.0.1:{cluster}/1", "", "only database 0", 2),
    ("redis://127.0.0.1:{sentinel}", "does not have a command that sessions need", "Sentinel", 2),
    ("redis+sentinel://127.0.0.1:{redis}/main", "a server in the URL is not a Sentinel", "26379", 2),
    ("redis+sentinel://127.0.0.1:{sentinel}", "", "the name of the service", 2),
    (
        "redis+sentinel://127.0.0.1:{sentinel}/hunter2",
        "the Sentinels know no primary of the service in the URL",
        "SENTINEL MASTERS",
        None,
    ),
    (
        "redis+sentinel://127.0.0.1:{closed}/main",
        "Sentinels in the URL cannot be reached",
        "hosts and ports",
        None,
    ),
    (
        "redis://:hunter2@127.0.0.1:{locked}?wait=1",
        "0 of the 1 replicas that ?wait= asks",
        "start the replicas",
        None,
    ),
    ("redis://127.0.0.1:{redis}?wait=hunter2", "", "a number of replicas", 2),
    ("redis://127.0.0.1:{renamed}", "does not have a command that sessions need", "command names", 2),
    ("redis://127.0.0.1:{replica}", "is a replica, which is read-only", "address of the primary", None),
    ("redis://127.0.0.1:{loading}", "is loading its data", "wait", None),
    ("redis://127.0.0.1:{says_max_clients}", "accepts no more connections", "maxclients", None),
    # --- Redis: TLS ---
    (
        "rediss://127.0.0.1:{tls}",
        "certificate of the store is not from a trusted authority",
        "ssl_ca_certs",
        None,
    ),
    ("valkeys://127.0.0.1:{tls}", "not from a trusted authority", "ssl_ca_certs", None),
    ("rediss://127.0.0.1:{tls}?ssl_ca_certs={other}", "not from a trusted authority", "ssl_ca_certs", None),
    (
        "rediss://127.0.0.1:{expired}?ssl_ca_certs={certificate}",
        "certificate of the store has expired",
        "renew",
        None,
    ),
    ("rediss://127.0.0.1:{misnamed}?ssl_ca_certs={certificate}", "is for another host name", "host", None),
    ("rediss://127.0.0.1:{tls}?ssl_ca_certs=/nonexistent/hunter2", "does not exist", "check the path", None),
    ("redis://127.0.0.1:{tls}", "closes the connection without a reply", "TLS", None),
    ("rediss://127.0.0.1:{redis}", "does not reply in time", "TLS", None),
    # --- SQLite ---
    ("sqlite:/nonexistent/hunter2.db", "the directory of the SQLite file does not exist", "create it", 2),
    ("sqlite:/dev/null", "is not a regular file", "another file", 2),
    ("sqlite:sessions.db?hunter2=1", "", "no parameters", 2),
    # --- MongoDB ---
    ("mongodb://127.0.0.1:{closed}", "nothing accepts connections at the address", "host and port", None),
    ("mongodb://nohost.invalid", "the host name of the store is not known", "DNS", None),
    ("mongodb+srv://u:hunter2@nohost.invalid/db", "DNS gives no servers for the name", "dig SRV", None),
    ("mongodb+srv://u:hunter2@nohost.invalid:27017", "", "percent-encode the user", 2),
    ("mongodb://127.0.0.1:{silent}", "the store does not reply in time", "--store-timeout", None),
    ("mongodb://127.0.0.1:{slow_mongo}", "the store does not reply in time", "are not too short", None),
    (
        "mongodb://127.0.0.1:{mongo_locked}",
        "requires a user and a password, and the URL has none",
        "mongodb://u",
        2,
    ),
    (
        "mongodb://root:wrong-hunter2@127.0.0.1:{mongo_locked}/?authSource=admin",
        "does not accept",
        "correct",
        2,
    ),
    ("mongodb://nobody:hunter2@127.0.0.1:{mongo_locked}/?authSource=admin", "does not accept", "correct", 2),
    ("mongodb://root:hunter2@127.0.0.1:{mongo_locked}/stormcellar", "does not accept", "authSource=admin", 2),
    ("mongodb://root:hunter2/x@127.0.0.1:{mongo_locked}", "", "percent-encode", 2),
    ("mongodb://root:hunter2@x@127.0.0.1:{mongo_locked}", "", "percent-encode", 2),
    (
        "mongodb://127.0.0.1:{mongo_rs}/?replicaSet=hunter2",
        "belongs to the replica set in the URL",
        "replicaSet",
        None,
    ),
    (
        "mongodb://127.0.0.1:{mongo}/?replicaSet=rs0",
        "belongs to the replica set in the URL",
        "leave it out",
        None,
    ),
    ("mongodb://127.0.0.1:{mongo}/?tls=true", "does not use TLS at this port", "without TLS", None),
    ("mongodb://127.0.0.1:{tls}/?tls=true", "is not from a trusted authority", "tlsCAFile", None),
    # Redis waits for the end of a line, unless the random number of the request contains one.
    (
        "mongodb://127.0.0.1:{redis}",
        "the store does not reply in time | the server closes the connection without a reply",
        "that both sides use TLS",
        None,
    ),
    (
        "mongodb://127.0.0.1:{mongo}/conflict",
        "the index 'expires' of the collection 'stormcellar_sessions' differs from ours in: key",
        "drop it",
        2,
    ),
]


# PyMongo leaves a socket open if its client is closed while it connects.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("no_settings", "no_listening")
@pytest.mark.parametrize(("url", "what", "advice", "status"), ROWS, ids=[row[0] for row in ROWS])
def test_doctor_and_the_start_say_what_it_is_and_what_to_do(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    world: World,
    url: str,
    what: str,
    advice: str,
    status: int | None,
) -> None:  # L8
    """One line has the fault and the remedy, no secret, and no value that is not valid."""
    given = url.format(**world._asdict())
    arguments = ("--data-dir", str(tmp_path), "--port=0", f"--store={given}", "--store-timeout=1s")

    ended, report = told_by(capsys, "doctor", *arguments)
    caplog.clear()
    begun, printed = told_by(capsys, "serve", *arguments)
    log = "\n".join([printed, *caplog.messages])

    lines = [line for line in report.splitlines() if not line.startswith("ok")]
    told = [line for line in log.splitlines() if advice in line]
    assert ended == 1 or (ended, what) == (2, "")
    assert begun == (status or 0)
    assert len(lines) == len(told) == 1
    for line in (lines[0], told[0]):
        assert any(text in line for text in what.split(" | "))
    assert advice in lines[0]
    assert len(lines[0]) < 330
    for secret in (PASSWORD, "nohost", "nonexistent", "Operation not permitted", "Traceback"):
        assert secret not in report + log
