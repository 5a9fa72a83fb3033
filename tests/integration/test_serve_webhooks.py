"""A job's end reaches its receiver through the death of the service, signed with the secret told before it."""

import signal
from pathlib import Path

import pytest
from openai import OpenAI

from tests.integration.serving import create_job, serving, wait_until
from tests.unit.service.webhooks.receiver import receiving

PROCESSES = ("--backend", "process")


def test_an_end_that_was_not_heard_is_told_by_the_next_service(
    tmp_path: Path, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPO_WEBHOOK_ALLOW_LOOPBACK", "true")
    with receiving() as receiver:
        receiver.statuses = [503]
        with serving(tmp_path / "data", models_file, *PROCESSES) as first:
            client = first.client()
            endpoint = client.webhooks.create(name="ours", url=receiver.url, event_types=["fine_tuning.job.cancelled"])
            job = create_job(client)
            client.fine_tuning.jobs.cancel(job.id)
            # Written down: a sender that dies before that delays its delivery by two minutes.
            wait_until(lambda: '"webhook_sent"' in first.output)
            assert len(receiver.received) == 1
            first.stop(signal.SIGKILL)
        with serving(tmp_path / "data", models_file, *PROCESSES) as second:
            second.client()
            wait_until(lambda: len(receiver.received) == 2)
        for received in receiver.received:
            event = OpenAI(api_key="k").webhooks.unwrap(received.body, received.headers, secret=endpoint.signing_secret)
            assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job.id)
        assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
