"""Checks between settings that are valid one by one. Problems name flags, and values with their units."""

from __future__ import annotations

from stormcellar.addresses import is_loopback
from stormcellar.lifetime import LifetimeError
from stormcellar.runtime.option_types import duration_text
from stormcellar.runtime.settings import LIFETIME_OPTIONS, Settings


def find_problems(settings: Settings) -> list[str]:
    """Return one line for each problem."""
    checks = (_plain_http_beyond_loopback, _incomplete, _invalid_lifetime, _invalid_store)
    return [line for check in checks for line in check(settings)]


def _plain_http_beyond_loopback(settings: Settings) -> list[str]:
    if is_loopback(settings.address) or settings.secure:
        return []
    return [
        f"--address: {settings.address} would serve plain HTTP beyond this machine; "
        "set a certificate with --tls-cert, or the networks of a TLS proxy with --behind-proxy"
    ]


def _incomplete(settings: Settings) -> list[str]:
    """Return a line for each option that has no effect without another one."""
    has_redirect = settings.http_redirect_port is not None
    missing = [
        ("--tls-cert", settings.tls_cert, "--tls-key", settings.tls_key),
        ("--tls-key", settings.tls_key, "--tls-cert", settings.tls_cert),
        ("--tls-key-password-file", settings.tls_key_password_file, "--tls-key", settings.tls_key),
        ("--http-redirect-port", has_redirect, "--tls-cert", settings.tls_cert),
        ("--http-redirect-port", has_redirect, "--allowed-hosts", settings.allowed_hosts),
        ("--hsts-subdomains", settings.hsts_subdomains, "--tls-cert or --behind-proxy", settings.secure),
    ]
    problems = [f"{flag}: it also needs {other}" for flag, given, other, has in missing if given and not has]
    if settings.http_redirect_port and settings.http_redirect_port == settings.port:
        problems.append("--http-redirect-port: it must differ from --port")
    return problems


def _invalid_lifetime(settings: Settings) -> list[str]:
    try:
        _ = settings.lifetime
    except LifetimeError as exc:
        return [problem.line(_flag, duration_text) for problem in exc.problems]
    return []


def _flag(field: str) -> str:
    return "--" + LIFETIME_OPTIONS.get(field, field).replace("_", "-")


def _invalid_store(settings: Settings) -> list[str]:
    try:
        store = settings.open_store()
    except ValueError as exc:
        return [f"--store: {exc}"]
    if settings.processes > 1 and not store.shared:
        return ["--processes: more than 1 need a shared store, such as redis or mongo"]
    return []
