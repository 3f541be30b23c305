"""`import equivae` is cheap, and every public name is there when it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import equivae

HEAVY = ("torch", "diffusers", "kornia", "matplotlib", "datasets", "accelerate", "transformers")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_after(code: str) -> set[str]:
    return set(run(f"import sys; {code}; print(*[m for m in {HEAVY} if m in sys.modules])").split())


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_after("import equivae") == set()


def test_a_transform_and_a_loss_need_torch_alone() -> None:
    code = "import equivae; equivae.get_transform('rot180'); equivae.EquivarianceLoss('hflip')"
    assert loaded_after(code) == {"torch"}


def test_type_checkers_and_the_run_time_see_the_same_names() -> None:
    tree = ast.parse(Path(equivae.__file__).read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(equivae.__all__)
    for name, module in seen.items():
        home = __import__(module, fromlist=[name])
        assert getattr(equivae, name) is getattr(home, name)


def test_dir_and_star_list_the_public_names() -> None:
    names = run("import equivae; print(*dir(equivae))").split()
    assert set(equivae.__all__) <= set(names)
    assert {"transforms", "training", "losses"} <= set(names)
    assert "TYPE_CHECKING" not in names
    star = run("from equivae import *; print(finetune.__name__, zoo.__name__)")
    assert star == "finetune equivae.zoo"


@pytest.mark.parametrize(
    "first", ["import equivae.symmetrize.domain", "from equivae.symmetrize import domain_weights"]
)
def test_a_module_does_not_hide_the_function_of_its_name(first: str) -> None:
    assert run(f"import equivae; {first}; print(equivae.symmetrize.__class__.__name__)") == (
        "function"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'finetun'"):
        _ = equivae.finetun  # type: ignore[attr-defined]
