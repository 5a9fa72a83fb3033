"""What cannot be run fails with a message that names the thing and the field, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from sqlalchemy import update

from schemas.fine_tuning import JobError
from schemas.ids import JobId
from schemas.run_layout import SPEC
from schemas.run_spec import RunSpec
from service.backends.backend import RunRequest
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from service.dispatcher.backoff import MAX_FAILURES
from service.files.validation import FileReport
from service.files.validation_process import ValidationProcessDied, ValidationProcessFailed
from tests.unit.service.dispatcher.scripted_backend import Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import die, whole_run
from tests.unit.service.dispatcher.world import ENTRY, MODEL, World, open_world, pairs, watch_only, with_parts

pytestmark = pytest.mark.slow


def failed(world: World, content: bytes | None = None, **fields: object) -> JobError:
    job = world.tick_until_ended(world.submit(content, **fields))
    assert job.status == "failed"
    assert job.error is not None
    assert world.result_files() == []
    return job.error


def test_a_bad_training_file_is_told_with_its_line(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        error = failed(world, pairs(2) + b'{"prompt": "P", "chosen": "yes"}\n')
        assert error.param == "training_file"
        assert "line 3" in error.message
        assert "pairs.jsonl" in error.message


def test_bad_lines_are_listed_among_the_events(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job = world.tick_until_ended(world.submit(pairs(2) + b"{}\n" * 150))
        assert job.error is not None
        assert "147 more; the first 100 are among the job's events" in job.error.message
        told = world.messages(JobId(job.id))
        assert told[-1].startswith("The job failed: pairs.jsonl: line 3: ")
        assert [message.split(": ")[1] for message in told[:-101:-1][1:]] == [f"line {n}" for n in range(3, 102)]


def test_a_bad_validation_file_is_told_as_such(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        error = failed(world, validation_file=world.upload(b"not json\n"))
        assert error.param == "validation_file"


def test_equal_pairs_are_warned_of(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit(pairs(4, equal=1))
        world.tick_until_ended(job_id)
        assert "Pairs whose chosen and rejected answers are the same teach nothing: 1" in world.messages(job_id)


def test_repeats_and_contradictions_are_warned_of(tmp_path: Path) -> None:
    pair = '{{"prompt": "P?", "chosen": "{}", "rejected": "{}"}}\n'
    content = (pair.format("a", "b") * 2 + pair.format("b", "a")).encode()
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit(content)
        assert world.tick_until_ended(job_id).status == "succeeded"
        told = "\n".join(world.messages(job_id))
        assert "Pairs that repeat an earlier one count again: 1" in told
        assert (
            "Pairs that contradict an earlier one, chosen and rejected exchanged, pull the model both ways: 1." in told
        )


def test_a_file_that_takes_too_much_fails_the_job_and_says_how(tmp_path: Path) -> None:
    def too_large(_key: str) -> object:
        raise ValidationProcessFailed("its validation ran out of memory; give shorter rows")

    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        world.restart(with_parts(world.context, validate_file=too_large))
        error = failed(world)
        assert error.param == "training_file"
        assert error.message.endswith(".jsonl: its validation ran out of memory; give shorter rows")


def test_a_validation_that_was_killed_says_nothing_about_the_file_and_is_tried_again(tmp_path: Path) -> None:
    deaths = [ValidationProcessDied("killed by signal 15")] * 2

    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        validate = world.context.validate_file

        def killed_twice(key: str) -> FileReport:
            if deaths:
                raise deaths.pop()
            return validate(key)

        world.restart(with_parts(world.context, validate_file=killed_twice))
        job_id = world.submit()
        world.tick()
        assert world.job(job_id).status == "validating_files"
        for _ in deaths, deaths, deaths:
            world.clock.advance(seconds=5)
            world.tick()
        assert world.tick_until_ended(job_id).status == "succeeded"


def test_a_validation_that_never_ends_well_is_the_services_trouble(tmp_path: Path) -> None:
    def broken(_key: str) -> object:
        raise ValidationProcessDied("Traceback: /srv/dpo/secret/place")

    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        world.restart(with_parts(world.context, validate_file=broken))
        job_id = world.submit()
        for _ in range(MAX_FAILURES):
            world.tick()
            world.clock.advance(seconds=61)
        error = world.job(job_id).error
        assert error is not None
        assert error.code == "internal_error"
        assert "It is not your data: give the operator this job's id" in error.message
        assert "secret" not in error.message


def test_a_file_deleted_before_its_validation_fails_the_job(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.delete_file(world.job(job_id).training_file)
        job = world.tick_until_ended(job_id)
        assert job.error is not None
        assert (job.error.code, job.error.param) == ("file_not_found", "training_file")


def test_a_file_deleted_under_a_queued_job_fails_it_when_its_turn_comes(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        first, second = world.submit(), world.submit()
        world.tick(times=2)
        world.delete_file(world.job(second).training_file)
        world.tick_until_ended(first)
        job = world.tick_until_ended(second)
        assert job.error is not None
        assert job.training_file in job.error.message
        assert f"{second}-1" not in world.backend.requests


def test_a_model_that_left_the_registry_fails_the_job(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.restart(with_parts(world.context, registry={}))
        job = world.tick_until_ended(job_id)
        assert job.error is not None
        assert (job.error.code, job.error.param) == ("model_not_found", "model")


def test_a_job_trains_with_what_it_shows_whatever_the_registry_says_since(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        until_queued(world, job_id)
        assert world.job(job_id).status == "queued"
        other = ENTRY.model_copy(update={"base_learning_rate": 10 * ENTRY.base_learning_rate, "max_length": 64})
        world.restart(with_parts(world.context, registry={MODEL: other}))
        shown = world.tick_until_ended(job_id).method.dpo
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-1/{SPEC}"))
        assert spec.dpo.learning_rate == shown.hyperparameters.learning_rate == ENTRY.base_learning_rate
        assert (spec.dpo.max_length, spec.dpo.n_epochs) == (
            shown.hyperparameters.max_length,
            shown.hyperparameters.n_epochs,
        )
        assert spec.evaluate_every_steps == shown.evaluation.every_steps


def ask_as_a_newer_version(world: World, job_id: JobId) -> None:
    """Store a field that this version does not know, as is left where an update was taken back."""
    with world.context.database.write() as session:
        job = JobRepository(session).find_any(job_id)
        assert job is not None
        resources = {**job.request["resources"], "of_a_newer_version": None}
        request = {**job.request, "resources": resources}
        session.execute(update(JobRow).where(JobRow.id == job_id).values(request=request))


def until_queued(world: World, _job_id: JobId) -> None:
    world.backend.is_away = True
    world.tick()
    world.backend.is_away = False


def until_lost(world: World, job_id: JobId) -> None:
    while world.attempt(job_id) == 1:
        world.tick()


@pytest.mark.parametrize(
    "until",
    [watch_only, until_queued, until_lost],
    ids=["before its validation", "while it waits", "before it is launched again"],
)
def test_a_job_that_cannot_be_read_is_refused_alone(tmp_path: Path, until: Callable[[World, JobId], None]) -> None:
    def lost_once(request: RunRequest) -> list[Action]:
        return [die()] if request.run_id.endswith("-1") else whole_run(request)

    with open_world(tmp_path, ScriptedBackend(lost_once)) as world, structlog.testing.capture_logs() as lines:
        unreadable, other = world.submit(), world.submit()
        until(world, unreadable)
        ask_as_a_newer_version(world, unreadable)
        assert world.tick_until_ended(other).status == "succeeded"
        job = world.job(unreadable)
        assert job.error is not None
        assert (job.status, job.error.code) == ("failed", "internal_error")
        assert "create the job again, or give the operator this job's id" in job.error.message
        [line] = [line for line in lines if line["event"] == "job_request_unreadable"]
        assert line["job_id"] == unreadable
        assert line["found"] == ["resources.of_a_newer_version: Extra inputs are not permitted"]
        assert f"{unreadable}-2" not in world.backend.requests


@pytest.mark.parametrize(
    ("resources", "param", "said"),
    [
        ({"gpus": 1}, "resources.gpus", "the cluster has none"),
        ({"workers": 3}, "resources.workers", "the cluster has 2 CPU core(s)"),
    ],
    ids=["more GPUs than there are", "more workers than cores"],
)
def test_more_than_the_cluster_has_at_all_is_refused(
    tmp_path: Path, resources: dict[str, int], param: str, said: str
) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        error = failed(world, resources=resources)
        assert error.param == param
        assert said in error.message


def test_gpu_jobs_share_the_cluster_as_far_as_its_gpus_go(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [], gpus=3)) as world:
        jobs = [world.submit(resources={"gpus": gpus}) for gpus in (1, 2, 1)]
        world.tick(times=4)
        assert [world.job(job_id).status for job_id in jobs] == ["running", "running", "queued"]
        assert world.backend.requests[f"{jobs[1]}-1"].workers == 2  # type: ignore[index]


def test_a_run_that_is_lost_every_time_fails_with_cause_and_last_log_line(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [die()])) as world:
        error = failed(world)
        assert error.code == "run_lost"
        assert "attempt 3 of 3" in error.message
        assert "(exit code 137); killed, most likely out of memory: lower batch_size or max_length" in error.message
        assert error.message.endswith("MemoryError: no room")
        assert len(world.backend.requests) == 3
