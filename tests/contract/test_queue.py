"""The queue and the reconciler over real servers: what Redis has, and what is sent again."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import BrokerUnreachableError
from scanomaly.models.queue import EMBED_TASK, Queue, make_celery
from scanomaly.models.reconcile import Reconciler, reconcile, send_calls
from scanomaly.models.records import Call, FoundScan, NewJob, ScanResult
from scanomaly.models.settings import Settings
from scanomaly.models.states import JobState, Priority
from scanomaly.models.store import Store
from scanomaly.worker.hearing import Hearing, hearing

from ..conftest import missing
from ..waiting import HANGS

OFFLINE = parse_encoder("efficientnet_lite0")


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Redis itself, for this test alone."""
    server = shutil.which("redis-server")
    if server is None:
        missing("redis-server, of the system's package of that name")
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        socket = f"{folder}/redis.sock"
        process = subprocess.Popen(
            [server, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        client = Redis(unix_socket_path=socket)
        deadline = time.monotonic() + HANGS
        while not Path(socket).exists():
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.02)
        yield client
        client.close()
        process.kill()
        process.wait()


@pytest.fixture
def settings(redis: Redis, tmp_path: Path) -> Settings:
    socket = redis.connection_pool.connection_kwargs["path"]
    return Settings(home=tmp_path, broker_url=f"redis+socket://{socket}")


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return Queue(settings)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings)
    yield store
    store.close()


def add_job(store: Store, job_id: str = "abcdef", scans: int = 3) -> None:
    job = NewJob(job_id, ".", "/scans", "/reports", OFFLINE, 1, priority=Priority.LOW)
    store.submissions.add(job, [FoundScan(f"{number}.png") for number in range(scans)])


def finish_all(store: Store, job_id: str = "abcdef") -> None:
    for batch_id in store.batches.unfinished(job_id):
        batch = store.batches.begin(batch_id, "w1")
        assert batch is not None
        results = [ScanResult(scan.id, sha256=f"{scan.id:064d}") for scan in batch.scans]
        store.batches.finish(batch, results, {})


@pytest.fixture
def channel(settings: Settings) -> Iterator[Any]:
    """Takes messages as a worker does, and does not acknowledge them."""
    with make_celery(settings).connection_for_read() as connection:
        yield connection.default_channel


def test_calls_that_wait_are_alive(queue: Queue) -> None:
    queue.embed([Call(7, Priority.NORMAL), Call(8, Priority.HIGH), Call(9, Priority.LOW)])
    queue.aggregate("abcdef", Priority.LOW)
    assert queue.alive().batches == {7, 8, 9}
    assert queue.alive().jobs == {"abcdef"}


def test_a_call_that_was_just_delivered_is_alive_and_an_old_one_is_lost(
    queue: Queue, channel: Any, redis: Redis
) -> None:
    queue.embed([Call(7, Priority.NORMAL)])
    assert channel.basic_get("scanomaly.embed") is not None
    assert queue.alive().batches == {7}
    (tag,) = redis.zrange("unacked_index", 0, -1)
    redis.zadd("unacked_index", {tag: time.time() - 60})
    assert queue.alive().batches == frozenset()


def test_a_higher_priority_goes_first(queue: Queue, channel: Any) -> None:
    queue.embed([Call(1, Priority.LOW), Call(2, Priority.NORMAL), Call(3, Priority.HIGH), Call(4, Priority.NORMAL)])
    order = [channel.basic_get("scanomaly.embed").headers["id"].split(":")[1] for _ in range(4)]
    assert order == ["3", "2", "4", "1"]


def test_messages_are_json_with_one_id(queue: Queue, channel: Any, settings: Settings) -> None:
    queue.embed([Call(7, Priority.NORMAL)])
    message = channel.basic_get("scanomaly.embed")
    assert message.content_type == "application/json"
    assert message.decode()[0] == [7]
    assert message.headers["task"] == EMBED_TASK
    assert make_celery(settings).conf.accept_content == ["json"]


