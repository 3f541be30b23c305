"""`import equivae` is cheap, and every public name is there when it is asked for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import equivae
from forked import run_code

HEAVY = ("torch", "diffusers", "kornia", "matplotlib", "datasets", "accelerate", "transformers")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_warm(code: str) -> str:
    """The same where it does not matter what was imported before equivae."""
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_after(code: str) -> set[str]:
    return set(run(f"import sys; {code}; print(*[m for m in {HEAVY} if m in sys.modules])").split())


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_after("import equivae") == set()


def test_a_transform_and_a_loss_need_torch_alone() -> None:
    code = "import equivae; equivae.get_transform('rot180'); equivae.EquivarianceLoss('hflip')"
    assert loaded_after(code) == {"torch"}


def test_the_stub_is_what_python_finds() -> None:
    stub = Path(equivae.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    seen = {
        alias.asname or alias.name: node.module
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(equivae.__all__)
    for name, module in seen.items():
        home = importlib.import_module(f"equivae.{module}" if module else f"equivae.{name}")
        assert getattr(equivae, name) is (getattr(home, name) if module else home)


def test_dir_and_star_list_the_public_names() -> None:
    names = run_warm("import equivae; print(*dir(equivae))").split()
    assert set(equivae.__all__) <= set(names)
    assert {"transforms", "training", "losses"} <= set(names)
    assert "TYPE_CHECKING" not in names
    star = run_warm("from equivae import *; print(finetune.__name__, zoo.__name__)")
    assert star == "finetune equivae.zoo"


OLD_PATHS = [
    "equivae.analysis.analyze_latents",
    "equivae.analysis.LatentAnalysis",
    "equivae.evaluation.compare.compare",
    "equivae.evaluation.evaluate.evaluate",
    "equivae.evaluation.figures.draw_losses",
    "equivae.evaluation.metrics.psnr",
    "equivae.evaluation.Comparison",
    "equivae.evaluation.Report",
    "equivae.latents.LatentStatistics",
    "equivae.latents.latent_statistics",
    "equivae.latents.scales_by_itself",
    "equivae.latents.transform_latents",
    "equivae.padding.check_padding_mode",
    "equivae.padding.set_padding_mode",
    "equivae.pretrained.load_vae",
    "equivae.single_file.export_single_file",
    "equivae.single_file.load_single_file",
    "equivae.symmetrize.SymmetrizedVAE",
    "equivae.symmetrize.domain_weights",
    "equivae.symmetrize.symmetrize.symmetrize",
]


def test_import_paths_of_version_0_1_work() -> None:
    code = (
        "import importlib, warnings, equivae; warnings.simplefilter('ignore')\n"
        f"for path in {OLD_PATHS}:\n"
        "    module, _, name = path.rpartition('.')\n"
        "    found = getattr(importlib.import_module(module), name)\n"
        "    home = importlib.import_module(found.__module__)\n"
        "    assert getattr(home, name) is found and found.__module__ not in path, path"
    )
    run_warm(code)


def test_a_moved_path_says_where_to() -> None:
    code = "import warnings; warnings.simplefilter('error'); import equivae.padding"
    done = run_code(code)
    assert "equivae.padding has moved to equivae.autoencoder.padding" in done.stderr


@pytest.mark.parametrize(
    "first", ["import equivae.symmetrize.domain", "from equivae.symmetrize import domain_weights"]
)
def test_the_old_package_is_still_a_function(first: str) -> None:
    assert run_warm(f"import equivae; {first}; print(callable(equivae.symmetrize))") == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute finetun"):
        _ = equivae.finetun  # type: ignore[attr-defined]
