"""A real service after real jobs: its numbers are exact, its lines can be followed, its spans are one trace."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.exposition import labelled, scrape
from tests.integration.replicas import Replica, environment_of, run_command
from tests.integration.serving import KEY, wait_until
from tests.integration.watched import METRICS, RECEIVERS_KEY, REQUEST_ID, TRACE_ID, USERS_WORDS, Watched
from tests.otlp_receiver import attributes_of


def test_jobs_and_runs_are_counted_exactly(seen: Watched) -> None:
    moves = {
        ("new", "validating_files"): 3,
        ("validating_files", "queued"): 2,
        ("validating_files", "failed"): 1,
        ("queued", "running"): 1,
        ("queued", "cancelled"): 1,
        ("running", "succeeded"): 1,
    }
    expected = {labelled(**{"from": seen_, "to": to}): count for (seen_, to), count in moves.items()}
    assert seen.told.told("dpo_job_transitions_total") == expected
    assert seen.told.told("dpo_run_seconds_count") == {labelled(outcome="succeeded"): 1}
    assert seen.run_events > 2
    assert seen.told.value("dpo_ingest_lag_seconds_count") == seen.run_events
    assert 0 < seen.told.value("dpo_ingest_lag_seconds_sum") < 60 * seen.run_events
    assert seen.told.value("dpo_dispatcher_tick_seconds_count") > 3
    assert seen.told.value("dpo_database_up") == 1
    assert sorted(seen.told_at_work.told("dpo_queue_jobs").values()) == [1.0, 1.0]
    assert 0 < max(seen.told_at_work.told("dpo_queue_oldest_seconds").values()) < 60
    assert not seen.told.told("dpo_queue_jobs")
    for name in ("dpo_store_errors_total", "dpo_cluster_errors_total", "dpo_webhook_deliveries_total"):
        assert set(seen.told.samples[name].values()) == {0.0}


def test_requests_are_counted_by_route_and_each_has_one_line(seen: Watched) -> None:
    told = seen.told.told("dpo_http_requests_total")
    for method, route, status, count in (
        ("POST", "/v1/files", "200", 2),
        ("POST", "/v1/fine_tuning/jobs", "200", 3),
        ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel", "200", 1),
        ("GET", "unknown", "404", 2),
        ("GET", "/v1/models/{model}", "404", 1),
        ("GET", "/v1/files", "400", 1),
    ):
        assert told[labelled(method=method, route=route, status=status)] == count
    answered = Counter(
        labelled(method=line["method"], route=line["route"], status=str(line["status"]))
        for line in seen.lines
        if line["event"] == "request_answered"
    )
    assert answered == told
    timed = seen.told.samples["dpo_http_request_seconds_count"]
    assert sum(timed.values()) == sum(told.values())


def test_a_request_is_followed_to_its_trainers_lines(seen: Watched) -> None:
    created = [line for line in seen.lines if line["event"] == "job_created"]
    first, _, last = [(line["job_id"], line["request_id"], line["trace_id"]) for line in created]
    assert first == (seen.job_id, REQUEST_ID, TRACE_ID)
    assert last == (seen.failed_id, REQUEST_ID, TRACE_ID)
    [project_id] = {line["project_id"] for line in created}
    access = [line for line in seen.lines if line.get("request_id") == REQUEST_ID and "status" in line]
    assert [(line["status"], line["project_id"]) for line in access] == [(200, project_id)] * 3
    [launched] = [line for line in seen.lines if line["event"] == "run_launched"]
    assert (launched["job_id"], launched["run_id"], launched["trace_id"]) == (seen.job_id, seen.run_id, TRACE_ID)
    # A trainer that is asked to stop while it leaves is told of by the shell around it.
    of_trainer = [json.loads(line) for line in seen.trainer_output.splitlines() if line != "Terminated"]
    assert {(line["run_id"], line["job_id"], line["trace_id"]) for line in of_trainer} == {
        (seen.run_id, seen.job_id, TRACE_ID)
    }
    events = [line["event"] for line in of_trainer]
    assert (events[0], events[-1]) == ("run_started", "run_finished")
    assert events.count("run_told") == seen.run_events


def test_the_jobs_spans_are_one_trace(seen: Watched) -> None:
    assert seen.spans.services == {"dpo-service"}
    assert all(headers["x-key"] == RECEIVERS_KEY for headers in seen.spans.headers)
    spans = seen.spans.of_trace(TRACE_ID)
    requests = {span.span_id for span in spans if span.name == "POST /v1/fine_tuning/jobs"}
    assert len(requests) == 3
    of_the_job = [span for span in spans if attributes_of(span).get("dpo.job_id") == seen.job_id]
    assert {span.name for span in of_the_job} == {"validate", "launch", "ingest", "settle", "run"}
    assert len({span.parent_span_id for span in of_the_job}) == 1
    assert {span.parent_span_id for span in of_the_job} < requests
    [run] = [span for span in of_the_job if span.name == "run"]
    seconds = (run.end_time_unix_nano - run.start_time_unix_nano) / 1e9
    assert seconds == pytest.approx(seen.told.value("dpo_run_seconds_sum", outcome="succeeded"), abs=1e-3)
    assert attributes_of(run)["dpo.outcome"] == "succeeded"


@pytest.mark.parametrize("words", [*USERS_WORDS.values(), KEY, RECEIVERS_KEY])
def test_no_key_and_no_users_word_is_in_what_an_operator_sees(seen: Watched, words: str) -> None:
    assert words not in seen.told.text
    assert not [line for line in seen.output.splitlines() if line.startswith("{") and words in line]
    assert words not in seen.trainer_output
    assert words not in "".join(str(span) for span in seen.spans.spans)


@pytest.mark.parametrize("kind", ["api", "dispatcher"])
def test_replicas_have_metrics_of_their_own(tmp_path: Path, models_file: Path, kind: str) -> None:
    environment = environment_of(tmp_path, f"sqlite:///{tmp_path / 'dpo.sqlite3'}", models_file)
    assert run_command(environment, "migrate").returncode == 0
    replica = Replica(kind, tmp_path / kind, environment | {"DPO_METRICS_PORT": "0"})
    replica.start()
    try:
        wait_until(lambda: METRICS in replica.output and replica.output.endswith("\n"))
        url = replica.output.split(METRICS, 1)[1].split()[0]
        wait_until(lambda: kind == "api" or scrape(url).value("dpo_dispatcher_tick_seconds_count") > 1)
        assert scrape(url).value("dpo_database_up") == 1
    finally:
        assert replica.stop() == 0


def test_traces_without_a_protocol_of_ours_are_refused_at_the_start(tmp_path: Path, models_file: Path) -> None:
    environment = environment_of(tmp_path, f"sqlite:///{tmp_path / 'dpo.sqlite3'}", models_file)
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    done: subprocess.CompletedProcess[str] = run_command(environment | traced, "api")
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'" in done.stderr
