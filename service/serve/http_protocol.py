"""HTTP/1.1 as httptools reads it, with an end to heads and trailers: its parser has none, and no key is known yet."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""As nginx and h11 have it; beyond what came in the first read."""


class BoundedHeads(HttpToolsProtocol):
    _unfinished_bytes = 0
    """Of a head, or of what follows a body, that is not whole yet."""

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self._unfinished_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"Headers of more than {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unfinished_bytes = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._unfinished_bytes = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unfinished_bytes = 0
