"""The tables of the docs agree with the results that they are made from."""

from __future__ import annotations

import json
import re

import pytest

import tables


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_the_documents_agree_with_the_results(name):
    text = (tables.ROOT / name).read_text(encoding="utf-8")
    assert tables.render(text) == text, "run python benchmarks/tables.py"


def test_every_table_is_shown_somewhere():
    text = "".join((tables.ROOT / name).read_text(encoding="utf-8") for name in tables.DOCUMENTS)
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == set(tables.TABLES)
    assert text.count("<!-- table:") == text.count("<!-- end table -->")


def test_a_changed_result_is_noticed(tmp_path):
    for path in tables.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    text = (tables.ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert tables.render(text, tmp_path) == text
    path = tmp_path / "latent_operators.json"
    content = json.loads(path.read_text())
    content["fit"][0]["fitted_psnr"] = 99.0
    path.write_text(json.dumps(content))
    assert "99.00 dB" in tables.render(text, tmp_path)


def test_a_result_that_is_not_there_yet_leaves_the_place_empty(tmp_path):
    name = next(iter(tables.TABLES))
    text = f"before\n<!-- table: {name} -->\n\n| old |\n\n<!-- end table -->\nafter\n"
    empty = f"before\n<!-- table: {name} -->\n<!-- end table -->\nafter\n"
    assert tables.render(text, tmp_path) == empty
    assert tables.render(tables.render(empty)) == tables.render(empty)


def test_an_unknown_table_is_refused():
    with pytest.raises(KeyError, match="nonsense"):
        tables.render("<!-- table: nonsense -->\n<!-- end table -->\n")


def test_a_cell_may_hold_the_sign_that_parts_cells():
    head, _, line = tables.rows(["a", "b"], [["5x5, |z| 1x1", "2"]])
    assert head == "| a | b |"
    assert line == r"| 5x5, \|z\| 1x1 | 2 |"
