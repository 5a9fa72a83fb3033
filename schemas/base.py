"""The two model bases: what we are told (requests, specs) and what we tell (responses).

A request forbids unknown fields and takes no `True` for `1` and no NaN; a response has no defaults, so that
the OpenAPI document says "required" honestly.
"""

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Response(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Record(BaseModel):
    """A document we write and read back ourselves: run specs, run events, manifests, outcomes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
