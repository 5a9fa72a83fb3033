"""`client.fine_tuning.jobs`: the way of a job as its user sees it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import httpx2
import openai
import pytest
from openai import OpenAI

from schemas.fine_tuning import DpoOptions, FineTuningJob, JobStatus
from service.db.projects import ProjectRepository
from service.jobs.hyperparameters import resolve
from tests.contract.rows import (
    NOW,
    add_checkpoint,
    add_step_events,
    checkpoint_model,
    finish,
    move,
    submit,
    upload,
)
from tests.contract.server import REGISTRY, ProjectAccess, Server

DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "batch_size": 8}}}


def test_a_new_job_shows_what_was_asked_for(client: OpenAI) -> None:
    training, validation = upload(client), upload(client)
    job = client.fine_tuning.jobs.create(
        model="tiny-llama",
        training_file=training,
        validation_file=validation,
        suffix="mine",
        seed=7,
        metadata={"team": "a"},
        method=DPO,
    )
    assert job.id.startswith("ftjob-")
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", "tiny-llama", 7)
    assert (job.training_file, job.validation_file, job.metadata) == (training, validation, {"team": "a"})
    assert (job.error, job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None, None)
    assert job.result_files == job.integrations == []
    assert (job.hyperparameters.batch_size, job.hyperparameters.n_epochs) == (8, "auto")
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert client.fine_tuning.jobs.retrieve(job.id) == job


LOSSES: list[dict[str, Any]] = [
    {"loss_type": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1}, "label_smoothing": 0.1},
    {"loss_type": "aot"},
    {"loss_type": "exo_pair", "label_smoothing": 0.001},
    {"loss_type": "discopop", "discopop_tau": 0.1},
    {"f_divergence": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    {"f_divergence": "forward_kl", "loss_type": {"ipo": 1.0, "sft": 0.1}},
    {"ld_alpha": 0.5, "use_weighting": True},
]


@pytest.mark.parametrize("hyperparameters", LOSSES, ids=str)
def test_every_loss_option_is_taken_and_shown(client: OpenAI, hyperparameters: dict[str, Any]) -> None:
    job_id = submit(client, method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters}})
    method = client.fine_tuning.jobs.retrieve(job_id).method
    assert method is not None
    shown = method.to_dict()["dpo"]["hyperparameters"]  # type: ignore[index]
    assert {name: shown[name] for name in hyperparameters} == hyperparameters


def test_lora_and_quantization_options_are_taken_and_shown(client: OpenAI) -> None:
    dpo = {"lora": {"use_dora": True, "use_rslora": True}, "quantization": "nf4"}
    job_id = submit(client, model="large-llama", method={"type": "dpo", "dpo": dpo})
    method = client.fine_tuning.jobs.retrieve(job_id).method
    assert method is not None
    shown: Any = method.to_dict()["dpo"]
    assert (shown["lora"]["use_dora"], shown["quantization"]) == (True, "nf4")


def test_a_jobs_priority_is_shown(client: OpenAI) -> None:
    file = upload(client)
    job = client.fine_tuning.jobs.create(model="tiny-llama", training_file=file, extra_body={"priority": 7})
    assert job.to_dict()["priority"] == 7
    assert client.fine_tuning.jobs.retrieve(submit(client)).to_dict()["priority"] == 0


def test_a_project_with_as_many_jobs_waiting_as_it_may_is_told_to_come_again(
    client: OpenAI, server: Server, project: ProjectAccess
) -> None:
    with server.database.write() as session:
        ProjectRepository(session).lock(project.id).max_queued_jobs = 1
    first = submit(client)
    with pytest.raises(openai.RateLimitError, match=r"1 job\(s\) waiting and has as many") as refused:
        submit(client)
    assert refused.value.code == "quota_exceeded"
    assert refused.value.response.headers["retry-after"] == "30"
    client.fine_tuning.jobs.cancel(first)
    assert submit(client) != first


def test_jobs_created_at_once_do_not_pass_the_quota(client: OpenAI, server: Server, project: ProjectAccess) -> None:
    with server.database.write() as session:
        ProjectRepository(session).lock(project.id).max_queued_jobs = 3
    file = upload(client)

    def is_created(_: int) -> bool:
        try:
            submit(client, training_file=file)
        except openai.RateLimitError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(is_created, range(8))) == 3


def test_every_field_is_there(client: OpenAI, http: httpx2.Client) -> None:
    job = http.get(f"/v1/fine_tuning/jobs/{submit(client)}").json()
    assert set(job) == set(FineTuningJob.model_fields)


def test_the_seed_is_drawn_when_none_is_given(client: OpenAI) -> None:
    seeds = {client.fine_tuning.jobs.retrieve(submit(client)).seed for _ in range(3)}
    assert len(seeds) == 3


def test_the_first_events_tell_what_happens(client: OpenAI) -> None:
    training, validation = upload(client), upload(client)
    job_id = submit(client, training_file=training, validation_file=validation)
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job_id)]
    assert messages == [f"Validating files: {training}, {validation}", f"Created fine-tuning job: {job_id}"]


def test_autos_are_replaced_once_they_are_resolved(client: OpenAI, server: Server) -> None:
    job_id = submit(client)
    resolved = resolve(DpoOptions(), pairs=64, model=REGISTRY["tiny-llama"])
    method = resolved.method.model_dump(mode="json")
    move(server.database, job_id, seen="validating_files", to="queued", resolved_method=method)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.hyperparameters.batch_size, job.hyperparameters.n_epochs) == (4, 3)
    assert job.hyperparameters.learning_rate_multiplier == 1.0
    assert job.method is not None
    assert "auto" not in job.method.to_json()


def test_a_job_that_succeeded_names_its_model_and_files(client: OpenAI, server: Server) -> None:
    job_id = submit(client, suffix="mine")
    finish(server.database, job_id, trained_tokens=123, result_file_ids=["file-1", "file-2"])
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.fine_tuned_model == f"ft:tiny-llama:default:mine:{job_id[-12:]}"
    assert (job.status, job.trained_tokens, job.result_files) == ("succeeded", 123, ["file-1", "file-2"])
    assert job.finished_at == int(NOW.timestamp())


def test_a_job_that_failed_says_why(client: OpenAI, server: Server) -> None:
    job_id = submit(client)
    finish(
        server.database,
        job_id,
        to="failed",
        error_code="invalid_file",
        error_message="line 17: …",
        error_param="training_file",
    )
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.error is not None
    assert job.error.to_dict() == {"code": "invalid_file", "message": "line 17: …", "param": "training_file"}
    assert (job.status, job.fine_tuned_model) == ("failed", None)


def test_a_cancelled_job_says_so_at_once(client: OpenAI) -> None:
    job_id = submit(client)
    cancelled = client.fine_tuning.jobs.cancel(job_id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert client.fine_tuning.jobs.list_events(job_id).data[0].message == "The job has been cancelled"
    assert client.fine_tuning.jobs.retrieve(job_id) == cancelled


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_waiting_or_running_job_can_be_cancelled(client: OpenAI, server: Server, status: JobStatus) -> None:
    job_id = submit(client)
    move(server.database, job_id, seen="validating_files", to=status)
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_cancel_of_a_finished_job_changes_nothing(client: OpenAI, server: Server, status: JobStatus) -> None:
    job_id = submit(client)
    finish(server.database, job_id, to=status)
    before = client.fine_tuning.jobs.retrieve(job_id)
    with pytest.raises(openai.ConflictError, match=f'its status is "{status}"') as raised:
        client.fine_tuning.jobs.cancel(job_id)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert client.fine_tuning.jobs.retrieve(job_id) == before
    assert len(client.fine_tuning.jobs.list_events(job_id).data) == 2


def test_all_states_are_covered_here() -> None:
    ended = {"succeeded", "failed", "cancelled"}
    assert set(get_args(JobStatus)) == {"validating_files", "queued", "running", "paused"} | ended


@pytest.mark.parametrize("status", ["validating_files", "queued", "running"])
def test_a_job_is_paused_and_resumed(client: OpenAI, server: Server, status: JobStatus) -> None:
    job_id = submit(client)
    if status != "validating_files":
        move(server.database, job_id, seen="validating_files", to=status, training_pairs=1, estimated_finish_at=NOW)
    paused = client.fine_tuning.jobs.pause(job_id)
    assert paused.status == "paused"
    assert (paused.estimated_finish, paused.finished_at) == (None, None)
    assert client.fine_tuning.jobs.retrieve(job_id) == paused
    resumed = client.fine_tuning.jobs.resume(job_id)
    assert resumed.status == ("validating_files" if status == "validating_files" else "queued")
    assert client.fine_tuning.jobs.pause(job_id).status == "paused"
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job_id).data]
    assert messages[:3] == ["The job has been paused", "The job has been resumed", "The job has been paused"]


def test_a_paused_job_can_be_cancelled(client: OpenAI) -> None:
    job_id = submit(client)
    client.fine_tuning.jobs.pause(job_id)
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"


@pytest.mark.parametrize(
    ("status", "call", "told"),
    [
        ("paused", "pause", "is paused already; resume it to go on, or cancel it"),
        ("queued", "resume", 'is not paused: its status is "queued"; there is nothing to resume'),
        ("running", "resume", 'is not paused: its status is "running"'),
        *[(ended, call, "has ended already") for ended in ("succeeded", "failed") for call in ("pause", "resume")],
    ],
)
def test_a_pause_or_resume_in_a_wrong_state_is_refused(
    client: OpenAI, server: Server, status: JobStatus, call: str, told: str
) -> None:
    job_id = submit(client)
    move(server.database, job_id, seen="validating_files", to=status)
    with pytest.raises(openai.ConflictError, match=told) as raised:
        getattr(client.fine_tuning.jobs, call)(job_id)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert client.fine_tuning.jobs.retrieve(job_id).status == status


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_an_unknown_job_cannot_be_held(client: OpenAI, call: str) -> None:
    with pytest.raises(openai.NotFoundError, match='"ftjob-none" does not exist'):
        getattr(client.fine_tuning.jobs, call)("ftjob-none")


def test_a_job_shows_its_guards(client: OpenAI, http: httpx2.Client) -> None:
    guards = {"max_kl": 0.5, "patience": 2, "action": "pause"}
    job_id = submit(client, validation_file=upload(client), method={"type": "dpo", "dpo": {"guards": guards}})
    shown = http.get(f"/v1/fine_tuning/jobs/{job_id}").json()["method"]["dpo"]["guards"]
    assert shown == {"min_chosen_logp_ratio": None, "max_valid_loss_rise": None} | guards


def test_polling_an_unchanged_job_costs_an_empty_304(client: OpenAI, http: httpx2.Client) -> None:
    path = f"/v1/fine_tuning/jobs/{submit(client)}"
    etag = http.get(path).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = http.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    http.post(f"{path}/cancel")
    changed = http.get(path, headers={"if-none-match": etag})
    assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")
    assert changed.headers["etag"] != etag


def test_jobs_page_by_page(client: OpenAI) -> None:
    file_id = upload(client)
    ids = [submit(client, training_file=file_id) for _ in range(7)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=3)] == ids[::-1]
    assert client.fine_tuning.jobs.list(limit=7).has_more is False


def test_what_is_inserted_meanwhile_is_neither_skipped_nor_repeated(client: OpenAI) -> None:
    file_id = upload(client)
    ids = [submit(client, training_file=file_id) for _ in range(4)]
    seen = []
    for job in client.fine_tuning.jobs.list(limit=1):
        seen.append(job.id)
        submit(client, training_file=file_id)
    assert seen == ids[::-1]


def test_jobs_by_metadata(client: OpenAI) -> None:
    file_id = upload(client)

    def submit_with(metadata: dict[str, str] | None) -> str:
        return submit(client, training_file=file_id, metadata=metadata)

    red, blue, bare = submit_with({"c": "red", "n": "1"}), submit_with({"c": "blue", "n": "1"}), submit_with(None)

    def listed(**query: Any) -> list[str]:
        return [job.id for job in client.fine_tuning.jobs.list(**query)]

    assert listed(metadata={"n": "1"}) == [blue, red]
    assert listed(metadata={"n": "1", "c": "red"}) == [red]
    assert listed(metadata={"c": "green"}) == []
    assert listed(extra_query={"metadata": "null"}) == [bare]


def test_events_page_by_page(client: OpenAI, server: Server) -> None:
    job_id = submit(client)
    add_step_events(server.database, job_id, range(1, 26))
    page = client.fine_tuning.jobs.list_events(job_id)
    assert (len(page.data), page.has_more) == (20, True)
    first = page.data[0]
    assert (first.type, first.data) == ("metrics", {"step": 25, "train_loss": 0.5})
    steps = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=5):
        if event.type == "metrics":
            steps.append(event.data["step"])  # type: ignore[index]
            add_step_events(server.database, job_id, range(100 + len(steps), 101 + len(steps)))
    assert steps == list(range(25, 0, -1))


def test_checkpoints_page_by_page(client: OpenAI, server: Server) -> None:
    job_id = submit(client)
    ids = [add_checkpoint(server.database, job_id, step) for step in range(10, 130, 10)]
    page = client.fine_tuning.jobs.checkpoints.list(job_id)
    assert (len(page.data), page.has_more, page.first_id, page.last_id) == (10, True, ids[-1], ids[2])
    assert [each.id for each in client.fine_tuning.jobs.checkpoints.list(job_id, limit=5)] == ids[::-1]
    newest = page.data[0]
    assert (newest.step_number, newest.fine_tuning_job_id) == (120, job_id)
    assert newest.fine_tuned_model_checkpoint == checkpoint_model(job_id, 120)
    assert (newest.metrics.train_loss, newest.metrics.full_valid_loss) == (0.6, 0.65)


def test_a_checkpoint_whose_model_was_deleted_is_not_listed(client: OpenAI, server: Server) -> None:
    job_id = submit(client)
    ids = [add_checkpoint(server.database, job_id, step) for step in (10, 20, 30)]
    finish(server.database, job_id)
    client.models.delete(checkpoint_model(job_id, 20))
    assert [each.id for each in client.fine_tuning.jobs.checkpoints.list(job_id)] == [ids[2], ids[0]]
    assert [each.id for each in client.fine_tuning.jobs.checkpoints.list(job_id, after=ids[1])] == [ids[0]]


@pytest.mark.parametrize("listed", ["", "/{job}/events", "/{job}/checkpoints"])
@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=101", "limit", "less than or equal to 100"),
        ("after=x", "after", 'after is "x"'),
        ("afer=x", "afer", 'did you mean "after"?'),
    ],
)
def test_a_bad_page_is_refused(
    client: OpenAI, http: httpx2.Client, listed: str, query: str, param: str, told: str
) -> None:
    answer = http.get(f"/v1/fine_tuning/jobs{listed.format(job=submit(client))}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "metadata=x",
        "metadata[a=1",
        "metadata[a]=1&metadata[a]=2",
        pytest.param("&".join(f"metadata[{n}]=x" for n in range(2_000)), id="more pairs than a job can have"),
    ],
)
def test_a_bad_filter_is_refused(http: httpx2.Client, query: str) -> None:
    answer = http.get(f"/v1/fine_tuning/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")
