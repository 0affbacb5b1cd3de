"""Checks between settings that are valid one by one. Problems name sources, and values with their units."""

from __future__ import annotations

from stormcellar.addresses import is_loopback
from stormcellar.lifetime import LifetimeError, LimitProblem
from stormcellar.runtime.connections import possible_connections
from stormcellar.runtime.option_types import duration_text
from stormcellar.runtime.settings import LIFETIME_OPTIONS, Settings
from stormcellar.sessions.cookie_attributes import CookieAttributes, NeedsSecure, is_within


def find_problems(settings: Settings) -> list[str]:
    """Return one line for each problem."""
    checks = (
        _plain_http_beyond_loopback,
        _incomplete,
        _refused_cookies,
        _invalid_lifetime,
        _invalid_store,
        _impossible_connections,
    )
    return [line for check in checks for line in check(settings)]


def _plain_http_beyond_loopback(settings: Settings) -> list[str]:
    if is_loopback(settings.address) or settings.secure:
        return []
    return [
        f"{settings.label('address')}: {settings.address} would serve plain HTTP beyond this machine; "
        "set a certificate with --tls-cert, or the networks of a TLS proxy with --behind-proxy"
    ]


def _incomplete(settings: Settings) -> list[str]:
    """Return a line for each option that has no effect without another one."""
    has_redirect = settings.http_redirect_port is not None
    missing = [
        ("tls_cert", settings.tls_cert, "--tls-key", settings.tls_key),
        ("tls_key", settings.tls_key, "--tls-cert", settings.tls_cert),
        ("tls_key_password_file", settings.tls_key_password_file, "--tls-key", settings.tls_key),
        ("http_redirect_port", has_redirect, "--tls-cert", settings.tls_cert),
        ("http_redirect_port", has_redirect, "--allowed-hosts", settings.allowed_hosts),
        ("hsts_subdomains", settings.hsts_subdomains, "--tls-cert or --behind-proxy", settings.secure),
        ("cookie_domain", settings.cookie_domain, "--allowed-hosts", settings.allowed_hosts),
    ]
    problems = [
        f"{settings.label(name)}: it also needs {other}"
        for name, given, other, has in missing
        if given and not has
    ]
    if settings.http_redirect_port and settings.http_redirect_port == settings.port:
        label = settings.label
        problems.append(f"{label('http_redirect_port')}: it must differ from {label('port')}")
    return problems


def _refused_cookies(settings: Settings) -> list[str]:
    """Return a line for each reason why browsers would refuse the cookies."""
    domain, label = settings.cookie_domain, settings.label
    problems = []
    if domain is not None and not all(is_within(host, domain) for host in settings.allowed_hosts):
        # Without the host: it can be a password that was meant for another option.
        problems.append(
            f"{label('allowed_hosts')}: browsers refuse the cookies of {label('cookie_domain')} from a host "
            "that is not under it"
        )
    try:
        CookieAttributes(secure=settings.secure, samesite=settings.cookie_samesite, domain=domain)
    except NeedsSecure as exc:
        option = f"cookie_{exc.argument.removeprefix('cookie_')}"
        problems.append(f"{label(option)}: {exc.reason}; it also needs --tls-cert or --behind-proxy")
    return problems


def _invalid_lifetime(settings: Settings) -> list[str]:
    try:
        _ = settings.lifetime
    except LifetimeError as exc:
        return [_lifetime_line(settings, problem) for problem in exc.problems]
    return []


def _lifetime_line(settings: Settings, problem: LimitProblem) -> str:
    def label(field: str) -> str:
        return settings.label(LIFETIME_OPTIONS.get(field, field))

    return problem.line(label, duration_text)


def _invalid_store(settings: Settings) -> list[str]:
    try:
        store = settings.open_store()
    except ValueError as exc:
        return [f"{settings.label('store')}: {exc}"]
    if settings.processes > 1 and not store.shared:
        return [
            f"{settings.label('processes')}: more than 1 need a shared store, such as sqlite, redis or mongo"
        ]
    if store.shared and "max_memory" in settings.given:
        return [
            f"{settings.label('max_memory')}: it is for the memory store; limit the memory of the other one"
        ]
    return []


def _impossible_connections(settings: Settings) -> list[str]:
    possible = possible_connections()
    if settings.max_connections is None or settings.max_connections <= possible:
        return []
    return [
        f"{settings.label('max_connections')}: the limit of file descriptors allows "
        f"{possible} connections; raise it first (ulimit -n, or LimitNOFILE= of systemd)"
    ]
