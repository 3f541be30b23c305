"""`report.json` and `comparison.json` keep the schema that is documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import equivae
from equivae.reporting import report as report_module
from models import ConvAE, PoolAE, cells, noise

SCHEMA = json.loads(
    (Path(report_module.__file__).parent / "report.schema.json").read_text(encoding="utf-8")
)
DOCS = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def features(images):
    return images.mean((2, 3))


def full_report():
    report = equivae.evaluate(
        ConvAE(),
        noise(3, 3, 16, 16),
        ["d4", "scale(factor=0.5)"],
        baseline=PoolAE(),
        features=features,
        protocol="imagenet",
        resolution=16,
        metrics="paper",
        sweep_samples=1,
        progress=False,
    )
    report.history = [{"step": 1, "epoch": 0, "loss": 0.5}]
    report.skipped = [("a.png", "broken")]
    return report


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    versions = {d["properties"]["schema"]["const"] for d in map(SCHEMA["$defs"].get, KINDS)}
    assert versions == {report_module.SCHEMA}


KINDS = ("Report", "Comparison")


def test_reports_keep_the_schema():
    content = full_report().to_dict()
    VALIDATOR.validate(content)
    assert content["metrics"]["groups"]
    assert content["metrics"]["sweeps"]
    perfect = equivae.evaluate(PoolAE(), cells(2, 8, 8), sweep_samples=0, progress=False)
    VALIDATOR.validate(perfect.to_dict())


def test_comparisons_keep_the_schema():
    vaes = {"a": ConvAE(), "b": [PoolAE(), ConvAE(1)]}
    found = equivae.compare(vaes, noise(2, 3, 8, 8), sweep_samples=0, progress=False)
    VALIDATOR.validate(found.to_dict())


@pytest.mark.parametrize("change", ["missing", "unknown", "another version"])
def test_the_schema_refuses(change):
    content = equivae.evaluate(PoolAE(), cells(2, 8, 8), sweep_samples=0, progress=False).to_dict()
    if change == "missing":
        del content["metrics"]["reconstruction_mse"]
    elif change == "unknown":
        content["metrics"]["transforms"]["rot180"]["bliss"] = 1.0
    else:
        content["schema"] = 1
    assert not VALIDATOR.is_valid(content)


def test_every_field_is_documented():
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)) | {"vaes"}
    named = {name for d in SCHEMA["$defs"].values() for name in d["properties"]}
    assert named <= documented
    assert documented <= named
