"""`client.models`."""

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


def test_another_projects_model_does_not_exist(client: OpenAI, server: Server, tuned: str) -> None:
    stranger = openai_client(server, new_project(server.database))
    for ask in (stranger.models.retrieve, stranger.models.delete):
        with pytest.raises(openai.NotFoundError):
            ask(tuned)
    with pytest.raises(openai.BadRequestError, match="does not exist"):
        submit(stranger, model=tuned)
    assert tuned not in [model.id for model in stranger.models.list()]
