"""Settings: flags over environment over defaults, and one clear line for each value that is not valid."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import ipaddress
import itertools
from pathlib import Path
from typing import Any

import pytest

from stormcellar.accounts.throttle import Rules
from stormcellar.accounts.visitor_limit import VisitorLimit
from stormcellar.lifetime import Lifetime
from stormcellar.private_files import create_private
from stormcellar.runtime import options
from stormcellar.runtime.load_settings import file_path, load_settings
from stormcellar.runtime.option_types import MAX_DURATION_S, duration_s, duration_text
from stormcellar.runtime.options import OPTIONS, Option
from stormcellar.runtime.settings import LIFETIME_OPTIONS, Settings, SettingsError
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.manager import SessionManager
from stormcellar.stores import StoreOptions


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relative paths count from a directory of the test's own."""
    monkeypatch.chdir(tmp_path)


def settings(**flags: str) -> Settings:
    """Return the settings of a command line with *flags*, in an empty environment."""
    return load_settings(flags, {})


def problems(flags: dict[str, str] | None = None, **environment: str) -> list[str]:
    """Return the lines on what is wrong."""
    with pytest.raises(SettingsError) as caught:
        load_settings(flags or {}, environment)
    assert str(caught.value).splitlines() == list(caught.value.problems)
    return list(caught.value.problems)


