"""The object store in an S3 bucket: the one file that speaks to boto3.

An object appears with its last byte, so nothing half-written is ever seen. What an upload in parts leaves when its
writer is killed is invisible and costs money: it is swept. Credentials are those of AWS's own chain (environment,
files, roles); none passes through here.
"""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as BotoConnectionError

from service.storage.object_keys import RESERVED_SEGMENT, InvalidObjectKey, check_key
from service.storage.object_store import ObjectNotFound, StoredObject, StoreError, UnknownStorageUrl

PART_BYTES = 8 * 1024 * 1024
"""Times 10,000, S3's limit of parts, is the largest object: 80 GB."""
PARTS_AT_ONCE = 2
READ_BYTES = 256 * 1024
MAX_CUTS = 5
"""How often in a row a download may be cut off without a byte more before it is given up."""
URL_LIFETIME_S = 900
LEFTOVER_AGE = timedelta(days=1)
"""No write of ours takes so long."""
DEFAULT_REGION = "us-east-1"
MAX_CONNECTIONS = 50

URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*?))?/?", re.ASCII)
MISSING_KEY = frozenset({"NoSuchKey", "404"})
PRECONDITION_FAILED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


class S3Store:
    """An `ObjectStore` over `s3://bucket/prefix`. Nothing is asked of the server until it is used."""

    def __init__(self, url: str, *, endpoint_url: str | None) -> None:
        """Raises: UnknownStorageUrl; StoreError, when AWS's own configuration cannot be read."""
        self._bucket, self._prefix = _parse(url)
        self._endpoint = endpoint_url or "Amazon S3"
        with self._telling():
            self._client = _new_client(endpoint_url)

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        source = _HashedSource(chunks)
        with self._telling():
            self._client.upload_fileobj(source, self._bucket, self._name(key), Config=_transfer_config())
        return StoredObject(key, source.size_bytes, source.sha256)

    def read(self, key: str) -> bytes:
        name, cuts = self._name(key), 0
        while True:
            with self._telling(key):
                answer = self._client.get_object(Bucket=self._bucket, Key=name)
                try:
                    with closing(answer["Body"]) as body:
                        return bytes(body.read())
                except BotoCoreError:
                    cuts += 1
                    if cuts > MAX_CUTS:
                        raise

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        head = self._head(key)
        size_bytes: int = head["ContentLength"]
        end = size_bytes if end is None else min(end, size_bytes)
        return self._chunks(key, etag=head["ETag"], start=start, end=end)

    def size_bytes(self, key: str) -> int:
        size_bytes: int = self._head(key)["ContentLength"]
        return size_bytes

    def list_keys(self, prefix: str) -> list[str]:
        with self._telling():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{prefix}"
            )
            names = [found["Key"].removeprefix(self._prefix) for page in pages for found in page.get("Contents", ())]
        # A name that ends in a slash is the marker of a folder that some tool made.
        return sorted(name for name in names if not name.endswith("/") and not _is_reserved(name))

    def delete(self, key: str) -> None:
        with self._telling():
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._name(key)}"

    def download_url(self, key: str, *, content_disposition: str) -> str:
        with self._telling():
            url: str = self._client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": self._name(key),
                    "ResponseContentDisposition": content_disposition,
                    "ResponseContentType": "application/octet-stream",
                },
                ExpiresIn=URL_LIFETIME_S,
            )
            return url

    def check_writable(self) -> None:
        """Begin an upload and abort it: that needs the right to write and leaves no object and no version of one."""
        name = f"{self._prefix}{RESERVED_SEGMENT}/probe"
        with self._telling():
            begun = self._client.create_multipart_upload(Bucket=self._bucket, Key=name)
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=begun["UploadId"])

    def sweep_leftovers(self) -> int:
        """Abort the uploads of writers that were killed; returns how many."""
        begun_before = datetime.now(UTC) - LEFTOVER_AGE
        with self._telling():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            found = [upload for page in pages for upload in page.get("Uploads", ())]
            left = [upload for upload in found if upload["Initiated"] < begun_before]
            for upload in left:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(left)

    def write_if_absent(self, key: str, content: bytes) -> bool:
        """Ask for a conditional write; False: refused. For the doctor alone: many servers only seem to know it."""
        with self._telling():
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=content, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] in PRECONDITION_FAILED:
                    return False
                raise
        return True

    def _name(self, key: str) -> str:
        return f"{self._prefix}{check_key(key)}"

    def _head(self, key: str) -> dict[str, Any]:
        name = self._name(key)
        try:
            with self._telling(key):
                head: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=name)
                return head
        except ObjectNotFound:
            with self._telling():  # an answer to HEAD has no body that would tell a missing object from a bucket
                self._client.head_bucket(Bucket=self._bucket)
            raise

    def _chunks(self, key: str, *, etag: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of one version of the object; cut off, go on where it stopped."""
        cuts = 0
        while start < end:
            with self._telling(key):
                try:
                    for chunk in self._get(key, etag=etag, start=start, end=end):
                        start, cuts = start + len(chunk), 0
                        yield chunk
                except BotoCoreError:
                    cuts += 1
                    if cuts > MAX_CUTS:
                        raise

    def _get(self, key: str, *, etag: str, start: int, end: int) -> Iterator[bytes]:
        answer = self._client.get_object(
            Bucket=self._bucket, Key=self._name(key), Range=f"bytes={start}-{end - 1}", IfMatch=etag
        )
        with closing(answer["Body"]) as body:
            while chunk := body.read(READ_BYTES):
                yield chunk

    @contextmanager
    def _telling(self, key: str | None = None) -> Iterator[None]:
        """Tell what goes wrong as every object store tells it. Raises: ObjectNotFound; StoreError."""
        try:
            yield
        except ClientError as error:
            if key is not None and error.response["Error"]["Code"] in MISSING_KEY:
                raise ObjectNotFound(f"no object lies under the key {key!r}") from error
            raise self._refused(error) from error
        except NoCredentialsError as error:
            raise StoreError(
                errno.EACCES, "there are no credentials", remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except (HTTPClientError, BotoConnectionError) as error:
            raise StoreError(
                errno.ECONNREFUSED,
                "the object store does not answer",
                remedy=f"check DPO_S3_ENDPOINT_URL and the network: {error}",
            ) from error
        except BotoCoreError as error:
            raise StoreError(errno.EIO, f"S3 could not be used: {error}", remedy="check AWS's configuration") from error

    def _refused(self, error: ClientError) -> StoreError:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code == "NoSuchBucket" or (code == "404" and status == 404):
            return StoreError(
                errno.ENOENT,
                "the bucket does not exist",
                remedy=f'create the bucket "{self._bucket}" at {self._endpoint}, or name another in DPO_STORAGE_URL',
            )
        if status in (401, 403):
            return StoreError(
                errno.EACCES,
                f"access was refused ({code})",
                remedy="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in "
                f'the bucket "{self._bucket}" at {self._endpoint}',
            )
        return StoreError(errno.EIO, f"S3 answered {code}", remedy=f"see what {self._endpoint} says: {error}")


def _parse(url: str) -> tuple[str, str]:
    """Return the bucket, and the prefix with its closing slash. Raises: UnknownStorageUrl."""
    match = URL.fullmatch(url)
    try:
        if match is not None:
            return match["bucket"], f"{check_key(match['prefix'])}/" if match["prefix"] else ""
    except InvalidObjectKey as error:
        raise UnknownStorageUrl(f"storage URL {url!r}: its prefix is no {error}") from error
    raise UnknownStorageUrl(f"storage URL {url!r} names no bucket; give s3://bucket or s3://bucket/prefix")


class _HashedSource:
    """A file to read from, over chunks of any size, that knows at its end how much it was."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def seekable(self) -> bool:
        return False

    def read(self, size: int = sys.maxsize) -> bytes:
        """Return `size` bytes, fewer at the end alone: each part but the last must be whole."""
        gathered = [self._rest]
        missing = size - len(self._rest)
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
            gathered.append(chunk)
            missing -= len(chunk)
        content = b"".join(gathered)
        self._rest = content[size:]
        return content[:size]


def _new_client(endpoint_url: str | None) -> Any:
    session = Session()
    region = session.region_name or os.environ.get("AWS_REGION") or (DEFAULT_REGION if endpoint_url else None)
    config = Config(
        signature_version="s3v4",
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=MAX_CONNECTIONS,
        # Other servers than Amazon's have no host for each bucket, and many refuse checksums that come after the body.
        s3={"addressing_style": "path"} if endpoint_url else None,
        request_checksum_calculation="when_required" if endpoint_url else None,
        response_checksum_validation="when_required" if endpoint_url else None,
    )
    return session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)


def _transfer_config() -> TransferConfig:
    """A write holds at most `PARTS_AT_ONCE` parts that are being sent, and one that is being gathered."""
    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=PARTS_AT_ONCE,
        preferred_transfer_client="classic",
    )
    config.max_in_memory_upload_chunks = PARTS_AT_ONCE
    return config


def _is_reserved(name: str) -> bool:
    return RESERVED_SEGMENT in name.split("/")
