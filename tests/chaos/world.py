"""A world to break: a broker, a store, workers and a submitter, all of them real processes of its own."""

import heapq
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.status import JobStatus, job_status

from ..waiting import HANGS
from .servers import DATABASES, Broker, Postgres, Sqlite, children

COMMAND = str(Path(sys.executable).parent / "scanomaly")
PLUGIN = Path(__file__).parent / "plugin"
ENDED = ("done", "failed", "cancelled")
NO_STORE = (psycopg.Error, sqlite3.Error)

_LOOK_SECONDS = 0.1
_TAIL_LINES = 40


@dataclass
class Worker:
    """One `scanomaly worker`, through all its lives."""

    number: int
    log: Path
    process: subprocess.Popen[bytes]
    exit_codes: list[int] = field(default_factory=list)
    """How its earlier lives ended."""
    due: bool = False
    """Whether it is dead and will be started again."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def child(self) -> int | None:
        """The process that computes; None between two of them."""
        found = children(self.pid) if self.alive else []
        return found[0] if found else None


@dataclass(frozen=True)
class Recovery:
    """A batch that is in work again after its process was killed."""

    killed: str
    """`child` or `worker`."""
    seconds: float


@dataclass(frozen=True)
class _Held:
    """A batch in the hands of a process that was killed."""

    killed: str
    batch: int
    as_it_was: tuple[Any, ...]
    at: float


class World:
    """`with World(...) as world`: it is gone after it, with all its processes.

    Time passes in `until` alone: there, what is due is done, and who has died is started again.
    """

    def __init__(self, database: str, workers: int = 2, gated: bool = False, **variables: str) -> None:
        """`variables` are environment variables for every process of Scanomaly.

        With `gated`, no batch is done before `let_through`: so that what happens to it happens while it is in work.
        """
        # A short path, so that a socket in it can be had; and one that PostgreSQL's own user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.home = self.folder / "home"
        self.home.mkdir()
        self._gate = self.folder / "gate"
        self._gate.mkdir()
        self.broker = Broker(self.folder)
        self.database: Sqlite | Postgres = DATABASES[database](self.folder)
        self.workers: list[Worker] = []
        self.events: list[str] = []
        self.recoveries: list[Recovery] = []
        self._count = workers
        self._held: list[_Held] = []
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._begun = time.monotonic()
        self._environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("SCANOMALY_")}
            | {"SCANOMALY_HOME": str(self.home), "SCANOMALY_BROKER_URL": self.broker.url, "SCANOMALY_DEVICE": "cpu"}
            | {
                "PYTHONPATH": f"{PLUGIN}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
                "OMP_NUM_THREADS": "1",
                "CHAOS_DEEDS": str(self.folder / "deeds"),
            }
            | self.database.environment
            # However long the gate is shut, nobody is killed for it.
            | (dict.fromkeys(("SCANOMALY_SCAN_SECONDS", "SCANOMALY_GRACE_SECONDS"), str(HANGS)) if gated else {})
            | ({"CHAOS_GATE": str(self._gate)} if gated else {})
            | variables
        )

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self.database.start()
            for _ in range(self._count):
                self.add_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything, and leave nothing."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for worker in self.workers:
            worker.process.wait()
        self.broker.kill()
        self.database.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Time

    def until(self, reached: Callable[[], object], what: str) -> float:
        """Let time pass until something is reached. Returns for how long. Raises TimeoutError where it never is."""
        begun = time.monotonic()
        while not reached():
            if time.monotonic() - begun > HANGS:
                error = TimeoutError(f"{what}: not within {HANGS:.0f} s")
                error.add_note(self.describe())
                raise error
            self._turn()
        return time.monotonic() - begun

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something done when time has passed."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))

    def idle(self) -> bool:
        """Whether nothing is left to be done or started, and every batch that was dropped is taken up."""
        return not self._due and not self._held and not any(worker.due for worker in self.workers)

    def _turn(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        for worker in self.workers:
            if not worker.alive and not worker.due:
                self.restart(worker, 1.0)
        if self._held:
            self._look_for_recoveries()
        time.sleep(_LOOK_SECONDS)

    def tell(self, event: str) -> None:
        self.events.append(f"{time.monotonic() - self._begun:6.1f} s  {event}")

    # The gate before the chaos encoder, of a world with `gated=True`

    def let_through(self, worker: Worker | None = None) -> None:
        """Let a worker, or all from now on, encode what they have in work."""
        (self._gate / (str(worker.pid) if worker else "all")).touch()

    # Processes

    def _start(self, *arguments: str | Path, log: Path) -> subprocess.Popen[bytes]:
        with open(log, "ab") as output:
            return subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def deeds(self) -> list[str]:
        """What killer scans did, in the order of the deaths."""
        diary = Path(self._environment["CHAOS_DEEDS"])
        return diary.read_text().splitlines() if diary.exists() else []

    def call(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command to its end, and return what it printed to standard output."""
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def submit(self, *arguments: str | Path) -> "Submission":
        return Submission(self, self._start("submit", *arguments, "--json", log=self.folder / "submit.log"))

    def add_worker(self) -> None:
        number = len(self.workers)
        log = self.folder / f"worker-{number}.log"
        self.workers.append(Worker(number, log, self._start("worker", log=log)))

    def restart(self, worker: Worker, seconds: float) -> None:
        """Start a worker that is dead or dying again, as whoever runs it would."""

        def start() -> None:
            if worker.alive:  # it ends its batch, or stands still
                self.later(0.5, start)
                return
            code = worker.process.wait()
            worker.exit_codes.append(code)
            worker.process = self._start("worker", log=worker.log)
            worker.due = False
            self.tell(f"worker {worker.number} started again; it had ended with {code}")

        worker.due = True
        self.later(seconds, start)

    def stop_workers(self) -> list[int]:
        """Tell all workers to stop, and return their exit codes."""
        for worker in self.workers:
            if worker.alive:
                worker.process.terminate()
        return [worker.process.wait(HANGS) for worker in self.workers]

    def processes(self) -> list[int]:
        """The process ids of all of Scanomaly's processes in this world."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                mine = f"SCANOMALY_HOME={self.home}\0".encode() in (entry / "environ").read_bytes()
                # The embedded broker writes its title over its environment.
                if mine or f"{self.home}/" in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
        return found

    def kill_child(self, worker: Worker) -> bool:
        """Kill the process that computes, if there is one."""
        child = worker.child
        if child is not None:
            self._kill("child", worker, child)
        return child is not None

    def kill_worker(self, worker: Worker, and_child: bool = False) -> None:
        """Kill a supervisor, whose child then ends by itself, or both at once."""
        child = worker.child
        self._kill("worker", worker, worker.pid, *([child] if and_child and child is not None else []))

    def _kill(self, what: str, worker: Worker, *pids: int) -> None:
        """Kill processes of a worker, and note what batch it held, to see when that is in work again."""
        held = self.held_by(worker)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        now = time.monotonic()
        self._held += [_Held(what, batch, as_it_was, now) for batch, as_it_was in held.items()]

    # The store

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds. Raises one of NO_STORE."""
        connection = self.database.connect()
        try:
            return list(connection.execute(sql).fetchall())
        finally:
            connection.close()

    def peek(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds; nothing while there is no store, or no table in it yet."""
        try:
            return self.rows(sql)
        except NO_STORE:
            return []

    def status(self, job: str) -> JobStatus:
        """What Scanomaly says of a job. Raises JobNotFoundError."""
        with closing(Store.open(Settings.from_environment(self._environment), read_only=True)) as store:
            return job_status(store, job)

    def state(self) -> str | None:
        """The state of the newest job; None while it cannot be seen."""
        found = self.peek("SELECT state FROM jobs ORDER BY created_at DESC LIMIT 1")
        return found[0][0] if found else None

    def ended(self) -> bool:
        return self.state() in ENDED

    def embedded(self) -> bool:
        return self.state() in ("scoring", *ENDED)

    def running(self) -> int:
        """How many batches are in work."""
        found = self.peek("SELECT count(*) FROM batches WHERE state = 'running'")
        return int(found[0][0]) if found else 0

    def workers_beat(self) -> bool:
        """Whether every worker's heart beats: one that has just been started does not know signals yet."""
        known = {row[0] for row in self.peek("SELECT pid FROM workers WHERE stopped_at IS NULL")}
        return all(worker.alive and worker.pid in known for worker in self.workers)

    def held_by(self, worker: Worker) -> dict[int, tuple[Any, ...]]:
        """The batches that a worker has in work, by id."""
        found = self.peek(
            "SELECT b.id, b.state, b.worker, b.deaths FROM batches b JOIN workers w ON w.name = b.worker "
            f"WHERE b.state = 'running' AND w.pid = {worker.pid}"
        )
        return {row[0]: row[1:] for row in found}

    def _look_for_recoveries(self) -> None:
        ids = ", ".join(str(held.batch) for held in self._held)
        try:
            found = {
                row[0]: row[1:]
                for row in self.rows(f"SELECT id, state, worker, deaths FROM batches WHERE id IN ({ids})")
            }
        except NO_STORE:
            return
        over = self.ended()
        for held in list(self._held):
            now = found.get(held.batch)
            again = now is None or now[0] == "done" or (now[0] == "running" and now != held.as_it_was)
            if again or over:
                seconds = time.monotonic() - held.at
                self._held.remove(held)
                self.recoveries.append(Recovery(held.killed, seconds))
                self.tell(f"batch {held.batch} in work again after {seconds:.1f} s")

    # For whoever reads of a failure

    def describe(self) -> str:
        """All that there is to know: what happened, the rows, the queues, the ends of the logs."""
        parts = ["", "Events:", *self.events, "", f"Broker: {self.broker.contents()}", "", "Rows:"]
        for sql in (
            "SELECT id, state, scans, worker, queued_at, deaths, error FROM jobs",
            "SELECT name, pid, beat_at, stopped_at FROM workers",
            "SELECT id, state, worker, queued_at, deaths, scans FROM batches WHERE state <> 'done'",
            "SELECT state, count(*) FROM batches GROUP BY state",
            "SELECT state, failure_kind, count(*), min(path) FROM scans GROUP BY state, failure_kind",
        ):
            try:
                parts += [sql, *(f"    {row}" for row in self.rows(sql)[:30])]
            except NO_STORE as error:
                parts += [sql, f"    {error}"]
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            parts += ["", f"{log.name}:", *lines[-_TAIL_LINES:]]
        return "\n".join(parts)


class Submission:
    """One `scanomaly submit` under way."""

    def __init__(self, world: World, process: subprocess.Popen[bytes]) -> None:
        self._world = world
        self._process = process

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """Let time pass until it has ended. Returns its exit code."""
        self._world.until(lambda: self._process.poll() is not None, "submit ends")
        return self._process.wait()