# A good value for every option, other than its default, and what it becomes.
GOOD: dict[str, tuple[str, Any]] = {
    "port": ("0", 0),
    "address": ("::1", "::1"),
    "store": ("redis://localhost/3", "redis://localhost/3"),
    "store_prefix": ("shop", "shop"),
    "store_timeout": ("500ms", 0.5),
    "store_connect_timeout": ("3s", 3.0),
    "recheck": ("30s", 30.0),
    "max_memory": ("64MB", 64 * 1024 * 1024),
    "idle": ("20m", 1200.0),
    "absolute": ("7d", 604_800.0),
    "anonymous_idle": ("1.5h", 5400.0),
    "anonymous_remember": ("30d", 2_592_000.0),
    "touch_after": ("2m", 120.0),
    "remember": ("30d", 2_592_000.0),
    "remember_idle": ("7d", 604_800.0),
    "renew": ("15m", 900.0),
    "on_reuse": ("end", "end"),
    "reauth": ("5m", 300.0),
    "max_sessions_per_user": ("3", 3),
    "login_attempts": ("3", 3),
    "login_attempts_per_address": ("20", 20),
    "visitors_per_address": ("20", 20),
    "cookie_name": ("sid", "sid"),
    "cookie_samesite": ("STRICT", "Strict"),
    "cookie_domain": ("Example.org", "example.org"),
    "secret_file": ("/nowhere/keys", Path("/nowhere/keys")),
    "accounts": ("/dev/null", Path("/dev/null")),
    "data_dir": ("/nowhere/data", Path("/nowhere/data")),
    "tls_cert": ("/nowhere/cert.pem", Path("/nowhere/cert.pem")),
    "tls_key": ("/nowhere/key.pem", Path("/nowhere/key.pem")),
    "tls_key_password_file": ("/nowhere/phrase", Path("/nowhere/phrase")),
    "http_redirect_port": ("80", 80),
    "hsts_subdomains": ("true", True),
    "behind_proxy": (
        "127.0.0.1, 10.0.0.0/8,fd00::/8",
        tuple(map(ipaddress.ip_network, ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8"))),
    ),
    "allowed_hosts": ("Example.org., [::1], 192.0.2.1", ("example.org", "[::1]", "192.0.2.1")),
    "max_connections": ("100", 100),
    "max_connections_per_address": ("20", 20),
    "drain": ("0s", 0.0),
    "processes": ("1", 1),
    "carry": ("cart, lang", frozenset({"cart", "lang"})),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "audit_log": ("/nowhere/audit.log", Path("/nowhere/audit.log")),
    "demo": ("False", False),
}

# What an option does nothing without.
COMPANIONS: dict[str, dict[str, str]] = {
    "remember_idle": {"remember": "30d"},
    "tls_cert": {"tls_key": "/k"},
    "tls_key": {"tls_cert": "/c"},
    "tls_key_password_file": {"tls_cert": "/c", "tls_key": "/k"},
    "http_redirect_port": {"tls_cert": "/c", "tls_key": "/k", "allowed_hosts": "example.org"},
    "hsts_subdomains": {"behind_proxy": "10.0.0.1"},
    "cookie_domain": {"behind_proxy": "10.0.0.1", "allowed_hosts": "login.example.org"},
}


def test_defaults(tmp_path: Path) -> None:
    """With nothing said: loopback, memory, half an hour idle and twelve in all, a demo account."""
    expected = Settings(
        port=8888,
        address="127.0.0.1",
        store="memory",
        store_prefix="stormcellar",
        store_timeout=2.0,
        store_connect_timeout=1.0,
        recheck=15.0,
        max_memory=256 * 1024 * 1024,
        idle=1800.0,
        absolute=43_200.0,
        anonymous_idle=1800.0,
        anonymous_remember=None,
        touch_after=60.0,
        remember=None,
        remember_idle=None,
        renew=None,
        on_reuse="tell",
        reauth=600.0,
        max_sessions_per_user=None,
        login_attempts=5,
        login_attempts_per_address=50,
        visitors_per_address=1000,
        cookie_name="id",
        cookie_samesite="Lax",
        cookie_domain=None,
        secret_file=tmp_path / "var" / "secret.keys",
        accounts=tmp_path / "var" / "accounts.json",
        data_dir=tmp_path / "var",
        tls_cert=None,
        tls_key=None,
        tls_key_password_file=None,
        http_redirect_port=None,
        hsts_subdomains=False,
        behind_proxy=(),
        allowed_hosts=(),
        max_connections=None,
        max_connections_per_address=None,
        drain=None,
        processes=1,
        carry=frozenset(),
        log_level="info",
        log_format="text",
        audit_log=None,
        demo=True,
    )

    assert settings() == expected
    assert expected.lifetime == Lifetime()
    assert not expected.secure
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_those_of_the_parts() -> None:
    """Each default that belongs to a part of the library is the same on the command line."""
    lifetime, store, rules = Lifetime(), StoreOptions(), Rules()
    manager = inspect.signature(SessionManager).parameters
    expected = {
        "store_prefix": store.prefix,
        "store_timeout": store.timeout_s,
        "store_connect_timeout": store.connect_timeout_s,
        "recheck": Rechecks().every_s,
        "max_memory": store.max_memory,
        **{option: getattr(lifetime, field) for field, option in LIFETIME_OPTIONS.items()},
        "login_attempts": rules.attempts,
        "login_attempts_per_address": rules.attempts_per_address,
        "visitors_per_address": inspect.signature(VisitorLimit).parameters["per_address"].default,
        "cookie_name": manager["cookie_name"].default,
        "cookie_samesite": manager["samesite"].default,
        "cookie_domain": manager["cookie_domain"].default,
    }

    assert {name: getattr(settings(), name) for name in expected} == expected
    assert set(LIFETIME_OPTIONS) == {field.name for field in dataclasses.fields(Lifetime)} - {"grace_s"}


def test_cookies_that_browsers_refuse() -> None:  # A4
    """Without TLS, and for a host beyond the domain: one line with the reason."""
    domain = {"cookie_domain": "example.org", "allowed_hosts": "login.example.org,Example.org"}

    assert problems({"cookie_samesite": "none"}) == [
        "--cookie-samesite: browsers refuse SameSite=None without Secure; "
        "it also needs --tls-cert or --behind-proxy"
    ]
    assert problems(domain) == [
        "--cookie-domain: over plain HTTP, anybody on the network could set the cookies of the whole domain; "
        "it also needs --tls-cert or --behind-proxy"
    ]
    assert problems({"cookie_domain": "example.org", "behind_proxy": "10.0.0.1"}) == [
        "--cookie-domain: it also needs --allowed-hosts"
    ]
    assert problems(
        {**domain, "behind_proxy": "10.0.0.1", "allowed_hosts": "login.example.org,notexample.org"}
    ) == ["--allowed-hosts: browsers refuse the cookies of --cookie-domain from a host that is not under it"]
    assert settings(**domain, behind_proxy="10.0.0.1", cookie_samesite="None").cookie_samesite == "None"


def test_table_of_options_writes_no_default_of_a_part() -> None:
    """In the source of the table, the default of such an option is a name, not a literal."""
    table = ast.parse(Path(options.__file__).read_text())
    rows = [node.args for node in ast.walk(table) if isinstance(node, ast.Call) and len(node.args) > 3]
    literal = {ast.literal_eval(row[0]) for row in rows if isinstance(row[2], ast.Constant)}

    assert literal == {
        *("port", "address", "store", "secret_file", "accounts", "data_dir", "tls_cert", "tls_key"),
        *("tls_key_password_file", "http_redirect_port", "hsts_subdomains", "behind_proxy"),
        *("max_connections", "max_connections_per_address", "drain"),
        *("allowed_hosts", "processes", "carry", "log_level", "log_format", "audit_log", "demo"),
    }


def test_every_option_has_a_good_value_here() -> None:
    """No option is added without being looked at below."""
    assert list(GOOD) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_flag_and_variable_mean_the_same(option: Option) -> None:
    """Each option is taken from its flag and from its variable, and the flag wins."""
    text, value = GOOD[option.name]
    if option.name == "store":
        pytest.importorskip("redis")
    others = COMPANIONS.get(option.name, {})
    from_flag = load_settings({option.name: text, **others}, {})
    from_variable = load_settings(others, {option.variable: text})
    over = load_settings({option.name: text, **others}, {option.variable: "this is not valid: \0"})

    assert getattr(from_flag, option.name) == value
    assert from_flag == from_variable == over


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_names_follow_one_rule(option: Option) -> None:
    """The flag and the variable follow from the name, and the default of each parses."""
    assert option.flag == "--" + option.name.replace("_", "-")
    assert option.variable == "STORMCELLAR_" + option.name.upper()
    assert option.default is None or option.type.parse(option.default) is not None


def test_files_follow_the_data_directory(tmp_path: Path) -> None:
    """What is not named otherwise is in the data directory; paths count from where the command was given."""
    found = settings(data_dir="here", secret_file="keys")

    assert found.data_dir == tmp_path / "here"
    assert found.accounts == tmp_path / "here" / "accounts.json"
    assert found.secret_file == tmp_path / "keys"


def test_account_file_alone() -> None:
    """`accounts` needs the place of the file only, and takes it from the same settings."""
    assert file_path("accounts", {"data_dir": "/d"}, {}) == Path("/d/accounts.json")
    assert file_path("accounts", {"accounts": "/a.json", "data_dir": "/d"}, {}) == Path("/a.json")
    assert file_path("accounts", {}, {"STORMCELLAR_ACCOUNTS": "/a.json"}) == Path("/a.json")
    assert file_path("accounts", {}, {"STORMCELLAR_DATA_DIR": "/d", "STORMCELLAR_PORT": "x"}) == Path(
        "/d/accounts.json"
    )


# --- durations ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1ms", 0.001),
        ("500ms", 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("12h", 43_200),
        ("7d", 604_800),
        ("1.5h", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:  # B10
    """A duration is a number with a unit."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "1.5", "m", "30 m", " 30m", "30m ", "30m\n", "30M", "30min", "1h30m", "1w", "PT30M"),
        *("0s", "0ms", "0.0001ms", "0.0h", "-5m", "+5m", "1e3s", ".5s", "5.s", "0x10s", "1_000s", "1,5h"),
        *("3661d", "999999999999d", "9" * 5000 + "s", "infs", "nans", "\u0663m", "3\u0660m"),
    ],
)
def test_other_text_is_no_duration(text: str) -> None:  # B10
    """Without a unit, zero, negative, over ten years or in other digits, a duration is refused."""
    with pytest.raises(ValueError, match="a duration is"):
        duration_s(text)


@pytest.mark.parametrize("text", ["1ms", "1.25ms", "500ms", "90s", "90m", "30m", "12h", "36h", "7d", "3660d"])
def test_a_duration_is_told_as_it_is_read(text: str) -> None:
    """A duration is shown in the largest unit that it is a whole number of."""
    assert duration_text(duration_s(text)) == text


@pytest.mark.parametrize(("text", "shown"), [("1800s", "30m"), ("1.5h", "90m"), ("86400000ms", "1d")])
def test_a_duration_is_told_in_few_digits(text: str, shown: str) -> None:
    """What can be said in a larger unit is."""
    assert duration_text(duration_s(text)) == shown


def test_longest_duration() -> None:
    """Ten years and not a second more; as much as `Lifetime` takes."""
    assert Lifetime(absolute_s=MAX_DURATION_S, idle_s=MAX_DURATION_S).idle_s == MAX_DURATION_S
    assert duration_s("3660d") == MAX_DURATION_S


# --- what is not valid ---


BAD: list[tuple[str, str, str]] = [
    *(("port", text, "a whole number from 0 to 65535") for text in ("", "x", "-1", "65536", "80.0", "0x50")),
    *(("port", text, "a whole number") for text in ("9" * 5000, "\uff18\uff10", " 80", "1_0")),
    *(
        ("address", text, "an IP address")
        for text in ("", "example.org", "1.2.3", "256.1.1.1", "[::1]", ":::")
    ),
    ("store_prefix", "", "store prefix must be"),
    ("store_prefix", "x" * 65, "store prefix must be"),
    ("store_prefix", "a$b", "store prefix must be"),
    *(
        (name, "5", "a duration is")
        for name in GOOD
        if name.endswith(("idle", "absolute", "after", "timeout", "remember", "renew", "reauth", "drain"))
    ),
    *(("recheck", text, "it must be from 1s to 1h") for text in ("999ms", "3601s", "1d")),
    *(("recheck", text, "a duration is") for text in ("", "5", "0s", "-1s", "inf")),
    *(("max_memory", text, "a size is") for text in ("", "64", "64mb", "1.5GB", "0MB", "1023KB", "1025GB")),
    *(
        ("max_sessions_per_user", text, "a whole number from 1")
        for text in ("0", "-1", "x", "1.5", "1000001")
    ),
    *(
        (name, text, "a whole number from 1")
        for name in (
            *("login_attempts", "login_attempts_per_address", "visitors_per_address"),
            *("max_connections", "max_connections_per_address"),
        )
        for text in ("0", "-1", "x")
    ),
    *(("http_redirect_port", text, "a whole number from 0 to 65535") for text in ("", "x", "65536")),
    *(
        ("allowed_hosts", text, "host names such as")
        for text in (
            *(
                "example.org,",
                "example.org:443",
                "https://example.org",
                "*.example.org",
                "exämple.org",
                "a b",
            ),
            *("[::1]:443", "::1", "-a", "a..b", ".", "x" * 64, "a\r\nb", "[::1", "example.org/path"),
        )
    ),
    *(("cookie_samesite", text, "one of 'Lax', 'Strict', 'None'") for text in ("", "loose", "Lax ")),
    *(
        ("cookie_domain", text, "cookie domain")
        for text in ("", ".example.org", "example.org:443", "127.0.0.1", "localhost", "org", "co.uk")
    ),
    *(("log_format", text, "one of text, json") for text in ("", "xml")),
    *(("hsts_subdomains", text, "true or false") for text in ("", "maybe")),
    *(("processes", text, "a whole number from 1 to 256") for text in ("0", "-1", "257", "two")),
    *(
        ("cookie_name", text, "HTTP token")
        for text in ("", "a b", "a;b", "a=b", "n\u00e4me", "x" * 65, "a\n")
    ),
    *(
        ("cookie_name", text, "are reserved")
        for text in ("id-form", "id-device", "__Host-id", "__host-id", "__Secure-id")
    ),
    *(("carry", text, "it must be keys") for text in ("a,,b", "1st", "#user", "a b", "$set", "x" * 65, ",")),
    *(
        ("behind_proxy", text, "networks such as")
        for text in ("x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8,")
    ),
    ("behind_proxy", "10.0.0.0/8 fd00::/8", "networks such as"),
    ("behind_proxy", "0.0.0.0/0", "it includes every address"),
    ("behind_proxy", "127.0.0.1,::/0", "it includes every address"),
    *(("log_level", text, "one of debug, info") for text in ("", "loud", "INFO")),
    *(("demo", text, "true or false") for text in ("", "maybe", "2")),
    *((name, "", "the name of a file") for name in GOOD if isinstance(GOOD[name][1], Path)),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_bad_value_is_one_line(name: str, text: str, reason: str) -> None:  # B10
    """The line names the flag or variable, shows the value, and says what a valid one is."""
    option = next(each for each in OPTIONS if each.name == name)

    for found, where in (
        (problems({name: text}), option.flag),
        (problems(**{option.variable: text}), option.variable),
    ):
        assert len(found) == 1
        assert found[0].startswith(f"{where}: ") and reason in found[0]
        assert found[0].isprintable() and len(found[0]) < 300


def test_unknown_variable_is_refused() -> None:
    """A variable that looks like a setting and is none is a slip, told with what was likely meant."""
    assert problems(STORMCELLAR_STROE="redis://:hunter2@host", STORMCELLAR_X="") == [
        "STORMCELLAR_STROE: unknown setting; did you mean STORMCELLAR_STORE?",
        "STORMCELLAR_X: unknown setting",
    ]


def test_other_variables_are_nobodys_business() -> None:
    """Only names with the prefix are looked at."""
    assert load_settings({}, {"PORT": "x", "stormcellar_port": "x", "XSTORMCELLAR_PORT": "x"}) == settings()


def test_each_problem_has_its_line() -> None:
    """Everything that is wrong is told at once, in the order of the options."""
    found = problems(
        {"port": "x", "idle": "5", "log_level": "loud"}, STORMCELLAR_X="1", STORMCELLAR_CARRY="1st"
    )

    assert [line.partition(":")[0] for line in found] == [
        "STORMCELLAR_X",
        "--port",
        "--idle",
        "STORMCELLAR_CARRY",
        "--log-level",
    ]


def test_contradictions_are_told_together() -> None:
    """Settings that are each well formed but do not go together are told at once, too."""
    found = problems(
        {"idle": "13h", "address": "0.0.0.0", "processes": "2", "demo": "True", "touch_after": "40m"}
    )

    assert found == [
        "--demo: a demo account is allowed on loopback only",
        "--address: 0.0.0.0 would serve plain HTTP beyond this machine; "
        "set a certificate with --tls-cert, or the networks of a TLS proxy with --behind-proxy",
        "--idle: 13h is not valid: it must be at most --absolute, 12h",
        "--touch-after: 40m is not valid: it must be shorter than --anonymous-idle, 30m",
        "--processes: more than 1 need a shared store, such as sqlite, redis or mongo",
    ]


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"ADDRESS": "0.0.0.0"}, "STORMCELLAR_ADDRESS: 0.0.0.0 would serve plain HTTP beyond this machine; "),
        ({"STORE": "nosuch:"}, "STORMCELLAR_STORE: unknown store: "),
        ({"PROCESSES": "2"}, "STORMCELLAR_PROCESSES: more than 1 need a shared store"),
        ({"TLS_KEY": "/k"}, "STORMCELLAR_TLS_KEY: it also needs --tls-cert"),
        ({"DEMO": "yes", "BEHIND_PROXY": "127.0.0.1"}, "STORMCELLAR_DEMO: a demo account is not allowed"),
        ({"REMEMBER_IDLE": "8d"}, "STORMCELLAR_REMEMBER_IDLE: it also needs --remember"),
        (
            {"IDLE": "12h", "ABSOLUTE": "11h"},
            "STORMCELLAR_IDLE: 12h is not valid: it must be at most STORMCELLAR_ABSOLUTE, 11h",
        ),
    ],
)
def test_conflict_names_the_variables_that_were_set(environment: dict[str, str], line: str) -> None:
    """A setting from the environment is named by its variable, an option that is not set by its flag."""
    [found] = problems({}, **{f"STORMCELLAR_{name}": value for name, value in environment.items()})

    assert found.startswith(line)


def test_conflict_names_the_flag_that_overrides_a_variable() -> None:
    """The line names the source that was used."""
    [found] = problems({"address": "0.0.0.0"}, STORMCELLAR_ADDRESS="127.0.0.1")

    assert found.startswith("--address: 0.0.0.0 would serve plain HTTP")


@pytest.mark.parametrize(
    ("flags", "environment", "label"),
    [
        ({}, {}, "--data-dir"),
        ({"data_dir": "/d"}, {}, "--data-dir"),
        ({}, {"STORMCELLAR_DATA_DIR": "/d"}, "STORMCELLAR_DATA_DIR"),
        ({"data_dir": "/d", "secret_file": "/k"}, {}, "--secret-file"),
        ({"data_dir": "/d"}, {"STORMCELLAR_SECRET_FILE": "/k"}, "STORMCELLAR_SECRET_FILE"),
    ],
)
def test_path_of_a_file_has_the_label_of_its_option(
    flags: dict[str, str], environment: dict[str, str], label: str
) -> None:
    """A file that is not named itself has its path from the data directory."""
    assert load_settings(flags, environment).path_label("secret_file") == label


# --- lifetimes ---


@pytest.mark.parametrize(
    ("idle", "absolute", "anonymous", "touch"),
    list(
        itertools.product(
            ("1m", "30m", "1h"), ("1m", "30m"), ("1m", "30m", "31m"), ("1ms", "59s", "1m", "30m")
        )
    ),
)
def test_times_are_refused_exactly_where_lifetime_refuses_them(
    idle: str, absolute: str, anonymous: str, touch: str
) -> None:  # B10
    """The command line's words for what contradicts, and the rules of `Lifetime`, agree in every case."""
    flags = {"idle": idle, "absolute": absolute, "anonymous_idle": anonymous, "touch_after": touch}
    times = [duration_s(text) for text in (idle, absolute, anonymous, touch)]
    try:
        wanted: Lifetime | None = Lifetime(*times)
    except ValueError:
        wanted = None

    if wanted is None:
        assert problems(flags)
    else:
        assert load_settings(flags, {}).lifetime == wanted


def test_default_yields_to_what_was_set() -> None:  # B10
    """One limit alone is enough: those that were not given become as short as it needs."""
    assert settings(absolute="20m").lifetime == Lifetime(absolute_s=1200, idle_s=1200, anonymous_s=1200)
    assert settings(idle="30s").lifetime.touch_after_s == 15
    assert settings(renew="30s").lifetime.grace_s == 15


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"idle": "12h", "absolute": "11h"},
            "--idle: 12h is not valid: it must be at most --absolute, 11h",
        ),
        ({"anonymous_idle": "13h"}, "--anonymous-idle: 13h is not valid: it must be at most --absolute, 12h"),
        (
            {"touch_after": "30m", "anonymous_idle": "1h"},
            "--touch-after: 30m is not valid: it must be shorter than --idle, 30m",
        ),
    ],
)
def test_contradicting_times_are_told_with_their_units(flags: dict[str, str], line: str) -> None:  # B10
    """The line names both flags and both durations as a person would write them."""
    assert problems(flags) == [line]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"absolute": "12h", "remember": "11h"},
            "--remember: 11h is not valid: it must be at least --absolute, 12h",
        ),
        ({"remember": "401d"}, "--remember: 401d is not valid: it must be at most 400d"),
        (
            {"remember": "7d", "remember_idle": "8d"},
            "--remember-idle: 8d is not valid: it must be at most --remember, 7d",
        ),
        ({"remember_idle": "8d"}, "--remember-idle: it also needs --remember"),
    ],
)
def test_contradicting_limits_of_those_who_stay(flags: dict[str, str], line: str) -> None:  # B10
    """Whoever stays signed in stays longer than others, and no longer than a browser would remember."""
    assert problems(flags) == [line]


