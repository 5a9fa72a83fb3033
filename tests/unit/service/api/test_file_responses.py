"""A download as a response."""

from service.api.file_responses import send_download
from service.files.catalog import Download


def test_where_the_store_has_urls_one_is_sent_there() -> None:
    answer = send_download(Download("a.jsonl", "https://bucket/key?signature=x", 10, None, iter(())))
    assert (answer.status_code, answer.headers["location"]) == (302, "https://bucket/key?signature=x")
