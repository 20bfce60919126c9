"""Clients that poll a running job through the HTTP service: how long they wait, and what they cost the worker."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import uvloop

from .table import Row, row_of_rounds
from .world import Scanomaly, draw_small, scanomaly

_ENCODER = ("--encoder", "efficientnet_lite0", "--batch-size", "8")
_PACES = (1.0, 2.0)
"""Seconds between two questions of a client."""
_WARM_SCANS = 200
_LOOK_SECONDS = 0.5
_GOAL_MS = 100.0


def rows(scans: int, clients: int, window: float, rounds: int) -> Iterator[Row]:
    """A job on one worker that uses all cores, in windows of so many seconds, in turn: nobody asks, clients ask.
    The clients run on the same cores as the service and the worker."""
    with scanomaly(SCANOMALY_DEVICE="cpu") as here:
        folder = draw_small(here.home / "scans", scans, seed=1)
        with here.workers(), here.service() as url:
            job = json.loads(here.call("submit", folder, "--json", *_ENCODER))["job"]
            while here.rows("SELECT sum(embedded) FROM batches")[0][0] < _WARM_SCANS:
                time.sleep(_LOOK_SECONDS)
            waited: dict[float, list[float]] = {pace: [] for pace in _PACES}
            speeds: dict[float | str, list[tuple[float, float]]] = {pace: [] for pace in (*_PACES, "events")}
            for _ in range(rounds):
                for pace, found in speeds.items():
                    quiet = _speed(here, partial(asyncio.sleep, window))
                    if isinstance(pace, float):
                        asking = partial(_poll, url, job, clients, window, pace, waited[pace])
                    else:
                        asking = partial(_follow, url, job, clients, window)
                    found.append((_speed(here, asking), quiet))
            here.call("cancel", job)
    for pace in _PACES:
        who = f"{clients} clients, each polling a job of {scans:,} scans every {pace:g} s"
        p99 = quantiles(waited[pace], n=100)[-1]
        yield Row(f"{who}: p99 of {len(waited[pace]):,} answers", "the goal", "ms", p99, _GOAL_MS, "≤ 1")
        yield _worker_row(who, speeds[pace], "≥ 0.95")
    yield _worker_row(f"{clients} clients, each following its events", speeds["events"])


def _worker_row(who: str, speeds: list[tuple[float, float]], goal: str = "") -> Row:
    asked, quiet = zip(*speeds, strict=True)
    return row_of_rounds(f"{who}: the worker", "with nobody asking", "images/s", asked, quiet, goal)


def _speed(here: Scanomaly, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Images a second that the worker commits while something goes on: from the first commit in it to the last.
    On a busy machine it goes on until there are two."""
    begun = datetime.now(UTC)
    commits: list[tuple[Any, ...]] = []
    while len(commits) < 2:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(meanwhile())
        commits = here.rows(
            "SELECT finished_at, embedded + failed FROM batches "
            f"WHERE finished_at > '{begun.strftime('%Y-%m-%d %H:%M:%S.%f')}' ORDER BY finished_at"
        )
        if not here.rows("SELECT 1 FROM batches WHERE state != 'done'"):
            raise RuntimeError("the job is over: give more --scans or a shorter --window")
    times = [datetime.fromisoformat(moment).timestamp() for moment, _ in commits]
    return float(sum(count for _, count in commits[1:])) / (times[-1] - times[0])


async def _poll(url: str, job: str, clients: int, window: float, pace: float, waited: list[float]) -> None:
    end = time.monotonic() + window
    starts = (pace * number / clients for number in range(clients))
    await asyncio.gather(*(_poller(url, job, start, end, pace, waited) for start in starts))


async def _poller(url: str, job: str, start: float, end: float, pace: float, waited: list[float]) -> None:
    """One client, with one connection, that sends the ETag it was given last. All together ask evenly."""
    host, port = _address(url)
    await asyncio.sleep(start)
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
        due += pace
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
