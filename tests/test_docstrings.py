"""Every snippet in the docstrings of the public API runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator

import pytest

import equivae

FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _documented() -> Iterator[tuple[str, str]]:
    """`(where, snippet)` of all public objects, their methods, and the modules themselves."""
    packages = [equivae] + [
        importlib.import_module(info.name)
        for info in pkgutil.iter_modules(equivae.__path__, "equivae.")
        if info.name not in ("equivae.__main__", "equivae.cli")
    ]
    seen: set[int] = set()
    for package in packages:
        objects = [(package.__name__, package)]
        for name in getattr(package, "__all__", []):
            thing = getattr(package, name)
            objects.append((f"{package.__name__}.{name}", thing))
            if inspect.isclass(thing):
                methods = [(n, m) for n, m in vars(thing).items() if not n.startswith("_")]
                objects += [(f"{package.__name__}.{name}.{n}", m) for n, m in methods]
        for where, thing in objects:
            if id(thing) in seen or not isinstance(getattr(thing, "__doc__", None), str):
                continue
            seen.add(id(thing))
            for i, code in enumerate(FENCE.findall(inspect.cleandoc(thing.__doc__))):
                yield f"{where}-{i}" if i else where, textwrap.dedent(code)


SNIPPETS = dict(_documented())


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images and smaller photographs for the demo, which tests/test_demo.py sees whole."""
    whole = equivae.zoo.photographs
    monkeypatch.setattr("equivae.demo.TRAINING_IMAGES", 24)
    monkeypatch.setattr(equivae.zoo, "photographs", lambda resolution=64: whole(resolution))


@pytest.mark.parametrize("where", SNIPPETS)
@pytest.mark.usefixtures("small_demo")
def test_snippet(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[where], where, "exec"), {"__name__": "snippet", "equivae": equivae})


def test_the_snippets_are_found():
    assert {"equivae.EquivarianceLoss", "equivae.finetune", "equivae.evaluate"} <= set(SNIPPETS)


def test_all_that_is_public_is_documented():
    things = {name: getattr(equivae, name) for name in equivae.__all__}
    assert [name for name, thing in things.items() if not inspect.getdoc(thing)] == []