def test_longer_sessions_reach_the_lifetime() -> None:
    """What the flags say about keeping people signed in, and asking them again, is what sessions live by."""
    found = settings(remember="30d", remember_idle="7d", renew="15m", reauth="5m").lifetime

    assert found == Lifetime(remember_s=2_592_000, remember_idle_s=604_800, renew_s=900, reauth_s=300)


@pytest.mark.parametrize("renew", ["1ms", "30s", "60s", "61s", "2m", "1d"])
def test_any_renewal_leaves_the_old_id_less_than_half_its_time(renew: str) -> None:  # C13
    """However often IDs change, the grace of the one before is shorter."""
    found = settings(renew=renew).lifetime

    assert found.grace_s <= min(60, duration_s(renew) / 2)


# --- TLS ---


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ({"tls_cert": "/c"}, ["--tls-cert: it also needs --tls-key"]),
        ({"tls_key": "/k"}, ["--tls-key: it also needs --tls-cert"]),
        (
            {"tls_key_password_file": "/p"},
            ["--tls-key-password-file: it also needs --tls-key"],
        ),
        (
            {"http_redirect_port": "0"},
            [
                "--http-redirect-port: it also needs --tls-cert",
                "--http-redirect-port: it also needs --allowed-hosts",
            ],
        ),
        ({"hsts_subdomains": "true"}, ["--hsts-subdomains: it also needs --tls-cert or --behind-proxy"]),
        (
            {
                **{"tls_cert": "/c", "tls_key": "/k", "allowed_hosts": "a"},
                **{"port": "80", "http_redirect_port": "80"},
            },
            ["--http-redirect-port: it must differ from --port"],
        ),
    ],
)
def test_what_does_nothing_alone_is_refused(flags: dict[str, str], lines: list[str]) -> None:
    """A certificate without its key, a redirect to nowhere: each is told with what it lacks."""
    assert problems(flags) == lines


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_with_tls_any_address_will_do(address: str) -> None:  # A4 A5
    """A certificate makes cookies Secure, with a proxy in front as well as without."""
    found = settings(address=address, tls_cert="/c", tls_key="/k")
    behind = settings(address=address, tls_cert="/c", tls_key="/k", behind_proxy="10.0.0.1")

    assert (found.secure, found.demo, behind.secure) == (True, False, True)
    assert (found.edge.has_tls, found.edge.trusted_proxies) == (True, ())


