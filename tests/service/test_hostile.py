"""What is sent by those who mean no good, and by those who know no better."""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from scanomaly.models.settings import Settings
from scanomaly.producer.server import guard
from scanomaly.producer.server.access import COOKIE, Access, Role
from scanomaly.producer.server.app import make_app
from scanomaly.producer.server.sessions import SESSION_SECONDS

from ..acceptance.conftest import OFFLINE, Scanomaly, nothing_is_left, write_image
from ..acceptance.test_commands import error_line
from ..waiting import HANGS, until
from .conftest import DONE, SAFETY, Service, serving

TOKEN, READ_TOKEN = "full-0123456789abcdef", "read-0123456789abcdef"
DIGEST = hashlib.sha256(READ_TOKEN.encode()).hexdigest()
VARIABLES = {"SCANOMALY_API_TOKEN": TOKEN, "SCANOMALY_API_READ_TOKEN": f"sha256:{DIGEST}"}
JOBS = "/api/v1/jobs"
AS_JSON = "Content-Type: application/json"
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def guarded(new_home: Callable[[], Path], root: Path) -> Iterator[Service]:
    """One that asks for a token; of the one that may only look it knows the digest."""
    with serving(new_home(), root, token=TOKEN, SCANOMALY_API_READ_TOKEN=f"sha256:{DIGEST}") as running:
        yield running


def status_of(answer: bytes) -> int:
    """Of the first answer among the bytes that came."""
    assert re.search(rb"\nX-Content-Type-Options: nosniff\r\n", answer, re.I), answer
    return int(answer.split(b" ", 2)[1])


# Tokens and sessions


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong-0123456789abcdef",
        f"Bearer {TOKEN}x".encode(),
        f"Bearer {TOKEN[:-1]}".encode(),
        f"Bearer {TOKEN.upper()}".encode(),
        f"Bearer {TOKEN}, {TOKEN}".encode(),
        f"Bearer {TOKEN} {READ_TOKEN}".encode(),
        f"Basic {TOKEN}".encode(),
        TOKEN.encode(),
        f"Bearer {DIGEST}".encode(),
        f"Bearer sha256:{DIGEST}".encode(),
        "Bearer tökén-0123456789".encode(),
        "Bearer tökén-0123456789".encode("latin-1"),
        b"Bearer \xff\xfe\xfd",
        b"Bearer " + b"x" * 60_000,
    ],
    ids=lambda sent: sent[:30].decode("ascii", "backslashreplace"),
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_wrong_token_opens_nothing(guarded: Service, method: str, sent: bytes) -> None:
    line = b"\r\nAuthorization: " + sent + b"\r\nConnection"
    answer = guarded.send(
        guarded.head(JOBS, method, AS_JSON, "Content-Length: 2").replace(b"\r\nConnection", line), b"{}"
    )
    assert status_of(answer) == 401
    assert b"\r\nwww-authenticate: Bearer" in answer


