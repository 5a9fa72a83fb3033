"""What `serve` checks and makes before it listens."""

import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.api_keys import hash_api_key
from service.clock import utc_now
from service.db.admin_keys import AdminKeyRepository
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.tables import AdminKeyRow, ApiKeyRow
from service.registry import DEFAULT_MODEL_ID, default_registry
from service.serve.api_run import run_api
from service.serve.backends import open_backend
from service.serve.banner import render_banner
from service.serve.base_models import load_registry
from service.serve.bootstrap import ensure_first_admin_key, ensure_first_key, ensure_first_keys
from service.serve.data_folder import hold_data_folder
from service.serve.dispatcher_run import run_dispatcher
from service.serve.exposure import refuse_exposed
from service.serve.listening import listen, url_of
from service.serve.migrate_run import migrate
from service.serve.service_run import serve
from service.serve.start_errors import StartError
from service.serve.stores import open_database
from service.settings import Settings
from tests.sqlite import new_sqlite_url

ADMIN_KEY = "sk-admin-dpo-of-these-tests-and-no-others"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(new_sqlite_url(tmp_path / "db.sqlite3"))
    yield database
    database.close()


@pytest.fixture
def _sigterm_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def opens(database: Database, key: str) -> bool:
    with database.read() as session:
        return bool(ProjectRepository(session).find_open_keys([hash_api_key(key)], now=utc_now()))


def is_admin_key(database: Database, key: str) -> bool:
    with database.read() as session:
        return AdminKeyRepository(session).find_open(hash_api_key(key), now=utc_now()) is not None


def test_the_first_key_is_made_once_and_opens_the_project(database: Database) -> None:
    key = ensure_first_key(database, given=None, clock=utc_now)
    assert key is not None
    assert opens(database, key)
    assert ensure_first_key(database, given=None, clock=utc_now) is None


def test_a_given_key_is_taken_whenever_it_is_given_and_never_shown(database: Database) -> None:
    ensure_first_key(database, given=None, clock=utc_now)
    for _ in range(2):
        assert ensure_first_key(database, given="sk-mine", clock=utc_now) is None
    assert opens(database, "sk-mine")
    assert not opens(database, "sk-other")


def test_a_given_key_that_was_revoked_stays_so(database: Database) -> None:
    ensure_first_key(database, given="sk-mine", clock=utc_now)
    ensure_first_admin_key(database, ADMIN_KEY, clock=utc_now)
    assert is_admin_key(database, ADMIN_KEY)
    with database.write() as session:
        for row in (*session.query(ApiKeyRow), *session.query(AdminKeyRow)):
            row.revoked_at = utc_now()
    ensure_first_key(database, given="sk-mine", clock=utc_now)
    ensure_first_admin_key(database, ADMIN_KEY, clock=utc_now)
    assert not opens(database, "sk-mine")
    assert not is_admin_key(database, ADMIN_KEY)


def test_an_admin_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValidationError, match="bootstrap_admin_key"):
        Settings.model_validate({"bootstrap_admin_key": "admin"})


def test_the_data_folder_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "not yet" / "data"
    with (
        hold_data_folder(folder),
        pytest.raises(StartError, match=r"in use by another dpo-service \(process \d+\)"),
        hold_data_folder(folder),
    ):
        pass
    with hold_data_folder(folder):
        pass


def test_a_taken_port_names_the_port_and_the_remedy() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url_of(first) == f"http://127.0.0.1:{port}"
        with (
            pytest.raises(StartError, match=f"Port {port} on 127.0.0.1 is taken; .* --port"),
            listen("127.0.0.1", port),
        ):
            pass


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.200", "no address of this machine"), ("no such host", "cannot be resolved")]
)
def test_a_host_that_cannot_be_listened_on_is_told(host: str, said: str) -> None:
    with pytest.raises(StartError, match=said), listen(host, 0):
        pass


def test_a_socket_on_every_address_is_told_as_one_that_can_be_opened() -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        assert url_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}"


