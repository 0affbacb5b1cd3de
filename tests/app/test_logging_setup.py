"""The set-up of logging: what each level shows, the log as JSON, and what is redacted."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import select
import subprocess
import sys
from contextlib import suppress

import pytest

from stormcellar.app import logging_setup
from tests.support.running import ROOT

DEBUGGING = """
import logging
from stormcellar.app import logging_setup
logging_setup.set_up("debug")
logging.getLogger("pymongo.command").debug("what a driver stores")
logging.getLogger("pymongo").info("a driver's news")
logging.getLogger("stormcellar.sessions").debug("ours")
logging.getLogger("tornado.general").info("Malformed HTTP message from %s: %s", "1.2.3.4", "id=secret")
"""


def test_debugging_shows_our_own_lines_and_not_what_drivers_store() -> None:
    """At level debug PyMongo would write out every record; its lines below info stay out."""
    done = subprocess.run([sys.executable, "-c", DEBUGGING], capture_output=True, text=True, check=True)

    lines = [line.split(" ", 2)[2] for line in done.stderr.splitlines()]
    assert lines == [
        "pymongo a driver's news",
        "stormcellar.sessions ours",
        "tornado.general Malformed HTTP message (details withheld)",
    ]


def test_redacting_twice_changes_nothing() -> None:
    """However often the log is set up there is one filter."""
    logging_setup.redact()
    logging_setup.redact()

    filters = logging.getLogger("tornado.general").filters
    assert len([each for each in filters if isinstance(each, logging_setup.RedactMalformed)]) == 1


LOGGING = """
import logging
from stormcellar.app import logging_setup
logging_setup.set_up("debug", "json")
log = logging.getLogger("stormcellar.test")
log.warning("two\\nlines %s \\u2028", "x")
try:
    raise ValueError("boom")
except ValueError:
    log.exception("broken")
logging.getLogger("tornado.general").info("Malformed HTTP message from %s: %s", "1.2.3.4", "id=secret")
logging.getLogger("tornado.application").error("theirs")
"""


def test_every_line_is_one_object() -> None:  # I3
    """Ours and Tornado's, with the trace of an exception inside a field; secrets are withheld as ever."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True, cwd=ROOT
    )

    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(each["level"], each["logger"], each["message"]) for each in found] == [
        ("warning", "stormcellar.test", "two\nlines x \u2028"),
        ("error", "stormcellar.test", "broken"),
        ("info", "tornado.general", "Malformed HTTP message (details withheld)"),
        ("error", "tornado.application", "theirs"),
    ]
    assert found[1]["exception"].endswith("ValueError: boom")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"]) for each in found)
    assert [list(each)[:4] for each in found] == [["time", "level", "logger", "message"]] * 4


UNREAD = """
import logging, sys
from stormcellar.app import logging_setup
from stormcellar.app.audit_log import AuditLog
from stormcellar.events import Event, Kind
logging_setup.set_up("info")
audit = AuditLog(None)
for line in sys.stdin:
    logging.getLogger("stormcellar.test").info(line.strip())
    audit(Event(Kind.RELOADED, at_ms=0))
    print("done", flush=True)
"""


def test_nobody_waits_for_the_reader_of_the_log() -> None:
    """While nobody reads standard error, lines and events are lost; then a line says how many."""
    reader, writer = os.pipe()
    # Opened again: O_NONBLOCK belongs to what is opened, and the program must not get it.
    filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(filler, b"\n"):
            pass
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        os.close(writer)
        os.close(filler)
        answers = []
        for line in ("one", "two", "three"):
            program.stdin.write(line + "\n")
            program.stdin.flush()
            answers.append(bool(select.select([program.stdout], [], [], 20)[0]) and program.stdout.readline())
            if line == "two":
                drained = os.read(reader, 1 << 20)
        program.stdin.close()
    with open(reader) as log:
        lines = log.read().splitlines()

    assert answers == ["done\n"] * 3
    assert drained.strip() == b""
    assert [re.sub(r"^\S+ ", "", line) for line in lines[:2]] == [
        "WARNING stormcellar 4 lines of the log were lost: standard error could not be written to",
        "INFO stormcellar.test three",
    ]
    assert json.loads(lines[2])["event"] == "reloaded"


MALFORMED = """
import logging, sys
from stormcellar.app import logging_setup
logging_setup.set_up("info", sys.argv[1])
log = logging.getLogger("stormcellar.test")
log.warning("%d items", "secret")
log.warning("fields", extra={"fields": {"size": b"secret"}})
log.warning("last")
sys.stderr.close()
log.warning("nobody reads this")
print("done")
"""


@pytest.mark.parametrize(("form", "count"), [("text", 1), ("json", 2)])
def test_record_that_cannot_be_formatted_harms_nobody(form: str, count: int) -> None:
    """The code that logs goes on, also when standard error is closed, and a line says which logger it is."""
    done = subprocess.run(
        [sys.executable, "-c", MALFORMED, form], capture_output=True, text=True, check=True, cwd=ROOT
    )

    lines = done.stderr.splitlines()
    told = [line for line in lines if "a record of the logger 'stormcellar.test' could not be" in line]
    assert (len(lines), len(told), "secret" in done.stderr, done.stdout) == (3, count, False, "done\n")


LONG = """
import logging, sys
from stormcellar.app import logging_setup
logging_setup.set_up("info")
log = logging.getLogger("stormcellar.test")
log.warning("A" * 20_000)
print("cut off", flush=True)
sys.stdin.readline()
log.warning("next")
"""


def test_line_that_was_cut_off_does_not_continue_in_the_next() -> None:
    """A pipe of 8 KiB takes a part of the long line; that part ends before the next line begins."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer, text=True
    ) as program:
        os.close(writer)
        assert program.stdin is not None and program.stdout is not None
        assert program.stdout.readline() == "cut off\n"
        part = os.read(reader, 1 << 20)
        program.stdin.close()
    with open(reader) as log:
        rest = log.read()

    assert len(part) == 8192
    first, *lines = (part.decode() + rest).splitlines()
    assert first.endswith("AAA")
    assert [re.sub(r"^\S+ ", "", line) for line in lines] == [
        "WARNING stormcellar 1 line of the log was lost: standard error could not be written to",
        "WARNING stormcellar.test next",
    ]
