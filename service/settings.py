"""Every setting, read once from `DPO_…` variables at an entry point and passed down in parts.

The defaults run everything in one process on one machine; each grows into its production counterpart. An empty
variable is one that is not set, as in a container's file that passes on what is not there.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DPO_", env_ignore_empty=True, frozen=True, extra="ignore")

    data_dir: Path = Path("data")
    """Database, objects, models and the local cluster's files, when those are the embedded ones."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    bootstrap_key: SecretStr | None = None
    """The first API key. Absent: made, printed once, kept as a hash."""
    bootstrap_admin_key: SecretStr | None = Field(default=None, min_length=32)
    """The first admin key, 32 characters or more. Absent: `/v1/organization` stays closed until there is one."""
    database_url: str | None = None
    """SQLAlchemy URL. Absent: SQLite in the data folder."""
    storage_url: str | None = None
    """A folder or `s3://bucket/prefix`. Absent: a folder in the data folder."""
    s3_endpoint_url: str | None = Field(default=None, pattern="^https?://[^/@]+/?$")
    """`https://host:port` of an S3 server that is not Amazon's. Trainers read the same variable."""
    backend: Literal["ray", "process"] = "ray"
    """`ray`: Ray Jobs. `process`: plain local processes, for tests and laptops without Ray."""
    ray_address: str | None = None
    """`http://head:8265` of a running cluster. Absent: a local Ray, started and stopped with the service."""
    ray_token: SecretStr | None = None
    """The token of `ray_address`'s cluster; must be set for one that is not on this machine."""
    models_file: Path | None = None
    """TOML registry of base models. Absent: the default model, made on the first start."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Runs of one job before it fails with the cause of the last one."""
    lease_s: float = Field(default=30, ge=1)
    """How long a dispatcher that gives no sign keeps its jobs; a living one renews three times as often."""
    poll_s: float | None = Field(default=None, ge=0.1, le=300)
    """How long at least between two looks for what a run tells. Absent: each tick of 0.2 s in a folder, 2 s in
    a bucket."""

    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Where `/metrics` is told, without a key, for Prometheus. Absent: nowhere."""
    metrics_host: str = "127.0.0.1"
    """The address of that port alone; give one that Prometheus reaches and users do not."""
    currency: str = Field(default="usd", pattern="^[a-z]{3}$")
    """Of all prices; lowercase ISO 4217."""
    price_gpu_hour: float = Field(default=0, ge=0, allow_inf_nan=False)
    price_million_tokens: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Trained tokens of jobs that succeeded."""
    price_gib_month: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Of 730 hours."""

    webhook_key: SecretStr | None = Field(default=None, min_length=32)
    """What the secrets of webhooks are derived from, 32 characters or more; the same for every replica. Absent: made
    once and kept in the data folder."""
    webhook_allow_loopback: bool = False
    """Whether webhooks may go to this machine, without TLS too. For tests and development."""

    @property
    def resolved_data_dir(self) -> Path:
        return self.data_dir.expanduser().resolve()

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.resolved_data_dir / 'dpo.sqlite3'}"

    @property
    def resolved_storage_url(self) -> str:
        return self.storage_url or str(self.resolved_data_dir / "objects")
