import json
import logging

import pytest
import structlog

from service.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def _restore_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_log_line_is_one_json_object_wherever_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(for_people=False)
    structlog.get_logger().info("job_launched", job_id="ftjob-1")
    logging.getLogger("sqlalchemy").warning("slow")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["job_id"], ours["level"]) == ("job_launched", "ftjob-1", "info")
    assert (theirs["event"], theirs["level"]) == ("slow", "warning")


def test_a_traceback_shows_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    for for_people in (True, False):
        configure_logging(for_people=for_people)
        try:
            api_key = "sk-" + "dpo-local"
            raise ValueError(len(api_key))
        except ValueError:
            structlog.get_logger().exception("step_failed")
        logged = capsys.readouterr().err
        assert "ValueError" in logged
        assert "sk-dpo-local" not in logged


def test_a_traceback_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(for_people=False)
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().exception("step_failed")
    assert "ValueError: why" in json.loads(capsys.readouterr().err)["exception"]
