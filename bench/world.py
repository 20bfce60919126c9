"""Scanomaly as a user has it: its own broker, store and worker, and jobs that are submitted to them."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_COMMAND = str(Path(sys.executable).parent / "scanomaly")
_LOOK_SECONDS = 0.2
_ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Done:
    """A job that is done."""

    id: str
    seconds: float
    """From its first message to its last commit."""
    encoded: int
    """How many of its images went through the encoder."""


@dataclass(frozen=True)
class Scanomaly:
    """A home folder, and the environment that names it."""

    home: Path
    environment: dict[str, str]

    def call(self, *arguments: str | Path) -> str:
        """Run a command to its end, and return what it printed."""
        done = subprocess.run(
            [_COMMAND, *map(str, arguments)], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    @contextmanager
    def workers(self, count: int = 1) -> Iterator[None]:
        """Workers that are there for a while."""
        with open(self.home / "worker.log", "ab") as log:
            started = [
                subprocess.Popen([_COMMAND, "worker"], env=self.environment, stdout=log, stderr=log)
                for _ in range(count)
            ]
            try:
                yield
            finally:
                for worker in started:
                    worker.terminate()
                for worker in started:
                    worker.wait()

    @contextmanager
    def service(self, *options: str) -> Iterator[str]:
        """The HTTP service, for a while; yields its URL."""
        log = self.home / "serve.log"
        with open(log, "wb") as file:
            command = [_COMMAND, "serve", "--port", "0", *options]
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        try:
            while (found := re.search(r"serving on (\S+)", log.read_text())) is None:
                if process.poll() is not None:
                    raise RuntimeError(f"the service does not start:\n{log.read_text()}")
                time.sleep(_LOOK_SECONDS)
            yield found[1]
        finally:
            process.terminate()
            process.wait()

    def job(self, folder: Path, *options: str) -> "Done":
        """Submit a folder to the workers, and wait until its job is done."""
        job = json.loads(self.call("submit", folder, "--json", *options))["job"]
        while (state := self.rows(f"SELECT state FROM jobs WHERE id = '{job}'")[0][0]) not in _ENDED:
            time.sleep(_LOOK_SECONDS)
        if state != "done":
            raise RuntimeError(f"the job is {state}:\n{self.call('status', job)}")
        ((called, committed, encoded),) = self.rows(
            f"SELECT min(queued_at), max(finished_at), sum(encoded) FROM batches WHERE job_id = '{job}'"
        )
        seconds = (datetime.fromisoformat(committed) - datetime.fromisoformat(called)).total_seconds()
        return Done(job, seconds, encoded)

    def status(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("status", job, "--json"))
        return found

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the store itself: a command would take a core from what is measured."""
        with closing(sqlite3.connect(f"file:{self.home}/store.sqlite?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()


@contextmanager
def scanomaly(**variables: str) -> Iterator[Scanomaly]:
    """A new home, which is gone afterwards, with the embedded broker and store; `variables` for the environment."""
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SCANOMALY_")}
    try:
        yield Scanomaly(home, inherited | {"SCANOMALY_HOME": str(home)} | variables)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def draw_small(folder: Path, count: int, seed: int) -> Path:
    """Draw small pictures, each with another content."""
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("no", "yes")[number % 2] / str(number // 1000) / f"{number}.png"
        if number % 1000 < 2:
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder
