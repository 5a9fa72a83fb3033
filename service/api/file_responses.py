"""A download as a response: a redirect, the whole file, or one range of it."""

from fastapi.responses import RedirectResponse, Response, StreamingResponse

from service.files.catalog import Download
from service.files.downloads import content_disposition


def send_download(download: Download) -> Response:
    if download.url is not None:
        return RedirectResponse(download.url, status_code=302)
    headers = {"accept-ranges": "bytes", "content-disposition": content_disposition(download.filename)}
    part = download.byte_range
    if part is None:
        headers["content-length"] = str(download.size_bytes)
    else:
        headers |= {"content-length": str(part.length_bytes), "content-range": part.content_range}
    return StreamingResponse(
        download.chunks,
        status_code=200 if part is None else 206,
        headers=headers,
        media_type="application/octet-stream",
    )
