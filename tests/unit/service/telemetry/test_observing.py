"""Each committed fact is counted once, under labels of our own."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog

from service.jobs.lifecycle import ALLOWED
from service.telemetry.facts import DeliveryAttempted, EventsIngested, Fact, JobMoved, RunEnded
from service.telemetry.metrics import Metrics
from service.telemetry.observing import Observer
from tests.exposition import Exposition, exposed, labelled

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def observed(*facts: Fact) -> tuple[Exposition, list[dict[str, object]]]:
    metrics = Metrics()
    observer = Observer(metrics, transitions=ALLOWED)
    with structlog.testing.capture_logs() as lines:
        for fact in facts:
            observer(fact)
    return exposed(metrics.registry), [dict(line) for line in lines]


def test_every_transition_that_may_happen_is_told_before_it_does() -> None:
    told, _ = observed()
    transitions = told.samples["dpo_job_transitions_total"]
    assert len(transitions) == 1 + sum(len(tos) for tos in ALLOWED.values())
    assert set(transitions.values()) == {0.0}
    assert set(told.samples["dpo_run_seconds_count"].values()) == {0.0}
    assert set(told.samples["dpo_webhook_deliveries_total"].values()) == {0.0}


def test_a_moved_job_is_counted_and_logged() -> None:
    told, lines = observed(
        JobMoved("ftjob-1", "proj_1", seen=None, to="validating_files"),
        JobMoved("ftjob-1", "proj_1", seen="validating_files", to="queued"),
    )
    assert told.told("dpo_job_transitions_total") == {
        labelled(**{"from": "new", "to": "validating_files"}): 1.0,
        labelled(**{"from": "validating_files", "to": "queued"}): 1.0,
    }
    ids = {"job_id": "ftjob-1", "project_id": "proj_1", "log_level": "info"}
    assert lines == [
        {"event": "job_created", **ids},
        {"event": "job_moved", "from": "validating_files", "to": "queued", **ids},
    ]


@pytest.mark.parametrize(("took_s", "counted_s"), [(90, 90), (-5, 0)], ids=["forwards", "clocks that disagree"])
def test_a_run_that_ended_is_timed(took_s: int, counted_s: int) -> None:
    fact = RunEnded("ftjob-1-1", "ftjob-1", "lost", NOW, NOW + timedelta(seconds=took_s), None)
    told, [line] = observed(fact)
    assert told.told("dpo_run_seconds_count") == {labelled(outcome="lost"): 1.0}
    assert told.value("dpo_run_seconds_sum", outcome="lost") == counted_s
    assert (line["event"], line["outcome"], line["run_id"]) == ("run_ended", "lost", "ftjob-1-1")


def test_lags_and_deliveries_are_counted() -> None:
    told, _ = observed(EventsIngested((0.2, 3.0)), DeliveryAttempted("retried"), DeliveryAttempted("delivered"))
    assert told.value("dpo_ingest_lag_seconds_count") == 2
    assert told.value("dpo_ingest_lag_seconds_sum") == 3.2
    assert told.told("dpo_webhook_deliveries_total") == {
        labelled(outcome="retried"): 1.0,
        labelled(outcome="delivered"): 1.0,
    }
