"""TLS without a proxy: what is served, what is refused, and the message about an invalid certificate."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from stormcellar.app.edge import Edge
from stormcellar.cli import doctor
from stormcellar.cli.main import main
from stormcellar.private_files import create_private, replace_private
from stormcellar.runtime.load_settings import load_settings
from stormcellar.runtime.reloadable import load_tls
from stormcellar.runtime.tls import KeyPair, valid_until
from tests.support.certificates import Authority, Files
from tests.support.running import Running, get
from tests.support.site import OpenSite, Site

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SECURE = Edge(is_secure=True, has_tls=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA that has issued a certificate for this machine."""
    made = Authority(tmp_path)
    made.issue()
    return made


@pytest.fixture
def tls_site(open_site: OpenSite, authority: Authority) -> Site:
    """A site that speaks TLS."""
    files = authority.files
    context = KeyPair(files.certificate, files.key).load()
    return open_site(edge=SECURE, tls=context, authority=files.authority)


async def handshake(site: Site, client: ssl.SSLContext) -> tuple[str | None, str]:
    """Return the version and the cipher agreed on."""
    _, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=client)
    tls = writer.get_extra_info("ssl_object")
    writer.close()
    with suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return tls.version(), tls.cipher()[0]


# --- what is served ---


@pytest.mark.gen_test
@pytest.mark.parametrize(("most", "version"), [(V12, "TLSv1.2"), (V13, "TLSv1.3")])
async def test_both_good_versions_are_served(
    most: ssl.TLSVersion, version: str, tls_site: Site, authority: Authority
) -> None:  # F11
    """With forward secrecy and authenticated encryption in either."""
    agreed, cipher = await handshake(tls_site, authority.files.client(maximum_version=most))

    assert agreed == version
    assert "GCM" in cipher or "CHACHA20" in cipher


@pytest.mark.gen_test
@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
async def test_old_ciphers_are_refused(cipher: str, tls_site: Site, authority: Authority) -> None:  # F11
    """A client that can do nothing better gets no connection."""
    client = authority.files.client(maximum_version=V12)
    client.set_ciphers(cipher)

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(tls_site, client)


def test_old_versions_are_off(authority: Authority) -> None:  # F11
    """Nothing below TLS 1.2 is even offered, and no cipher without forward secrecy."""
    context = KeyPair(authority.files.certificate, authority.files.key).load()

    assert context.minimum_version == V12
    assert all(each["name"].startswith(("TLS_", "ECDHE-")) for each in context.get_ciphers())
    assert context.options & ssl.OP_NO_COMPRESSION


@pytest.mark.gen_test
async def test_signing_in_over_tls(tls_site: Site) -> None:  # A4
    """The cookie is of the kind that only TLS can set."""
    browser = await tls_site.signed_in()

    assert browser.cookies.keys() == {"__Host-id", "__Host-id-device"}
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


NOT_TLS = {
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long line": b"A" * 20_000 + b"\r\n\r\n",
    "junk": bytes(range(256)),
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another version": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37),
    "nothing": b"",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("sent", NOT_TLS.values(), ids=NOT_TLS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_what_is_no_tls_is_closed_quietly(
    sent: bytes, reset: bool, tls_site: Site, caplog: pytest.LogCaptureFixture
) -> None:  # F11
    """No plaintext answer, no trace in the log, and the next client is served."""
    answer = b""
    reader, writer = await asyncio.open_connection("127.0.0.1", tls_site.port)
    writer.write(sent)
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    else:
        writer.write_eof()
        with suppress(ConnectionResetError):
            answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    health = await tls_site.browser().get("/healthz")

    assert b"HTTP" not in answer
    assert health.code == 200
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(lines) <= 1
    assert not any(r.exc_info for r in caplog.records)
    assert all(len(r.getMessage().splitlines()) == 1 and len(r.getMessage()) < 300 for r in lines)


# --- what is not valid ---


def trouble(pair: KeyPair) -> str:
    """Return the line on what is wrong."""
    with pytest.raises(ValueError) as caught:
        pair.load()
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660])
def test_key_that_others_may_read(authority: Authority, mode: int) -> None:  # L9
    """The command that mends it is shown."""
    key = authority.files.key
    key.chmod(mode)

    line = trouble(KeyPair(authority.files.certificate, key))

    assert line == f"{key} is accessible to other users: chmod 600 {key}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_key_of_somebody_else(authority: Authority) -> None:  # L9
    """Whoever owns the key could put theirs in its place."""
    os.chown(authority.files.key, 12_345, -1)

    assert "belongs to another user" in trouble(KeyPair(authority.files.certificate, authority.files.key))


