"""Everything on this machine: a broker, a worker process, and what to ask the worker's side about."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..models.encoders import EncoderSpec
from ..models.errors import EncoderError, HubUnreachableError, ScanomalyError
from ..models.queue import Queue
from ..models.reconcile import send_unfinished
from ..models.settings import Settings
from ..models.store import Store
from .broker import EmbeddedBroker

_STOP_SECONDS = 15.0


@contextmanager
def broker(settings: Settings) -> Iterator[bool]:
    """The broker that the settings name, for as long as the block runs.

    Yields:
        Whether it was started here, and so knows nothing of the jobs in the store.

    Raises:
        BrokerUnreachableError: it does not answer, or does not start.
    """
    if settings.broker_url is None:
        with EmbeddedBroker(settings) as embedded:
            yield embedded.started
    else:
        Queue(settings).check()
        yield False


class WorkerProcess:
    """One worker on this machine, for as long as the block runs.

    Its standard input is a pipe that only this process holds: however this process ends, the worker ends too.
    """

    def __init__(self, settings: Settings, device: str | None = None) -> None:
        require_worker()
        self.log = settings.home / "logs" / f"worker-{os.getpid()}.log"
        self._environment = os.environ | ({"SCANOMALY_DEVICE": device} if device else {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C at the terminal is for the command, which then stops its worker.
            self._process = subprocess.Popen(
                worker_command("--until-stdin-ends"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def check(self) -> None:
        """Raises ScanomalyError when the worker is gone."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise ScanomalyError(f"the worker stopped by itself (exit code {code}): {self.log} says why")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()  # the sign to stop: see worker/__main__.py
        try:
            self._process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if error is None:
            self.log.unlink(missing_ok=True)


def serve(settings: Settings, store: Store, arguments: Sequence[str]) -> int:
    """Be a worker until a signal says stop. Returns its exit code.

    With a broker of its own this process becomes the worker; with the embedded one it stays beside it, to stop
    the broker after it.
    """
    require_worker()
    command = worker_command(*arguments)
    if settings.broker_url is not None:
        Queue(settings).check()
        os.execv(command[0], command)
    with broker(settings) as started:
        if started:
            queue = Queue(settings)
            for job_id in store.unfinished_jobs():
                send_unfinished(store, queue, job_id)
        process = subprocess.Popen(command, start_new_session=True)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, _frame: process.send_signal(signal.SIGTERM))
        return process.wait()


def worker_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scanomaly.worker", *arguments]


def require_worker() -> None:
    """Raises EncoderError when this installation has no worker."""
    for package in ("torch", "open_clip", "sklearn", "matplotlib"):
        if find_spec(package) is None:
            raise EncoderError(
                f"no worker is installed here ({package} is missing): pip install 'scanomaly[worker]'"
            )


def ask_worker(encoder: EncoderSpec, device: str | None = None, fetch: bool = False) -> dict[str, Any]:
    """What the worker's side of this installation says of itself and of an encoder.

    It is another process, because this one must never load torch. Its progress goes to standard error.

    Args:
        encoder: the encoder to look for.
        device: where it should run.
        fetch: download its weights where they are missing.
    """
    require_worker()
    command = [sys.executable, "-m", "scanomaly.worker.doctor", *encoder.options]
    command += ["--device", device] if device else []
    command += ["--fetch"] if fetch else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, stdin=subprocess.DEVNULL)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise EncoderError(f"the worker's side does not answer (exit code {done.returncode})") from None
    return answer


def needs_hub(encoder: EncoderSpec) -> bool:
    """Whether an encoder's weights come from the model hub: then `require_encoder` takes seconds to ask."""
    return not encoder.offline and encoder.weights_file is None


def require_encoder(encoder: EncoderSpec, device: str | None = None, fetch: bool = False) -> list[str]:
    """Find out now, not in a worker, that an encoder cannot be loaded.

    Returns:
        What who chose this encoder should know.

    Raises:
        HubUnreachableError: its weights are not here and cannot be fetched, with the ways out.
        EncoderError: it cannot be loaded for another reason.
    """
    if not needs_hub(encoder):
        return []  # nothing to fetch; the worker loads the file, and the job says what is wrong with it
    answer = ask_worker(encoder, device, fetch)
    if answer["error_type"] == HubUnreachableError.__name__:
        raise HubUnreachableError(answer["error"])
    if not answer["ok"]:
        raise EncoderError(answer["error"])
    remarks: list[str] = answer["remarks"]
    return remarks


def rebuild_report(job_id: str, folder: Path | None) -> None:
    """Write a report again in a process of the worker's side.

    Raises:
        ScanomalyError: it cannot be written; the message is the other process's.
    """
    require_worker()
    command = [sys.executable, "-m", "scanomaly.worker.rebuild", job_id]
    done = subprocess.run(
        [*command, *([str(folder)] if folder else [])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ScanomalyError((done.stderr.strip().splitlines() or ["the report cannot be written"])[-1])
