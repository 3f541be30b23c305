"""Make the notebook and the docs page of the SoteMix experiment from their one source.

    python examples/build_notebook.py

Reads examples/sotemix_rot180_notebook.py, runs it, and writes examples/sotemix_rot180.ipynb, with plain PNG
outputs and no widgets, and docs/sotemix.md with its pictures. Cells tagged `docs` are of the page alone.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import jupytext
import nbclient
import nbformat
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "sotemix_rot180_notebook.py"
NOTEBOOK = ROOT / "examples" / "sotemix_rot180.ipynb"
PAGE = ROOT / "docs" / "sotemix.md"
HEADER = "<!-- Made by examples/build_notebook.py from examples/sotemix_rot180_notebook.py. -->\n\n"


def read_source() -> NotebookNode:
    """The source as a notebook, its comment at the top left out."""
    book = jupytext.read(SOURCE, fmt="py:percent")
    book.cells = [
        c for c in book.cells if c.cell_type != "raw" and "One source for" not in c.source
    ]
    return book


def for_notebook(source: NotebookNode) -> NotebookNode:
    """An unexecuted notebook of the cells that are not of the page alone."""
    cells = [c for c in source.cells if "docs" not in c.metadata.get("tags", [])]
    made = nbformat.v4.new_notebook(metadata=METADATA)
    for place, cell in enumerate(cells):
        new = (
            nbformat.v4.new_code_cell(cell.source)
            if cell.cell_type == "code"
            else nbformat.v4.new_markdown_cell(cell.source)
        )
        new.id = f"cell-{place}"
        made.cells.append(new)
    return made


METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(book: NotebookNode) -> NotebookNode:
    """Run every cell; raises `nbclient.exceptions.CellExecutionError` where one fails.

    Raises `ValueError` for an output on the error stream: what a notebook shows is meant to be shown.
    """
    # tqdm warns where ipywidgets is missing; the notebook shows no bars.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    nbclient.NotebookClient(book, timeout=3600, kernel_name="python3").execute()
    book.metadata = nbformat.from_dict(METADATA)
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"a cell wrote to the error stream: {output['text']}")
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = _smaller(output["data"]["image/png"])
                output["data"].pop("text/plain", None)
    return book


def _smaller(png: str) -> str:
    """The same picture in 65 levels of each colour, half of the bytes; a palette dulls photographs."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        levels = image.convert("RGB").point(lambda value: min(255, (value + 2) // 4 * 4))
        levels.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def page(source: NotebookNode, executed: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """The Markdown of the page, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    ran = iter(executed.cells)
    for cell in source.cells:
        outputs = [] if "docs" in cell.metadata.get("tags", []) else next(ran).get("outputs", [])
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"sotemix-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{cell.metadata['alt']}](images/{name})")
            elif "text/markdown" in data:
                parts.append(data["text/markdown"].strip())
            elif output.output_type == "stream":
                parts.append(f"```text\n{output.text.rstrip()}\n```")
    return HEADER + "\n\n".join(parts) + "\n", pictures


def main() -> None:
    source = read_source()
    executed = execute(for_notebook(source))
    nbformat.validate(executed)
    nbformat.write(executed, NOTEBOOK)
    text, pictures = page(source, executed)
    PAGE.write_text(text, encoding="utf-8")
    for name, content in pictures.items():
        (ROOT / "docs" / "images" / name).write_bytes(content)
    print(NOTEBOOK, f"{NOTEBOOK.stat().st_size / 1e3:.0f} kB;", PAGE)


if __name__ == "__main__":
    main()