def test_key_of_another_certificate(authority: Authority) -> None:
    """The two files are named."""
    cert, key = authority.files.certificate, authority.files.key
    before = key.read_text()
    authority.issue()
    replace_private(key, before)

    assert trouble(KeyPair(cert, key)) == f"{key} is not the key of {cert}"


def test_files_that_are_something_else(authority: Authority, tmp_path: Path) -> None:
    """A key for a certificate, a certificate for a key, and text for either, are each told apart."""
    cert, key = authority.files.certificate, authority.files.key
    create_private(tmp_path / "text", "hello\n")
    create_private(tmp_path / "copy", cert.read_text())

    assert trouble(KeyPair(key, key)) == f"{key} has no certificate in PEM"
    assert trouble(KeyPair(tmp_path / "text", key)) == f"{tmp_path / 'text'} has no certificate in PEM"
    assert trouble(KeyPair(cert, tmp_path / "copy")) == f"{tmp_path / 'copy'} has no private key in PEM"
    assert trouble(KeyPair(cert, tmp_path / "text")) == f"{tmp_path / 'text'} has no private key in PEM"


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_files_that_are_not_there(authority: Authority, missing: str) -> None:
    """The error names the file."""
    files = authority.files
    getattr(files, missing).unlink()

    with pytest.raises(FileNotFoundError) as caught:
        KeyPair(files.certificate, files.key).load()

    assert Path(caught.value.filename) == getattr(files, missing)


# --- encrypted keys ---


@pytest.mark.parametrize("content", ["pass phräse", "pass phräse\n", "pass phräse\r\nmore\n"])
def test_encrypted_key_is_opened_by_a_file(authority: Authority, tmp_path: Path, content: str) -> None:  # L9
    """The first line counts, without its end."""
    files = authority.issue(phrase="pass phräse")
    create_private(tmp_path / "phrase", content)

    context = KeyPair(files.certificate, files.key, tmp_path / "phrase").load()

    assert valid_until(context, files.certificate)


def test_encrypted_key_without_its_phrase(authority: Authority, tmp_path: Path) -> None:  # L9
    """Nobody is asked at a terminal, and no phrase is repeated."""
    files = authority.issue(phrase="hunter2")
    create_private(tmp_path / "phrase", "hunter3")

    without = trouble(KeyPair(files.certificate, files.key))
    wrong = trouble(KeyPair(files.certificate, files.key, tmp_path / "phrase"))

    assert without == f"{files.key} is encrypted: put its pass phrase in --tls-key-password-file"
    assert wrong == (
        f"{files.key} has no private key in PEM that the pass phrase in {tmp_path / 'phrase'} decrypts"
    )


def test_phrase_that_others_may_read(authority: Authority, tmp_path: Path) -> None:  # L9
    """It is worth as much as the key."""
    files = authority.issue(phrase="hunter2")
    path = tmp_path / "phrase"
    create_private(path, "hunter2")
    path.chmod(0o644)

    line = trouble(KeyPair(files.certificate, files.key, path))

    assert line == f"{path} is accessible to other users: chmod 600 {path}"


@pytest.mark.parametrize("role", ["certificate", "key", "password_file"])
def test_fifo_is_refused_without_waiting(authority: Authority, tmp_path: Path, role: str) -> None:
    """A FIFO that nobody writes to stops neither the start nor a reload."""
    files = authority.issue()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    line = trouble(replace(KeyPair(files.certificate, files.key), **{role: fifo}))

    assert line == f"{fifo} is not a regular file"


# --- dates ---


