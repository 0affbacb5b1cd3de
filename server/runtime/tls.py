"""The TLS context of the server, from a certificate and a private key."""

from __future__ import annotations

import datetime
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stormcellar.private_files import read_private, read_regular

# For TLS 1.2: forward secrecy and AEAD only (RFC 9325, 4.2). All ciphers of TLS 1.3 qualify.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True)
class KeyPair:
    """The paths of a certificate with its chain, its private key, and the file with its pass phrase."""

    certificate: Path
    key: Path
    password_file: Path | None = None

    def load(self) -> ssl.SSLContext:
        """Read the files and return a context that serves TLS 1.2 and 1.3.

        Raises:
            ValueError: One line: a file is not valid or is accessible to others, or the two do not match.
            OSError: A file cannot be read.
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
            # Without a function OpenSSL would prompt for a pass phrase on the terminal.
            context.load_cert_chain(self.certificate, self.key, lambda: self._required(password))
        except ssl.SSLError as exc:
            raise ValueError(self._explain(exc, password)) from None
        return context

    def _required(self, password: bytes | None) -> bytes:
        if password is None:
            raise ValueError(f"{self.key} is encrypted: put its pass phrase in --tls-key-password-file")
        return password

    def _explain(self, error: ssl.SSLError, password: bytes | None) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{self.key} is not the key of {self.certificate}"
        if password is not None:
            return (
                f"{self.key} has no private key in PEM that the pass phrase in {self.password_file} decrypts"
            )
        if error.library == "SSL" and error.reason is None:
            return f"{self.key} has no private key in PEM"
        return f"{self.certificate} is not valid: {error.reason}"


def valid_until(context: ssl.SSLContext, certificate: Path) -> datetime.date:
    """Return the last day of the certificate that *context* serves.

    Makes a handshake in memory, with a client that trusts this certificate regardless of its issuer.

    Raises:
        ValueError: The reason why the certificate itself is not valid, such as that it has expired.
    """
    client = unverified_client_context()
    client.verify_mode = ssl.CERT_REQUIRED
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server)
    server_end = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (client_end, server_end, client_end, server_end):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as exc:
        raise ValueError(exc.verify_message) from None
    last_s = ssl.cert_time_to_seconds(str((client_end.getpeercert() or {})["notAfter"]))
    return datetime.datetime.fromtimestamp(last_s, datetime.UTC).date()


def unverified_client_context() -> ssl.SSLContext:
    """Return a client context that accepts any certificate, for requests to this server itself."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def _require_certificate(path: Path) -> None:
    pem_bytes = read_regular(path)
    try:
        # Text around the PEM can be in any encoding; the PEM itself is ASCII.
        pem = pem_bytes.decode("ascii", "ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{path} has no certificate in PEM") from None


def _first_line(path: Path) -> bytes:
    return read_private(path).partition(b"\n")[0].removesuffix(b"\r")
