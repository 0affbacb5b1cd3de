"""TLS: the server's context, made of a certificate and a private key that nobody else may read."""

from __future__ import annotations

import datetime
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stormcellar.private_files import read_private

# For TLS 1.2; those of 1.3 are all fit. Source: RFC 9325, 4.2: forward secrecy and AEAD, nothing else.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True)
class KeyPair:
    """Where the certificate with its chain is, and its private key, and its pass phrase if it has one."""

    certificate: Path
    key: Path
    password_file: Path | None = None

    def load(self) -> ssl.SSLContext:
        """Return a context that serves TLS 1.2 and 1.3 with the files as they are now.

        Raises:
            ValueError: One line: a file is not what it should be, others may read it, or the two do not fit.
            OSError: One cannot be read.
        """
        _require_certificate(self.certificate)
        read_private(self.key)
        password = None if self.password_file is None else _first_line(self.password_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a function OpenSSL would ask for a pass phrase on the terminal.
            context.load_cert_chain(self.certificate, self.key, lambda: self._require(password))
        except ssl.SSLError as exc:
            raise ValueError(self._explained(exc, password)) from None
        return context

    def _require(self, password: bytes | None) -> bytes:
        if password is None:
            raise ValueError(f"{self.key} is encrypted: put its pass phrase in --tls-key-password-file")
        return password

    def _explained(self, error: ssl.SSLError, password: bytes | None) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{self.key} is not the key of {self.certificate}"
        if password is not None:
            return (
                f"{self.key} holds no private key in PEM that the pass phrase of {self.password_file} opens"
            )
        if error.library == "SSL" and error.reason is None:
            return f"{self.key} holds no private key in PEM"
        return f"{self.certificate} will not do: {error.reason}"


def valid_until(context: ssl.SSLContext, certificate: Path) -> datetime.date:
    """Return the last day of the certificate that *context* serves.

    Found out by shaking hands with ourselves, trusting the certificate as such, whoever signed it.

    Raises:
        ValueError: What browsers will hold against the certificate itself: that it has expired, for one.
    """
    client = unverifying_client()
    client.verify_mode = ssl.CERT_REQUIRED
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (ours, theirs, ours, theirs):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as exc:
        raise ValueError(exc.verify_message) from None
    last_s = ssl.cert_time_to_seconds(str((ours.getpeercert() or {})["notAfter"]))
    return datetime.datetime.fromtimestamp(last_s, datetime.UTC).date()


def unverifying_client() -> ssl.SSLContext:
    """Return a context for talking to this very server, whatever its certificate says."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def _require_certificate(path: Path) -> None:
    try:
        # There can be remarks in any encoding around the PEM, which itself is ASCII.
        pem = path.read_bytes().decode("ascii", "ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{path} holds no certificate in PEM") from None


def _first_line(path: Path) -> bytes:
    return read_private(path).partition(b"\n")[0].removesuffix(b"\r")
