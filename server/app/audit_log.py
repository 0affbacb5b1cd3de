"""The audit log: one line of JSON for each event of `stormcellar.events`; docs/audit.md lists them."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

from stormcellar.app.standard_error import STANDARD_ERROR
from stormcellar.events import Event
from stormcellar.timestamps import iso_utc

log = logging.getLogger("stormcellar.audit")

_LONGEST = 200


class AuditLog:
    """A subscriber for `SessionManager.events.subscribe` that writes each event as one line.

    Several processes may write to one file: each line is one append.

    Args:
        path: The file, created with mode 0600 if it is missing. None: standard error.

    Raises:
        OSError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_failing = False
        self.reopen()

    def reopen(self) -> None:
        """Open the path again, after log rotation moved the old file away.

        Raises:
            OSError: The path cannot be opened; the open file stays in use.
        """
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __call__(self, event: Event) -> None:
        """Write one line; to standard error if the file cannot be written to."""
        line = _line(event)
        if self._descriptor is None:
            STANDARD_ERROR.write(line)
            return
        # The disk may have filled up in the middle of the last line, so start a new one.
        text = "\n" * self._is_failing + line
        try:
            if os.write(self._descriptor, text.encode()) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._is_failing = False
        except OSError as exc:
            if not self._is_failing:
                log.error("cannot write to %s (%s); events go to standard error", self._path, exc.strerror)
            self._is_failing = True
            STANDARD_ERROR.write(line)


def _line(event: Event) -> str:
    """Return the event as one line of JSON in ASCII: no value that a client sent can start a new line."""
    fields = {
        "time": iso_utc(event.at_ms, timespec="milliseconds"),
        "event": str(event.kind),
        "handle": event.handle,
        "user": event.user,
        "address": event.address,
        "reason": event.reason,
    }
    truncated = {name: value if value is None else value[:_LONGEST] for name, value in fields.items()}
    return json.dumps(truncated).replace("\x7f", "\\u007f") + "\n"
