import pytest
from typer.testing import CliRunner

from service.cli import app


def test_defaults_are_told_whatever_they_are() -> None:
    told = CliRunner().invoke(app, ["serve", "--help"]).stdout
    assert all(default in told for default in ("[./data]", "[8000]", "[ray]", "[a local Ray]", "[the default model]"))


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("dpo-service 0.")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--backend", "slurm", "DPO_BACKEND is 'slurm': Input should be 'ray' or 'process'"),
        ("--port", "70000", "DPO_PORT is 70000"),
    ],
)
def test_a_wrong_option_is_told_with_its_name_and_value(option: str, value: str, said: str) -> None:
    result = CliRunner().invoke(app, ["serve", option, value])
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("name", ["BOOTSTRAP_ADMIN_KEY", "WEBHOOK_KEY", "S3_ENDPOINT_URL"])
def test_a_wrong_secret_is_told_without_its_value(name: str) -> None:
    result = CliRunner(env={f"DPO_{name}": "user:hunter2@"}).invoke(app, ["serve"])
    assert result.exit_code == 2
    assert f"DPO_{name} is not usable: give " in result.stderr
    assert "hunter2" not in result.output
