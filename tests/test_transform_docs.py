"""The code of the docs page runs, and the docs name every transform."""

import re
from pathlib import Path

import pytest

import equivae
from equivae.transforms import registry, transform_table

DOCS = Path(__file__).parents[1] / "docs"


def fences(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_page_on_writing_a_transform_runs(monkeypatch):
    for table in ("_FACTORIES", "_BUILTIN_GROUPS", "_PLUGIN_PACKAGES"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    path = DOCS / "write-your-own-transform.md"
    blocks = fences(path.read_text())
    assert len(blocks) >= 6
    namespace = {"__name__": "write_your_own_transform"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), namespace)
    row = next(row for row in transform_table() if row.name == "squeeze")
    assert row.group == "custom"


def test_the_message_that_the_page_quotes_is_the_real_one():
    text = (DOCS / "write-your-own-transform.md").read_text()
    quoted = " ".join(re.findall(r"^> (.*)$", text, flags=re.MULTILINE))
    sloppy = next(block for block in fences(text) if "class Sloppy" in block)
    namespace = {"equivae": equivae}
    exec(sloppy.partition("try:")[0], namespace)
    with pytest.raises(equivae.testing.ContractError) as caught:
        equivae.testing.check_transform(namespace["Sloppy"]())
    assert str(caught.value) == quoted


def test_the_docs_name_every_transform_and_no_other():
    text = (DOCS / "transforms.md").read_text()
    written = set(re.findall(r"`([a-z_0-9]+)(?:\([^`]*\))?`", text))
    builtin = {row.name for row in transform_table() if row.source == "equivae"}
    assert builtin <= written


def test_the_docstrings_of_the_transforms_run():
    for path in sorted((Path(equivae.__file__).parent / "transforms").glob("*.py")):
        for indent, block in re.findall(
            r"^( *)```python\n(.*?)^ *```", path.read_text(), re.M | re.S
        ):
            code = "\n".join(line[len(indent) :] for line in block.splitlines())
            exec(compile(code, str(path), "exec"), {"equivae": equivae, "__name__": "docstring"})
