"""Certificates of a CA that only the tests trust, as files like those of an operator."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives import serialization

from stormcellar.private_files import replace_private


class Files(NamedTuple):
    """A certificate with its chain, its key, and the CA's own certificate."""

    certificate: Path
    key: Path
    authority: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """The command line options of the server for these files."""
        return f"--tls-cert={self.certificate}", f"--tls-key={self.key}"

    def client(self, **limits: ssl.TLSVersion) -> ssl.SSLContext:
        """Return a client context that trusts this CA; *limits* are attributes such as `maximum_version`."""
        context = ssl.create_default_context(cafile=self.authority)
        for name, version in limits.items():
            setattr(context, name, version)
        return context


class Authority:
    """A CA that writes each new certificate to the same files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.files = Files(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.files.authority)

    def issue(self, *names: str, days: tuple[float, float] = (-1, 30), phrase: str | None = None) -> Files:
        """Write a new certificate and key for *names*, by default those of loopback.

        Args:
            days: Start and end of validity, in days from now.
            phrase: The passphrase of the key file.
        """
        now = datetime.datetime.now(datetime.UTC)
        start, end = (now + datetime.timedelta(days=each) for each in days)
        issued = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1", "::1")), not_before=start, not_after=end
        )
        self.files.certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        replace_private(self.files.key, _encrypted(issued.private_key_pem.bytes(), phrase).decode())
        return self.files


def _encrypted(key: bytes, phrase: str | None) -> bytes:
    if phrase is None:
        return key
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(phrase.encode()),
    )
