"""The registry's models: a folder each, in Hugging Face's layout, whole as far as names and sizes tell."""

import json
from collections.abc import Iterator

from service.doctor.finding import Finding
from service.registry import BaseModelEntry
from service.serve.base_models import load_registry
from service.serve.start_errors import StartError
from service.settings import Settings
from service.storage.object_store import ObjectNotFound, ObjectStore, UnknownStorageUrl
from service.storage.open_store import open_store

PART = "models"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json"})
HEADER_LENGTH_BYTES = 8
LONGEST_HEADER_BYTES = 100_000_000
"""Source: safetensors' own limit."""


class _Broken(Exception):
    """What is wrong, and what to do."""

    def __init__(self, told: str, remedy: str) -> None:
        super().__init__(told)
        self.remedy = remedy


def examine_models(settings: Settings) -> Iterator[Finding]:
    try:
        registry = load_registry(settings.resolved_data_dir, settings.models_file)
    except StartError as error:
        yield Finding(PART, "failed", str(error), "mend the models file")
        return
    for name, entry in registry.items():
        yield _examine(name, entry, settings)


def _examine(name: str, entry: BaseModelEntry, settings: Settings) -> Finding:
    try:
        store = open_store(entry.uri, s3_endpoint_url=settings.s3_endpoint_url)
        if settings.models_file is None and not store.list_keys(""):
            return Finding(PART, "ok", f"{name}: made at the first start")
        size_bytes = _check_folder(store, entry.uri)
    except _Broken as error:
        return Finding(PART, "failed", f"{name}: {error}", error.remedy)
    except (UnknownStorageUrl, OSError, ObjectNotFound) as error:
        return Finding(PART, "failed", f"{name}: {entry.uri} cannot be read ({error})", "mend its uri in the registry")
    told = f"{name}: {entry.uri}, {size_bytes / 1024**3:.2f} GiB of weights"
    if settings.ray_address is not None and not entry.uri.startswith("s3://"):
        remedy = "the cluster's nodes must have the same folder, which cannot be seen from here"
        return Finding(PART, "note", f"{told}, on this machine", remedy)
    return Finding(PART, "ok", told)


def _check_folder(store: ObjectStore, uri: str) -> int:
    """Return the bytes of the weights. Raises: _Broken; ObjectNotFound; OSError."""
    names = set(store.list_keys(""))
    if not names:
        raise _Broken(f"nothing lies at {uri}", "put the model there, or mend its uri in the registry")
    if CONFIG not in names:
        raise _Broken(f"{uri} has no {CONFIG}", "name the folder that holds it: Hugging Face's layout")
    if not names & TOKENIZERS:
        raise _Broken(f"{uri} has no tokenizer", "copy tokenizer.json and tokenizer_config.json beside the weights")
    _read_json(store, CONFIG, uri)
    weights = _weight_files(store, names, uri)
    return sum(_check_weights(store, name, uri) for name in weights)


def _weight_files(store: ObjectStore, names: set[str], uri: str) -> list[str]:
    if INDEX in names:
        found = _read_json(store, INDEX, uri).get("weight_map")
        weights = sorted({str(name) for name in found.values()}) if isinstance(found, dict) else []
    else:
        weights = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    missing = [name for name in weights if name not in names]
    if missing:
        raise _Broken(f"{uri} lacks {missing[0]}, which {INDEX} names", "copy the model again, all of it")
    if not weights:
        raise _Broken(f"{uri} has no .safetensors weights", "save them so: model.save_pretrained(FOLDER)")
    return weights


def _check_weights(store: ObjectStore, name: str, uri: str) -> int:
    """A file that was cut off, or is Git LFS's pointer to one, is told by its own header."""
    size_bytes = store.size_bytes(name)
    header_bytes = int.from_bytes(b"".join(store.stream(name, end=HEADER_LENGTH_BYTES)), "little")
    header_end = HEADER_LENGTH_BYTES + header_bytes
    if size_bytes < HEADER_LENGTH_BYTES or header_bytes > LONGEST_HEADER_BYTES or header_end > size_bytes:
        raise _Broken(f"{uri}/{name} is no safetensors file ({size_bytes:,} bytes)", "download it again")
    header = _parse(b"".join(store.stream(name, start=HEADER_LENGTH_BYTES, end=header_end)), f"{uri}/{name}")
    ends = [item["data_offsets"][1] for item in header.values() if isinstance(item, dict) and "data_offsets" in item]
    promised_bytes = header_end + max(ends, default=0)
    if promised_bytes != size_bytes:
        raise _Broken(f"{uri}/{name} has {size_bytes:,} bytes, not {promised_bytes:,}", "download it again")
    return size_bytes


def _read_json(store: ObjectStore, name: str, uri: str) -> dict[str, object]:
    return _parse(store.read(name), f"{uri}/{name}")


def _parse(content: bytes, where: str) -> dict[str, object]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise _Broken(f"{where} cannot be read ({error})", "download it again") from error
    if not isinstance(document, dict):
        raise _Broken(f"{where} is not a JSON object", "download it again")
    return document