@pytest.mark.parametrize(
    "path", [JOBS, f"{JOBS}/{DONE}/report/scores.csv", "/metrics", "/openapi.json", "/live", "/none"]
)
def test_without_a_token_there_is_nothing_to_see(guarded: Service, path: str) -> None:
    guarded.ask("GET", path, 401, headers={"Authorization": None})
    assert guarded.ask("GET", "/", 303, headers={"Authorization": None, "Accept": "text/html"}).headers["Location"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login", "/static/style.css"])
def test_what_is_open_is_open(guarded: Service, path: str) -> None:
    assert guarded.ask("GET", path, headers={"Authorization": None}).status_code in (200, 503)


@pytest.mark.parametrize(
    "path", [f"/static/..%2f..{JOBS}", f"/healthz/..{JOBS}", f"//{JOBS}", "/healthz%00", "/LOGIN/"]
)
def test_an_open_path_leads_nowhere_else(guarded: Service, path: str) -> None:
    guarded.ask("GET", path, 401, headers={"Authorization": None})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER  "])
def test_the_right_token_opens(guarded: Service, scheme: str) -> None:
    guarded.ask("GET", JOBS, 200, headers={"Authorization": f"{scheme} {TOKEN}"})
    guarded.ask("GET", JOBS, 200, headers={"Authorization": f"{scheme} {READ_TOKEN}"})


@pytest.mark.parametrize(
    "path", [JOBS, f"{JOBS}/{DONE}/cancel", f"{JOBS}/{DONE}/score", "/jobs", f"/jobs/{DONE}/cancel"]
)
def test_who_may_only_look_changes_nothing(guarded: Service, path: str) -> None:
    headers = {"Authorization": f"Bearer {READ_TOKEN}"}
    assert "may only look" in guarded.ask("POST", path, 403, headers=headers, json={}).text
    assert guarded.ask("GET", f"{JOBS}/{DONE}", 200, headers=headers).json()["state"] == "done"


def _session(home: Path, **changes: str) -> str:
    """A cookie as a service of this home makes it."""
    return Access(Settings.from_environment({"SCANOMALY_HOME": str(home)} | VARIABLES | changes)).begin_session(
        Role.FULL
    )


def _sessions(home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Cookies that look like one of the service's own."""

    def session(**changes: str) -> str:
        return _session(home, **changes)

    good = session()
    read = base64.urlsafe_b64encode(json.dumps(["read", "0" * 32]).encode()).decode().rstrip("=")
    digests = [hashlib.sha256(token.encode()).digest() for token in (TOKEN, READ_TOKEN)]
    sessions = {
        "good": good,
        "empty": "",
        "unsigned": "full",
        "of another role": ".".join([read, *good.split(".")[1:]]),
        "cut": good[:-3],
        "of another home": _session(elsewhere),
        "of an earlier token": session(SCANOMALY_API_TOKEN="full-earlier-0123456789"),
        "of an earlier token to look": session(SCANOMALY_API_READ_TOKEN="read-earlier-0123456789"),
        **{
            f"of another key {number}": str(
                URLSafeTimedSerializer(key, salt="session", signer_kwargs={"digest_method": hashlib.sha256}).dumps(
                    ["full", "0" * 32]
                )
            )
            for number, key in enumerate((b"x", b"".join(digests), digests[0] + b"\0" + digests[1], digests[0]))
        },
        "not ASCII": "full.ü.ü",
        "long": "x" * 50_000,
    }
    for name, seconds in (("expired", -SESSION_SECONDS - 60), ("of tomorrow", 86_400)):
        with monkeypatch.context() as patched:
            moment = int(time.time()) + seconds
            patched.setattr(TimestampSigner, "get_timestamp", lambda _: moment)  # noqa: B023
            sessions[name] = session()
    return sessions


def test_only_the_services_own_sessions_count(
    guarded: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one whose maker knows the tokens' digests, and all of the code."""

    def ask(cookie: str) -> int:
        line = f"Cookie: a=b; {COOKIE}={cookie}"
        return status_of(guarded.send(guarded.head(JOBS, "GET", line)))

    statuses = {name: ask(cookie) for name, cookie in _sessions(guarded.user.home, tmp_path, monkeypatch).items()}
    assert statuses.pop("good") == 200
    assert set(statuses.values()) == {401}, statuses


def test_a_token_makes_a_session_that_ends_with_it(guarded: Service) -> None:
    assert guarded.ask("POST", "/login", 401, data={"token": "wrong"}).headers.get("Set-Cookie") is None
    guarded.ask("POST", "/login", 422, data={"token": "x" * 2000})
    cookie = guarded.ask("POST", "/login", 303, data={"token": READ_TOKEN}).headers["Set-Cookie"]
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    headers = {"Authorization": None, "Cookie": cookie.partition(";")[0]}
    guarded.ask("GET", JOBS, 200, headers=headers)
    guarded.ask("POST", JOBS, 403, headers=headers, json={})
    guarded.ask("GET", JOBS, 401, headers=headers | {"Authorization": "Bearer wrong"})


def log_in(service: Service, token: str = TOKEN, **headers: str) -> str:
    """The cookie of a new session."""
    answer = service.ask("POST", "/login", 303, data={"token": token}, headers={"Authorization": None} | headers)
    return answer.headers["Set-Cookie"].partition(";")[0]


def test_who_logs_out_is_out(new_home: Callable[[], Path], root: Path) -> None:
    """Whoever kept the cookie is, too, and stays so when the service starts again; other sessions go on."""
    home = new_home()
    for turn in range(2):
        with serving(home, root, token=TOKEN) as running:
            if turn == 0:
                mine, another = log_in(running), log_in(running)
                headers = {"Authorization": None, "Cookie": mine}
                running.ask("GET", JOBS, 200, headers=headers)
                running.ask("POST", "/logout", 303, headers=headers)
            running.ask("GET", JOBS, 401, headers=headers)
            running.ask("GET", JOBS, 200, headers={"Authorization": None, "Cookie": another})
    assert {path.stat().st_mode & 0o777 for path in (home / "service").iterdir()} == {0o600}


def test_wrong_tokens_are_not_looked_at_without_end(new_home: Callable[[], Path], root: Path) -> None:
    with serving(new_home(), root, token=TOKEN) as running:
        cookie = log_in(running)
        wrong = [
            running.ask("GET", JOBS, headers={"Authorization": f"Bearer wrong-0123456789-{number}"})
            for number in range(120)
        ]
        statuses = [answer.status_code for answer in wrong]
        assert statuses == [401] * 100 + [429] * 20
        assert 1 <= int(wrong[-1].headers["Retry-After"]) <= 60
        assert "too many wrong tokens" in wrong[-1].json()["detail"]
        page = running.ask("POST", "/login", 429, data={"token": "wrong"}, headers={"Authorization": None})
        assert "Too many wrong tokens" in page.text
        # Who is in stays in.
        running.ask("GET", JOBS, 200, headers={"Authorization": None, "Cookie": cookie})


def test_behind_a_proxy_clients_are_told_apart_and_cookies_kept_from_the_clear(
    new_home: Callable[[], Path], root: Path
) -> None:
    """Only a proxy that the settings name is believed."""

    def said(client: str, scheme: str = "https") -> dict[str, str]:
        return {"X-Forwarded-For": client, "X-Forwarded-Proto": scheme}

    with serving(new_home(), root, token=TOKEN, SCANOMALY_API_PROXIES="127.0.0.1,10.0.0.0/8") as running:
        cookie = running.ask(
            "POST", "/login", 303, data={"token": TOKEN}, headers={"Authorization": None} | said("192.0.2.1")
        ).headers["Set-Cookie"]
        assert cookie.startswith("__Host-scanomaly_session=")
        assert {"secure", "httponly", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
        assert "domain" not in cookie.lower()
        headers = {"Authorization": None, "Cookie": cookie.partition(";")[0]}
        running.ask("GET", JOBS, 200, headers=headers | said("192.0.2.1"))
        running.ask("GET", JOBS, 401, headers=headers | said("192.0.2.1", "http"))
        wrong = {"Authorization": "Bearer wrong-0123456789abcdef"}
        for _ in range(100):
            running.ask("GET", JOBS, 401, headers=wrong | said("2001:db8::1"))
        running.ask("GET", JOBS, 429, headers=wrong | said("2001:db8::2"))
        running.ask("GET", JOBS, 200, headers=said("2001:db8:1::1"))
    with serving(new_home(), root, token=TOKEN) as running:
        for number in range(100):
            running.ask("GET", JOBS, 401, headers=wrong | said(f"192.0.2.{number}"))
        running.ask("GET", JOBS, 429, headers=wrong | said("192.0.2.200"))


@pytest.mark.parametrize(
    ("variables", "arguments", "words"),
    [
        ({}, ["--host", "0.0.0.0"], "needs a token"),
        ({"API_TOKEN": "  "}, ["--host", "0.0.0.0"], "needs a token"),
        ({"API_TOKEN": "fifteen-letters"}, ["--host", "0.0.0.0"], "SCANOMALY_API_TOKEN is too easy to guess"),
        ({"API_TOKEN": "ümläüt-0123456789"}, [], "ASCII"),
        ({"API_TOKEN": TOKEN, "API_READ_TOKEN": "short"}, [], "SCANOMALY_API_READ_TOKEN is too easy to guess"),
        ({"API_TOKEN": "ab" * 20}, [], "only 2 different characters"),
        ({"API_TOKEN": TOKEN, "API_READ_TOKEN": TOKEN}, [], "is the same as SCANOMALY_API_TOKEN"),
        (
            {"API_TOKEN": f"sha256:{DIGEST}", "API_READ_TOKEN": READ_TOKEN},
            [],
            "SCANOMALY_API_READ_TOKEN is the same as SCANOMALY_API_TOKEN",
        ),
        ({"API_TOKEN": TOKEN, "API_PROXIES": "proxy.example"}, [], "is not a list of addresses or networks"),
        ({"API_READ_TOKEN": READ_TOKEN}, [], "SCANOMALY_API_READ_TOKEN is set, but not SCANOMALY_API_TOKEN"),
        ({"API_ROOTS": "scans"}, [], "SCANOMALY_API_ROOTS='scans' is not a list of absolute folders"),
    ],
)
def test_it_does_not_start_where_that_is_not_safe(
    filled_home: Path, variables: dict[str, str], arguments: list[str], words: str
) -> None:
    named = {f"SCANOMALY_{name}": value for name, value in variables.items()}
    done = Scanomaly(filled_home, **named)("serve", "--port", "0", *arguments, code=2)
    assert words in error_line(done.stderr)
    assert not any(value.strip() and value in done.stderr for name, value in variables.items() if "TOKEN" in name)


# Pages of other sites


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "0.0.0.0",
        "[::1",
        "[::2]",
        "2130706433",
        " ",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(service: Service, guarded: Service, host: str) -> None:
    for path in (JOBS, "/", "/healthz"):
        assert status_of(service.send(service.head(path, host=host))) == 421
    # Where a token is asked for, such a page has none.
    assert status_of(guarded.send(guarded.head(JOBS, host=host))) == 401


def test_a_request_without_a_host_is_refused(service: Service) -> None:
    assert status_of(service.send(f"GET {JOBS} HTTP/1.0\r\n\r\n".encode())) == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:99", "localhost", "LOCALHOST:8321", "[::1]", "[::1]:8321"]
)
def test_this_machines_own_names_are_taken(service: Service, host: str) -> None:
    assert status_of(service.send(service.head(JOBS, host=host))) == 200


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/{DONE}/cancel", "/jobs", f"/jobs/{DONE}/cancel", "/login"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none", "Origin": "https://evil.example"},
    ],
    ids=str,
)
def test_another_sites_page_changes_nothing(
    service: Service, guarded: Service, headers: dict[str, str], path: str
) -> None:
    session = _session(guarded.user.home)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    for asked, more in ((service, []), (guarded, [f"Cookie: {COOKIE}={session}"])):
        answer = asked.send(asked.head(path, "POST", *lines, *more, "Content-Length: 0"))
        assert status_of(answer) == 403
        assert b"another site" in answer


