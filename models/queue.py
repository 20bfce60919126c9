"""The queue: Celery's settings, the names of the tasks, and sending by name.

A message carries one id. Whoever gets it reads in the store what there is to do, so a message may be lost, come
late or come twice.
"""

import json
import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError, RedisError

from .broker_rights import RIGHTS, missing_right
from .errors import BrokerRightsError, BrokerUnreachableError
from .records import Call
from .settings import BATCHES_AT_ONCE, Settings, hide_password
from .states import Priority

EMBED_TASK = "scanomaly.embed"
AGGREGATE_TASK = "scanomaly.aggregate"

_EMBED_QUEUE = "scanomaly.embed"
_AGGREGATE_QUEUE = "scanomaly.aggregate"
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 5
"""redis-py asks three times before it gives up."""
_DELIVERED_SECONDS = 10
"""A call that was handed to a worker so long ago, and whose batch nobody has begun, counts as lost."""
# Redis takes the lower number first. kombu keeps a list for each of these steps.
_PRIORITIES = {Priority.HIGH: 0, Priority.NORMAL: 3, Priority.LOW: 6}
# A URL that kombu or redis-py cannot make sense of.
_URL_ERRORS = (ValueError, KeyError, TypeError)
_BROKER_ERRORS = (OperationalError, RedisError, OSError, *_URL_ERRORS)


class _Loader(AppLoader):  # type: ignore[misc]
    """Celery's loader, but for what it takes from the environment and from the current folder."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}  # not the module that CELERY_CONFIG_MODULE names

    def import_from_cwd(self, module: str, imp: object = None, package: str | None = None) -> Any:
        return self.import_module(module, package=package)


class _Celery(Celery):  # type: ignore[misc]
    """An app whose broker is the one that it is given: Celery lets CELERY_BROKER_URL and others go before it."""

    backend_cls = "disabled"  # not the one of CELERY_RESULT_BACKEND

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self._broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self._broker_url, **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        return self.connection_for_write(hostname, **options)

    @property
    def _broker_url(self) -> str:
        url: str = self.conf.first("broker_url")
        return url


def make_celery(settings: Settings) -> Celery:
    """The Celery app that both wings use; only the worker registers tasks in it.

    Nothing of it comes from variables of the environment that are not Scanomaly's, nor from a module that lies in
    the current folder.
    """
    # Celery's command line would leave this logger without a handler, and kombu's retries are told otherwise.
    logging.getLogger("kombu").addHandler(logging.NullHandler())
    # No fix-ups: the one for Django imports what DJANGO_SETTINGS_MODULE names.
    app = _Celery("scanomaly", broker=settings.resolved_broker_url, loader=_Loader, fixups=[])
    app.conf.update(
        # Ids only, as JSON: a pickle would let whoever reaches the broker run code in the workers.
        task_serializer="json",
        accept_content=["json"],
        # Nobody asks Celery how a task went: the store knows.
        task_ignore_result=True,
        # Two queues, read in turn, so that a job's last step does not wait behind another job's million scans.
        task_queues={_EMBED_QUEUE: {}, _AGGREGATE_QUEUE: {}},
        task_default_queue=_EMBED_QUEUE,
        task_routes={AGGREGATE_TASK: {"queue": _AGGREGATE_QUEUE}},
        # Acknowledged after the commit. A message whose process dies stays with Redis until the visibility timeout;
        # nobody waits for that, because the store knows who held the batch, and it is called again.
        task_acks_late=True,
        # As many messages as there are threads: more would wait behind this worker while another is idle.
        worker_prefetch_multiplier=1,
        # The tasks run in the process that `worker/supervisor.py` watches. A pool of processes would be a second
        # supervisor: one that holds a message for ever when its child dies between being handed it and saying so.
        worker_pool="threads",
        worker_concurrency=BATCHES_AT_ONCE,
        # For Celery's own tools, `celery inspect` and Flower. Nothing of ours asks them: the store knows.
        worker_enable_remote_control=True,
        # Always: who is started without them cannot be told to send them. Redis drops them while nobody listens.
        worker_send_task_events=True,
        # The tasks are the only thing that writes to the log.
        worker_hijack_root_logger=False,
        # For ever: the broker may come back at any time, and the jobs wait in the store.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_SECONDS,
        broker_transport_options={
            # After this long, a message that was neither acknowledged nor given back is delivered again. Only
            # rubbish is left by then: a batch whose call got lost was called again long ago.
            "visibility_timeout": 3600,
            "unacked_restore_interval": 30,
            "unacked_restore_throttle": 1,
            "priority_steps": list(_PRIORITIES.values()),
            # A connection that died without a word must not hold a worker.
            "socket_timeout": _ANSWER_SECONDS,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


class Queue:
    """Sends wake-up calls."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        own = settings.broker_url is not None
        self.name = hide_password(settings.resolved_broker_url) if own else str(settings.broker_socket)
        self._app = app or make_celery(settings)

    def check(self) -> None:
        """Ask the broker for an answer, and whether its user may do what workers do.

        Raises:
            BrokerUnreachableError: it gives none.
            BrokerRightsError: the user may not.
        """
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
                channel = connection.default_channel
                channel.client.ping()
                refused = missing_right(channel, (_EMBED_QUEUE, _AGGREGATE_QUEUE))
        except _BROKER_ERRORS as error:
            raise self._unreachable(error) from error
        if refused is not None:
            raise self._not_allowed(refused)

    def embed(self, calls: Iterable[Call]) -> int:
        """Say that batches wait to be embedded. Returns how many calls were sent."""
        sent = 0
        for call in calls:
            self._send(EMBED_TASK, call.batch_id, call.priority)
            sent += 1
        return sent

    def aggregate(self, job_id: str, priority: Priority) -> None:
        """Say that a job waits to be scored."""
        self._send(AGGREGATE_TASK, job_id, priority)

    def alive(self) -> "AliveCalls":
        """The calls that Redis still has: those that wait, and those that were handed to a worker a moment ago.

        Raises:
            BrokerUnreachableError: Redis does not answer.
        """
        try:
            with self._app.connection_for_read() as connection:
                channel = connection.default_channel
                ids = [_call_id(message) for message in _messages(channel)]
        except _BROKER_ERRORS as error:
            raise self._unreachable(error) from error
        calls = [call for call in ids if call is not None]
        return AliveCalls(
            frozenset(int(argument) for task, argument in calls if task == EMBED_TASK),
            frozenset(argument for task, argument in calls if task == AGGREGATE_TASK),
        )

    def calls_wait(self, queues: Iterable[str]) -> bool:
        """Whether any call waits in these queues for a worker.

        Raises:
            BrokerUnreachableError: Redis does not answer.
        """
        try:
            with self._app.connection_for_read() as connection:
                channel = connection.default_channel
                return any(channel.client.llen(name) for name in _lists(channel, queues))
        except _BROKER_ERRORS as error:
            raise self._unreachable(error) from error

    def depths(self) -> dict[str, int]:
        """How many calls wait in each queue.

        Raises:
            BrokerUnreachableError: Redis does not answer.
        """
        try:
            with self._app.connection_for_read() as connection:
                channel = connection.default_channel
                return {
                    queue: sum(channel.client.llen(name) for name in _lists(channel, [queue]))
                    for queue in (_EMBED_QUEUE, _AGGREGATE_QUEUE)
                }
        except _BROKER_ERRORS as error:
            raise self._unreachable(error) from error

    def _send(self, task: str, argument: int | str, priority: Priority) -> None:
        try:
            self._app.send_task(
                task,
                args=[argument],
                # By its id a call is recognised in Redis, where the arguments are wrapped deep.
                task_id=f"{task}:{argument}:{secrets.token_hex(4)}",
                priority=_PRIORITIES[priority],
                retry_policy={
                    "max_retries": 3,
                    "interval_start": 0.2,
                    "interval_step": 0.5,
                    "interval_max": 1,
                },
            )
        except _BROKER_ERRORS as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> BrokerUnreachableError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, NoPermissionError) or isinstance(error.__cause__, NoPermissionError):
            return self._not_allowed(reason)
        if isinstance(error, _URL_ERRORS):
            # Theirs may quote a part of the password.
            reason = "not a URL of a Redis server; in a password, @ is written %40, / %2F, # %23"
        return BrokerUnreachableError(
            f"the broker {self.name} cannot be used ({reason}): check SCANOMALY_BROKER_URL, or unset it for the "
            "embedded one"
        )

    def _not_allowed(self, refused: str) -> BrokerRightsError:
        return BrokerRightsError(
            f"the broker {self.name} does not let its user do what workers do ({refused}): "
            f"ACL SETUSER USER {RIGHTS}"
        )


