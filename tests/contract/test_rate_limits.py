"""`client.admin.organization.projects.rate_limits`, and what they stop."""

from collections.abc import Callable
from datetime import timedelta

import openai
import pytest
from openai import OpenAI
from openai.resources.admin.organization import Organization

from service.db.tables import JobRow
from service.identifiers import earliest_job_id
from tests.contract.rows import submit, upload
from tests.contract.server import ProjectAccess, Server

NO_LIMIT = 2_147_483_647


@pytest.fixture
def limit(organization: Organization, project: ProjectAccess) -> Callable[..., None]:
    def change(rate_limit_id: str, **limits: int) -> None:
        organization.projects.rate_limits.update_rate_limit(rate_limit_id, project_id=project.id, **limits)

    return change


def test_a_new_project_has_no_limits(organization: Organization) -> None:
    project = organization.projects.create(name="p")
    entries = organization.projects.rate_limits.list_rate_limits(project.id)
    assert [entry.id for entry in entries] == ["rl-*", "rl-large-llama", "rl-tiny-llama"]
    assert {(entry.max_requests_per_1_minute, entry.max_requests_per_1_day) for entry in entries} == {
        (NO_LIMIT, NO_LIMIT)
    }
    assert [entry.id for entry in organization.projects.rate_limits.list_rate_limits(project.id, limit=1)] == [
        entry.id for entry in entries
    ]


def test_requests_over_the_limit_are_told_when_to_come_again(client: OpenAI, limit: Callable[..., None]) -> None:
    limit("rl-*", max_requests_per_1_minute=3)
    for _ in range(3):
        client.files.list()
    with pytest.raises(openai.RateLimitError) as raised:
        client.files.list()
    assert raised.value.code == "rate_limit_exceeded"
    assert "3 request(s) a minute" in raised.value.message
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 120
    limit("rl-*", max_requests_per_1_minute=NO_LIMIT, max_requests_per_1_day=NO_LIMIT)
    client.files.list()


def test_another_projects_limit_is_its_own(
    client: OpenAI, limit: Callable[..., None], organization: Organization, server: Server
) -> None:
    limit("rl-*", max_requests_per_1_day=1)
    client.files.list()
    with pytest.raises(openai.RateLimitError):
        client.files.list()
    other = organization.projects.service_accounts.create(organization.projects.create(name="other").id, name="ci")
    assert other.api_key is not None
    server.anonymous.with_options(api_key=other.api_key.value).files.list()


def test_jobs_over_the_limit_of_their_model_are_refused_and_leave_nothing(
    client: OpenAI, limit: Callable[..., None], server: Server
) -> None:
    limit("rl-tiny-llama", max_requests_per_1_minute=2, max_requests_per_1_day=3)
    file_id = upload(client)
    first, second = (submit(client, training_file=file_id) for _ in range(2))
    submit(client, training_file=file_id, model="large-llama")
    with pytest.raises(openai.RateLimitError) as raised:
        submit(client, training_file=file_id)
    assert "2 job(s) a minute on tiny-llama" in raised.value.message
    assert raised.value.param == "model"
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60
    assert len(client.fine_tuning.jobs.list().data) == 3
    _make_older(server, first, second)
    submit(client, training_file=file_id)
    with pytest.raises(openai.RateLimitError) as raised:
        submit(client, training_file=file_id)
    assert "3 job(s) a day" in raised.value.message


def test_what_a_limit_shows_can_be_given_back(organization: Organization, project: ProjectAccess) -> None:
    limits = organization.projects.rate_limits
    for limited in (NO_LIMIT, 7):
        limits.update_rate_limit("rl-tiny-llama", project_id=project.id, max_requests_per_1_minute=limited)
        shown = limits.list_rate_limits(project.id).data[-1]
        numbers = {name: value for name, value in shown.to_dict().items() if name.startswith("max_")}
        assert numbers.keys() == {"max_requests_per_1_minute", "max_requests_per_1_day", "max_tokens_per_1_minute"}
        assert limits.update_rate_limit(shown.id, project_id=project.id, **numbers) == shown  # type: ignore[arg-type]


def test_tokens_are_not_limited(organization: Organization, project: ProjectAccess) -> None:
    limits = organization.projects.rate_limits
    for rate_limit_id in ("rl-*", "rl-tiny-llama"):
        before = limits.list_rate_limits(project.id).data
        limits.update_rate_limit(rate_limit_id, project_id=project.id, max_tokens_per_1_minute=NO_LIMIT)
        for wanted in (0, 5):
            with pytest.raises(openai.BadRequestError) as raised:
                limits.update_rate_limit(rate_limit_id, project_id=project.id, max_tokens_per_1_minute=wanted)
            assert raised.value.param == "max_tokens_per_1_minute"
            assert "tokens are not limited" in raised.value.message
        assert limits.list_rate_limits(project.id).data == before
    assert organization.audit_logs.list(project_ids=[project.id]).data == []


def test_limits_that_are_none_are_refused(organization: Organization) -> None:
    project_id = organization.projects.create(name="p").id
    limits = organization.projects.rate_limits
    with pytest.raises(openai.NotFoundError) as unknown:
        limits.update_rate_limit("rl-tiny-lama", project_id=project_id, max_requests_per_1_day=1)
    assert "rl-tiny-llama" in unknown.value.message
    for wrong in ({"max_requests_per_1_minute": 0}, {"max_tokens_per_1_minute": 5}, {"max_requests_per_1_day": 2**31}):
        with pytest.raises(openai.BadRequestError) as raised:
            limits.update_rate_limit("rl-*", project_id=project_id, **wrong)
        assert raised.value.param == next(iter(wrong))
    organization.projects.archive(project_id)
    with pytest.raises(openai.ConflictError):
        limits.update_rate_limit("rl-*", project_id=project_id, max_requests_per_1_day=1)


def _make_older(server: Server, *job_ids: str) -> None:
    """As if they had been created two minutes ago: their ids tell the time, too."""
    with server.database.write() as session:
        for number, job_id in enumerate(job_ids):
            old = session.get_one(JobRow, job_id)
            moment = old.created_at - timedelta(minutes=2)
            values = {column.key: getattr(old, column.key) for column in JobRow.__table__.columns}
            id_then = f"{earliest_job_id(moment)}7{number:019x}"
            session.add(JobRow(**(values | {"id": id_then, "created_at": moment})))
            session.flush()
            session.query(JobRow).filter_by(id=job_id).update({"status": "cancelled", "fine_tuned_model": "ft:other::"})
