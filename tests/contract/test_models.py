"""`client.models`."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import update

from service.db.tables import ModelRow
from service.storage.object_store import StoreError
from tests.contract.rows import NOW, add_model, finish, submit, upload
from tests.contract.server import ProjectAccess, Server, new_project, openai_client

NAME = "ft:tiny-llama:default:mine:{}"


@pytest.fixture
def tuned(client: OpenAI, server: Server, project: ProjectAccess) -> str:
    """A model whose adapter lies in the store."""
    job_id = submit(client)
    finish(server.database, job_id)
    name, folder = NAME.format(job_id[-12:]), f"runs/{job_id}/adapter"
    server.store.write(f"{folder}/adapter_model.safetensors", [b"weights"])
    add_model(server.database, project, job_id, name=name, adapter_key=folder)
    return name


def adapter_keys(server: Server, name: str) -> list[str]:
    return [key for key in server.store.list_keys("runs/") if name[-12:] in key]


def test_the_registry_and_the_projects_own_models_are_listed(client: OpenAI, tuned: str) -> None:
    assert [model.id for model in client.models.list()] == [tuned, "tiny-llama", "large-llama"]


def test_a_base_model(client: OpenAI) -> None:
    model = client.models.retrieve("tiny-llama")
    assert (model.id, model.object, model.owned_by) == ("tiny-llama", "model", "registry")


def test_a_tuned_model_says_where_its_adapter_lies(
    client: OpenAI, server: Server, project: ProjectAccess, tuned: str
) -> None:
    model = client.models.retrieve(tuned)
    assert (model.id, model.created, model.owned_by) == (tuned, int(NOW.timestamp()), project.id)
    adapter = model.to_dict()["adapter"]
    assert isinstance(adapter, dict)
    assert str(adapter["uri"]).startswith(str(server.store_root))
    assert adapter["bytes"] == 7


def test_a_tuned_model_names_its_archive_until_that_is_deleted(client: OpenAI, server: Server, tuned: str) -> None:
    archive = upload(client)
    with server.database.write() as session:
        session.execute(update(ModelRow).where(ModelRow.name == tuned).values(archive_file_id=archive))
    assert client.models.retrieve(tuned).to_dict()["adapter"]["file_id"] == archive  # type: ignore[index]
    client.files.delete(archive)
    assert client.models.retrieve(tuned).to_dict()["adapter"]["file_id"] is None  # type: ignore[index]


def test_a_deleted_model_is_gone_with_its_adapter(client: OpenAI, server: Server, tuned: str) -> None:
    assert client.models.delete(tuned).deleted
    assert adapter_keys(server, tuned) == []
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(tuned)


def test_an_adapter_with_two_names_stays_until_both_are_deleted(
    client: OpenAI, server: Server, project: ProjectAccess, tuned: str
) -> None:
    job_id = client.fine_tuning.jobs.list().data[0].id
    add_model(server.database, project, job_id, name=f"{tuned}:ckpt-step-9", adapter_key=f"runs/{job_id}/adapter")
    client.models.delete(tuned)
    assert len(adapter_keys(server, tuned)) == 1
    client.models.delete(f"{tuned}:ckpt-step-9")
    assert adapter_keys(server, tuned) == []


@pytest.mark.parametrize("failing", ["list_keys", "delete"])
def test_a_model_is_deleted_though_the_store_is_away(
    client: OpenAI, server: Server, tuned: str, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(server.store, failing, be_away)
        assert client.models.delete(tuned).deleted
    assert tuned not in [model.id for model in client.models.list()]


def be_away(_key: str) -> None:
    raise StoreError(5, "the object store does not answer", remedy="-")


def test_a_base_model_cannot_be_deleted(client: OpenAI) -> None:
    with pytest.raises(openai.ConflictError, match="only ft: models can be deleted"):
        client.models.delete("tiny-llama")


def test_a_model_that_a_job_starts_from_cannot_be_deleted(client: OpenAI, tuned: str) -> None:
    job_id = submit(client, model=tuned)
    with pytest.raises(openai.ConflictError, match=f"The job {job_id} starts from"):
        client.models.delete(tuned)
    client.fine_tuning.jobs.cancel(job_id)
    assert client.models.delete(tuned).deleted


def test_a_checkpoint_of_an_unfinished_job_cannot_be_deleted(
    client: OpenAI, server: Server, project: ProjectAccess
) -> None:
    job_id = submit(client)
    name = NAME.format(job_id[-12:]) + ":ckpt-step-1"
    add_model(server.database, project, job_id, name=name)
    with pytest.raises(openai.ConflictError, match="is a checkpoint of the job"):
        client.models.delete(name)


def test_a_job_on_a_tuned_model_is_named_after_its_base(client: OpenAI, server: Server, tuned: str) -> None:
    job_id = submit(client, model=tuned)
    finish(server.database, job_id)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.model, job.fine_tuned_model) == (tuned, f"ft:tiny-llama:default::{job_id[-12:]}")


def lora_of(client: OpenAI, job_id: str) -> dict[str, Any]:
    method = client.fine_tuning.jobs.retrieve(job_id).method
    assert method is not None
    shown: dict[str, Any] = method.to_dict()["dpo"]["lora"]  # type: ignore[index, assignment]
    return shown


def dpo_with(**lora: object) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"lora": lora}}


@pytest.fixture
def made_small(client: OpenAI, server: Server, project: ProjectAccess) -> str:
    """A model whose adapter is not what a job gets by default."""
    job_id = submit(client, method=dpo_with(r=8, alpha=8, dropout=0.3, target_modules=["q_proj", "v_proj"]))
    finish(server.database, job_id)
    add_model(server.database, project, job_id, name=NAME.format(job_id[-12:]))
    return NAME.format(job_id[-12:])


def test_a_job_on_a_tuned_model_shows_the_adapter_that_it_trains(client: OpenAI, made_small: str) -> None:
    shown = lora_of(client, submit(client, model=made_small))
    small = {"r": 8, "alpha": 8, "target_modules": ["q_proj", "v_proj"], "use_rslora": False, "use_dora": False}
    assert shown == small | {"dropout": 0.0}
    same = submit(client, model=made_small, method=dpo_with(r=8, dropout=0.1, target_modules=["v_proj", "q_proj"]))
    assert lora_of(client, same) == small | {"dropout": 0.1}
    assert lora_of(client, submit(client, model=made_small, method=dpo_with(**shown))) == shown


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("r", 16, "lora.r is 16"),
        ("alpha", 32, "was made with 8, which its adapter keeps"),
        ("target_modules", "all-linear", 'is "all-linear" and "ft:'),
        ("target_modules", ["q_proj"], 'was made with ["q_proj", "v_proj"]'),
        ("use_rslora", True, "lora.use_rslora is true"),
    ],
)
def test_another_shape_than_the_tuned_models_is_refused(
    client: OpenAI, made_small: str, name: str, value: object, told: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        submit(client, model=made_small, method=dpo_with(**{name: value}))
    assert raised.value.param == f"method.dpo.lora.{name}"
    assert told in raised.value.message


def test_another_projects_model_does_not_exist(client: OpenAI, server: Server, tuned: str) -> None:
    stranger = openai_client(server, new_project(server.database))
    for ask in (stranger.models.retrieve, stranger.models.delete):
        with pytest.raises(openai.NotFoundError):
            ask(tuned)
    with pytest.raises(openai.BadRequestError, match="does not exist"):
        submit(stranger, model=tuned)
    assert tuned not in [model.id for model in stranger.models.list()]
