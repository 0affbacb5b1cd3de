"""What is wrong between settings that are each well formed, in flags and units as the operator gave them."""

from __future__ import annotations

from stormcellar.addresses import is_loopback
from stormcellar.lifetime import LifetimeError
from stormcellar.runtime.option_types import duration_text
from stormcellar.runtime.settings import LIFETIME_OPTIONS, Settings


def find_problems(settings: Settings) -> list[str]:
    """Return a line for each thing that does not go together."""
    checks = (_exposed, _half_given, _invalid_lifetime, _unfit_store)
    return [line for check in checks for line in check(settings)]


def _exposed(settings: Settings) -> list[str]:
    if is_loopback(settings.address) or settings.secure:
        return []
    return [
        f"--address: {settings.address} would serve plain HTTP beyond this machine; "
        "give it a certificate with --tls-cert, or name the TLS proxy in front with --behind-proxy"
    ]


def _half_given(settings: Settings) -> list[str]:
    """Say which settings lack another without which they do nothing."""
    has_redirect = settings.http_redirect_port is not None
    missing = [
        ("--tls-cert", settings.tls_cert, "--tls-key", settings.tls_key),
        ("--tls-key", settings.tls_key, "--tls-cert", settings.tls_cert),
        ("--tls-key-password-file", settings.tls_key_password_file, "--tls-key", settings.tls_key),
        ("--http-redirect-port", has_redirect, "--tls-cert", settings.tls_cert),
        ("--http-redirect-port", has_redirect, "--allowed-hosts", settings.allowed_hosts),
        ("--hsts-subdomains", settings.hsts_subdomains, "--tls-cert or --behind-proxy", settings.secure),
    ]
    problems = [f"{flag}: needs {other} too" for flag, given, other, has in missing if given and not has]
    if settings.http_redirect_port and settings.http_redirect_port == settings.port:
        problems.append("--http-redirect-port: must be another than --port")
    return problems


def _invalid_lifetime(settings: Settings) -> list[str]:
    try:
        _ = settings.lifetime
    except LifetimeError as exc:
        return [problem.line(_flag, duration_text) for problem in exc.problems]
    return []


def _flag(field: str) -> str:
    return "--" + LIFETIME_OPTIONS.get(field, field).replace("_", "-")


def _unfit_store(settings: Settings) -> list[str]:
    try:
        store = settings.open_store()
    except ValueError as exc:
        return [f"--store: {exc}"]
    if settings.processes > 1 and not store.shared:
        return ["--processes: above 1 needs a store that processes share, such as redis or mongo"]
    return []
