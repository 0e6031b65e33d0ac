"""/metrics: what the server counts and sees, as Prometheus reads it. Nothing of a call is in it."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from noojee_agi.web.readings import Counted, Disk, Histogram, Readings


def exposition(readings: Readings) -> tuple[bytes, str]:
    """The text, and its content type. What could not be read is left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Read(_families(readings)))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Read(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(readings: Readings) -> Iterator[Metric]:
    yield from _counted(readings.counted)
    yield _gauge(
        "recordings_disk_up", "1 when the recordings' disk is there and answers", readings.disk is not None
    )
    if readings.disk:
        yield from _on_disk(readings.disk)
    yield _gauge("database_up", "1 when the database answers", readings.open_legs is not None)
    if readings.open_legs is not None:
        yield _gauge("open_legs", "Recordings of this server that are running now", readings.open_legs)
    if readings.manager_is_up is not None:
        text = "1 when Asterisk's manager interface answers and takes our user"
        yield _gauge("manager_up", text, readings.manager_is_up)
    if readings.certificate_days is not None:
        text = "Days until the certificate of https expires; negative when it has"
        yield _gauge("certificate_days_left", text, readings.certificate_days)


def _counted(counted: Counted) -> Iterator[Metric]:
    text = "Sessions that have ended, by program and RECORDING_STATUS; 401 is a wrong key, 5xx is ours"
    sessions = CounterMetricFamily("noojee_agi_sessions", text, labels=("program", "status"))
    for labels, number in counted.sessions.items():
        sessions.add_metric(labels, number)
    yield sessions
    yield _gauge("sessions_running", "Sessions at work now", counted.running)
    text = "How long a session kept its call waiting"
    holds = HistogramMetricFamily("noojee_agi_session_hold_seconds", text, labels=("program",))
    for program, found in counted.holds.items():
        _add(holds, (program,), found)
    yield holds
    text = "How long it took to bring waiting events into the database"
    drains = HistogramMetricFamily("noojee_agi_drain_seconds", text, labels=())
    _add(drains, (), counted.drains)
    yield drains
    text = "When events were last brought in, or none was waiting; 0 is never"
    yield _gauge("last_drain_timestamp_seconds", text, counted.drained_at)


def _on_disk(disk: Disk) -> Iterator[Metric]:
    text = "Free space of the recordings' disk; below min_free_percent no call is recorded"
    yield _gauge("recordings_disk_free_bytes", text, disk.free_bytes)
    yield _gauge("recordings_disk_size_bytes", "Size of the recordings' disk", disk.bytes)
    yield _gauge("spool_waiting_events", "Events on the disk that wait for the database", disk.waiting)
    text = "How long the oldest of them has waited; 0 when none waits"
    yield _gauge("spool_oldest_event_age_seconds", text, disk.oldest_seconds)
    text = "Events that the database has refused; noojee-agi check says what to do"
    yield _gauge("spool_rejected_events", text, disk.rejected)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"noojee_agi_{name}", text, value=float(value))


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], found: Histogram) -> None:
    bounds = [*map(floatToGoString, found.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(found.counts), strict=True)), found.sum)
