"""The run folder: whole files or none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import NAME, Bucket
from tests.faulty_network import Relay, relayed
from trainers import file_systems
from trainers.run_folder import RunFolder
from trainers.spec_file import read_spec

pytestmark = pytest.mark.slow

IN_A_FOLDER, IN_A_BUCKET = "folder", "s3"


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", IN_A_FOLDER) == IN_A_FOLDER:
        return str(tmp_path / "run")
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"{bucket.url}/runs/1"


@pytest.fixture
def folder(uri: str) -> RunFolder:
    return RunFolder(uri)


on_both = pytest.mark.parametrize("uri", [IN_A_FOLDER, IN_A_BUCKET], indirect=True)


@on_both
def test_what_is_written_is_read_and_listed(folder: RunFolder) -> None:
    folder.write("b/two", b"2")
    folder.write("b/c/three", b"3")
    folder.write("one", b"1")
    assert folder.read("b/c/three") == b"3"
    assert folder.names("b") == ["b/c/three", "b/two"]
    assert folder.exists("one")
    assert not folder.exists("b")


@on_both
@pytest.mark.parametrize("size_bytes", [0, 30_000_000])
def test_files_of_any_size_come_back(folder: RunFolder, size_bytes: int) -> None:
    content = bytes(range(250)) * (size_bytes // 250)
    folder.write("adapter.tar.gz", b"old")
    folder.write("adapter.tar.gz", content)
    assert folder.read("adapter.tar.gz") == content


def test_what_lies_in_a_bucket_is_what_was_written(bucket: Bucket) -> None:
    RunFolder(f"{bucket.url}/runs/1").write("adapter.tar.gz", b"packed already")
    stored = bucket.client().get_object(Bucket=NAME, Key=f"{bucket.prefix}/runs/1/adapter.tar.gz")
    assert stored["Body"].read() == b"packed already"


@on_both
def test_a_deleted_folder_is_gone_with_all_in_it(folder: RunFolder) -> None:
    for name in ("steps/1/a", "steps/1/deep/b", "steps/10/c"):
        folder.write(name, b"x")
    folder.delete("steps/1/a")
    for _ in range(2):
        folder.delete_folder("steps/1")
        assert folder.names("steps") == ["steps/10/c"]


@on_both
def test_a_missing_folder_has_no_names(folder: RunFolder) -> None:
    assert folder.names("events") == []


@on_both
def test_a_missing_file_is_told(folder: RunFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read("spec.json")
    folder.delete("spec.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("outcome.json", b"old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("outcome.json", b"new")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["outcome.json"]
    assert folder.read("outcome.json") == b"old"


def test_what_a_kill_left_half_written_is_in_no_listing(folder: RunFolder, tmp_path: Path) -> None:
    folder.write("events/00000001.jsonl", b"{}\n")
    (tmp_path / "run" / "events" / ".00000002.jsonl.4711").write_bytes(b"{")
    assert folder.names("events") == ["events/00000001.jsonl"]


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("training.jsonl", "/runs/1/training.jsonl"),
        ("/models/tiny", "/models/tiny"),
        ("s3://bucket/files/1", "s3://bucket/files/1"),
    ],
)
def test_uris_are_absolute_or_relative_to_the_folder(uri: str, resolved: str) -> None:
    assert RunFolder("/runs/1/").resolve(uri) == resolved


@pytest.fixture
def relay(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    with relayed(bucket.server.endpoint_url) as relay:
        monkeypatch.setenv("DPO_S3_ENDPOINT_URL", relay.url)
        yield relay


def test_a_store_that_is_away_for_a_while_is_waited_for(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(f"{bucket.url}/runs/1")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            relay.come_back()

    monkeypatch.setattr(file_systems.time, "sleep", pause)
    relay.go_down()
    folder.write("events/1", b"told")
    assert pauses == [1.0, 2.0]
    assert folder.read("events/1") == b"told"
    assert [record.getMessage() for record in caplog.records] == ["store_away"] * 2


def test_a_store_that_stays_away_is_given_up(bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "OUTAGE_S", 0.0)
    relay.go_down()
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        RunFolder(f"{bucket.url}/runs/1").write("a", b"x")


def test_a_store_that_stays_away_is_not_taken_for_a_missing_spec(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems, "OUTAGE_S", 0.0)
    relay.go_down()
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        read_spec(RunFolder(f"{bucket.url}/runs/1"))


def test_a_write_that_is_cut_off_is_not_seen_and_done_again(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(f"{bucket.url}/runs/1")
    seen: list[list[str]] = []

    def pause(_: float) -> None:
        seen.append(bucket.object_keys())
        relay.cut("requests", times=0, after_bytes=0)

    monkeypatch.setattr(file_systems.time, "sleep", pause)
    relay.cut("requests", times=1000, after_bytes=3_000_000)
    folder.write("adapter", bytes(30_000_000))
    assert seen == [[]]
    assert len(folder.read("adapter")) == 30_000_000


@pytest.mark.parametrize(
    ("variable", "said"), [("AWS_SECRET_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH"), (None, "NO_SUCH_BUCKET")]
)
def test_what_time_does_not_mend_is_told_at_once(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch, variable: str | None, said: str
) -> None:
    monkeypatch.setattr(file_systems.time, "sleep", lambda _: pytest.fail("waited"))
    if variable is not None:
        monkeypatch.setenv(variable, "wrong")
    uri = f"{bucket.url}/runs/1" if variable is not None else "s3://never-made/runs/1"
    with pytest.raises(OSError, match=said) as caught:
        RunFolder(uri).write("a", b"x")
    assert bucket.server.secret_key not in str(caught.value)
