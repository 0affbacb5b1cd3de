"""What is wrong between settings that are each well formed, in flags and units as the operator gave them."""

from __future__ import annotations

from stormcellar.addresses import is_loopback
from stormcellar.lifetime import MAX_COOKIE_S
from stormcellar.runtime.options import duration_text
from stormcellar.runtime.settings import Settings


def find_problems(settings: Settings) -> list[str]:
    """Return a line for each thing that does not go together."""
    checks = (_exposed, _half_given, _contradicting_times, _contradicting_remember, _unfit_store)
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
        ("--remember-idle", settings.remember_idle, "--remember", settings.remember),
    ]
    problems = [f"{flag}: needs {other} too" for flag, given, other, has in missing if given and not has]
    if settings.http_redirect_port and settings.http_redirect_port == settings.port:
        problems.append("--http-redirect-port: must be another than --port")
    return problems


def _contradicting_times(settings: Settings) -> list[str]:
    """Say in flags, and all at once, what `Lifetime` refuses."""
    problems = []
    for name in ("idle", "anonymous_idle"):
        idle, flag = getattr(settings, name), "--" + name.replace("_", "-")
        if idle > settings.absolute:
            problems.append(_is_not(flag, idle, "at most --absolute", settings.absolute))
        if settings.touch_after >= idle:
            problems.append(_is_not("--touch-after", settings.touch_after, f"shorter than {flag}", idle))
    return problems


def _contradicting_remember(settings: Settings) -> list[str]:
    problems, longest_s = [], settings.remember
    if longest_s is None:
        return []
    if longest_s > MAX_COOKIE_S:
        problems.append(_is_not("--remember", longest_s, "at most what browsers allow", MAX_COOKIE_S))
    if longest_s < settings.absolute:
        problems.append(_is_not("--remember", longest_s, "at least --absolute", settings.absolute))
    if (idle := settings.remember_idle) is not None and idle > longest_s:
        problems.append(_is_not("--remember-idle", idle, "at most --remember", longest_s))
    return problems


def _is_not(flag: str, seconds: float, rule: str, limit_s: float) -> str:
    return f"{flag}: {duration_text(seconds)} will not do: it must be {rule}, {duration_text(limit_s)}"


def _unfit_store(settings: Settings) -> list[str]:
    try:
        store = settings.open_store()
    except ValueError as exc:
        return [f"--store: {exc}"]
    if settings.processes > 1 and not store.shared:
        return ["--processes: above 1 needs a store that processes share, such as redis or mongo"]
    return []
