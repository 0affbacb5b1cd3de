"""The audit log: a line of JSON for each event, whole, in order, without secrets."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stormcellar.accounts.throttle import Rules
from stormcellar.app.audit_log import AuditLog
from stormcellar.app.edge import Edge
from stormcellar.events import Event, Kind
from stormcellar.stores import StoreUnavailable
from tests.support.browser import token
from tests.support.running import ROOT, Running, get
from tests.support.site import JSON, PASSWORD, OpenSite, Site, session_handle, session_secret

FIELDS = ["time", "event", "handle", "user", "address", "reason"]
AT_MS = 1_900_000_000_123


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a file of JSON lines holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the audit log is to be."""
    return tmp_path / "audit.log"


# --- a line ---


def test_a_line_has_every_field(path: Path) -> None:  # I1
    """UTC with milliseconds, the kind, and the rest as it is or null; always the same fields in one order."""
    log = AuditLog(path)
    log(Event(Kind.AUTHENTICATED, AT_MS, "h" * 22, "alice", "192.0.2.1", "sign-in"))
    log(Event(Kind.RELOADED, AT_MS))
    log.close()

    full, bare = lines(path)
    assert full == {
        "time": "2030-03-17T17:46:40.123Z",
        "event": "authenticated",
        "handle": "h" * 22,
        "user": "alice",
        "address": "192.0.2.1",
        "reason": "sign-in",
    }
    assert [list(full), list(bare)] == [FIELDS, FIELDS]
    assert set(list(bare.values())[2:]) == {None}


HOSTILE = [
    'a"\n{"event": "forged"}',
    "\r\n\x00\x1b[31m",
    "\x7f\x85\u2028\u2029\u202e",
    "\ud800",
    "a" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nobody_writes_a_line_of_their_own(path: Path, text: str) -> None:  # H8 I3
    """Whatever is sent to us stays inside its field, in printable ASCII, cut short."""
    log = AuditLog(path)
    log(Event(Kind.SIGN_IN_FAILED, AT_MS, text, text, text, text))
    log.close()

    [line] = path.read_bytes().splitlines()
    assert line.decode("ascii").isprintable()
    assert json.loads(line)["user"] == text[:200]
    assert len(line) < 5000


# --- the file ---


def test_the_file_is_made_for_its_owner_only(path: Path) -> None:  # I2
    """Mode 0600, whatever the umask; one that exists keeps its mode and its lines."""
    before = os.umask(0)
    try:
        AuditLog(path)(Event(Kind.RELOADED, AT_MS))
    finally:
        os.umask(before)
    mode = path.stat().st_mode & 0o777
    path.chmod(0o640)
    AuditLog(path)(Event(Kind.RELOADED, AT_MS))

    assert (mode, path.stat().st_mode & 0o777, len(lines(path))) == (0o600, 0o640, 2)


def test_a_file_moved_away_is_let_go(path: Path, tmp_path: Path) -> None:
    """Until it is told to reopen it writes to the old file, then to a new one: no line is lost."""
    log = AuditLog(path)
    path.rename(tmp_path / "audit.1")
    log(Event(Kind.CREATED, AT_MS))
    log.reopen()
    log(Event(Kind.REJECTED, AT_MS))

    assert [each["event"] for each in lines(tmp_path / "audit.1")] == ["created"]
    assert [each["event"] for each in lines(path)] == ["rejected"]


def test_a_file_that_cannot_be_reopened_is_kept(path: Path, tmp_path: Path) -> None:
    """The one in use stays in use."""
    log = AuditLog(path)
    path.rename(tmp_path / "audit.1")
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        log.reopen()
    log(Event(Kind.CREATED, AT_MS))

    assert [each["event"] for each in lines(tmp_path / "audit.1")] == ["created"]


def test_a_full_disk_loses_no_line(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the file does not take goes to standard error; that it does not is told once."""
    log = AuditLog(Path("/dev/full"))
    for kind in (Kind.CREATED, Kind.REJECTED):
        log(Event(kind, AT_MS))
    log.close()

    written = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert written == ["created", "rejected"]
    assert [r.getMessage() for r in caplog.records] == [
        "cannot write to /dev/full (No space left on device); events go to standard error"
    ]


def test_without_a_file_it_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Bare lines, so that a collector can tell them from the log's."""
    AuditLog(None)(Event(Kind.CREATED, AT_MS))

    assert json.loads(capfd.readouterr().err)["event"] == "created"


def test_two_processes_write_whole_lines(path: Path) -> None:
    """Each line is one append."""
    script = (
        "import sys; from pathlib import Path; from stormcellar.app.audit_log import AuditLog;"
        "from stormcellar.events import Event, Kind; log = AuditLog(Path(sys.argv[1]));"
        "[log(Event(Kind.CREATED, n, sys.argv[2] * 150)) for n in range(500)]"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name], cwd=ROOT) for name in ("a", "b")
    ]
    assert [each.wait(60) for each in writers] == [0, 0]

    handles = [each["handle"] for each in lines(path)]
    assert (handles.count("a" * 150), handles.count("b" * 150)) == (500, 500)


def test_a_file_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """Status 2 and one line: a server that is to keep an audit log does not run without."""
    with Running(tmp_path, f"--audit-log={tmp_path}/no/audit.log", "--log-level=error") as server:
        assert server.process.wait(30) == 2

    assert server.errors() == "stormcellar: --audit-log: No such file or directory\n"


