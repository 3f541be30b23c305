"""The wheel: what is in it, what it says of itself, and that it works without the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from doc_blocks import ROOT, load_script


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if re.search(
        "No matching distribution|ConnectionError|Temporary failure", done.stdout + done.stderr
    ):
        pytest.skip("a wheel is built in an environment of its own, which needs a package index")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {re.sub(r"-[\d.]+\.dist-info", ".dist-info", top) for top in tops} == {
        "equivae",
        "equivae.dist-info",
    }
    for name in (
        "py.typed",
        "reporting/report.schema.json",
        "reporting/templates/report.html",
        "zoo/embedded/config.json",
        "zoo/embedded/diffusion_pytorch_model.safetensors",
        "zoo/photographs/astronaut.png",
        "training/recipes/eq-vae.yaml",
    ):
        assert f"equivae/{name}" in names
    kinds = {Path(name).suffix for name in names if name.startswith("equivae/")}
    data = {".json", ".html", ".md", ".png", ".safetensors", ".yaml"}
    assert kinds <= {".py", ".pyi", ".typed", *data}
    assert wheel.stat().st_size < 5 * 2**20


def test_it_is_fit_for_an_index(wheel: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("METADATA")]
        metadata = archive.read(name).decode()
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        assert "equivae = equivae.cli:main" in archive.read(name).decode()
    assert "Requires-Python: >=3.10" in metadata
    for version in ("3.10", "3.11", "3.12", "3.13"):
        assert f"Classifier: Programming Language :: Python :: {version}" in metadata


def test_it_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import equivae, pathlib\n"
        f"assert pathlib.Path(equivae.__file__).is_relative_to({str(tmp_path)!r})\n"
        "vae, images = equivae.load_vae('embedded'), equivae.zoo.photographs(64)\n"
        "report = equivae.evaluate(vae, images, progress=False)\n"
        "report.save('out')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_page_of_the_package_gets_absolute_links(monkeypatch):
    names = ["hatchling", "hatchling.metadata", "hatchling.metadata.plugin"]
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    for stub in [*map(types.ModuleType, names), interface]:
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    hook = load_script(ROOT / "hatch_build.py")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert hook.absolute(text, "") == text
    page = hook.absolute(text, "https://host.example/owner/equivae")
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", page) == []
    assert "](https://host.example/owner/equivae/raw/main/docs/images/home.webp)" in page
    assert "](https://host.example/owner/equivae/blob/main/CONTRIBUTING.md)" in page
