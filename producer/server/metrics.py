"""`/metrics`: what Prometheus scrapes, read from the store and the broker at that moment."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Lock

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...models.errors import BrokerUnreachableError
from ...models.lists import BATCH_SECONDS
from ...models.records import Listed, Totals, Worker
from ...models.settings import Settings
from ...models.states import FailureKind, JobState
from ...models.store import Store
from ..documents import worker_state
from ..local import queue_depths

_JOBS_AT_ONCE = 1000


def make_registry(settings: Settings, store: Store) -> CollectorRegistry:
    """What `prometheus_client` turns into text; raises StoreUnreachableError then."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_ScanomalyCollector(settings, store))
    return registry


class _ScanomalyCollector(Collector):
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._work = _Work(store)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        endings = self._store.lists.endings()
        workers = self._store.workers.all()
        yield from _jobs(endings, workers)
        yield from _scans(self._work.totals(endings), self._store.lists.failures())
        yield from _workers(workers)
        yield from self._queues()

    def _queues(self) -> Iterator[Metric]:
        try:
            depths = queue_depths(self._settings)
        except BrokerUnreachableError:
            depths = {}
        yield GaugeMetricFamily("scanomaly_broker_up", "Whether the broker answers.", value=bool(depths))
        depth = GaugeMetricFamily("scanomaly_queue_depth", "Calls that wait for a worker.", labels=["queue"])
        for queue, count in depths.items():
            depth.add_metric([queue], count)
        yield depth


def _jobs(endings: dict[str, Listed], workers: Iterable[Worker]) -> Iterator[Metric]:
    by_state = Counter(job.state for job in endings.values())
    jobs = GaugeMetricFamily("scanomaly_jobs", "Jobs by state.", labels=["state"])
    for state in JobState:
        jobs.add_metric([state], by_state[state])
    yield jobs
    need_workers = by_state[JobState.EMBEDDING] + by_state[JobState.SCORING]
    stalled = 0 if any(worker.alive for worker in workers) else need_workers
    yield GaugeMetricFamily("scanomaly_jobs_stalled", "Jobs that need a worker while none lives.", value=stalled)


def _scans(totals: Totals, failures: dict[FailureKind, int]) -> Iterator[Metric]:
    yield CounterMetricFamily("scanomaly_scans_embedded", "Scans that have an embedding.", value=totals.embedded)
    yield CounterMetricFamily("scanomaly_scans_encoded", "Scans that an encoder embedded.", value=totals.encoded)
    failed = GaugeMetricFamily("scanomaly_scans_failed", "Scans that failed, until retried.", labels=["kind"])
    for kind in FailureKind:
        failed.add_metric([kind], failures.get(kind, 0))
    yield failed
    buckets = [*zip(map(str, BATCH_SECONDS), totals.within, strict=True), ("+Inf", totals.batches)]
    batches = HistogramMetricFamily("scanomaly_batch_seconds", "From when a batch was begun to its commit.")
    batches.add_metric([], buckets, totals.seconds)
    yield batches


def _workers(workers: Iterable[Worker]) -> Iterator[Metric]:
    by_state = Counter(worker_state(worker) for worker in workers)
    count = GaugeMetricFamily("scanomaly_workers", "Workers of the last week by state.", labels=["state"])
    for state in ("alive", "lost", "stopped"):
        count.add_metric([state], by_state[state])
    yield count
    labels = ["worker", "host", "device"]
    beat = GaugeMetricFamily(
        "scanomaly_worker_heartbeat_timestamp_seconds", "When a heart beat last.", labels=labels
    )
    running = GaugeMetricFamily("scanomaly_worker_running", "Batches, or jobs to score, in hand.", labels=labels)
    for worker in workers:
        if worker_state(worker) != "stopped":
            beat.add_metric([worker.name, worker.host, worker.device], worker.beat_at.timestamp())
            running.add_metric([worker.name, worker.host, worker.device], worker.running)
    yield beat
    yield running


class _Work:
    """Sums over all batches. Those of jobs that have ended are kept: their batches change no more, unless one is
    retried, and then its end does too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._counted: dict[str, Listed] = {}
        self._sum = _NOTHING

    def totals(self, endings: dict[str, Listed]) -> Totals:
        with self._lock:
            if any(endings.get(job) != ending for job, ending in self._counted.items()):
                self._counted, self._sum = {}, _NOTHING
            ended = {job: end for job, end in endings.items() if end.state.ended and job not in self._counted}
            self._sum += self._read(ended)
            self._counted |= ended
            return self._sum + self._read(job for job, end in endings.items() if not end.state.ended)

    def _read(self, jobs: Iterable[str]) -> Totals:
        iterator, total = iter(jobs), _NOTHING
        while part := list(islice(iterator, _JOBS_AT_ONCE)):
            total += self._store.lists.totals(part)
        return total


_NOTHING = Totals(within=(0,) * len(BATCH_SECONDS))
