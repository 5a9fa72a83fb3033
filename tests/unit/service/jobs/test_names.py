"""The name of a result."""

import pytest

from schemas.ids import JobId
from service.jobs.submission import fine_tuned_model_name

JOB = JobId("ftjob-0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize(
    ("project", "suffix", "name"),
    [
        ("default", "mine", "ft:m:default:mine:456789abcdef"),
        ("default", None, "ft:m:default::456789abcdef"),
        ("Team A: search", "v1.2", "ft:m:Team-A-search:v1.2:456789abcdef"),
    ],
)
def test_model_names(project: str, suffix: str | None, name: str) -> None:
    assert fine_tuned_model_name("m", project=project, suffix=suffix, job_id=JOB) == name
