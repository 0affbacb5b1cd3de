"""What can change while the server runs, on SIGHUP: signing keys, certificate, the audit log's file."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from stormcellar.app.audit_log import AuditLog
from stormcellar.private_files import describe
from stormcellar.runtime.settings import Settings
from stormcellar.runtime.signing_key_file import read_keys
from stormcellar.runtime.tls import KeyPair, valid_until

log = logging.getLogger("stormcellar")


@dataclass
class Reloadable:
    """The signing keys, the TLS context and the audit log in use.

    Made before any process is forked, so that one that takes another's place begins with what the others
    have, whatever has become of the files.
    """

    settings: Settings
    keys: list[str] = field(repr=False)
    tls: ssl.SSLContext | None
    audit: AuditLog

    def reload(self) -> list[str]:
        """Read everything again; what will not do is logged in a line, and the one in use stays.

        Returns:
            The names of what was read: `keys`, `certificate`, `audit log`.
        """
        return [name for name, step in self._steps.items() if self._is_done(name, step)]

    def _is_done(self, name: str, step: Callable[[Reloadable], None]) -> bool:
        try:
            step(self)
        except (OSError, ValueError) as exc:
            log.error("%s unchanged: %s", name, describe(exc))
            return False
        return True

    def _reload_keys(self) -> None:
        self.keys = read_keys(self.settings.secret_file)

    def _reload_certificate(self) -> None:
        self.tls = load_tls(self.settings)

    def _reopen_audit_log(self) -> None:
        self.audit.reopen()

    _steps: ClassVar[Mapping[str, Callable[[Reloadable], None]]] = {
        "keys": _reload_keys,
        "certificate": _reload_certificate,
        "audit log": _reopen_audit_log,
    }


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context that *settings* ask for, if any; warn of a certificate that is not valid now.

    Raises:
        ValueError, OSError: See `KeyPair.load`.
    """
    pair = key_pair(settings)
    if pair is None:
        return None
    context = pair.load()
    try:
        valid_until(context, pair.certificate)
    except ValueError as exc:
        log.warning("browsers will not accept %s: %s", pair.certificate, exc)
    return context


def key_pair(settings: Settings) -> KeyPair | None:
    """Return where certificate and key are; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return KeyPair(settings.tls_cert, settings.tls_key, settings.tls_key_password_file)
