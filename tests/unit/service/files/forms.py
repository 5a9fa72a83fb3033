"""Multipart bodies, written by hand and by the stock client."""

from collections.abc import AsyncIterator, Iterable

BOUNDARY = b"boundary"
CONTENT_TYPE = "multipart/form-data; boundary=boundary"
ROWS = b'{"prompt": "x", "chosen": "y", "rejected": "z"}\n'


def field(name: str, value: bytes) -> bytes:
    return b'--boundary\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file_part(content: bytes = ROWS, *, filename: str = "rows.jsonl") -> bytes:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"'.encode()
    return b"--boundary\r\n%b\r\nContent-Type: application/json\r\n\r\n%b\r\n" % (disposition, content)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--boundary--\r\n"


PURPOSE = field("purpose", b"fine-tune")
ANCHOR = field("expires_after[anchor]", b"created_at")


async def streamed(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]
