"""What the requests of the fuzz test are made of, the plain before the hostile."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tests.app.fuzz.world import SCRIPT
from tests.support.site import JSON, PASSWORD

FORM = "application/x-www-form-urlencoded"
SPLIT = "\r\nX-Injected: 1\r\n\r\n"
VERSIONS = ("HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1")
FRAMING = ("Content-Length", "Transfer-Encoding")
METHODS = (
    "GET",
    "POST",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "TRACE",
    "CONNECT",
    "FOO",
    "get",
    "P\xe9",
)
NEXTS = (
    *(
        "/account/sessions",
        "/",
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "/\t/evil.example",
    ),
    *("\\\\evil.example", "http:evil.example", "javascript:alert(1)", "///evil.example", "/%2f/evil.example"),
    *(
        "/%5cevil.example",
        " //evil.example",
        "/./\\evil.example",
        "http:///evil.example",
        "/..//evil.example",
    ),
    *(
        "//evil.example\\@127.0.0.1/",
        "\0//evil.example",
        "/" + SPLIT,
        "/%0d%0aX-Injected:%201",
        "/é",
        "/login",
    ),
    *(
        "?next=//evil.example",
        "#x",
        "",
        SCRIPT,
        "/?" + SCRIPT,
        "/" + "a" * 3000,
        "//evil.example:80:80",
        "//[",
    ),
    *("/\N{FULLWIDTH SOLIDUS}evil.example", "/\N{IDEOGRAPHIC FULL STOP}/evil.example", "https:/evil.example"),
)
USERNAMES = (
    *("alice", "bob", "carol") * 8,
    *("ALICE", "mallory", "", "alice\0", SCRIPT, "a" * 300, "\N{FULLWIDTH LATIN SMALL LETTER A}lice"),
)
PASSWORDS = (PASSWORD,) * 16 + ("wrong", "", "x" * 2000, "password1", "\0", "é" * 9)
NEW_PASSWORDS = ("another pass phrase", *PASSWORDS[-8:])
OTHER_VALUES = ("on", "", "1", SCRIPT, SPLIT, "\0", "x" * 5000)
PATH_ARGUMENTS = ("style.css", "icon.svg", "favicon.ico", "../app.py", "A" * 22, "%00", "x" * 65)
PATHS = (
    *(
        "/nowhere",
        "/favicon.ico",
        "//evil.example/",
        "/\\evil.example/%2e%2e",
        "/%00",
        "/%0d%0aX-Injected:%201",
        "*",
    ),
    *(
        "",
        "http://evil.example/login",
        "/static/../../setup.cfg",
        "/static/%2e%2e/app.py",
        "/static/%00",
        "/\xff",
    ),
    *(
        "/login;x",
        "/LOGIN",
        "/session/",
        "/a b",
        "/" + "a" * 9000,
        "/%ff%fe",
        "/static/" + "%61" * 2000,
        "/\x01",
    ),
    *("/\xa0\x85", "/static/templates", "/static/style.css/", "//login", "/./login", "/%6cogin", "/?#"),
)
QUERIES = (
    "",
    "next=",
    "username=alice&password=x",
    "&".join("a" * 500),
    "v=1",
    "left=9",
    "%",
    "%ff=%00",
    "next=/&next=/x",
    "_xsrf=",
)
JSON_BODIES: Sequence[bytes] = (
    *(b'{"a": 1}', b'{"key": "n", "by": 1}', b'{"marker": null}', b'{"key": "n"}') * 4,
    *(b"{}", b"[]", b"null", b'"a"'),
    *(
        b'{"a":1,"a":2}',
        b'{"#user":"bob"}',
        b'{"user":"bob","handle":"x"}',
        b'{"$set":{"user":"bob"}}',
        b'{"a.b":1}',
    ),
    *(
        b'{"__proto__":{"user":"bob"}}',
        b'{"_flash:000:x":{}}',
        b'{"_flash:000:0000000000000000":"hello"}',
        b'{"":1}',
    ),
    *(
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":%s}' % (b"9" * 5000),
        b'{"a":\xff}',
    ),
    *(
        b"[" * 5000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'{"a":"%s"}' % (b"x" * 70_000),
        b"\xef\xbb\xbf{}",
        b"{",
    ),
    *('{"a":1}'.encode("utf-16"), b'{"a":"\\u0000\\u2028"}', json.dumps({"html": SCRIPT + SPLIT}).encode()),
    *(
        json.dumps({f"k{n}": n for n in range(300)}).encode(),
        b'{"key":"n","by":9007199254740993}',
        b'{"key":"html"}',
    ),
    *(
        b'{"key":["n"],"by":true}',
        b'{"key":"n","by":1e3}',
        b'{"key":"#user","by":1}',
        b'{"a":-0.0}',
        b'{"by":1}',
    ),
)
MULTIPART = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
RAW_BODIES = (
    b"",
    b"\0\xff\r\n\r\n",
    MULTIPART,
    b"--x\r\n" * 50,
    b"=&" * 2000,
    b"a=%",
    b"<x/>",
    b"_xsrf=&_xsrf=",
)
TYPES = (
    FORM,
    JSON,
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain",
    "application/json;x=1",
    "text/json",
    "",
    "application/json; charset=utf-16",
    "application/JSON ;charset=utf-8",
    "\xff",
    FORM + ";x",
)
HOSTS = (
    "evil.example",
    "evil.example",
    "127.0.0.1",
    "LOCALHOST",
    "",
    "[::1]",
    "a" * 300,
    "evil.example/x",
    "127.0.0.1:99999",
    "\xe9",
)
STRANGE = (
    "",
    "\xa0\x85",
    "%0d%0aX-Injected: 1",
    SCRIPT,
    "a" * 3000,
    "\xff\xfe",
    "\x01",
    "alice",
    "bob",
    "*/*;q=9e9",
)
HEADERS = {
    "Accept": (JSON, "text/html", "*/*", "application/json;q=0.000", ",;q=,,"),
    "Origin": ("https://evil.example", "null", "http://127.0.0.1", "http://[", "//"),
    "Sec-Fetch-Site": ("cross-site", "same-origin", "same-site", "none"),
    "X-Forwarded-For": ("127.0.0.1", "192.0.2.1, 10.0.0.1", "::1%x", "unknown"),
    "X-Forwarded-Proto": ("https", "http", "javascript"),
    "X-Forwarded-Host": ("evil.example", "127.0.0.1"),
    "X-Scheme": ("https",),
    "X-Real-Ip": ("127.0.0.1", "\xff"),
    "Forwarded": ("for=127.0.0.1;host=evil.example;proto=https",),
    "User-Agent": ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Mozilla/5.0 ("),
    "Authorization": ("Basic YWxpY2U6eA==", "Bearer x", "Basic ="),
    "X-User": ("bob",),
    "X-Remote-User": ("bob",),
    "X-Session-Id": ("x",),
    "X-Xsrftoken": ("x" * 86, "x.y.z"),
    "X-Http-Method-Override": ("DELETE", "POST"),
    "X-Original-Url": ("/account/sessions",),
    "Referer": ("https://evil.example/",),
    "If-None-Match": ("*", '"x"', "W/"),
    "If-Modified-Since": ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "yesterday"),
    "Range": ("bytes=0-1", "bytes=-1", "bytes=9-1", "bytes=99999999999999999999-", "x=1"),
    "Expect": ("100-continue", "x"),
    "Upgrade": ("websocket", "h2c"),
    "Connection": ("close", "keep-alive", "Upgrade"),
    "Content-Encoding": ("gzip",),
    "Accept-Encoding": ("gzip",),
    "Accept-Language": ("de", "xx-" * 99),
    "Content-Type": TYPES,
    "Content-Length": ("0", "1", "-1", "99999999999", "1e1", "0x1", "1, 1", "²"),
    "Transfer-Encoding": ("chunked", "gzip, chunked", "identity"),
    "Host": HOSTS,
}

OTHER_COOKIES = (b"a=b", b"x" * 5000, b"=", b"\xff=\xfe", b'id-form="', b"a=\x00")
LOOKALIKES: Sequence[Callable[[bytes], bytes]] = (
    lambda name: b"\xa0" + name,
    lambda name: b"\x85" + name,
    lambda name: name.swapcase(),
    lambda name: name + b" ",
    lambda name: b'"' + name + b'"',
    lambda name: name.removeprefix(b"__Host-") if name.startswith(b"__Host-") else b"__Host-" + name,
    lambda name: b"x" + name,
    lambda name: b"$Path=/, " + name,
)
