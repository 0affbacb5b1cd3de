"""Standard error, written to without waiting for whoever reads it."""

from __future__ import annotations

import logging
import os
import select
import sys


class StandardError:
    """Writes whole lines, and counts those that are lost: nobody reads them, or the disk is full.

    A write to a full pipe would stop the event loop, and with it every request, until somebody reads.
    """

    def __init__(self) -> None:
        self.lost = 0
        """How many lines were lost since `report` had success."""

    def write(self, line: str) -> None:
        """Write *line*, or count it as lost."""
        self.lost += not _write(line)

    def report(self, line: str) -> None:
        """Write *line*, which says how many lines were lost."""
        if _write(line):
            self.lost = 0


STANDARD_ERROR = StandardError()


class StandardErrorHandler(logging.Handler):
    """Writes log records; the first one that can be written after a loss says how many lines were lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if lost := STANDARD_ERROR.lost:
            message = f"{lost} lines of the log are lost: standard error could not be written to"
            fields = {"name": "stormcellar", "levelno": logging.WARNING, "levelname": "WARNING"}
            STANDARD_ERROR.report(self.format(logging.makeLogRecord({**fields, "msg": message})) + "\n")
        STANDARD_ERROR.write(self._line(record) + "\n")

    def _line(self, record: logging.LogRecord) -> str:
        """Return the line of *record*; if it cannot be formatted, one that says whose record it is."""
        try:
            return self.format(record)
        except Exception:
            # As in the standard library: a wrong call of a logger must not break the code that makes it.
            message = f"a record of the logger {record.name!r} could not be formatted"
            fields = {"name": "stormcellar", "levelno": logging.ERROR, "levelname": "ERROR"}
            return self.format(logging.makeLogRecord({**fields, "msg": message}))


def _write(line: str) -> bool:
    """Return whether all of *line* was written."""
    if sys.stderr is None:
        return False
    left = memoryview(line.encode(errors="backslashreplace"))
    writable = select.poll()
    try:
        writable.register(sys.stderr.fileno(), select.POLLOUT)
        while left and writable.poll(0):
            # A pipe that is writable takes this many bytes without a wait. Lines of other processes may come
            # in between, but they are short: Linux puts them into the last page (fs/pipe.c, pipe_write).
            left = left[os.write(sys.stderr.fileno(), left[: select.PIPE_BUF]) :]
    except (OSError, ValueError):  # ValueError: it is closed
        return False
    return not left
