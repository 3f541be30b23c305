"""What the docs say of transforms is so: names, quoted messages; tests/test_docs.py runs their code."""

import re
from pathlib import Path

import pytest

import equivae
from equivae.transforms import transform_table

DOCS = Path(__file__).parents[1] / "docs"


def fences(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


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
    for path in sorted((Path(equivae.__file__).parent / "transforms").rglob("*.py")):
        for indent, block in re.findall(
            r"^( *)```python\n(.*?)^ *```", path.read_text(), re.M | re.S
        ):
            code = "\n".join(line[len(indent) :] for line in block.splitlines())
            exec(compile(code, str(path), "exec"), {"equivae": equivae, "__name__": "docstring"})
