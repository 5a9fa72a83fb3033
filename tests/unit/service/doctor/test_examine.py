"""The doctor: what it says of sound parts, and of each that is not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.db.engine import Database
from service.db.migrate import upgrade
from service.doctor.cluster import examine_cluster
from service.doctor.data_folder import examine_data_folder
from service.doctor.database import examine_database
from service.doctor.examine import examine
from service.doctor.finding import Finding, render_findings
from service.doctor.models import examine_models
from service.doctor.store import examine_store
from service.doctor.variables import examine_variables
from service.settings import Settings
from service.storage.folder import FolderStore
from service.storage.s3 import S3Store
from tests.buckets import NAME, Bucket
from tests.file_rows import add_file_row
from tests.sqlite import new_sqlite_url

pytestmark = pytest.mark.slow

NODES = {"data": {"result": {"result": [{"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}}]}}}
TOKEN = "the-cluster's-token"


def settings_of(tmp_path: Path, **given: object) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "backend": "process", **given})


def test_the_embedded_defaults_are_well_before_the_first_start_and_nothing_is_made(tmp_path: Path) -> None:
    findings = examine(settings_of(tmp_path))

    assert {finding.state for finding in findings} == {"ok"}
    assert {finding.part for finding in findings} == {"data folder", "database", "store", "cluster", "models"}
    assert list(tmp_path.iterdir()) == []


def test_a_variable_that_nothing_reads_is_told_with_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPO_DATABSE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("DPO_DATA_DIR", str(tmp_path))

    [finding] = examine_variables(settings_of(tmp_path))

    assert (finding.state, finding.told) == ("note", "nothing reads DPO_DATABSE_URL")
    assert finding.remedy == 'did you mean "DPO_DATABASE_URL"?'


def test_findings_are_a_table_with_what_to_mend_below_each() -> None:
    findings = [Finding("store", "ok", "writes"), Finding("data folder", "failed", "is full", "make room")]

    assert render_findings(findings).splitlines() == [
        "ok      store        writes",
        "failed  data folder  is full",
        "                     -> make room",
        "1 of 2 checks failed.",
    ]
    assert render_findings(findings[:1]).endswith("All is well.")


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    [finding] = examine_data_folder(settings_of(tmp_path))

    assert (finding.state, "DPO_DATA_DIR" in finding.remedy) == ("failed", True)


def test_a_database_is_reached_or_told_without_its_password(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    database = Database(url)
    upgrade(database.engine)
    [sound] = examine_database(settings_of(tmp_path, database_url=url))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    [other] = examine_database(settings_of(tmp_path, database_url=url))
    away_url = "postgresql+psycopg://someone:a-password@127.0.0.1:1/none?connect_timeout=2"
    [away] = examine_database(settings_of(tmp_path, database_url=away_url))
    [unread] = examine_database(settings_of(tmp_path, database_url="no url"))
    [torn] = examine_database(settings_of(tmp_path, database_url="postgresql+psycopg://u:p@h:a-password/none"))
    assert torn.state == "failed"
    assert "a-password" not in f"{torn}"

    assert sound.state == "ok"
    assert (other.state, "dpo-service migrate" in other.remedy) == ("failed", True)
    assert (away.state, unread.state) == ("failed", "failed")
    assert "a-password" not in str(away)


def test_the_place_of_a_mount_that_is_away_is_told_and_left_bare(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, storage_url=str(tmp_path / "store"), database_url=new_sqlite_url(tmp_path / "db"))
    root = tmp_path / "store"
    root.mkdir()
    [fresh] = examine_store(settings)
    database = Database(settings.resolved_database_url)
    add_file_row(database)
    database.close()
    [away] = examine_store(settings)
    assert list(root.iterdir()) == []
    FolderStore(root).check_writable()
    [sound] = examine_store(settings)

    assert (fresh.state, "made at the first start" in fresh.told) == ("ok", True)
    assert (away.state, "folder is gone" in away.told, f"mount {root} again" in away.remedy) == ("failed", True, True)
    assert (sound.state, "write, read, range, list, delete" in sound.told) == ("ok", True)


def test_a_bare_folder_is_none_to_vouch_for_while_the_database_is_away(tmp_path: Path) -> None:
    [finding] = examine_store(settings_of(tmp_path, storage_url=str(tmp_path / "store"), database_url="no url"))

    assert (finding.state, "mend the database first" in finding.remedy) == ("note", True)
    assert list(tmp_path.iterdir()) == []


def test_a_sound_bucket_tells_what_its_conditional_writes_do_and_keeps_nothing(tmp_path: Path, bucket: Bucket) -> None:
    settings = settings_of(tmp_path, storage_url=bucket.url, s3_endpoint_url=bucket.server.endpoint_url)

    objects, presigned, conditional = examine_store(settings)

    assert (objects.state, presigned.state, conditional.state) == ("ok", "ok", "note")
    assert "write, read, range, list, delete" in objects.told
    assert "are kept" in conditional.told
    assert (bucket.object_keys(), bucket.unfinished()) == ([], [])


@pytest.mark.parametrize(
    ("in_turn", "at_once", "told"),
    [
        (8, 8, "a second one overwrites the first"),
        (1, 3, "but not at once: of 8 writers of one key 3 succeeded"),
        (1, 1, "of 8 writers of one key at once one succeeded"),
    ],
)
def test_conditional_writes_are_told_as_they_are(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_turn: int, at_once: int, told: str
) -> None:
    """A store of which of eight writers of one key in turn, and then of eight at once, so many win."""
    written: dict[str, int] = {}

    def write_if_absent(_store: S3Store, key: str, _content: bytes) -> bool:
        number = written[key] = written.get(key, 0) + 1
        return number <= (in_turn if len(written) == 1 else at_once)

    monkeypatch.setattr(S3Store, "write_if_absent", write_if_absent)
    settings = settings_of(tmp_path, storage_url=bucket.url, s3_endpoint_url=bucket.server.endpoint_url)

    assert told in list(examine_store(settings))[-1].told


@pytest.mark.parametrize(
    ("url", "endpoint", "remedy"),
    [
        ("s3://never-made/x", None, 'create the bucket "never-made"'),
        ("s3://never-made/x", "http://127.0.0.1:1", "check DPO_S3_ENDPOINT_URL"),
        ("ftp://host/x", None, "give a folder or s3://"),
        ("/proc/nothing/here", None, "name another store"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(
    tmp_path: Path, bucket: Bucket, url: str, endpoint: str | None, remedy: str
) -> None:
    settings = settings_of(tmp_path, storage_url=url, s3_endpoint_url=endpoint or bucket.server.endpoint_url)

    [finding] = examine_store(settings)

    assert finding.state == "failed"
    assert remedy in finding.remedy


class _Head(BaseHTTPRequestHandler):
    """A Ray head that wants its token."""

    is_guarded = True
    answer = json.dumps(NODES)

    def do_GET(self) -> None:
        is_let_in = not self.is_guarded or self.headers.get("authorization") == f"Bearer {TOKEN}"
        self.send_response(200 if is_let_in else 401)
        self.end_headers()
        self.wfile.write(self.answer.encode() if is_let_in else b"Unauthorized: Missing authentication token")

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def ray_head(**told: object) -> Iterator[str]:
    head = HTTPServer(("127.0.0.1", 0), type("Head", (_Head,), told))
    threading.Thread(target=head.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{head.server_port}"
    head.shutdown()
    head.server_close()


@pytest.mark.parametrize(
    ("is_guarded", "token", "state", "said"),
    [
        (True, TOKEN, "ok", "4 CPUs, 1 GPUs"),
        (True, None, "failed", "it asks for a token"),
        (True, "another", "failed", "it refuses the token"),
        (False, None, "note", "RAY_AUTH_MODE=token"),
    ],
)
def test_a_cluster_is_told_with_its_token(
    tmp_path: Path, is_guarded: bool, token: str | None, state: str, said: str
) -> None:
    with ray_head(is_guarded=is_guarded) as address:
        given = {"backend": "ray", "ray_address": address, "ray_token": token and SecretStr(token)}
        [finding] = examine_cluster(settings_of(tmp_path, **given))

    assert finding.state == state
    assert said in f"{finding.told} {finding.remedy}"
    assert TOKEN not in str(finding)


def test_a_page_in_place_of_a_cluster_is_told(tmp_path: Path) -> None:
    with ray_head(is_guarded=False, answer="<html>We are back soon</html>") as address:
        [finding] = examine_cluster(settings_of(tmp_path, backend="ray", ray_address=address))

    assert finding.state == "failed"
    assert "something else than Ray's API answered (Invalid JSON" in finding.told


@pytest.mark.parametrize(
    ("address", "said"), [("http://127.0.0.1:1", "port 8265"), ("http://head.example:8265", "DPO_RAY_TOKEN")]
)
def test_a_cluster_that_cannot_be_used_is_told(tmp_path: Path, address: str, said: str) -> None:
    [finding] = examine_cluster(settings_of(tmp_path, backend="ray", ray_address=address))

    assert finding.state == "failed"
    assert said in (finding.remedy or finding.told)


def weights(*, missing_bytes: int = 0) -> bytes:
    """A safetensors file of one tensor of 64 bytes."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(64 - missing_bytes)