@pytest.mark.parametrize("path", [JOBS, "/live", f"{JOBS}/{DONE}/events", f"{JOBS}/{DONE}/report/report.html", "/"])
def test_another_sites_page_makes_nothing_work(service: Service, path: str) -> None:
    fetched = [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "https://evil.example"},
    ]
    for headers in fetched:
        assert "another site" in service.ask("GET", path, 403, headers=headers).text


def test_a_link_from_another_site_is_followed(service: Service) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    service.ask("GET", f"/jobs/{DONE}", 200, headers=link)
    service.ask("POST", f"/jobs/{DONE}/cancel", 403, headers=link)


def test_the_services_own_page_is_heard(service: Service) -> None:
    for headers in ({"Origin": service.url}, {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}):
        service.ask("POST", f"{JOBS}/none/cancel", 404, headers=headers)


# Bodies and heads


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/{DONE}/score", "/jobs", "/login"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(service: Service, path: str, chunked: bool) -> None:
    body = b" " * MEGABYTE
    service.ask(
        "POST", path, 413, data=iter([body, body]) if chunked else body, headers={"Content-Type": "text/plain"}
    )
    service.ask("POST", JOBS, 422, data=b" " * 262_144)


@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        ("Content-Length: 200000000", b"", b""),
        ("Transfer-Encoding: chunked", b"100000\r\n", b"\r\n"),
    ],
)
def test_a_huge_body_is_cut_off(service: Service, line: str, before: bytes, after: bytes) -> None:
    memory = service.memory
    chunk = before + b" " * MEGABYTE + after
    with ThreadPoolExecutor(4) as threads:
        answers = [
            threads.submit(service.send, service.head(JOBS, "POST", AS_JSON, line), *[chunk] * 190)
            for _ in range(4)
        ]
        service.ask("GET", "/healthz", 200)
    for answer in answers:
        assert not answer.result() or status_of(answer.result()) == 413
    assert service.memory < memory + 60 * MEGABYTE


