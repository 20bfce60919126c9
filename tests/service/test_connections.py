"""Connections that are opened and not used, by those who have no token."""

import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from .conftest import Service, serving

JOBS = "/api/v1/jobs"
TOKEN = "full-0123456789abcdef"
MANY = 2500
"""More than a service has connections."""


@contextmanager
def files(soft: int) -> Iterator[None]:
    """With so many files that this process, and those that it starts, may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def guarded(new_home: Callable[[], Path]) -> Iterator[Service]:
    with ExitStack() as stack:
        with files(256):
            running = stack.enter_context(serving(new_home(), token=TOKEN))
        yield running


def _parts(service: Service) -> dict[str, tuple[bytes, bool]]:
    """What is sent, and whether an answer comes."""
    host = service.url.removeprefix("http://")
    body = f"POST /login HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    return {
        "nothing": (b"", False),
        "half a head": (b"GET /api/v1/jobs HTTP/1.1\r\nHo", False),
        "half a body": (f"{body}Content-Length: 10\r\n\r\ntoken".encode(), False),
        "a request": (f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), True),
        "a refused request": (f"GET {JOBS} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), True),
    }


@pytest.mark.parametrize("kind", ["nothing", "half a head", "half a body", "a request", "a refused request"])
def test_those_who_open_thousands_of_connections_shut_nobody_out(guarded: Service, kind: str) -> None:
    sent, answered = _parts(guarded)[kind]
    with files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), ExitStack() as stack:
        for number in range(MANY):
            idle = stack.enter_context(socket.create_connection(guarded.address, 60))
            idle.sendall(sent)
            if answered:
                assert idle.recv(1)
            if number % 500 == 0 or number > MANY - 5:
                # Each time on a connection of its own.
                headers = {"Authorization": f"Bearer {TOKEN}"}
                assert requests.get(guarded.url + JOBS, headers=headers, timeout=60).status_code == 200


def test_many_who_ask_from_one_address_are_all_answered(guarded: Service) -> None:
    """As those behind a proxy: their connections stay open, and are used again."""
    with ExitStack() as stack:
        clients = [stack.enter_context(requests.Session()) for _ in range(200)]
        for _ in range(2):
            for client in clients:
                assert client.get(f"{guarded.url}/healthz", timeout=60).status_code == 200


def test_with_few_files_it_takes_fewer_connections() -> None:
    program = (
        "import resource\nfrom scanomaly.producer.server.serve import _connections\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\n"
        "print(_connections(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "300", "300"]