@dataclass(frozen=True)
class AliveCalls:
    """What calls Redis has: ids of batches to embed and of jobs to score."""

    batches: frozenset[int]
    jobs: frozenset[str]


def _messages(channel: Any) -> Iterator[dict[str, Any]]:
    """The messages that wait in kombu's lists, and those that it noted as delivered not long ago.

    That is the layout of kombu's Redis transport, and has no interface: a test holds it to what is read here.
    """
    for name in _lists(channel, (_EMBED_QUEUE, _AGGREGATE_QUEUE)):
        for message in channel.client.lrange(name, 0, -1):
            yield json.loads(message)
    # The times there are of the workers' clocks; a clock that is off costs a call too many or a late one.
    tags = channel.client.zrangebyscore(channel.unacked_index_key, time.time() - _DELIVERED_SECONDS, "+inf")
    for entry in channel.client.hmget(channel.unacked_key, tags) if tags else []:
        if entry is not None:
            yield json.loads(entry)[0]


def _lists(channel: Any, queues: Iterable[str]) -> Iterator[str]:
    """The names of the lists in which kombu keeps queues: one for each priority."""
    for queue in queues:
        for priority in channel.priority_steps:
            yield channel._q_for_pri(queue, priority)


def _call_id(message: dict[str, Any]) -> tuple[str, str] | None:
    task, _, rest = str(message["headers"].get("id")).partition(":")
    argument, _, _ = rest.rpartition(":")
    return (task, argument) if argument else None
