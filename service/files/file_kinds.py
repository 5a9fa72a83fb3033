"""What a file that is not JSONL looks like, told from its first bytes, and what to do about it."""

BOM = b"\xef\xbb\xbf"
SNIFFED_BYTES = 4096
JSONL = "give JSON Lines: one JSON object a line, in UTF-8"
MAGIC = {
    b"\x1f\x8b": "is gzip-compressed; decompress it (gunzip) and upload the .jsonl",
    b"PK\x03\x04": "is a zip archive; unpack it and upload the .jsonl",
    b"BZh": "is bzip2-compressed; decompress it and upload the .jsonl",
    b"\xfd7zXZ\x00": "is xz-compressed; decompress it and upload the .jsonl",
    b"\x28\xb5\x2f\xfd": "is zstd-compressed; decompress it and upload the .jsonl",
    b"PAR1": 'is a Parquet file; convert it: datasets.Dataset.from_parquet("f").to_json("f.jsonl")',
    b"ARROW1": "is an Arrow file; convert it to JSON Lines",
    b"%PDF": f"is a PDF; {JSONL}",
    b"\xff\xfe": "is UTF-16 (it starts with that byte order mark); save it as UTF-8",
    b"\xfe\xff": "is UTF-16 (it starts with that byte order mark); save it as UTF-8",
}


def refuse_reason(head: bytes) -> str | None:
    """Say why a file that starts with `head` is not JSONL, or None where only its lines can tell."""
    for magic, reason in MAGIC.items():
        if head.startswith(magic):
            return reason
    text = head.removeprefix(BOM).lstrip()
    if text[1:2] == b"\0" or head[:1] == b"\0":
        return f"has NUL bytes at its start, as UTF-16 and binary files do; {JSONL}"
    return _reason_from_text(text)


def _reason_from_text(text: bytes) -> str | None:
    first_line = text.split(b"\n", 1)[0].rstrip()
    if text.startswith(b"["):
        return "is a JSON array; write its items one a line (jq -c '.[]' file.json > file.jsonl)"
    if first_line == b"{":
        return "is JSON spread over several lines; write each object on one line (jq -c . file.json > file.jsonl)"
    if text.startswith(b"<"):
        return f"looks like HTML or XML; {JSONL}"
    if first_line and b"{" not in first_line and (b"," in first_line or b"\t" in first_line):
        return f"looks like CSV or TSV; {JSONL}"
    return None
