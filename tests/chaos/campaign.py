"""One seed: a job, what its schedule does to it, and the verdict. And the table of many."""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from .faults import Fault, draw_schedule, strike
from .scans import draw_scans
from .verdict import Scores, Verdict, judge, judge_queues, judge_stop, scores_in
from .world import Recovery, World

SCANS = 240
SCAN_SECONDS = 0.06
BATCH_SIZE = 8
ENCODER = "chaos"

_SUBMISSIONS = 20


@dataclass
class Outcome:
    """What became of one seed."""

    database: str
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    finished: bool = False
    verdict: Verdict = field(default_factory=Verdict)
    recoveries: list[Recovery] = field(default_factory=list)
    ending: float = 0.0
    """Seconds from the last fault, of which some last for a while, to the end of the job."""
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)
    notes: str = ""
    """For a failure: rows and logs."""

    @property
    def problems(self) -> list[str]:
        return self.verdict.problems

    def __str__(self) -> str:
        longest = f"{max(recovery.seconds for recovery in self.recoveries):.1f} s" if self.recoveries else "-"
        result = "; ".join(self.problems) or "ok"
        return (
            f"{self.database} seed {self.seed}: {self.faults.total()} faults, longest recovery {longest}, "
            f"end {self.ending:.1f} s after the last, {self.seconds:.1f} s in all: {result}"
        )


def undisturbed(scans: Path, encoder: str = ENCODER) -> Scores:
    """The scores of a folder when nothing happens."""
    with World("sqlite", workers=1) as world:
        world.submit(scans, "--encoder", encoder, "--batch-size", str(BATCH_SIZE)).wait()
        world.until(world.ended, "an undisturbed job ends")
        return scores_in(Path(world.rows("SELECT report_folder FROM jobs")[0][0]))


def play(database: str, seed: int, scans: Path, expected: Scores) -> Outcome:
    """Submit a job, let the seed's faults happen to it, and judge what comes out."""
    outcome = Outcome(database, seed)
    random = Random(seed)
    schedule = draw_schedule(random)
    begun = time.monotonic()
    with World(database, CHAOS_SCAN_SECONDS=str(SCAN_SECONDS)) as world:
        striker = _Striker(world, random, outcome)
        striker.strike_all(schedule.starting)
        try:
            _submit(world, scans, schedule.submitter_lives, outcome)
            world.until(lambda: world.running() or world.embedded(), "a batch is in work")
            striker.strike_all(schedule.embedding)
            world.until(world.embedded, "all scans are embedded")
            striker.strike_all(schedule.scoring)
            world.until(world.ended, "the job ends")
            outcome.finished = world.state() == "done"
            outcome.ending = max(0.0, time.monotonic() - striker.last)
            striker.enabled = False
            world.until(world.idle, "all is repaired")
            outcome.verdict = judge(world, expected)
            judge_queues(world, outcome.verdict)
            judge_stop(world, outcome.verdict)
        except (TimeoutError, AssertionError) as error:
            outcome.problems.append(str(error))
        outcome.recoveries, outcome.events = world.recoveries, world.events
        if outcome.problems:
            outcome.notes = world.describe()
    outcome.seconds = time.monotonic() - begun
    return outcome


class _Striker:
    """Strikes with faults, and knows when it last did."""

    def __init__(self, world: World, random: Random, outcome: Outcome) -> None:
        self._world = world
        self._random = random
        self._outcome = outcome
        self.last = time.monotonic()
        self.enabled = True

    def strike_all(self, faults: Sequence[tuple[float, Fault]]) -> None:
        after = 0.0
        for seconds, fault in faults:
            after += seconds
            self._world.later(after, partial(self._strike, fault))

    def _strike(self, fault: Fault) -> None:
        if self.enabled and strike(fault, self._world, self._random):
            self._outcome.faults[fault.__name__.replace("_", " ")] += 1
            self.last = time.monotonic()


def _submit(world: World, scans: Path, lives: float | None, outcome: Outcome) -> None:
    """Submit until there is a job, as a person would."""
    for attempt in range(_SUBMISSIONS):
        submission = world.submit(scans, "--encoder", ENCODER, "--batch-size", str(BATCH_SIZE))
        if attempt == 0 and lives is not None:
            world.later(lives, submission.kill)
            outcome.faults["kill submitter"] += 1
        code = submission.wait()
        world.tell(f"submit ended with {code}")
        world.until(lambda: _answers(world), "the store answers")
        if world.state() is not None:
            return
        assert code != 0, "submit ended with 0, and there is no job"
    raise AssertionError(f"no job after {_SUBMISSIONS} submissions")


def _answers(world: World) -> bool:
    return world.database.name == "sqlite" or world.peek("SELECT 1") != []


def table(outcomes: Sequence[Outcome]) -> str:
    """What a README may show: one row a store."""
    lines = [
        "| store | seeds | faults | jobs finished | scans lost | scores changed "
        "| child killed → its batch runs again | worker killed → its batch runs again "
        "| longest from the last fault to the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for database in sorted({outcome.database for outcome in outcomes}):
        these = [outcome for outcome in outcomes if outcome.database == database]
        recoveries = [recovery for outcome in these for recovery in outcome.recoveries]
        lost, changed = (sum(getattr(outcome.verdict, what) for outcome in these) for what in ("lost", "changed"))
        lines.append(
            f"| {database} | {len(these)} | {sum(outcome.faults.total() for outcome in these)} "
            f"| {sum(outcome.finished for outcome in these)} of {len(these)} | {lost} | {changed} "
            f"| {_times(recoveries, 'child')} | {_times(recoveries, 'worker')} "
            f"| {max(outcome.ending for outcome in these):.1f} s |"
        )
    kinds: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    lines += ["", "Faults: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())]
    return "\n".join(lines)


def _times(recoveries: Sequence[Recovery], killed: str) -> str:
    seconds = [recovery.seconds for recovery in recoveries if recovery.killed == killed]
    return f"median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s" if seconds else "-"


def with_scans(run: Callable[[Path, Scores], int]) -> int:
    """Run something with a folder of scans and their scores."""
    with tempfile.TemporaryDirectory(prefix="chaos-scans-") as folder:
        scans = Path(folder) / "scans"
        draw_scans(scans, SCANS)
        return run(scans, undisturbed(scans))
