"""The notebook runs, shows its pictures without a server, and agrees with its source and with the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from doc_blocks import ROOT, load_script

build = load_script(ROOT / "examples" / "build_notebook.py")
IMAGES = ROOT / "docs" / "images"
SHOWN = {"image/png", "text/markdown", "text/plain"}


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    book = nbformat.read(build.NOTEBOOK, as_version=4)
    nbformat.validate(book)
    return book


def test_it_has_the_cells_of_its_source(notebook: nbformat.NotebookNode) -> None:
    wanted = build.for_notebook(build.read_source())
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in wanted.cells
    ]


def test_the_page_is_made_from_it(notebook: nbformat.NotebookNode) -> None:
    text, pictures = build.page(build.read_source(), notebook)
    assert build.PAGE.read_text(encoding="utf-8") == text
    assert {p.name for p in IMAGES.glob("sotemix-*.png")} == set(pictures)
    for name, content in pictures.items():
        assert (IMAGES / name).read_bytes() == content


def test_any_viewer_can_show_it(notebook: nbformat.NotebookNode) -> None:
    assert "widgets" not in notebook.metadata
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    kinds = {kind for o in outputs for kind in o.get("data", {})}
    assert kinds <= SHOWN
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert min(image.size) > 300
    assert not any(o.get("name") == "stderr" for o in outputs)
    assert build.NOTEBOOK.stat().st_size < 2**20  # GitHub shows it at this size


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVAE_NOTEBOOK_IMAGES", "3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = build.for_notebook(build.read_source())
    smaller = {"zoo.photographs(128)": "zoo.photographs(48)"}
    for whole, small in smaller.items():
        assert sum(whole in cell.source for cell in book.cells) == 1
        for cell in book.cells:
            cell.source = cell.source.replace(whole, small)
    made = build.execute(book)
    text, pictures = build.page(build.read_source(), made)
    assert len(pictures) == 2
    assert "The equivariance gap under rot180 (plain latent op) went from" in text
