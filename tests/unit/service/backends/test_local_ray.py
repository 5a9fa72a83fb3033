"""The local Ray's interpreter: Ray splits command lines at spaces, and checkouts lie where people put them."""

import subprocess
import sys
from pathlib import Path

from service.backends.trainer_command import import_path

ASK = "import sys; from pathlib import Path; from service.backends.local_ray import python_for_ray as f; "


def test_a_path_without_spaces_is_used_as_it_is(tmp_path: Path) -> None:
    python = _link_to_this_python(tmp_path / "checkout")
    assert _run(python, ASK + f"print(f(Path({str(tmp_path)!r})))") == python


def test_a_path_with_a_space_is_reached_by_a_link_that_runs_the_same_packages(tmp_path: Path) -> None:
    python = _link_to_this_python(tmp_path / "my checkout")
    told = _run(python, ASK + f"print(f(Path({str(tmp_path)!r})))")
    assert " " not in told
    assert " " not in _run(told, "import pydantic; print(pydantic.__file__)")


def _link_to_this_python(link: Path) -> str:
    link.symlink_to(sys.prefix)
    return str(link / Path(sys.executable).relative_to(sys.prefix))


def _run(python: str, code: str) -> str:
    environment = {"PYTHONPATH": import_path()}
    return subprocess.run(
        [python, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