def test_a_huge_body_without_a_token_is_cut_off(guarded: Service) -> None:
    memory = guarded.memory
    head = guarded.head(JOBS, "POST", AS_JSON, "Content-Length: 200000000")
    answer = guarded.send(head, *[b" " * MEGABYTE] * 190)
    assert not answer or status_of(answer) == 401
    assert guarded.memory < memory + 30 * MEGABYTE


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /", *[b"x" * MEGABYTE] * 30],
        [b"GET / HTTP/1.1\r\nX: ", *[b"x" * MEGABYTE] * 30],
        [b"GET / HTTP/1.1\r\n", *[b"X: y\r\n" * 100_000] * 10],
        [b"\r\n" * 500_000] * 10,
    ],
    ids=["path", "header", "headers", "nothing"],
)
def test_a_head_without_end_is_cut_off(service: Service, parts: list[bytes]) -> None:
    memory = service.memory
    answer = service.send(*parts)
    assert not answer or status_of(answer) in (400, 431)
    service.ask("GET", "/healthz", 200)
    assert service.memory < memory + 20 * MEGABYTE


def test_a_head_that_is_too_large_is_told_so(service: Service) -> None:
    answer = service.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
    assert status_of(answer) == 431
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["title"] == "Request Header Fields Too Large"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_http_is_refused(service: Service, request_bytes: bytes) -> None:
    answer = service.send(request_bytes)
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400