def test_calls_that_redis_lost_are_sent_again_and_only_those(
    store: Store, queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanomaly.models.reconcile._ON_ITS_WAY_SECONDS", 0)
    add_job(store)
    assert send_calls(store, queue, "abcdef") == 3
    assert reconcile(store, queue) == 0
    redis.flushall()
    assert reconcile(store, queue) == 3
    assert reconcile(store, queue) == 0
    assert queue.alive().batches == {1, 2, 3}


def test_a_call_on_its_way_is_not_doubled(store: Store, queue: Queue) -> None:
    add_job(store)
    store.batches.next_calls("abcdef")  # noted, and not yet sent
    assert reconcile(store, queue) == 0


def test_the_scoring_of_a_job_is_never_lost(
    store: Store, queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanomaly.models.reconcile._ON_ITS_WAY_SECONDS", 0)
    add_job(store)
    finish_all(store)  # and whoever did the last batch died before it could say so
    assert reconcile(store, queue) == 1
    assert store.find_job("abcdef").state == JobState.SCORING
    assert queue.alive().jobs == {"abcdef"}
    assert reconcile(store, queue) == 0
    redis.flushall()
    assert reconcile(store, queue) == 1
    store.workers.beat("w1", "host", 1, "cpu", "1")
    store.begin_aggregate("abcdef", "w1", 3)
    redis.flushall()
    assert reconcile(store, queue) == 0


def test_a_job_that_was_stored_without_a_broker_is_called_when_there_is_one(store: Store, queue: Queue) -> None:
    add_job(store)
    assert reconcile(store, queue) == 3


def test_a_broker_that_is_away_loses_no_call(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("scanomaly.models.reconcile._ON_ITS_WAY_SECONDS", 0)
    away = Queue(Settings(home=tmp_path, broker_url=f"redis+socket://{tmp_path}/nobody.sock"))
    add_job(store)
    with pytest.raises(BrokerUnreachableError, match="cannot be used"):
        send_calls(store, away, "abcdef")
    with pytest.raises(BrokerUnreachableError):
        reconcile(store, away)
    assert reconcile(store, queue) == 3


def test_two_jobs_share_the_workers(store: Store, queue: Queue) -> None:
    add_job(store, "large", scans=1000)
    send_calls(store, queue, "large")
    add_job(store, "small", scans=4)
    send_calls(store, queue, "small")
    assert len(queue.alive().batches) == 8


def test_a_reconciler_judges_only_after_it_was_in_touch_for_a_while(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("scanomaly.models.reconcile.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("scanomaly.models.reconcile._TURN_SECONDS", 0)
    add_job(store)
    store.batches.begin(1, "a worker that never beat")

    def tick_until(seconds: float) -> None:
        while clock[0] < seconds:
            clock[0] += 2.5
            time.sleep(0.002)  # the store's clock has to move too
            reconciler.tick()

    reconciler = Reconciler(store, queue)
    tick_until(1010)
    assert store.progress("abcdef").running == 1
    clock[0] += 60  # it was stopped for a minute, or the machine slept
    tick_until(1080)
    assert store.progress("abcdef").running == 1
    tick_until(1090)
    assert store.progress("abcdef").running == 0


@pytest.fixture
def ear(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hearing]:
    """For a process that this test plays."""
    monkeypatch.setattr("scanomaly.worker.hearing._LOOK_SECONDS", 0.02)
    with hearing(queue) as ear:
        yield ear


def becomes_deaf(ear: Hearing, after: str, within: float) -> bool:
    os.write(ear.descriptor, after.encode())
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if ear.is_deaf():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("said", "deaf"),
    [
        ("", False),
        ("busy\n", False),
        ("idle scanomaly.aggregate scanomaly.embed\n", True),
        ("idle scanomaly.embed\nbusy\nidle scanomaly.embed\n", True),
        ("idle scanomaly.embed\nbusy\n", False),
        ("idle scanomaly.aggregate\n", False),
    ],
    ids=["starting", "busy", "idle", "idle again", "busy again", "takes no such calls"],
)
def test_an_idle_process_beside_waiting_calls_is_deaf(ear: Hearing, queue: Queue, said: str, deaf: bool) -> None:
    queue.embed([Call(1, Priority.LOW)])
    assert becomes_deaf(ear, said, within=HANGS if deaf else 0.5) == deaf


def test_an_idle_process_without_calls_is_not_deaf(ear: Hearing, queue: Queue, redis: Redis) -> None:
    assert not becomes_deaf(ear, "idle scanomaly.embed\n", within=0.5)
    queue.embed([Call(1, Priority.NORMAL)])
    assert becomes_deaf(ear, "", within=HANGS)
    redis.flushall()
    assert not becomes_deaf(ear, "idle scanomaly.embed\n", within=0.5)
