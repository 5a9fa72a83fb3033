"""Seconds since 1970 of a stored time, in SQL: so that durations are summed where the rows are."""

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class EpochSeconds(FunctionElement[float]):
    """`EpochSeconds(column)`: to the millisecond, which is what SQLite reckons in."""

    name = "epoch_seconds"
    type = Float()
    inherit_cache = True


@compiles(EpochSeconds, "sqlite")
def _of_julian_day(element: EpochSeconds, compiler: SQLCompiler, **options: Any) -> str:
    return f"((julianday({compiler.process(element.clauses, **options)}) - 2440587.5) * 86400.0)"


@compiles(EpochSeconds, "postgresql")
def _of_timestamp(element: EpochSeconds, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(EXTRACT(EPOCH FROM {compiler.process(element.clauses, **options)}) AS DOUBLE PRECISION)"
