"""Whatever is killed, and whenever: the job ends, every scan is accounted for, and the scores are the same.

`python -m tests.chaos` plays many more seeds than are played here.
"""

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from scanomaly.producer.sample import draw_sample

from . import faults
from .campaign import BATCH_SIZE, ENCODER, SCANS, play, undisturbed
from .plugin.scanomaly_chaos import DEEDS
from .scans import draw_killer, draw_scans
from .servers import Sqlite
from .verdict import Scores, judge, judge_queues, judge_stop
from .world import Worker, World

MANY = 100_000
PARTLY = "SELECT id FROM jobs WHERE submitter_beat_at IS NOT NULL AND scans > 0"
SLOW = {"CHAOS_SCAN_SECONDS": "0.04"}
RANDOM = Random(0)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos") / "scans"
    draw_scans(folder, SCANS)
    return folder


@pytest.fixture(scope="session")
def expected(scans: Path) -> Scores:
    return undisturbed(scans)


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One worker on either store."""
    with World(request.param, workers=1, **SLOW) as world:
        yield world


@pytest.fixture
def gated() -> Iterator[World]:
    """Two workers, who end no batch before they are let through."""
    with World("sqlite", gated=True) as world:
        yield world


def submit(world: World, scans: Path, *options: str, encoder: str = ENCODER) -> None:
    """Submit a job, and wait until it is being worked at."""
    assert world.submit(scans, "--encoder", encoder, "--batch-size", str(BATCH_SIZE), *options).wait() == 0
    if world.workers:
        world.until(world.running, "a batch is in work")


def finish(world: World, expected: Scores) -> None:
    """Wait for the end, and judge it."""
    world.until(lambda: world.ended() and world.idle(), "the job ends")
    verdict = judge(world, expected)
    judge_queues(world, verdict)
    judge_stop(world, verdict)
    assert not verdict.problems, "\n".join([*verdict.problems, world.describe()])


def hearts(world: World) -> set[tuple[str, str]]:
    """Who beat when."""
    return set(world.rows("SELECT name, beat_at FROM workers"))


def holding(world: World) -> Worker:
    """A worker that has a batch in work."""
    found: list[Worker] = []

    def look() -> bool:
        found.extend(worker for worker in world.workers if worker.child and world.held_by(worker))
        return bool(found)

    world.until(look, "a worker has a batch")
    return found[0]


@pytest.mark.parametrize(("database", "seed"), [("sqlite", 557), ("postgres", 98)])
def test_a_schedule_of_faults(database: str, seed: int, scans: Path, expected: Scores) -> None:
    """The two seeds have every kind of fault between them."""
    outcome = play(database, seed, scans, expected)
    assert not outcome.problems, f"{outcome}\n{outcome.notes}"


def test_a_worker_is_killed(scans: Path, expected: Scores) -> None:
    with World("sqlite", **SLOW) as world:
        submit(world, scans)
        worker = holding(world)
        child = worker.child
        world.kill_worker(worker)
        world.until(lambda: child not in world.processes(), "its child ends with it")
        finish(world, expected)


def test_children_are_killed(gated: World, scans: Path, expected: Scores) -> None:
    submit(gated, scans)
    for worker in gated.workers:
        gated.until(lambda worker=worker: worker.child and gated.held_by(worker), "it has a batch")
        assert gated.kill_child(worker)
    gated.let_through()
    finish(gated, expected)


def test_messages_are_lost_and_come_twice(gated: World, scans: Path, expected: Scores) -> None:
    submit(gated, scans)
    # In this order: nothing may wait in the queue any more once messages were lost, to the end of a job as short.
    for fault in (faults.double_message, faults.deliver_again, faults.flush_broker, faults.lose_broker):
        gated.until(lambda fault=fault: faults.strike(fault, gated, RANDOM), fault.__name__)
    gated.let_through()
    finish(gated, expected)


def test_the_store_goes_away(world: World, scans: Path, expected: Scores) -> None:
    submit(world, scans)
    if isinstance(world.database, Sqlite):
        world.until(world.database.lock, "the lock")
        world.later(8, world.database.unlock)
    else:
        world.database.kill()
        world.later(8, world.database.start)
    finish(world, expected)
    assert world.workers[0].exit_codes == []


def test_the_embedded_broker_dies(scans: Path, expected: Scores) -> None:
    with World("sqlite", SCANOMALY_BROKER_URL="", **SLOW) as world:
        submit(world, scans)
        title = b"valkey-server unixsocket:"
        (broker,) = [pid for pid in world.processes() if title in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(broker, signal.SIGKILL)
        world.tell("killed the embedded broker")
        world.until(lambda: world.running() == 0, "its calls are used up")
        world.workers[0].process.kill()
        world.tell("killed worker 0")
        world.until(lambda: world.ended() and world.idle(), "the job ends")
        verdict = judge(world, expected)
        assert not verdict.problems, "\n".join([*verdict.problems, world.describe()])


def test_a_submitter_is_killed(scans: Path) -> None:
    """A small job is in the store whole or not at all; one that is there is done, whoever sent no call for it."""
    with World("sqlite", workers=0) as world:
        begun = time.monotonic()
        submit(world, scans)
        usual = time.monotonic() - begun
        for part in (0.5, 0.65, 0.8, 0.95):
            submission = world.submit(scans, "--encoder", ENCODER, "--batch-size", str(BATCH_SIZE))
            world.later(part * usual, submission.kill)
            submission.wait()
        jobs = world.rows(
            "SELECT id, (SELECT count(*) FROM scans WHERE job_id = jobs.id),"
            " (SELECT sum(scans) FROM batches WHERE job_id = jobs.id), (SELECT count(*) FROM scans WHERE"
            " batch_id IN (SELECT id FROM batches WHERE job_id = jobs.id)) FROM jobs"
        )
        assert [job[1:] for job in jobs] == [(SCANS, SCANS, SCANS)] * len(jobs)
        world.add_worker()
        world.until(lambda: {row[0] for row in world.peek("SELECT state FROM jobs")} == {"done"}, "all end")


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many files that they come in parts. They are empty: here they are not embedded."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        if number % 1000 == 0:
            (folder / "no" / f"{number}").mkdir(parents=True)
        (folder / "no" / f"{number // 1000 * 1000}" / f"{number}.png").touch()
    return folder


def test_a_submitter_is_killed_before_the_job_is_whole(many: Path) -> None:
    """The job is never scored, and fails with a sentence."""
    with World("sqlite", workers=0) as world:
        submission = world.submit(many, "--encoder", ENCODER)
        world.until(lambda: world.peek(PARTLY), "a part is in the store")
        submission.kill()
        submission.wait()
        ((job, scans, *counted),) = world.rows(
            "SELECT id, scans, (SELECT count(*) FROM scans), (SELECT sum(scans) FROM batches) FROM jobs"
        )
        assert counted == [scans, scans]
        assert scans < MANY
        assert json.loads(world.call("status", job, "--json"))["submitting"]
        ended = json.loads(world.call("watch", job, "--json", code=4))
        assert (ended["state"], ended["submitting"], ended["scans"]["total"]) == ("failed", False, scans)
        assert "submit it again" in ended["error"]
        world.call("retry", job, code=1)


def test_the_store_goes_away_while_a_job_is_submitted(many: Path) -> None:
    """Each part is in the store once."""
    with World("postgres", workers=0) as world:
        submission = world.submit(many, "--encoder", ENCODER)
        world.until(lambda: world.peek(PARTLY), "a part is in the store")
        world.database.kill()
        world.database.start()
        assert submission.wait() == 0, world.describe()
        ((whole, *counted),) = world.rows(
            "SELECT submitter_beat_at IS NULL, scans, (SELECT count(*) FROM scans),"
            " (SELECT sum(scans) FROM batches), (SELECT count(DISTINCT path) FROM scans) FROM jobs"
        )
        assert whole
        assert counted == [MANY] * 4


def test_scans_that_kill_workers(tmp_path: Path) -> None:
    """They fail by themselves: the others of their batches are embedded, and few workers die of them."""
    batch_size = 4
    draw_scans(tmp_path / "scans", 92)
    places = ("no/0010", "no/0030", "yes/0051", "yes/0071")
    killers = {f"{place} {deed}.png": deed for place, deed in zip(places, DEEDS, strict=True)}
    for name, deed in killers.items():
        draw_killer(tmp_path / "scans" / name, deed)
    with World("sqlite", workers=1, SCANOMALY_SCAN_SECONDS="2") as world:
        submit(world, tmp_path / "scans", "--batch-size", str(batch_size))
        seconds = world.until(world.ended, "the job ends")
        world.tell(f"ended after {seconds:.0f} s and the deaths {world.deeds()}")
        assert world.state() == "done", world.describe()
        failed = world.rows("SELECT path, failure_kind FROM scans WHERE state = 'failed'")
        assert set(failed) == {(name, "crashed_worker") for name in killers}, world.describe()
        embedded = world.rows("SELECT count(*) FROM scans JOIN scores ON scan_id = id WHERE state = 'embedded'")
        assert embedded == [(92,)]
        for deed in DEEDS:
            assert 1 <= world.deeds().count(deed) <= 2 * math.log2(batch_size) + 6, world.describe()


def test_a_small_job_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    draw_scans(tmp_path / "large", 400)
    draw_scans(tmp_path / "small", 16, seed=1)
    with World("sqlite", workers=1, **SLOW) as world:
        for name in ("large", "small"):
            submit(world, tmp_path / name)
        world.until(lambda: len(world.peek("SELECT 1 FROM jobs WHERE state = 'done'")) > 0, "a job ends")
        states = dict(world.rows("SELECT scans, state FROM jobs"))
        assert states == {400: "embedding", 16: "done"}, world.describe()
        # Calls and running batches of the large job: never more than its window.
        assert world.rows("SELECT count(*) <= 4 FROM batches WHERE state IN ('queued', 'running')")[0][0]


def test_workers_are_updated_one_after_the_other(gated: World, scans: Path, expected: Scores) -> None:
    submit(gated, scans)
    for worker in gated.workers:
        gated.until(lambda worker=worker: gated.held_by(worker), "it has a batch")
        held = gated.held_by(worker)
        worker.process.terminate()
        gated.let_through(worker)
        seconds = gated.until(lambda worker=worker: not worker.alive, "it stops")
        gated.tell(f"worker {worker.number} stopped after {seconds:.1f} s")
        ids = ", ".join(map(str, held))
        assert gated.rows(f"SELECT DISTINCT state FROM batches WHERE id IN ({ids})") == [("done",)]
        gated.until(lambda worker=worker: worker.exit_codes and gated.workers_beat(), "its successor")
        assert worker.exit_codes == [0]
    assert gated.rows("SELECT max(deaths) FROM batches") == [(0,)]
    gated.let_through()
    finish(gated, expected)


def test_a_real_encoder(tmp_path: Path) -> None:
    """Its process is killed with a batch in work, which takes the seconds that torch takes to load.

    One worker: another might be done with the job before the batch is in work again.
    """
    encoder = "efficientnet_lite0"
    draw_sample(tmp_path / "scans", normals=12, anomalies=12)
    expected = undisturbed(tmp_path / "scans", encoder)
    with World("sqlite", workers=1) as world:
        submit(world, tmp_path / "scans", encoder=encoder)
        assert world.kill_child(holding(world))
        world.until(world.idle, "its batch is in work again")
        finish(world, expected)


def test_a_worker_that_takes_no_calls_is_given_another_process(scans: Path, expected: Scores) -> None:
    with World("sqlite", workers=1) as world:
        world.until(world.broker.takers, "the worker waits for calls")
        deaf = world.workers[0].child
        assert deaf is not None
        os.kill(deaf, signal.SIGSTOP)
        submit(world, scans)
        assert world.workers[0].child != deaf
        finish(world, expected)


def test_a_broker_that_answers_nobody_holds_nobody(scans: Path) -> None:
    """Hearts beat on, and workers stop when they are told to."""
    with World("sqlite", workers=1, SCANOMALY_GRACE_SECONDS="5", **SLOW) as world:
        submit(world, scans)
        world.broker.freeze()
        world.tell("froze the broker")
        world.until(lambda: world.running() == 0, "the batches in work end")
        for _ in range(3):
            before = hearts(world)
            world.until(lambda before=before: not before & hearts(world), "every heart beats again")
        assert world.stop_workers() == [0]


def test_the_broker_is_away_when_a_job_is_submitted_and_when_a_batch_ends(scans: Path, expected: Scores) -> None:
    """What the worker then cannot acknowledge must not keep it from taking more."""
    with World("sqlite", workers=1, gated=True) as world:
        world.broker.kill()
        assert world.submit(scans, "--encoder", ENCODER, "--batch-size", str(BATCH_SIZE)).wait() == 0
        assert "when the broker is back" in (world.folder / "submit.log").read_text()
        world.broker.start()
        world.until(world.running, "a batch is in work")
        world.broker.kill()
        world.let_through()
        world.until(lambda: world.running() == 0, "the batches in work end")
        world.broker.start()
        finish(world, expected)
