"""Clients that poll a running job through the HTTP service: how long they wait, and what they cost the worker."""

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import uvloop

from .table import Row, row_of_rounds
from .world import Scanomaly, draw_small, scanomaly

_ENCODER = ("--encoder", "efficientnet_lite0", "--batch-size", "8")
_SECONDS_BETWEEN = 1.0
_WARM_SCANS = 200
_LOOK_SECONDS = 0.5
_GOAL_MS = 100.0


def rows(scans: int, clients: int, window: float, rounds: int) -> Iterator[Row]:
    """A job on one worker that uses all cores, in windows of so many seconds, in turn: nobody asks, clients poll,
    nobody asks, clients follow events. The clients run on the same cores as the service and the worker."""
    with scanomaly(SCANOMALY_DEVICE="cpu") as here:
        folder = draw_small(here.home / "scans", scans, seed=1)
        with here.workers(), here.service() as url:
            job = json.loads(here.call("submit", folder, "--json", *_ENCODER))["job"]
            while here.rows("SELECT sum(embedded) FROM batches")[0][0] < _WARM_SCANS:
                time.sleep(_LOOK_SECONDS)
            waited: list[float] = []
            speeds: dict[str, list[float]] = {"polled": [], "quiet": [], "followed": [], "quiet too": []}
            for _ in range(rounds):
                speeds["quiet"].append(_speed(here, window, asyncio.sleep(window)))
                speeds["polled"].append(_speed(here, window, _poll(url, job, clients, window, waited)))
                speeds["quiet too"].append(_speed(here, window, asyncio.sleep(window)))
                speeds["followed"].append(_speed(here, window, _follow(url, job, clients, window)))
            here.call("cancel", job)
    who = f"{clients} clients, each polling a job of {scans:,} scans once a second"
    asked = f"{who}: p99 of {len(waited):,} answers"
    yield Row(asked, "the goal", "ms", quantiles(waited, n=100)[-1], _GOAL_MS, "≤ 1")
    yield row_of_rounds(
        f"{who}: the worker", "with nobody asking", "images/s", speeds["polled"], speeds["quiet"], "≥ 0.95"
    )
    yield row_of_rounds(
        f"{clients} clients following its events: the worker",
        "with nobody asking",
        "images/s",
        speeds["followed"],
        speeds["quiet too"],
    )


def _speed(here: Scanomaly, window: float, meanwhile: Coroutine[Any, Any, None]) -> float:
    """Images a second that the worker commits while something goes on: from the first commit in it to the last."""
    begun = datetime.now(UTC)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(meanwhile)
    commits = here.rows(
        "SELECT finished_at, embedded + failed FROM batches "
        f"WHERE finished_at > '{begun.strftime('%Y-%m-%d %H:%M:%S.%f')}' ORDER BY finished_at"
    )
    if len(commits) < 2:
        raise RuntimeError("the job is over, or a window too short: give more --scans or a longer --window")
    times = [datetime.fromisoformat(moment).timestamp() for moment, _ in commits]
    return float(sum(count for _, count in commits[1:])) / (times[-1] - times[0])


async def _poll(url: str, job: str, clients: int, window: float, waited: list[float]) -> None:
    end = time.monotonic() + window
    await asyncio.gather(*(_poller(url, job, number / clients, end, waited) for number in range(clients)))


async def _poller(url: str, job: str, wait: float, end: float, waited: list[float]) -> None:
    """One client, with one connection, that sends the ETag it was given last. All together ask evenly."""
    host, port = _address(url)
    await asyncio.sleep(wait * _SECONDS_BETWEEN)
    reader, writer = await asyncio.open_connection(host, port)
    etag = ""
    due = time.monotonic()
    while due < end:
        begun = time.perf_counter()
        writer.write(_request(host, port, f"/api/v1/jobs/{job}", f"If-None-Match: {etag}\r\n" if etag else ""))
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        waited.append(1000 * (time.perf_counter() - begun))
        if head[9:12] not in (b"200", b"304"):
            raise RuntimeError(f"the service answers {head.decode()}")
        etag = headers["etag"]
        due += _SECONDS_BETWEEN
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    writer.close()


async def _follow(url: str, job: str, clients: int, window: float) -> None:
    await asyncio.gather(*(_follower(url, job, window) for _ in range(clients)))


async def _follower(url: str, job: str, window: float) -> None:
    host, port = _address(url)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(_request(host, port, f"/api/v1/jobs/{job}/events"))
    with suppress(TimeoutError):
        async with asyncio.timeout(window):
            while await reader.readline():
                pass
    writer.close()


def _request(host: str, port: int, path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n".encode()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
