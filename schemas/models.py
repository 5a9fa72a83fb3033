"""`/v1/models`: the registry's base models and the project's `ft:` models."""

from typing import Literal

from schemas.base import Response


class AdapterReference(Response):
    uri: str
    """Where the unpacked adapter lies; a vLLM or SGLang server loads it from here."""
    file_id: str | None
    """The archive as a File; null for a checkpoint's adapter, which has none."""
    sha256: str
    """Of `adapter_model.safetensors`."""
    bytes: int


class ModelObject(Response):
    id: str
    object: Literal["model"]
    created: int
    """Unix seconds."""
    owned_by: str
    adapter: AdapterReference | None
    """Null for a base model."""


class ModelDeleted(Response):
    id: str
    object: Literal["model"]
    deleted: bool
