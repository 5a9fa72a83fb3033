"""The run folder's `spec.json`, or one sentence about what is wrong with it: people write it by hand, too."""

from pydantic import ValidationError

from schemas.run_layout import SPEC
from schemas.run_spec import RunSpec
from trainers.errors import UnreadableSpec
from trainers.run_folder import RunFolder

REMEDY = "schemas/run_spec.py tells its fields"


def read_spec(folder: RunFolder) -> RunSpec:
    """Raises: UnreadableSpec; OSError where the store is at fault."""
    place = folder.resolve(SPEC)
    try:
        return RunSpec.model_validate_json(folder.read(SPEC))
    except (FileNotFoundError, NotADirectoryError) as reason:
        raise UnreadableSpec(f"nothing lies at {place}: name a run folder with a {SPEC} in it; {REMEDY}") from reason
    except ValidationError as reason:
        wrong = "; ".join(_told(error["type"], error["loc"], error["msg"]) for error in reason.errors())
        raise UnreadableSpec(f"{place} cannot be used: {wrong}. Correct it; {REMEDY}") from reason


def _told(kind: str, place: tuple[int | str, ...], said: str) -> str:
    field = ".".join(map(str, place))
    match kind:
        case "missing":
            return f"{field} is missing"
        case "extra_forbidden":
            return f"{field} is no field"
        case _:
            return f"{field}: {said}" if field else said