def test_a_broken_models_file_is_told_with_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.a]\nuri = "/m"\nmax_length = 1\nbase_learning_rate = 1e-5\n')
    with pytest.raises(StartError, match=r"models\.toml: models\.a\.max_length"):
        load_registry(tmp_path, path)
    path.write_text('[models."llama:8b"]\nuri = "/m"\nmax_length = 512\nbase_learning_rate = 1e-5\n')
    with pytest.raises(StartError, match=r"models\.llama:8b.*has a colon.*write - or _ instead"):
        load_registry(tmp_path, path)
    assert list(load_registry(tmp_path, None)) == [DEFAULT_MODEL_ID]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"models\.toml: models: Field required"),
        ("[models]", r"models: Dictionary should have at least 1 item"),
        ('[model.a]\nuri = "/m"', r"models: Field required; model: Extra inputs are not permitted"),
        ('[models.a]\nurl = "/m"', r"models\.a\.uri: Field required; .*models\.a\.url: Extra inputs are not permitted"),
        ("[models.a", r"models\.toml: .*\(at "),
        ('[models.a]\nuri = "models/a"', r"models\.a\.uri: .*'models/a' is neither a folder's absolute path nor s3://"),
        ('[models.a]\nuri = "file:///models/a"', r"models\.a\.uri: .* is neither a folder's absolute path nor s3://"),
        ('[models.a]\nuri = "s3:///a"', r"models\.a\.uri: .* is neither a folder's absolute path nor s3://"),
    ],
    ids=[
        "empty",
        "no model",
        "a misspelled table",
        "a misspelled field",
        "not TOML",
        "a relative path",
        "a URL of a file",
        "no bucket",
    ],
)
def test_a_models_file_that_says_something_else_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(content)
    with pytest.raises(StartError, match=said):
        load_registry(tmp_path, path)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"DPO_{name.upper()}", "")
    settings = Settings()
    assert settings == Settings.model_validate({})
    key = ensure_first_keys(database, settings, clock=utc_now)
    assert key is not None
    assert opens(database, key)
    assert ensure_first_keys(database, settings, clock=utc_now) is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("head:8265", "give the head's dashboard"),
        ("http://head.example:8265", "a cluster without a token runs anybody"),
        ("http://127.0.0.1.example:8265", "a cluster without a token runs anybody"),
        ("http://user:hunter2@127.0.0.1:8265", "use DPO_RAY_TOKEN"),
    ],
)
def test_a_cluster_that_must_not_be_used_is_refused(tmp_path: Path, address: str, said: str) -> None:
    settings = Settings(ray_address=address)
    with pytest.raises(StartError, match=said), open_backend(settings, tmp_path, on_failure=_fail):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "dpo.example"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bootstrap_key": "sk-dpo-short"}, "DPO_BOOTSTRAP_KEY can be guessed"),
        ({"bootstrap_admin_key": "changeme" * 4}, "DPO_BOOTSTRAP_ADMIN_KEY can be guessed"),
        ({"webhook_key": "0" * 64}, "DPO_WEBHOOK_KEY can be guessed"),
        ({"webhook_allow_loopback": True}, "DPO_WEBHOOK_ALLOW_LOOPBACK is for tests"),
    ],
)
def test_what_others_can_reach_is_not_left_open(host: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(StartError, match=said) as refused:
        refuse_exposed(Settings.model_validate({"host": host, **given}))
    assert not any(str(value) in str(refused.value) for value in given.values() if isinstance(value, str))
    for loopback in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        refuse_exposed(Settings.model_validate({"host": loopback, **given}))


def test_random_keys_may_be_reached_but_not_be_the_same() -> None:
    keys = {name: secrets.token_hex(32) for name in ("bootstrap_key", "bootstrap_admin_key", "webhook_key")}
    refuse_exposed(Settings.model_validate({"host": "0.0.0.0", **keys}))
    keys["webhook_key"] = keys["bootstrap_key"]
    with pytest.raises(StartError, match="DPO_WEBHOOK_KEY and DPO_BOOTSTRAP_KEY are the same"):
        refuse_exposed(Settings.model_validate(keys))


@pytest.mark.usefixtures("_sigterm_as_it_was")
@pytest.mark.parametrize("entry", [serve, run_api, run_dispatcher, migrate])
def test_what_serves_refuses_keys_that_can_be_guessed(entry: Callable[[Settings], None], tmp_path: Path) -> None:
    settings = Settings.model_validate({"host": "0.0.0.0", "port": 0, "data_dir": tmp_path, "bootstrap_key": "short"})
    with pytest.raises(StartError, match="can be guessed"):
        entry(settings)


@pytest.mark.usefixtures("_sigterm_as_it_was")
@pytest.mark.parametrize("entry", [run_dispatcher, migrate])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bootstrap_key": "changeme"}, "DPO_BOOTSTRAP_KEY can be guessed, and DPO_DATABASE_URL is set"),
        ({"webhook_allow_loopback": True}, "DPO_WEBHOOK_ALLOW_LOOPBACK is for tests, and DPO_DATABASE_URL is set"),
    ],
)
def test_what_shares_a_database_opens_nothing_to_those_whom_its_apis_let_in(
    entry: Callable[[Settings], None], tmp_path: Path, given: dict[str, object], said: str
) -> None:
    path = tmp_path / "db.sqlite3"
    settings = Settings.model_validate({"data_dir": tmp_path, "database_url": f"sqlite:///{path}", **given})
    with pytest.raises(StartError, match=said):
        entry(settings)
    assert not path.exists()


def test_a_database_of_this_machine_alone_takes_any_key_as_serve_does(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "bootstrap_key": "changeme"})
    migrate(settings)
    database = Database(settings.resolved_database_url)
    assert opens(database, "changeme")
    database.close()


@pytest.mark.parametrize("url", ["nosuch+driver://u:hunter2@h/d", "postgresql+psycopg://u:p@h:hunter2/d", "hunter2"])
def test_a_database_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(StartError, match="DPO_DATABASE_URL") as refused, open_database(url):
        pass
    assert "hunter2" not in str(refused.value)


def test_the_banner_shows_a_new_key_and_only_then(tmp_path: Path) -> None:
    registry = default_registry(tmp_path)
    url = "http://127.0.0.1:8000"
    first = render_banner(url=url, api_key="sk-new", data_dir=tmp_path, backend="a Ray", registry=registry)
    assert "API key (shown once): sk-new" in first
    assert f'base_url="{url}/v1"' in first
    later = render_banner(url=url, api_key=None, data_dir=tmp_path, backend="a Ray", registry=registry)
    assert "sk-new" not in later


def _fail(error: Exception) -> None:
    raise error