# --- addresses ---


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_proxy(address: str) -> None:  # A5
    """What only this machine reaches may be plain HTTP."""
    assert settings(address=address).address == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "fe80::1", "128.0.0.1", "::ffff:10.0.0.1"])
def test_beyond_loopback_needs_a_proxy(address: str) -> None:  # A5
    """Plain HTTP that others reach is refused; with a TLS proxy named it is not, and cookies are Secure."""
    assert problems({"address": address})[0].startswith(f"--address: {address} would serve plain HTTP")
    behind = settings(address=address, behind_proxy="10.0.0.0/8")
    assert (behind.secure, behind.demo) == (True, False)


# --- stores ---


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://u:hunter2@host/0",
        "redis://:hunter2@/0",
        "redis://:hunter2@host/0?hunter2=x",
        "redis://:hunter2#@host/0",
        "rediss://:hunter2@host:99999999/0",
        "mongodb://u:hunter2@:x/",
        "mongodb://u:hunter2:@host/",
        "mongodb://u:hunter2@host/?nosuch=hunter2",
        "no.such.module:Store?password=hunter2",
        "os:getcwd?hunter2",
    ],
)
def test_bad_store_is_one_line_without_its_password(url: str) -> None:  # L8
    """Whatever is wrong with the URL, nothing that may be a password is repeated."""
    found = problems({"store": url})

    assert len(found) == 1
    assert found[0].startswith("--store: ")
    assert "hunter2" not in found[0]