SOUND = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights()}
INDEX = json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}).encode()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BROKEN = {
    "nothing there": ({}, "nothing lies at"),
    "no config": ({"config.json": None}, "has no config.json"),
    "no tokenizer": ({"tokenizer.json": None}, "has no tokenizer"),
    "no weights": ({"model.safetensors": None}, "no .safetensors weights"),
    "a config that is no JSON": ({"config.json": b"<html>"}, "config.json cannot be read"),
    "weights cut off": ({"model.safetensors": weights(missing_bytes=3)}, "bytes, not"),
    "a Git LFS pointer": ({"model.safetensors": POINTER}, "is no safetensors file"),
    "a shard missing": ({"model.safetensors.index.json": INDEX, "a.safetensors": weights()}, "lacks b.safetensors"),
}


def registry_of(tmp_path: Path, uri: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(f'[models.tiny]\nuri = "{uri}"\nmax_length = 512\nbase_learning_rate = 1e-3\n')
    return path


@pytest.mark.parametrize(("changes", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_model_is_told(tmp_path: Path, changes: dict[str, bytes | None], told: str) -> None:
    files = {**SOUND, **changes} if changes else {}
    for name, content in files.items():
        if content is not None:
            (tmp_path / "model").mkdir(exist_ok=True)
            (tmp_path / "model" / name).write_bytes(content)

    [finding] = examine_models(settings_of(tmp_path, models_file=registry_of(tmp_path, str(tmp_path / "model"))))

    assert finding.state == "failed"
    assert told in finding.told
    assert finding.remedy


def test_a_sound_model_is_found_in_a_folder_and_in_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "model").mkdir()
    for name, content in SOUND.items():
        (tmp_path / "model" / name).write_bytes(content)
        bucket.client().put_object(Bucket=NAME, Key=f"{bucket.prefix}/model/{name}", Body=content)

    for uri in (str(tmp_path / "model"), f"{bucket.url}/model"):
        given = {"models_file": registry_of(tmp_path, uri), "s3_endpoint_url": bucket.server.endpoint_url}
        [finding] = examine_models(settings_of(tmp_path, **given))
        assert finding.state == "ok", finding


def test_a_models_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    [finding] = examine_models(settings_of(tmp_path, models_file=tmp_path / "none.toml"))

    assert finding.state == "failed"
    assert "none.toml" in finding.told
