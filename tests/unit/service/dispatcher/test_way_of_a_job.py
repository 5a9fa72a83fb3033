"""One job from its row to its end, against a cluster that behaves."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.run_layout import SPEC
from schemas.run_record import RunError
from schemas.run_spec import RunSpec
from service.dispatcher.launch import look_before_launch
from service.dispatcher.run_specs import build_run_spec
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import (
    checkpoint_event,
    sft_event,
    step_event,
    whole_run,
    write_chunk,
    write_file,
    write_outcome,
)
from tests.unit.service.dispatcher.world import PROJECT, open_world, pairs


def test_a_job_ends_with_its_results_as_files_and_its_adapter_as_a_model(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        job = world.tick_until_ended(job_id)
        assert (job.status, job.error, job.trained_tokens) == ("succeeded", None, 60)
        assert job.finished_at is not None
        assert job.fine_tuned_model in world.model_names()
        assert [file.filename for file in world.result_files()] == ["step_metrics.csv", "adapter.tar.gz"]
        assert job.result_files == [file.id for file in world.result_files()]
        assert all(file.object_key.startswith(f"runs/{job_id}/{job_id}-1/results/") for file in world.result_files())


def test_a_job_tells_each_step_once_and_in_order(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick_until_ended(job_id)
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        messages = world.messages(job_id)
        assert "Files validated: 4 training pairs, moving job to queued state" in messages
        assert "Step 2/6: training loss=0.5000, margin=0.5000" in messages
        assert messages[-1] == "The job has successfully completed"


def test_a_kept_checkpoint_is_a_row_and_a_model(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        job = world.tick_until_ended(job_id)
        assert world.checkpoint_steps(job_id) == [3]
        assert f"{job.fine_tuned_model}:ckpt-step-3" in world.model_names()


@pytest.mark.parametrize(
    ("resources", "quantization", "shards_base"),
    [
        pytest.param({"gpus": 2}, None, None, id="the trainer sees whether it fits"),
        pytest.param({"gpus": 2, "sharding": "full"}, None, True, id="asked for"),
        pytest.param({"gpus": 2, "sharding": "none"}, None, False, id="refused"),
        pytest.param({"gpus": 2}, "nf4", False, id="4-bit weights cannot be"),
        pytest.param({"gpus": 1}, None, False, id="one worker has nobody to share with"),
    ],
)
def test_the_spec_says_whether_the_base_is_sharded(
    tmp_path: Path, resources: dict[str, object], quantization: str | None, shards_base: bool | None
) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run, gpus=2)) as world:
        method = {"type": "dpo", "dpo": {"quantization": quantization}}
        job_id = world.submit(resources=resources, method=method)
        world.tick_until_ended(job_id)
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-1/{SPEC}"))
        assert spec.shards_base is shards_base


def test_the_spec_is_numbers_and_uris(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        validation = world.upload(pairs(2))
        job_id = world.submit(validation_file=validation, seed=7)
        world.tick(times=2)
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-1/{SPEC}"))
        assert (spec.seed, spec.workers, spec.model.uri, spec.dpo.learning_rate) == (7, 1, "/models/tiny", 1e-3)
        assert Path(spec.training_file.uri).read_bytes() == pairs(4)
        assert spec.quantization is None
        assert spec.reference_cache == world.context.store.uri(f"references/{PROJECT}")
        assert spec.validation_file is not None
        assert spec.validation_file.file_id == validation


def left_out(record: BaseModel) -> set[str]:
    """Fields, of its records too, that were not given. `version` is nobody's to choose."""
    missing = set(type(record).model_fields) - record.model_fields_set - {"version"}
    return missing.union(*(left_out(value) for _, value in record if isinstance(value, BaseModel)))


def test_the_service_leaves_no_field_of_a_spec_to_its_default(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        validation = world.upload(pairs(2))
        guards = {"type": "dpo", "dpo": {"guards": {"max_kl": 1.0}, "reference": {"type": "sft"}}}
        world.submit(validation_file=validation, method=guards)
        world.tick(times=2)
        [rows] = look_before_launch(world.context, world.open_runs())
        assert left_out(build_run_spec(rows, world.context.store, world.context.registry)) == set()


def test_the_job_shows_what_auto_became_once_it_is_queued(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        assert world.job(job_id).hyperparameters.batch_size == "auto"
        world.tick()
        assert world.job(job_id).hyperparameters.batch_size == 4


def test_a_running_job_tells_when_it_will_be_done(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: [write_chunk(1, step_event(1))])
    with open_world(tmp_path, backend) as world:
        job_id = world.submit()
        world.tick(times=3)
        # step 1 of 6 was told at 1,700,000,001 and a step takes 2 s
        assert world.job(job_id).estimated_finish == 1_700_000_011


def test_a_job_that_estimates_its_reference_first_tells_when_all_will_be_done(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: [write_chunk(1, sft_event(1), sft_event(2))])
    with open_world(tmp_path, backend) as world:
        job_id = world.submit(method={"dpo": {"reference": {"type": "sft"}}})
        world.tick(times=3)
        assert world.job(job_id).estimated_finish == 1_700_000_002 + 30
        last = world.events(job_id)[-1]
        assert (last.type, last.message) == ("message", "SFT step 2/4: loss 2.5000")
        assert last.data is not None
        assert (last.data["sft_step"], last.data["sft_loss"], last.data["trained_tokens"]) == (2, 2.5, 20)
        assert "step" not in last.data


def test_a_failed_outcome_fails_the_job_with_its_error(tmp_path: Path) -> None:
    error = RunError(code="non_finite_loss", message="step 3: the loss is NaN", param="learning_rate")
    with open_world(tmp_path, ScriptedBackend(lambda _: [write_outcome(error=error)])) as world:
        job_id = world.submit()
        job = world.tick_until_ended(job_id)
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error.code, job.error.message, job.error.param) == (error.code, error.message, error.param)
        assert world.model_names() == []


def test_an_outcome_ends_the_job_even_while_the_backend_says_running(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [write_outcome(after=None)])) as world:
        job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.backend.stopped == [f"{job_id}-1"]


def test_a_damaged_chunk_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    def script(_: object) -> list[object]:
        return [
            lambda request: write_file(
                request,
                "events/00000001.jsonl",
                step_event(1).model_dump_json(exclude_none=True).encode() + b"\n{broken\n",
            ),
            write_chunk(2, step_event(2), checkpoint_event(2)),
            write_outcome(),
        ]

    with open_world(tmp_path, ScriptedBackend(script)) as world:  # type: ignore[arg-type]
        job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2]
        assert sum("is damaged (line 2" in message for message in world.messages(job_id)) == 1


def test_an_unreadable_outcome_fails_the_job_and_names_the_object(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: [lambda request: write_file(request, "outcome.json", b"{")])
    with open_world(tmp_path, backend) as world:
        job = world.tick_until_ended(world.submit())
        assert job.error is not None
        assert "outcome.json cannot be read" in job.error.message


def test_jobs_run_one_by_one_on_cpus_and_oldest_first(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        first, second = world.submit(), world.submit()
        world.tick(times=3)
        assert (world.job(first).status, world.job(second).status) == ("running", "queued")
        world.tick_until_ended(first)
        assert world.tick_until_ended(second).status == "succeeded"