def test_those_who_send_half_a_request_stop_nobody(service: Service) -> None:
    halves = [
        service.head(JOBS, "POST", AS_JSON, "Content-Length: 10") + b'{"a"',
        b"GET /he",
        b"POST / HTTP/1.1\r\nHo",
    ]
    for half in halves * 5:
        service.send(half, then_read=False)
    with ExitStack() as stack:
        senders = [stack.enter_context(socket.create_connection(service.address)) for _ in halves * 10]
        for sender, half in zip(senders, halves * 10, strict=True):
            sender.sendall(half)
        service.ask("GET", JOBS, 200)
        for sender in senders:
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):  # the service still waits for the other half
                sender.recv(1)


def ask_app(app: Any, method: str, path: str, *messages: dict[str, Any]) -> Any:
    """Ask an app in this process. Returns how its answer starts."""
    sent: list[Any] = []
    waiting = list(messages)

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
    }
    with suppress(ZeroDivisionError):
        asyncio.run(app(scope, receive, send))
    return sent[0]


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.1)

    async def app(*_: Any) -> None:
        raise AssertionError("only whole requests come here")

    guarded = guard.Guard(app, Access(Settings()))
    part = {"type": "http.request", "body": b"x" * 300_000, "more_body": True}
    assert ask_app(guarded, "POST", JOBS)["status"] == 408
    assert ask_app(guarded, "POST", JOBS, part)["status"] == 413


