"""The site builds without a warning, every link leads somewhere, and nothing is asked of another host."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import equivae

ROOT = Path(__file__).parents[1]
ROOMS = [
    "autoencoder.padding",
    "autoencoder.scaling",
    "caches",
    "data",
    "evaluation",
    "files",
    "losses",
    "operators",
    "reporting",
    "symmetry",
    "testing",
    "training",
    "transforms",
    "zoo",
]
# Constants and types of options, which have no page entry of their own.
UNDOCUMENTED = {
    "equivae.caches.FORMATS",
    "equivae.autoencoder.padding.PaddingMode",
    "equivae.testing.LAWS",
    "equivae.training.RECIPES",
}


class Page(HTMLParser):
    """What a page links to, loads, shows and can be linked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.pictures_without_words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {str(given[key]) for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(str(given["href"]))
        if given.get("src"):
            self.loads.append(str(given["src"]))
        if tag == "img" and not given.get("alt"):
            self.pictures_without_words.append(str(given.get("src")))


class Site:
    """The built pages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def pages(self) -> dict[Path, Page]:
        # The page for what is not found has links from the root of a host.
        found = (p for p in sorted(self.root.rglob("*.html")) if p.name != "404.html")
        return {path.resolve(): Page(path) for path in found}

    def target(self, page: Page, address: str) -> Path:
        path = unquote(urlsplit(address).path)
        target = (page.path.parent / path).resolve() if path else page.path.resolve()
        return target / "index.html" if target.is_dir() else target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Site(folder)


def test_no_link_is_broken(site: Site) -> None:
    broken = []
    for page in site.pages.values():
        for address in page.links:
            if urlsplit(address).scheme:
                continue
            target = site.target(page, address)
            anchor = unquote(urlsplit(address).fragment)
            if not target.is_file():
                broken.append(f"{page.path.relative_to(site.root)}: {address}")
            elif anchor and target in site.pages and anchor not in site.pages[target].anchors:
                broken.append(f"{page.path.relative_to(site.root)}: {address} (no such anchor)")
    assert broken == []
    assert sum(len(page.links) for page in site.pages.values()) > 500


def test_everything_that_a_page_loads_is_here(site: Site) -> None:
    for page in site.pages.values():
        for address in page.loads:
            if address.startswith("data:"):
                continue
            assert not urlsplit(address).netloc, f"{page.path.name} asks another host: {address}"
            assert site.target(page, address).is_file(), f"{page.path.name}: {address}"
    for sheet in site.root.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        for address in re.findall(r"url\(['\"]?([^)'\"]+)", text):
            if address.startswith(("data:", "#")):
                continue
            assert not urlsplit(address).netloc, f"{sheet.name} asks another host: {address}"
            assert (sheet.parent / address).is_file(), f"{sheet.name}: {address}"


def test_pictures_say_in_words_what_they_show(site: Site) -> None:
    assert [
        (p.path, p.pictures_without_words) for p in site.pages.values() if p.pictures_without_words
    ] == []


def test_formulas_became_mathml(site: Site) -> None:
    concepts = (site.root / "concepts" / "index.html").read_text(encoding="utf-8")
    assert concepts.count("<math") > 15
    loss = (site.root / "api" / "losses" / "index.html").read_text(encoding="utf-8")
    assert '<div class="formula"' in loss
    for page in site.pages:
        text = page.read_text(encoding="utf-8")
        assert 'class="arithmatex"' not in text
        assert "<p>.. math::" not in text  # in the source listings it stays
        assert "<!-- generated:" not in text


def test_the_reference_has_everything_that_is_public(site: Site) -> None:
    anchors = {a for path, page in site.pages.items() if "api" in path.parts for a in page.anchors}
    public = {
        f"{room}.{name}": getattr(importlib.import_module(room), name)
        for room in [f"equivae.{room}" for room in ROOMS]
        for name in importlib.import_module(room).__all__
    }
    described = {id(public[name]) for name in public if name in anchors}
    # A function with a module of its name has its entry where it is written.
    described |= {id(v) for v in public.values() if _written_as(v) in anchors}
    described |= {
        id(getattr(equivae, a.split(".")[1]))
        for a in anchors
        if a.count(".") == 1 and a.startswith("equivae.")
    }
    described |= {id(value) for value in vars(equivae.errors).values() if isinstance(value, type)}
    left = [n for n, v in public.items() if n not in UNDOCUMENTED and id(v) not in described]
    assert left == []
    top = {name: getattr(equivae, name) for name in equivae.__all__}
    missing = [
        name
        for name, value in top.items()
        if not isinstance(value, ModuleType)
        and id(value) not in described
        and _written_as(value) not in anchors
    ]
    assert missing == []


def _written_as(value: object) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def test_the_reference_has_objects_and_no_modules(site: Site) -> None:
    for page in (site.root / "api").rglob("index.html"):
        assert "doc-symbol-module" not in page.read_text(encoding="utf-8"), page


def test_search_finds_a_page(site: Site) -> None:
    index = json.loads((site.root / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {
        entry["location"].split("#")[0]
        for entry in index["docs"]
        if "fundamental domain" in entry["text"]
    }
    assert "concepts/" in found


def test_tables_are_made_from_the_code(site: Site) -> None:
    recipes = (site.root / "guides" / "recipes" / "index.html").read_text(encoding="utf-8")
    for option in equivae.FinetuneConfig.__dataclass_fields__:
        assert f"<code>{option}</code>" in recipes
    commands = (site.root / "command-line" / "index.html").read_text(encoding="utf-8")
    option = '<span class="option">--pretrained_model_name_or_path</span>'
    assert f"<code>{option}</code>" in commands


def test_a_plot_is_no_white_slab_on_a_dark_page() -> None:
    style = (ROOT / "docs" / "assets" / "equivae.css").read_text(encoding="utf-8")
    pages = [*(ROOT / "docs").rglob("*.md")]
    shown = {
        name for page in pages for name in re.findall(r"/([\w-]+\.png)\)", page.read_text("utf-8"))
    }
    assert shown
    assert [name for name in sorted(shown) if f'src$="{name}"' not in style] == []