def load(files: Files) -> ssl.SSLContext | None:
    """Load as `serve` does."""
    flags = {"tls_cert": str(files.certificate), "tls_key": str(files.key)}
    return load_tls(load_settings(flags, {}))


@pytest.mark.parametrize(
    ("days", "fault"),
    [((-30, -1), "certificate has expired"), ((1, 30), "certificate is not yet valid")],
)
def test_certificate_of_another_time_is_warned_of(
    authority: Authority, days: tuple[float, float], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is served, for a server that does not start helps nobody, but an operator is told."""
    files = authority.issue(days=days)

    assert load(files) is not None
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", f"browsers will not accept {files.certificate}: {fault}")
    ]


def test_certificate_of_today_is_not_remarked_on(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever signed it: whether browsers trust them is not ours to say."""
    assert load(authority.files) is not None
    assert caplog.records == []


# --- as it is run ---


def test_running_with_a_certificate(tmp_path: Path, authority: Authority) -> None:
    """The banner says https, and that is what answers there."""
    with Running(tmp_path, *authority.files.flags) as server:
        base = server.base()

        assert base.startswith("https://127.0.0.1:")
        assert get(base, "/healthz", trusted=authority.files.authority) == 200
        assert server.end() == 0
    assert "Traceback" not in server.errors()


def test_pair_that_does_not_fit_stops_it(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the flag, and status 2."""
    authority.files.key.chmod(0o644)

    status = main(["--port=0", f"--data-dir={tmp_path}", *authority.files.flags])

    key = authority.files.key
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stormcellar: --tls-cert: {key} is accessible to other users: chmod 600 {key}"
    )


def test_doctor_looks_at_the_certificate(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it ends, or what is wrong with it."""
    flags = ("doctor", "--port=0", f"--data-dir={tmp_path}", *authority.files.flags)
    main(flags)
    good = capsys.readouterr().out
    authority.issue(days=(-9, -1))
    main(flags)
    expired = capsys.readouterr().out
    authority.files.certificate.unlink()
    main(flags)
    missing = capsys.readouterr().out

    cert = authority.files.certificate
    assert f"ok       certificate: {cert}, valid until 20" in good
    assert f"problem  certificate {cert}: certificate has expired; replace it" in expired
    assert "problem  --tls-cert: No such file or directory" in missing


def test_doctor_beside_a_running_server(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that is in use by this very server is as it should be, over TLS too."""
    with Running(tmp_path, *authority.files.flags) as server:
        port = server.base().rpartition(":")[2]

        main(["doctor", f"--port={port}", f"--data-dir={tmp_path}", *authority.files.flags])

    assert f"ok       port {port} on 127.0.0.1: in use by this server" in capsys.readouterr().out


def test_doctor_tells_our_redirecting_port_from_a_strangers(
    tmp_path: Path,
    authority: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In use by this server is as it should be; by somebody else, who does not redirect, is a problem."""
    monkeypatch.setattr(doctor, "_PROBE_S", 1.0)
    flags = (*authority.files.flags, "--allowed-hosts=localhost", f"--data-dir={tmp_path}")
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as free:
        stranger, ours = silent.getsockname()[1], free.getsockname()[1]
        free.close()
        with Running(tmp_path, *flags[:-1], f"--http-redirect-port={ours}") as server:
            port = server.base().rpartition(":")[2]
            for each in (ours, stranger):
                main(["doctor", f"--port={port}", f"--http-redirect-port={each}", *flags])

    output = capsys.readouterr().out
    assert f"ok       port {ours} on 127.0.0.1: in use by this server" in output
    assert f"problem  port {stranger} on 127.0.0.1: Address already in use" in output


def test_remarks_around_the_certificate_may_be_in_any_encoding(authority: Authority) -> None:
    """Whoever writes the owner's name into the file, with its umlaut, still has a certificate."""
    files = authority.files
    for remark in ("Zürich\n".encode(), "Zürich\n".encode("latin-1")):
        pem = files.certificate.read_bytes()
        files.certificate.write_bytes(remark + pem)
        context = KeyPair(files.certificate, files.key).load()

        assert valid_until(context, files.certificate)
        files.certificate.write_bytes(pem)