def test_an_error_of_its_own_says_nothing_and_is_safe(filled_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(Settings(home=filled_home))
    app.add_api_route("/broken", lambda: 1 / 0)
    answer = ask_app(app, "GET", "/broken")
    assert answer["status"] == 500
    sent = {name.decode().lower(): value.decode() for name, value in answer["headers"]}
    assert sent["content-type"] == "application/problem+json"
    assert {name: sent.get(name.lower()) for name in SAFETY} == SAFETY
    assert "ZeroDivisionError" in caplog.text


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"source"',
        b"{",
        b'{"source": "/x"',
        b'{"source": "/x"} {}',
        b"{'source': '/x'}",
        b'{"source": "\\ud800"}',
        b'{"source": "/x", "\\udfff": 1}',
        b'{"source": "/x\\u0000"}',
        b'{"source": "/x\\n"}',
        b'{"source": "\xff\xfe"}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{",
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b'{"source": "/x", "batch_size": ' + b"9" * 5000 + b"}",
        b'{"source": "/x", "batch_size": 1e999}',
        b'{"source": "/x", "batch_size": 32.5}',
        b'{"source": "/x", "batch_size": -1}',
        b'{"source": "/x", "false_alarm_rate": NaN}',
        b'{"source": "/x", "false_alarm_rate": Infinity}',
        b'{"source": "/x", "false_alarm_rate": -0.0}',
        b'{"source": "/x", "source": 1}',
        b'{"source": 1, "source": "relative"}',
        b'{"source": ["/x"]}',
        b'{"source": {"__class__": "x"}}',
        b'{"source": "/x", "out": "/y"}',
        b'{"source": "/x", "follow_links": true}',
        b'{"source": "/x", "normal": "no/"}',
        b'{"source": "/x", "normal": [' + b'"a",' * 101 + b'"a"]}',
        b'{"source": "/x", "precision": "auto"}',
        b'{"source": "/' + "ü".encode() * 3000 + b'"}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_json_that_cannot_be_right_is_a_problem(service: Service, body: bytes) -> None:
    service.ask("POST", JOBS, 422, data=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "a", "a/b/c;;="],
)
def test_what_does_not_say_that_it_is_json_is_none(service: Service, kind: str | None) -> None:
    body = json.dumps({"source": "/x"}).encode()
    service.ask("POST", JOBS, 422, data=body, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    "query",
    ["limit=" + "9" * 5000, "limit=1e3", "limit=", "after=%00", "after=" + "x" * 101, "state=x", "order=x"]
    + [f"min_score={value}" for value in ("nan", "inf", "1e999", "%ff", "x")]
    + [
        f"after={value}"
        for value in ("-1", "1_2", "99999999999", "1_nan&order=score", "1_inf&order=score", "%F0%9F%92%A9")
    ],
)
def test_a_query_that_cannot_be_right_is_a_problem(service: Service, query: str) -> None:
    service.ask("GET", f"{JOBS}/{DONE}/scans?{query}", 422)


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256, "\t"])
def test_a_key_that_cannot_be_right_is_a_problem(service: Service, key: str) -> None:
    body = b'{"source": "/x"}'
    lines = [AS_JSON, f"Content-Length: {len(body)}", f"Idempotency-Key: {key}"]
    assert status_of(service.send(service.head(JOBS, "POST", *lines), body)) == 422


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "..%2fstore.sqlite",
        "%2e%2e/%2e%2e/store.sqlite",
        "%2e%2e%2f%2e%2e%2fstore.sqlite",
        "%252e%252e%252fstore.sqlite",
        "../../store.sqlite",
        "....//....//store.sqlite",
        "..;/store.sqlite",
        "..%5c..%5cstore.sqlite",
        "..\\..\\store.sqlite",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "%c0%ae%c0%ae%c0%afstore.sqlite",
        "%ef%bc%8e%ef%bc%8e/store.sqlite",
        "scores.csv%00.html",
        "%00",
        "scores.csv/",
        "scores.csv%2f..%2freport.html",
        ".%2fscores.csv",
        "SCORES.CSV",
        "scores.csv%20",
        "scores.csv%0d%0aSet-Cookie:%20a=b",
        "CON",
        "~",
        "%ff%fe",
        "x" * 5000,
    ],
)
def test_no_name_leads_out_of_a_report(service: Service, name: str) -> None:
    for path in (
        f"{JOBS}/{DONE}/report/{name}",
        f"{JOBS}/{name}/report/scores.csv",
        f"{JOBS}/{name}",
        f"/static/{name}",
    ):
        answer = service.send(service.head(path))
        assert status_of(answer) in (404, 405, 422), path
        assert b"SQLite format" not in answer
        assert b"root:" not in answer
        assert b"set-cookie" not in answer.lower().partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize("job", ["_", "%25", "-", "*", "d0e_______", "%27%20OR%201=1", "'", "x" * 33, ""])
