"""What SIGHUP reloads: the signing keys, the certificate, the audit log's file."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from stormcellar.app.audit_log import AuditLog
from stormcellar.runtime.settings import Settings
from stormcellar.runtime.signing_key_file import read_keys
from stormcellar.runtime.tls import KeyPair, valid_until

log = logging.getLogger("stormcellar")


@dataclass
class Reloadable:
    """The signing keys, the TLS context and the audit log in use.

    Created before any process is forked, so that a restarted process has the same state as the others even if
    the files have changed.
    """

    settings: Settings
    keys: list[str] = field(repr=False)
    tls: ssl.SSLContext | None
    audit: AuditLog

    def reload(self) -> list[str]:
        """Read all files again. If one is not valid, log one line and keep the state in use.

        Returns:
            The names of what was reloaded: `keys`, `certificate`, `audit log`.
        """
        return [name for name, step in self._steps.items() if self._is_reloaded(name, step)]

    def _is_reloaded(self, name: str, step: Callable[[Reloadable], None]) -> bool:
        try:
            step(self)
        except (OSError, ValueError) as exc:
            log.error("%s unchanged: %s", name, self.settings.describe(exc))
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
    """Return the TLS context of *settings*, None without TLS. Warn if the certificate is not valid now.

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
    """Return the paths of certificate and key; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return KeyPair(settings.tls_cert, settings.tls_key, settings.tls_key_password_file)