def test_store_url_is_in_no_representation() -> None:  # L8
    """A traceback or a log line that shows the settings shows no password."""
    pytest.importorskip("redis")
    found = settings(store="redis://:hunter2@localhost/0")

    assert "hunter2" not in repr(found) + str(found)
    assert found.store_kind == "redis"


@pytest.mark.parametrize("store", ["memory", "memory:"])
def test_memory_is_for_one_process(store: str) -> None:
    """Processes that would each have their own sessions are refused."""
    assert problems({"store": store, "processes": "2"}) == [
        "--processes: more than 1 need a shared store, such as sqlite, redis or mongo"
    ]


@pytest.mark.parametrize("store", ["redis", "redis://localhost/0", "mongo"])
def test_shared_stores_are_for_any_number(store: str) -> None:
    """Redis and MongoDB take several processes; nothing is connected to find that out."""
    pytest.importorskip("redis" if "redis" in store else "pymongo")

    assert settings(store=store, processes="4").processes == 4


def test_limits_reach_the_store() -> None:
    """Prefix and time-outs are those given."""
    pytest.importorskip("redis")
    store = settings(store="redis", store_prefix="shop", store_timeout="500ms").open_store()

    assert (vars(store)["_client"]._timeout_s, type(store).__name__) == (0.5, "RedisStore")


