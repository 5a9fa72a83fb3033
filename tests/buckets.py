"""A bucket as a test looks at it: with boto3 alone, to see what a store really left there."""

from dataclasses import dataclass
from typing import Any

from tests.swift_server import S3Server

NAME = "dpo-tests"


@dataclass(frozen=True, slots=True)
class Bucket:
    server: S3Server
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{NAME}/{self.prefix}"

    def make(self) -> None:
        self.client().create_bucket(Bucket=NAME)

    def object_keys(self) -> list[str]:
        """Everything under the prefix, relative to it."""
        found = self.client().list_objects_v2(Bucket=NAME, Prefix=f"{self.prefix}/").get("Contents", ())
        return [item["Key"].removeprefix(f"{self.prefix}/") for item in found]

    def unfinished(self) -> list[str]:
        """Uploads in parts that were neither completed nor aborted."""
        found = self.client().list_multipart_uploads(Bucket=NAME, Prefix=self.prefix).get("Uploads", ())
        return [item["Key"].removeprefix(f"{self.prefix}/") for item in found]

    def client(self) -> Any:
        from boto3.session import Session
        from botocore.config import Config

        return Session().client(
            "s3",
            endpoint_url=self.server.endpoint_url,
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
            region_name=self.server.region,
            config=Config(request_checksum_calculation="when_required"),
        )
