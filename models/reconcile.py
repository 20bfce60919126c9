"""Finds work in the store whose wake-up call may be lost, and sends the call again."""

from .queue import Queue
from .states import JobState
from .store import Store


def send_unfinished(store: Store, queue: Queue, job_id: str) -> int:
    """Send a call for everything of a job that is not done. A call too many does no harm.

    Returns:
        How many calls were sent.

    Raises:
        BrokerUnreachableError: the broker does not take them.
    """
    batches = store.unfinished_batches(job_id)
    for batch_id in batches:
        queue.embed(batch_id)
    if batches:
        return len(batches)
    # Every batch is done: the worker that did the last one, or the one that scored, may have died.
    if store.begin_scoring(job_id) or store.find_job(job_id).state == JobState.SCORING:
        queue.aggregate(job_id)
        return 1
    return 0