# --- accounts and the demo account ---


def test_no_accounts_means_a_demo_account() -> None:  # E18
    """Nobody has to ask for it, and nobody gets it who said no."""
    assert settings().demo
    assert settings(demo="True").demo
    assert not settings(demo="False").demo


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1, "accounts": {}}'])
def test_any_account_file_rules_out_the_demo(tmp_path: Path, content: str) -> None:  # E18
    """With a file of accounts, be it empty or broken, there is no demo account; asking for one is refused."""
    path = tmp_path / "accounts.json"
    create_private(path, content)

    assert not settings(data_dir=str(tmp_path)).demo
    assert problems({"data_dir": str(tmp_path), "demo": "True"}) == [
        f"--demo: the account file {path} exists"
    ]


def test_reachable_servers_have_no_demo() -> None:  # E18
    """Behind a proxy or beyond loopback it is off by itself, and cannot be asked for."""
    assert not settings(behind_proxy="127.0.0.1").demo
    assert problems({"behind_proxy": "127.0.0.1", "demo": "True"}) == [
        "--demo: a demo account is not allowed behind a proxy"
    ]
    assert problems({"tls_cert": "/c", "tls_key": "/k", "demo": "True"}) == [
        "--demo: a demo account is not allowed with TLS"
    ]


def test_account_file_that_is_named_must_be_there() -> None:
    """A name that leads nowhere is a slip, not an empty directory of accounts with a demo one in it."""
    line = "the file does not exist; create it with: accounts add NAME"
    assert problems({"accounts": "no.json"}) == [f"--accounts: {line}"]
    assert problems(STORMCELLAR_ACCOUNTS="no.json") == [f"STORMCELLAR_ACCOUNTS: {line}"]


@pytest.mark.parametrize("directory", ["x" * 5000, "/dev/null", "a/" * 3000])
def test_odd_data_directory_is_no_crash(directory: str) -> None:
    """A path that cannot be looked at is left to those who read it, who say why."""
    assert settings(data_dir=directory).data_dir == Path(directory).absolute()


def test_settings_cannot_change() -> None:
    """What was checked stays as it was checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().port = 1  # type: ignore[misc]
