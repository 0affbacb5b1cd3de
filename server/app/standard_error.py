"""Standard error, written to without waiting for its reader."""

from __future__ import annotations

import logging
import os
import select
import sys
from contextlib import suppress


class StandardError:
    """Writes whole lines, and counts those that are lost: nobody reads them, or the disk is full.

    A write to a full pipe would stop the event loop, and with it every request, until somebody reads.
    """

    def __init__(self) -> None:
        self.lost = 0
        """How many lines were lost since `report` had success."""
        self._is_cut_off = False
        """Whether the last line was written in part, so that the next one must not continue it."""

    def write(self, line: str) -> None:
        """Write *line*, or count it as lost."""
        self.lost += not self._write(line)

    def report(self, line: str) -> None:
        """Write *line*, which says how many lines were lost."""
        if self._write(line):
            self.lost = 0

    def _write(self, line: str) -> bool:
        """Return whether all of *line* was written."""
        text = ("\n" if self._is_cut_off else "") + line
        data = text.encode(errors="backslashreplace")
        written = _write(data)
        if written:
            self._is_cut_off = data[written - 1 : written] != b"\n"
        return written == len(data)


STANDARD_ERROR = StandardError()


class StandardErrorHandler(logging.Handler):
    """Writes log records; the first one that can be written after a loss says how many lines were lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if lost := STANDARD_ERROR.lost:
            lines = "1 line of the log was lost" if lost == 1 else f"{lost} lines of the log were lost"
            message = f"{lines}: standard error could not be written to"
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


def _write(data: bytes) -> int:
    """Write as much of *data* as standard error takes at once, and return how many bytes that were."""
    if sys.stderr is None:
        return 0
    written = 0
    writable = select.poll()
    # ValueError: it is closed.
    with suppress(OSError, ValueError):
        writable.register(sys.stderr.fileno(), select.POLLOUT)
        while written < len(data) and writable.poll(0):
            # A pipe that is writable takes this many bytes without a wait. Lines of other processes may come
            # in between, but they are short: Linux puts them into the last page (fs/pipe.c, pipe_write).
            written += os.write(sys.stderr.fileno(), data[written : written + select.PIPE_BUF])
    return written
