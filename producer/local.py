"""Everything on this machine: a broker, a worker process, and what to ask the worker's side about."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..models.encoders import OFFLINE_ENCODER, EncoderSpec, parse_encoder
from ..models.errors import (
    BrokerRightsError,
    BrokerUnreachableError,
    EncoderError,
    HubUnreachableError,
    JobStateError,
    ScanomalyError,
    WorkerKilledError,
)
from ..models.interrupts import when_told_to_stop
from ..models.processes import describe_end, last_message, python_command
from ..models.reconcile import reconcile, reconciling, send_calls
from ..models.settings import Settings
from ..models.store import Store

if TYPE_CHECKING:
    from ..models.queue import Queue
    from .broker import EmbeddedBroker

_REVIVE_SECONDS = 1.0


@contextmanager
def broker(settings: Settings, store: Store) -> Iterator["EmbeddedBroker | None"]:
    """The broker that the settings name, for as long as the block runs.

    Yields:
        The embedded one, to be revived should it die; None for a broker of the user's own.

    Raises:
        BrokerUnreachableError: it does not answer, or does not start.
    """
    if settings.broker_url is not None:
        _queue(settings).check()
        yield None
        return
    from .broker import EmbeddedBroker

    with EmbeddedBroker(settings) as embedded:
        if embedded.started and settings.store_url is None:
            # Broker and store are of this home alone, and nobody used the broker: so nobody works.
            store.workers.release_all()
        yield embedded


def require_broker_rights(settings: Settings) -> None:
    """Find out before a job is stored that no worker will ever hear of it.

    A broker that is away for now is no reason not to store one.

    Raises:
        BrokerRightsError: the broker's user may not do what workers do.
    """
    if settings.broker_url is not None:
        try:
            _queue(settings).check()
        except BrokerRightsError:
            raise
        except BrokerUnreachableError:
            pass  # `call_workers` says so


def call_workers(settings: Settings, store: Store, job_id: str) -> list[str]:
    """Tell the workers of a job that is in the store.

    Returns:
        What whoever submitted it should know: why it may not begin at once.
    """
    return _call(settings, store, job_id, lambda queue: send_calls(store, queue, job_id))


def call_scorers(settings: Settings, store: Store, job_id: str) -> list[str]:
    """Tell the workers of a job that is to be scored again. Returns what `call_workers` does."""
    priority = store.find_job(job_id).priority
    return _call(settings, store, job_id, lambda queue: queue.aggregate(job_id, priority))


def _call(settings: Settings, store: Store, job_id: str, send: Callable[["Queue"], object]) -> list[str]:
    notes = []
    if settings.broker_url is not None or embedded_answers(settings):
        try:
            send(_queue(settings))
        except BrokerUnreachableError as error:
            notes.append(f"job {job_id} is stored, and the workers hear of it when the broker is back: {error}")
    if store.workers.alive() == 0:
        notes.append(f"no worker is running: job {job_id} begins when one is started with `scanomaly worker`")
    return notes


def resume(settings: Settings, store: Store, job_id: str | None) -> tuple[int, list[str]]:
    """Take up a paused job, and have all lost work done.

    Returns:
        How many calls were sent, and what the caller should know.

    Raises:
        JobStateError: the job has ended.
        BrokerUnreachableError: the user's own broker does not answer.
    """
    if job_id is not None and not store.unpause(job_id):
        state = store.find_job(job_id).state
        if state.ended:
            raise JobStateError(state.way_on(job_id))
    store.workers.release_lost()
    sent, notes = 0, []
    if settings.broker_url is not None or embedded_answers(settings):
        sent = reconcile(store, _queue(settings))
    if store.workers.alive() == 0:
        notes.append("no worker is running: the work begins when one is started with `scanomaly worker`")
    return sent, notes


def reconciling_calls(settings: Settings, store: Store) -> AbstractContextManager[None]:
    """While the block runs, lost calls are sent again; on the embedded broker only where that is up."""
    return reconciling(
        store, _queue(settings), lambda: settings.broker_url is not None or embedded_answers(settings)
    )


def queue_depths(settings: Settings) -> dict[str, int]:
    """How many calls wait in each queue.

    Raises:
        BrokerUnreachableError: the broker does not answer, or is the embedded one and nobody uses it.
    """
    if settings.broker_url is None and not embedded_answers(settings):
        raise BrokerUnreachableError("the embedded broker does not run: it does while a worker is running here")
    return _queue(settings).depths()


def _queue(settings: Settings) -> "Queue":
    from ..models.queue import Queue  # Celery: only a command that sends something pays for it

    return Queue(settings)


def embedded_answers(settings: Settings) -> bool:
    """Whether the embedded broker runs, for whomever."""
    if not settings.broker_socket.exists():
        return False
    from .broker import EmbeddedBroker

    return EmbeddedBroker(settings).answers()


class WorkerProcess:
    """One worker on this machine, for as long as the block runs.

    Its standard input is a pipe that only this process holds: however this process ends, the worker ends too.
    """

    def __init__(self, settings: Settings, device: str | None = None) -> None:
        require_worker()
        self._stop_seconds = settings.grace_seconds + 15
        self.log = settings.home / "logs" / f"worker-{os.getpid()}.log"
        self._environment = os.environ | ({"SCANOMALY_DEVICE": device} if device else {})
        self._process: subprocess.Popen[bytes] | None = None
        self.log_is_wanted = True
        """Whether the log stays there after the end: a message may name it."""

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
        """Raises ScanomalyError when the worker is gone, with what it said last."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return
        if code < 0:
            raise _killed(code, f"{self.log} may say more")
        said = last_message(self.log) or f"it ended with exit code {code}"
        raise ScanomalyError(f"the worker stopped by itself: {said} ({self.log} has more)")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()  # the sign to stop: see worker/__main__.py
        try:
            self._process.wait(self._stop_seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if error is None and not self.log_is_wanted:
            self.log.unlink(missing_ok=True)


def serve(settings: Settings, store: Store, arguments: Sequence[str]) -> int:
    """Be a worker until a signal says stop. Returns its exit code.

    Raises:
        BrokerUnreachableError: the broker does not answer, or does not start.
        WorkerKilledError: the worker was killed.

    With a broker of its own this process becomes the worker; with the embedded one it stays beside it, to keep the
    broker alive and to stop it after the worker.
    """
    require_worker()
    command = worker_command(*arguments)
    if settings.broker_url is not None:
        _queue(settings).check()
        os.execv(command[0], command)
    with broker(settings, store) as embedded:
        # Its standard input is a pipe: should this process be killed, the worker stops.
        command = worker_command("--until-stdin-ends", *arguments)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        when_told_to_stop(lambda _number, _frame: process.send_signal(signal.SIGTERM))
        while (code := _end_within(_REVIVE_SECONDS, process)) is None:
            assert embedded is not None
            embedded.revive()
    if code < 0:
        raise _killed(code, "start it again")
    return code


def _end_within(seconds: float, process: "subprocess.Popen[bytes]") -> int | None:
    """How a process ended; None when it has not, after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _killed(code: int, hint: str) -> WorkerKilledError:
    """What is said of a worker whose supervisor ended with a negative exit code."""
    message = f"the worker {describe_end(code)}, by a person or for want of memory; nothing is lost: {hint}"
    return WorkerKilledError(message, -code)


def worker_command(*arguments: str) -> list[str]:
    return python_command("worker", *arguments)


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
    command = python_command("worker.doctor", *encoder.options)
    command += ["--device", device] if device else []
    command += ["--fetch"] if fetch else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, stdin=subprocess.DEVNULL)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise EncoderError(f"the worker's side does not answer (exit code {done.returncode})") from None
    return answer


def require_device(device: str) -> None:
    """Find out now, not in a worker, that a device is not here. For `auto` and `cpu` there is nothing to find out.

    Raises:
        EncoderError: it is not here, or no worker is installed here that would know.
    """
    if device in ("auto", "cpu"):
        return
    answer = ask_worker(parse_encoder(OFFLINE_ENCODER), device)
    if answer["device"] is None:
        raise EncoderError(answer["error"])


def suitable_precision(device: str) -> tuple[str, str]:
    """The precision that suits a device of this machine, and a sentence that says so.

    Raises:
        EncoderError: there is no such device, or no worker is installed here that would know.
    """
    answer = ask_worker(parse_encoder(OFFLINE_ENCODER), device)
    if answer["precision"] is None:
        raise EncoderError(answer["error"])
    precision: str = answer["precision"]
    return precision, f"--precision auto took {precision}: the device here is {answer['device']}"


def needs_hub(encoder: EncoderSpec) -> bool:
    """Whether an encoder's weights come from the model hub: then `require_encoder` takes seconds to ask."""
    return encoder.hub


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


def rebuild_report(
    job_id: str,
    folder: Path | None = None,
    scorers: Sequence[str] = (),
    headline: str | None = None,
    begins: Callable[[str], object] = lambda _stage: None,
) -> None:
    """Write a report again in a process of the worker's side.

    Args:
        job_id: the job, which is done.
        folder: where to; None for the job's own folder.
        scorers: score it with these first, and write the report into the job's own folder.
        headline: with `scorers`, the one that ranks the scans from now on; None for the one that does.
        begins: told each stage as it begins, in words of `models/stages.py`.

    Raises:
        ScanomalyError: it cannot be written; the message is the other process's.
    """
    arguments = [job_id, *([str(folder)] if folder else [])]
    arguments += [*(["--scorer", *scorers] if scorers else []), *(["--headline", headline] if headline else [])]
    _ask_worker("rebuild", arguments, "the report cannot be written", begins)


def export_vectors(job_id: str, form: str, folder: Path) -> int:
    """Write the vectors of a job into a folder, in a process of the worker's side: see `worker/export.py`.

    Returns:
        How many there are.

    Raises:
        ScanomalyError: they cannot be written; the message is the other process's.
    """
    return int(_ask_worker("export", [job_id, form, str(folder)], "the vectors cannot be written"))


def _ask_worker(
    module: str, arguments: Sequence[str], failure: str, said: Callable[[str], object] = lambda _line: None
) -> str:
    """The last line that a module of the worker prints; `said` is told each as it comes.

    Raises:
        ScanomalyError: the last line of its complaint, or `failure`.
    """
    require_worker()
    command = python_command(f"worker.{module}", *arguments)
    last = ""
    with (
        tempfile.TemporaryFile() as complaint,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaint) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last = line.decode().rstrip("\n")
                said(last)
        except BaseException:
            process.kill()
            raise
        if process.wait():
            complaint.seek(0)
            lines = complaint.read().decode(errors="replace").strip().splitlines()
            raise ScanomalyError((lines or [failure])[-1])
    return last
