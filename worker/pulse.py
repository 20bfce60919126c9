"""What Celery's own tools take for a heart: Flower shows a worker as alive that sends `worker-heartbeat` events.

Celery would send them from the loop that takes calls, and try for ever when Redis does not answer: a worker could
no longer be stopped in order. So a thread sends them. Nothing of ours listens: a worker's heart beats in the store.
"""

import threading
import time
from typing import Any

from celery.signals import worker_ready
from celery.utils.sysinfo import load_average
from celery.worker.state import SOFTWARE_INFO, active_requests, all_total_count
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

PULSE_SECONDS = 5.0
"""Flower shows a worker as offline after two of them."""


def give_pulse() -> None:
    """Have this process, a Celery worker to be, send heartbeat events from when it is ready."""
    worker_ready.connect(_start, weak=False)


def _start(sender: Any, **_: object) -> None:
    threading.Thread(target=_beat, args=(sender.app, sender.hostname), daemon=True, name="pulse").start()


def _beat(app: Any, hostname: str) -> None:
    while True:
        try:
            with app.connection_for_write() as connection:
                events = app.events.Dispatcher(connection, hostname=hostname, buffer_while_offline=False)
                while True:
                    events.send(
                        "worker-heartbeat",
                        freq=PULSE_SECONDS,
                        active=len(active_requests),
                        processed=all_total_count[0],
                        loadavg=load_average(),
                        **SOFTWARE_INFO,
                    )
                    time.sleep(PULSE_SECONDS)
        except (OperationalError, RedisError, OSError):
            time.sleep(PULSE_SECONDS)
