"""What can go wrong, and when: a seed gives a schedule of faults, the same each time."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from redis.exceptions import RedisError

from .servers import Postgres, Sqlite
from .world import Worker, World

Fault = Callable[[World, Random], str | None]
"""Breaks something, and sees to it that it is repaired later. Returns what it did; None when there was nothing to
break, as when what it would kill is dead already."""


def kill_child(world: World, random: Random) -> str | None:
    """The process that computes dies: out of memory, a crash in a decoder."""
    worker = _one(world, random)
    return f"killed the child of worker {worker.number}" if world.kill_child(worker) else None


def kill_parent(world: World, random: Random) -> str | None:
    """A supervisor dies, and is started again as by systemd or Docker."""
    worker = _one(world, random)
    if not worker.alive or worker.due:
        return None
    world.kill_worker(worker)
    world.restart(worker, random.uniform(1, 4))
    return f"killed worker {worker.number}"


def kill_both(world: World, random: Random) -> str | None:
    """A machine goes down: parent and child at the same instant."""
    worker = _one(world, random)
    if not worker.alive or worker.due:
        return None
    world.kill_worker(worker, and_child=True)
    world.restart(worker, random.uniform(1, 4))
    return f"killed worker {worker.number} and its child"


def freeze_worker(world: World, random: Random) -> str | None:
    """A child, a parent or both stand still; for the longest time, so that others hold the worker for dead."""
    worker = _one(world, random)
    child = worker.child
    if child is None:
        return None
    whom = random.choice(["child", "parent", "both"])
    seconds = random.choice([2, 5, 14])
    for pid in {"child": [child], "parent": [worker.pid], "both": [worker.pid, child]}[whom]:
        _signal(pid, signal.SIGSTOP)
        world.later(seconds, partial(_signal, pid, signal.SIGCONT))
    return f"froze worker {worker.number} ({whom}) for {seconds} s"


def stop_worker(world: World, random: Random) -> str | None:
    """A worker is told to stop, as in an update, and another takes its place."""
    worker = _one(world, random)
    if not worker.alive or worker.due:
        return None
    worker.process.terminate()
    world.restart(worker, random.uniform(0.5, 2))
    return f"told worker {worker.number} to stop"


def flush_broker(world: World, _random: Random) -> str | None:
    world.broker.client.flushall()
    return "flushed the broker"


def drop_message(world: World, random: Random) -> str | None:
    queues = world.broker.queues()
    if not queues:
        return None
    queue = random.choice(queues)
    return f"dropped a message of {queue}" if world.broker.client.rpop(queue) else None


def double_message(world: World, random: Random) -> str | None:
    queues = world.broker.queues()
    if not queues:
        return None
    queue = random.choice(queues)
    messages: Any = world.broker.client.lrange(queue, 0, -1)
    if not messages:
        return None
    world.broker.client.lpush(queue, random.choice(messages))
    return f"doubled a message of {queue}"


def deliver_again(world: World, random: Random) -> str | None:
    """The message of a batch that a worker has in work comes once more."""
    delivered = world.broker.delivered()
    if not delivered:
        return None
    message, _exchange, queue = json.loads(random.choice(delivered))
    world.broker.client.rpush(queue, json.dumps(message))
    return f"delivered a message of {queue} again"


def restart_broker(world: World, random: Random) -> str | None:
    return _restart_broker(world, random, forget=False)


def lose_broker(world: World, random: Random) -> str | None:
    """The broker dies with all it had."""
    return _restart_broker(world, random, forget=True)


def freeze_broker(world: World, random: Random) -> str | None:
    """The broker answers nobody: a network that swallows packets."""
    if not world.broker.up:
        return None
    seconds = random.choice([2, 6, 15])
    world.broker.freeze()
    world.later(seconds, world.broker.thaw)
    return f"froze the broker for {seconds} s"


def restart_store(world: World, random: Random) -> str | None:
    """PostgreSQL dies; SQLite has no server to die, and is locked by another program instead."""
    seconds = random.uniform(1, 5)
    if isinstance(world.database, Sqlite):
        if not world.database.lock():
            return None
        world.later(seconds, world.database.unlock)
        return f"locked SQLite for {seconds:.1f} s"
    assert isinstance(world.database, Postgres)
    if not world.database.up:
        return None
    world.database.kill()
    world.later(seconds, world.database.start)
    return f"killed PostgreSQL for {seconds:.1f} s"


def _restart_broker(world: World, random: Random, forget: bool) -> str | None:
    if not world.broker.up:
        return None
    world.broker.kill()
    if forget:
        world.broker.forget()
    seconds = random.uniform(0.5, 4)
    world.later(seconds, world.broker.start)
    return f"killed the broker for {seconds:.1f} s, {'without' if forget else 'with'} its data"


def _one(world: World, random: Random) -> Worker:
    return random.choice(world.workers)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


FAULTS: dict[Fault, int] = {
    kill_child: 4,
    kill_parent: 2,
    kill_both: 2,
    freeze_worker: 1,
    stop_worker: 1,
    flush_broker: 2,
    drop_message: 2,
    double_message: 1,
    deliver_again: 2,
    restart_broker: 1,
    lose_broker: 1,
    freeze_broker: 1,
    restart_store: 2,
}
"""All faults, and how often one comes relative to the others."""


@dataclass(frozen=True)
class Schedule:
    """What happens to one job, all of it drawn from the seed."""

    submitter_lives: float | None
    """After how many seconds the first submitter is killed; None for one that lives."""
    starting: tuple[tuple[float, Fault], ...]
    """Faults, each with the seconds since the one before, from the submission on."""
    embedding: tuple[tuple[float, Fault], ...]
    """The same from the first batch on."""
    scoring: tuple[tuple[float, Fault], ...]
    """The same from the last batch on."""


def draw_schedule(random: Random) -> Schedule:
    def draw(count: int, shortest: float, longest: float) -> tuple[tuple[float, Fault], ...]:
        chosen = random.choices(list(FAULTS), list(FAULTS.values()), k=count)
        return tuple((random.uniform(shortest, longest), fault) for fault in chosen)

    return Schedule(
        submitter_lives=random.uniform(0.3, 2.5) if random.random() < 0.25 else None,
        starting=draw(random.randint(0, 2), 0.0, 2.5),
        embedding=draw(random.randint(3, 6), 0.1, 1.5),
        scoring=draw(random.randint(0, 2), 0.0, 1.5),
    )


def strike(fault: Fault, world: World, random: Random) -> bool:
    """Let a fault happen. Returns whether there was something to break."""
    try:
        done = fault(world, random)
    except RedisError:
        return False  # the broker is down already
    if done is not None:
        world.tell(done)
    return done is not None
