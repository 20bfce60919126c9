"""The queue: Celery's settings, the names of the tasks, and sending by name.

A message carries one id. Whoever gets it reads in the store what there is to do, so a message may be lost, come
late or come twice.
"""

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from .errors import BrokerUnreachableError
from .settings import Settings, hide_password

EMBED_TASK = "scanomaly.embed"
AGGREGATE_TASK = "scanomaly.aggregate"

_EMBED_QUEUE = "scanomaly.embed"
_AGGREGATE_QUEUE = "scanomaly.aggregate"
_CONNECT_SECONDS = 5


def make_celery(settings: Settings) -> Celery:
    """The Celery app that both wings use; only the worker registers tasks in it."""
    # Celery's command line would leave this logger without a handler, and kombu's retries are told otherwise.
    logging.getLogger("kombu").addHandler(logging.NullHandler())
    app = Celery("scanomaly", broker=settings.resolved_broker_url)
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
        # Acknowledged after the commit; a message whose process dies goes back to the queue. The attempts that
        # the store counts bound how often.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # One message at a time: a prefetched one would wait behind this worker while another is idle.
        worker_prefetch_multiplier=1,
        # CUDA does not survive a fork, so one spawned child; the parent stays responsive while it computes.
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_concurrency=1,
        # Importing torch in the child can take longer than Celery's 4 seconds.
        worker_proc_alive_timeout=120,
        # SIGTERM: the running batch may end in this time; after it, it goes back to the queue.
        worker_soft_shutdown_timeout=30,
        # The tasks are the only thing that writes to the log.
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=_CONNECT_SECONDS,
        broker_transport_options={
            # After this long, a message that was neither acknowledged nor given back counts as lost. It must be
            # longer than any batch takes; a duplicate costs time, not correctness.
            "visibility_timeout": 900,
            "unacked_restore_interval": 30,
            "unacked_restore_throttle": 1,
            # A connection that died without a word must not leave a worker deaf.
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


class Queue:
    """Sends wake-up calls."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self.name = hide_password(settings.resolved_broker_url)
        self._app = app or make_celery(settings)

    def check(self) -> None:
        """Ask the broker for an answer.

        Raises:
            BrokerUnreachableError: it gives none.
        """
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
                connection.default_channel.client.ping()
        except (OperationalError, RedisError, OSError, ValueError, KeyError) as error:
            raise self._unreachable(error) from error

    def embed(self, batch_id: int) -> None:
        """Say that a batch waits to be embedded."""
        self._send(EMBED_TASK, batch_id)

    def aggregate(self, job_id: str) -> None:
        """Say that a job waits to be scored."""
        self._send(AGGREGATE_TASK, job_id)

    def _send(self, task: str, argument: Any) -> None:
        try:
            self._app.send_task(
                task,
                args=[argument],
                retry_policy={
                    "max_retries": 3,
                    "interval_start": 0.2,
                    "interval_step": 0.5,
                    "interval_max": 1,
                },
            )
        except (OperationalError, RedisError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> BrokerUnreachableError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return BrokerUnreachableError(
            f"the broker {self.name} cannot be used ({reason}): check SCANOMALY_BROKER_URL, or unset it for the "
            "embedded one"
        )
