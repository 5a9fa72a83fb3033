"""`serve` with plain processes: starts that must fail clearly, deaths, and going on afterwards."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.serving import (
    PAIRS,
    TRAINERS,
    Serve,
    create_job,
    is_over,
    last_step,
    messages_of,
    metrics_of,
    newest_checkpoint,
    processes_of,
    serving,
    steps_of,
    suspended,
    wait_for_end,
    wait_for_step,
    wait_until,
)

PROCESSES = ("--backend", "process")
EPOCHS = 25
STEPS = 4 * EPOCHS


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, models_file: Path) -> Iterator[Serve]:
    """For tests that do not end it."""
    with serving(tmp_path_factory.mktemp("serve") / "data", models_file, *PROCESSES) as running:
        yield running


def test_a_service_that_ends_in_the_middle_goes_on_at_its_next_start(tmp_path: Path, models_file: Path) -> None:
    """By each signal, at a later step of the same job each time; by SIGKILL when the job has just been paused."""
    data, job = tmp_path / "data", None
    for number, step in ((signal.SIGTERM, 6), (signal.SIGINT, STEPS // 4)):
        with serving(data, models_file, *PROCESSES) as ended_early:
            client = ended_early.client()
            job = job or create_job(client, epochs=EPOCHS)
            wait_for_step(client, job, step)
            assert ended_early.stop(number) == 0, ended_early.output
            assert "Traceback" not in ended_early.output
            assert processes_of(data) == []
    assert job is not None
    with serving(data, models_file, *PROCESSES) as killed, ExitStack() as stack:
        client = killed.client()
        wait_for_step(client, job, STEPS // 2)
        with suspended(processes_of(data, command=TRAINERS)):
            assert client.fine_tuning.jobs.pause(job.id).status == "paused"
            killed.stop(signal.SIGKILL)
            client = stack.enter_context(serving(data, models_file, *PROCESSES)).client()
        wait_until(lambda: processes_of(data, command=TRAINERS) == [])
        wait_until(lambda: last_step(client, job) == newest_checkpoint(data, f"{job.id}-*"))
        stopped_after = last_step(client, job)
        assert stopped_after < STEPS
        assert client.fine_tuning.jobs.retrieve(job.id).status == "paused"
        assert client.fine_tuning.jobs.resume(job.id).status == "queued"
        ended = wait_for_end(client, job)
        assert ended.status == "succeeded", ended.error
        assert steps_of(client, job) == list(range(1, STEPS + 1))
        told = messages_of(client, job)
        assert len(set(told)) == len(told)
        assert not any("was lost" in message for message in told)
        assert f"Resumed after step {stopped_after} of {STEPS}" in told
        assert told.index("The job has been paused") < told.index("The job has been resumed")


def test_a_job_of_higher_priority_has_a_running_one_stopped_which_goes_on_after_it(serve: Serve) -> None:
    client = serve.client()
    low = create_job(client, epochs=EPOCHS)
    wait_for_step(client, low, 6)
    with suspended(processes_of(serve.data_dir, command=f"{low.id}-1")):
        high = create_job(client, priority=5)
        wait_until(lambda: any("The job makes room" in message for message in messages_of(client, low)))
    ended = wait_for_end(client, high)
    assert ended.status == "succeeded", ended.error
    assert not is_over(client, low)
    stopped_after = newest_checkpoint(serve.data_dir, f"{low.id}-1")
    ended = wait_for_end(client, low)
    assert ended.status == "succeeded", ended.error
    assert steps_of(client, low) == list(range(1, STEPS + 1))
    told = messages_of(client, low)
    assert f"Resumed after step {stopped_after} of {STEPS}" in told
    assert any(message.startswith(f"The job makes room for {high.id} (priority 5 over 0)") for message in told)
    assert f"Job {low.id} is stopped to make room for this one (priority 5 over 0)" in messages_of(client, high)


def test_a_job_that_its_guard_pauses_goes_on_when_resumed(serve: Serve) -> None:
    client = serve.client()
    held_out = client.files.create(file=("held-out.jsonl", PAIRS), purpose="fine-tune")
    guards = {"max_kl": 1e-9, "action": "pause"}
    job = create_job(client, validation_file=held_out.id, guards=guards, evaluation={"every_steps": 2})
    wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "paused")
    assert steps_of(client, job) == [1, 2]
    client.fine_tuning.jobs.resume(job.id)
    wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "paused")
    assert steps_of(client, job) == [1, 2, 3, 4]
    client.fine_tuning.jobs.resume(job.id)
    ended = wait_for_end(client, job)
    assert ended.status == "succeeded", ended.error
    fired = [message for message in messages_of(client, job) if "is above max_kl 1e-09" in message]
    assert len(fired) == 2
    assert "at step 4" in fired[1]
    assert fired[1].endswith("; pausing; resume the job to go on from here, or cancel it")


def test_a_second_job_takes_its_reference_from_the_cache_and_a_third_tunes_the_tuned_model_further(
    serve: Serve,
) -> None:
    client, rows = serve.client(), PAIRS.replace(b"Question", b"Riddle")  # no other job has filled the cache
    first, second = (wait_for_end(client, create_job(client, rows=rows, seed=5)) for _ in range(2))
    assert (first.status, second.status) == ("succeeded", "succeeded")
    assert "Reference log-probs: 16 pairs computed during the first epoch and cached" in messages_of(client, first)
    assert "Reference log-probs: 16 pairs from the cache" in messages_of(client, second)
    ours, theirs = ([metrics["train_loss"] for metrics in metrics_of(client, job)] for job in (first, second))
    assert ours == theirs

    held_out = client.files.create(file=("held-out.jsonl", PAIRS), purpose="fine-tune")
    assert first.fine_tuned_model is not None
    job = create_job(client, model=first.fine_tuned_model, validation_file=held_out.id)
    third = wait_for_end(client, job)
    assert third.status == "succeeded", third.error
    assert "valid_kl" in metrics_of(client, third)[-1]
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(third.id).data
    assert checkpoint.metrics.valid_loss is not None
    # the reference is the model it starts from, so training starts at margin 0 again
    assert metrics_of(client, third)[0]["rewards_margin"] == 0.0


def test_a_reference_is_estimated_first_and_the_job_shows_both_phases(serve: Serve) -> None:
    """Paused in the first phase and resumed, at that."""
    client = serve.client()
    file = client.files.create(file=("pairs.jsonl", PAIRS), purpose="fine-tune")
    dpo = {
        "hyperparameters": {"n_epochs": 1, "batch_size": 4},
        "reference": {"type": "sft", "n_epochs": EPOCHS},
    }
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, extra_body={"method": {"type": "dpo", "dpo": dpo}}
    )
    wait_until(lambda: any("SFT step 2/" in message for message in messages_of(client, job)))
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    client.fine_tuning.jobs.resume(job.id)
    ended = wait_for_end(client, job)
    assert ended.status == "succeeded", ended.error
    shown = ended.to_dict()["method"]["dpo"]["reference"]
    assert shown == {"type": "sft", "n_epochs": EPOCHS, "learning_rate": 4e-3}
    events = list(reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))))
    steps = [event.data for event in events if event.type == "metrics"]
    assert [metrics["step"] for metrics in steps] == [1, 2, 3, 4]
    assert steps[0]["rewards_margin"] == 0.0
    phase = [event for event in events if event.data and event.type == "message"]
    assert [event.data["sft_step"] for event in phase] == list(range(1, 4 * EPOCHS + 1))
    assert phase[0].message.startswith("SFT step 1/100: loss ")
    assert any(event.message.startswith("Resumed after SFT step ") for event in events)
    assert phase[-1].data["sft_loss"] < phase[0].data["sft_loss"]
    assert phase[-1].data["trained_tokens"] < steps[0]["trained_tokens"]
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoint.step_number == 4
    [metrics_csv] = [
        file_id for file_id in ended.result_files if client.files.retrieve(file_id).filename == "step_metrics.csv"
    ]
    assert len(client.files.content(metrics_csv).text.splitlines()) == 1 + 4


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path, models_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = Serve(tmp_path / "data", models_file, "--port", str(port))
        assert serve.process.wait(60) == 1
        assert serve.output.strip().startswith(f"dpo-service: Port {port} on 127.0.0.1 is taken;")
        assert not (tmp_path / "data" / "dpo.sqlite3").exists()
        serve.stop()


def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path, models_file: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    serve = Serve(tmp_path / "out" / "data", models_file, "--data-dir", str(tmp_path / "file" / "data"))
    assert serve.process.wait(60) == 1
    assert "cannot be written (Not a directory); give another with --data-dir or DPO_DATA_DIR" in serve.output
    assert "Traceback" not in serve.output
    serve.stop()


def test_a_second_service_on_the_same_data_folder_is_refused(tmp_path: Path, serve: Serve, models_file: Path) -> None:
    serve.client()
    second = Serve(tmp_path / "data", models_file, "--data-dir", str(serve.data_dir), *PROCESSES)
    assert second.process.wait(60) == 1
    assert f"in use by another dpo-service (process {serve.process.pid})" in second.output
    second.stop()


def test_a_ray_that_does_not_come_up_ends_the_service_with_its_last_lines(
    tmp_path: Path, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shadow" / "ray").mkdir(parents=True)
    (tmp_path / "shadow" / "ray" / "__init__.py").write_text("raise SystemExit('no shared memory here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    serve = Serve(tmp_path / "data", models_file)
    assert serve.process.wait(60) == 1
    assert "the local Ray ended while it started" in serve.output
    assert "no shared memory here" in serve.output
    assert "DPO_BACKEND=process" in serve.output
    assert "Traceback" not in serve.output
    assert processes_of(tmp_path / "data") == []
    serve.stop()


def test_a_job_of_two_workers_runs_under_torchrun(serve: Serve) -> None:
    client = serve.client()
    job = wait_for_end(client, create_job(client, workers=2))
    assert job.status == "succeeded", job.error
    assert is_over(client, job)