# --- what is written ---


def kinds(site: Site) -> list[tuple[str, str | None, str | None]]:
    """Return kind, user and reason of what happened at *site*."""
    return [(str(event.kind), event.user, event.reason) for event in site.events]


@pytest.mark.gen_test
async def test_a_visit_is_told_from_end_to_end(open_site: OpenSite, path: Path) -> None:  # I1 I2
    """Each security event of a visit has its line, tied together by the handle, and none holds a secret."""
    site = open_site(rules=Rules(attempts=2))
    log = AuditLog(path)
    site.sessions.events.subscribe(log)
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    for _ in range(3):
        await browser.post_form("/login", xsrf, username="bob", password="hunter2")
    await browser.post_form("/login", xsrf, username="alice", password=PASSWORD)
    handle, secret, cookie = (
        session_handle(site, browser),
        session_secret(site, browser),
        browser.cookies["id"],
    )
    await browser.post_form("/logout", "forged")
    await browser.fetch(
        "POST", "/logout", body=b"{}", headers={"Content-Type": JSON, "Origin": "http://evil"}
    )
    await browser.submit("/", "/logout")
    browser.cookies["id"] = "junk"
    await browser.get("/")
    log.close()

    found = lines(path)
    assert [each["event"] for each in found] == [
        *("sign_in_failed", "sign_in_failed", "sign_in_throttled"),
        *("created", "authenticated", "form_rejected", "origin_rejected", "destroyed", "rejected"),
    ]
    assert {each["handle"] for each in found[3:8]} == {handle}
    assert {each["address"] for each in found} == {"127.0.0.1"}
    text = json.dumps(found)
    for hidden in (secret, cookie, cookie.rpartition("|")[2], xsrf, "hunter2", PASSWORD, "junk"):
        assert hidden not in text


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://evil.example"},
    ],
    ids=["origin", "null", "no URL", "fetch metadata", "a sibling"],
)
async def test_a_request_from_another_site_is_told(headers: dict[str, str], site: Site) -> None:  # I1
    """With and without Origin; what it would have done is not."""
    response = await site.browser().fetch(
        "PATCH", "/session", body=b'{"a": 1}', headers={"Content-Type": JSON, **headers}
    )

    assert response.code == 403
    assert kinds(site) == [("origin_rejected", None, None)]


@pytest.mark.gen_test
async def test_another_refusal_is_no_cross_origin_event(open_site: OpenSite) -> None:
    """A form without its token, a way past the proxy and a traversal are 403 too."""
    site, past = open_site(), open_site(edge=Edge((ipaddress.ip_network("10.0.0.1"),), is_secure=True))
    await site.browser().post_form("/login", "forged", username="a", password="b")
    await site.browser().get("/static/%2e%2e/app.py")
    await past.browser().get("/")

    assert [str(event.kind) for event in site.events] == ["form_rejected"]
    assert past.events == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionError("redis://user:hunter2@10.0.0.1"), "ConnectionError"),
        (ConnectionRefusedError(111, "hunter2"), "Connection refused"),
        (None, "StoreUnavailable"),
    ],
)
async def test_a_failing_store_is_told(cause: Exception | None, reason: str, site: Site) -> None:  # I1 I2
    """With the session that met it and the kind of the fault, never in the driver's words."""
    browser = await site.signed_in()
    handle = session_handle(site, browser)
    error = StoreUnavailable("load")
    error.__cause__ = cause
    site.store.fail["load"] = error
    site.events.clear()
    await browser.get("/")

    assert [(e.kind, e.handle, e.user, e.reason) for e in site.events] == [
        (Kind.STORE_FAILED, handle, None, reason)
    ]


def test_the_page_lists_every_event_and_field() -> None:
    """docs/audit.md has a row for each kind, and names each field."""
    page = (ROOT / "docs" / "audit.md").read_text()

    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == [*FIELDS, *map(str, Kind)]


def test_a_running_server_logs_json(tmp_path: Path) -> None:
    """Access lines have their parts as fields; the audit log is beside them, in the file named."""
    flags = ("--log-format=json", f"--audit-log={tmp_path}/audit.log")
    with Running(tmp_path, *flags) as server:
        base = server.base()
        get(base, "/session?token=hunter2", Cookie="id=junk", X_Forwarded_For="6.6.6.6")
        server.end()

    logged = [json.loads(line) for line in server.errors().splitlines()]
    [access] = [each for each in logged if each["logger"] == "stormcellar.access"]
    assert (access["address"], access["method"], access["path"], access["status"]) == (
        *("127.0.0.1", "GET", "/session"),
        200,
    )
    assert isinstance(access["duration_ms"], float)
    assert "hunter2" not in server.errors()
    assert [(each["event"], each["reason"]) for each in lines(tmp_path / "audit.log")] == [
        ("rejected", "cookie")
    ]


def test_a_torn_line_spoils_no_other(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After a line that found half the space it needed, the next one begins anew."""
    path.touch(0o600)
    # Standard error is a file in this test, with the same limit.
    path.write_text("{}\n" * 1000)
    log = AuditLog(path)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        log(Event(Kind.CREATED, AT_MS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log(Event(Kind.REJECTED, AT_MS))
    log.close()

    torn, whole = path.read_text().splitlines()[1000:]
    assert len(torn) == 20
    assert json.loads(whole)["event"] == "rejected"
    assert json.loads(capfd.readouterr().err)["event"] == "created"
