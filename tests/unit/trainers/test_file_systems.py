"""What a store says about us is passed on with what to do; what it says of itself is waited for (`test_run_folder`)."""

import pytest

from trainers.file_systems import outlast


@pytest.mark.parametrize(
    "said",
    [
        "AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.",
        "AWS Error ACCESS_DENIED during HeadObject operation: No response body.",
        "AWS Error UNKNOWN (HTTP status 403) during PutObject operation",
    ],
)
def test_a_machine_that_the_bucket_refuses_is_told_of_its_credentials(said: str) -> None:
    def refused() -> None:
        raise OSError(said)

    with pytest.raises(PermissionError, match=r"the trainer's machine .* credentials of its own") as raised:
        outlast(refused)
    assert said in str(raised.value)


def test_a_missing_file_stays_one() -> None:
    def missing() -> None:
        raise FileNotFoundError("Path does not exist 'bucket/spec.json'")

    with pytest.raises(FileNotFoundError):
        outlast(missing)
