"""The model registry: the allow-list of base models. An id not in it cannot be trained, whatever it names elsewhere.

A TOML file, one table a model:

    [models."smollm2-135m-instruct"]            # without a colon: it parts the names of tuned models
    uri = "/srv/models/smollm2-135m-instruct"   # a folder in Hugging Face's layout: its path, or s3://bucket/prefix
    max_length = 8192                           # tokens the model can read
    base_learning_rate = 5e-5                   # what learning_rate_multiplier multiplies
    precision = "fp32"
    gpus = 0                                    # needed by one worker
    owned_by = "HuggingFaceTB"
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from schemas.base import Record
from schemas.fine_tuning import Precision

MAX_ID_CHARACTERS = 80
"""So that the name of a model tuned from it, which holds it, is one that a request may name."""
SHOWN_ERRORS = 5
DEFAULT_MODEL_ID = "smollm2-135m-instruct"
PLACE = re.compile(r"/|s3://[^/]")
"""A relative path would be sought in each run's own folder, by a machine that may not be this one."""


def _absolute(uri: str) -> str:
    if not PLACE.match(uri):
        raise ValueError(f"{uri!r} is neither a folder's absolute path nor s3://bucket/prefix")
    return uri


class BaseModelEntry(Record):
    uri: Annotated[str, AfterValidator(_absolute)]
    max_length: Annotated[int, Field(ge=16)]
    base_learning_rate: Annotated[float, Field(gt=0)]
    precision: Precision = "bf16"
    gpus: Annotated[int, Field(ge=0)] = 1
    owned_by: str = "registry"


def _without_colon(model_id: str) -> str:
    if ":" in model_id:
        raise ValueError("has a colon, which parts the name of a model tuned from it; write - or _ instead")
    return model_id


ModelId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS), AfterValidator(_without_colon)]
Registry = Mapping[str, BaseModelEntry]


class _ModelsFile(Record):
    models: Annotated[dict[ModelId, BaseModelEntry], Field(min_length=1)]


class RegistryError(ValueError):
    """The models file cannot be used."""


def load_registry(models_file: Path) -> Registry:
    """Raises: RegistryError, naming the file, the field and the value."""
    try:
        document = tomllib.loads(models_file.read_text(encoding="utf-8"))
        return _ModelsFile.model_validate(document).models
    except OSError as error:
        raise RegistryError(f"models file {models_file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"models file {models_file}: {error}") from error
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise RegistryError(f"models file {models_file}: {'; '.join(found[:SHOWN_ERRORS])}") from error


def default_model_folder(data_dir: Path) -> Path:
    return data_dir / "models" / DEFAULT_MODEL_ID


def default_registry(data_dir: Path) -> Registry:
    """The one model that the embedded default makes itself."""
    entry = BaseModelEntry(
        uri=str(default_model_folder(data_dir)),
        max_length=8192,
        base_learning_rate=5e-5,
        precision="fp32",
        gpus=0,
        owned_by="HuggingFaceTB",
    )
    return {DEFAULT_MODEL_ID: entry}


def base_model_of(model: str) -> str:
    """`ft:MODEL:PROJECT:SUFFIX:ID` was tuned from MODEL."""
    return model.split(":")[1] if model.startswith("ft:") else model