def test_a_jobs_id_is_no_pattern(service: Service, job: str) -> None:
    assert service.ask("GET", f"{JOBS}/{job}").status_code in (404, 422)
    service.ask("POST", f"{JOBS}/{job}/cancel", headers={"Content-Length": "0"})
    assert service.ask("GET", f"{JOBS}/{DONE}", 200).json()["state"] == "done"


def test_a_link_in_a_report_shows_nothing(service: Service, filled_home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret")
    link = filled_home / "reports" / DONE / "groups.csv"
    for target in (secret, Path("scores.csv"), tmp_path, tmp_path / "none"):
        link.symlink_to(target)
        try:
            service.ask("GET", f"{JOBS}/{DONE}/report/groups.csv", 404)
            files = service.ask("GET", f"{JOBS}/{DONE}/report", 200).json()["files"]
            assert {"groups.csv", "secret.csv"}.isdisjoint(file["name"] for file in files)
        finally:
            link.unlink()


def test_a_report_is_shown_in_a_sandbox(service: Service) -> None:
    for name in ("report.html", "scores.csv", "roc.png"):
        policy = service.ask("GET", f"{JOBS}/{DONE}/report/{name}", 200).headers["Content-Security-Policy"]
        assert policy.startswith("sandbox ")
        for freedom in ("allow-same-origin", "allow-forms", "allow-top-navigation", "connect-src"):
            assert freedom not in policy


@pytest.fixture(scope="module")
def outside(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan beside the root; links lead there, and from there."""
    folder = tmp_path_factory.mktemp("outside")
    write_image(folder / "no" / "a.png")
    (folder / "labels.csv").write_text("path,label\nno/a.png,normal\n")
    (root / "link").symlink_to(folder)
    (folder / "into").symlink_to(root / "scans" / "no")
    return folder


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{outside}", 403),
        ("{root}/../{outside.name}", 403),
        ("{root}/scans/../../{outside.name}", 403),
        ("{root}/link", 403),
        ("{root}/link/no", 403),
        ("{root}/scans/../link/no", 403),
        ("{outside}/into/..", 403),
        ("{root}x", 403),
        ("{root}/..", 403),
        ("//{outside}", 403),
        ("/", 403),
        ("/proc/self/root", 403),
        ("/proc/self/cwd", 403),
        ("/dev/stdin", 403),
        ("/" + "x" * 300, 403),
        ("-", 422),
        ("kaggle:navoneel/brain-mri-images-for-brain-tumor-detection", 422),
        ("sample:", 422),
        ("scans", 422),
        ("./scans", 422),
        ("~", 422),
        ("~root", 422),
        ("file://{root}/scans", 422),
        ("{root}/scans\0", 422),
        ("", 422),
    ],
)
def test_scans_come_from_the_roots_only(
    service: Service, root: Path, outside: Path, source: str, code: int
) -> None:
    before = service.jobs()
    service.submit(source.format(root=root, outside=outside), code)
    service.ask(
        "POST", "/jobs", code if source else 422, data={"source": source.format(root=root, outside=outside)}
    )
    assert service.jobs() == before


@pytest.mark.parametrize("option", ["labels_file", "weights"])
def test_other_files_come_from_the_roots_too(service: Service, root: Path, outside: Path, option: str) -> None:
    for path, code in ((outside / "labels.csv", 403), (root / "link" / "labels.csv", 403), ("labels.csv", 422)):
        service.submit(root / "scans", code, **{option: str(path)})


def test_without_roots_there_are_no_submissions(guarded: Service, new_home: Callable[[], Path], root: Path) -> None:
    with serving(new_home()) as running:
        assert "takes no jobs" in running.submit(root / "scans", 403)["detail"]
        running.submit("/", 403)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("scans", {"group": "("}),
        ("scans", {"group": "a{99999999999999999999}"}),
        ("scans", {"normal": ["x" * 300]}),
        ("scans", {"normal": [".."]}),
        ("x" * 300, {}),
    ],
    ids=str,
)
def test_names_and_patterns_that_no_system_takes_are_problems(
    service: Service, root: Path, source: str, options: dict[str, Any]
) -> None:
    assert service.submit(root / source, 422, **options)["type"] == "urn:scanomaly:usage"


def test_a_submission_that_stands_still_stops_nobody(new_home: Callable[[], Path], root: Path) -> None:
    home = new_home()
    with serving(home, root) as running, ThreadPoolExecutor(1) as threads:
        stuck = threads.submit(running.submit, root / "scans")
        until(lambda: _submitter_of(home), "it is not submitted")
        process = int(_submitter_of(home))
        os.kill(process, signal.SIGSTOP)
        running.submit(root / "scans", 201)
        for _ in range(20):
            running.ask("GET", JOBS, 200)
        assert not stuck.done()
        os.kill(process, signal.SIGKILL)
        with suppress(AssertionError):
            stuck.result(HANGS)
    assert nothing_is_left(home)


def _submitter_of(home: Path) -> str:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (
                b"server.submitter" in (entry / "cmdline").read_bytes()
                and str(home) in (entry / "environ").read_text()
            ):
                return entry.name
    return ""


# Submissions that come again, and too many


def test_a_submission_that_comes_again_is_one_job(service: Service, root: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(service.submit, root / "scans", 201, key="ten") for _ in range(10)]
        assert len({answer.result()["job"] for answer in asked}) == 1
    job = asked[0].result()["job"]
    assert service.submit(root / "scans", 201, key="ten")["job"] == job
    assert service.submit(root / "scans", 422, key="ten", batch_size=7)["type"] == "urn:scanomaly:key-reused"
    assert service.submit(root / "scans", 201, key="TEN")["job"] != job


def test_too_many_submissions_have_to_wait(new_home: Callable[[], Path], root: Path) -> None:
    with serving(new_home(), root, SCANOMALY_API_SUBMITS_PER_MINUTE="2") as running:
        for _ in range(2):
            running.submit("/elsewhere", 403)
        for path in (JOBS, "/jobs"):
            answer = running.ask("POST", path, 429, **_body_for(path, root))
            assert path == "/jobs" or 1 <= int(answer.headers["Retry-After"]) <= 60
        running.ask("GET", JOBS, 200)


def _body_for(path: str, root: Path) -> dict[str, Any]:
    asked = {"source": str(root / "scans"), "encoder": OFFLINE[1]}
    return {"json": asked} if path == JOBS else {"data": asked}


# Every answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", path)
            for path in ("/", "/live?state=x", f"/jobs/{DONE}", "/jobs/none", "/login", "/none", "/openapi.json")
        ),
        *(
            ("GET", path)
            for path in ("/healthz", "/readyz", "/metrics", "/static/style.css", "/static/none", "/docs")
        ),
        *(
            ("GET", f"{JOBS}{path}")
            for path in ("", f"/{DONE}", f"/{DONE}/events", f"/{DONE}/report", "/none", "?limit=x")
        ),
        *((method, JOBS) for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE")),
    ],
)
def test_every_answer_is_safe(service: Service, method: str, path: str) -> None:
    answer = service.ask(method, path)  # which checks it
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_answer_that_did_not_change_is_safe_too(service: Service) -> None:
    for path in (f"{JOBS}/{DONE}", f"{JOBS}/{DONE}/report/scores.csv"):
        tag = service.ask("GET", path, 200).headers["ETag"]
        assert service.ask("GET", path, 304, headers={"If-None-Match": tag}).content == b""


def test_a_client_that_goes_away_is_forgotten(service: Service) -> None:
    waiting = next(job for job in service.jobs() if job != DONE)
    for _ in range(20):
        requests.get(f"{service.url}{JOBS}/{waiting}/events", stream=True, timeout=5).close()
    service.ask("GET", "/healthz", 200)
