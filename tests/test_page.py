"""The HTML report: one file that needs nothing else, and says what the report says."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import equivae
from equivae.units import psnr
from models import ConvAE, MarkedAE, PoolAE, cells, noise


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report():
    found = equivae.evaluate(
        MarkedAE(0.2, 0.1),
        cells(3, 16, 16),
        ["rot180", "hflip"],
        baseline=MarkedAE(0.3, 0.1),
        sweep_samples=1,
        progress=False,
    )
    found.history = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]
    found.skipped = [("<b>.png", "broken & lost")]
    return found


@pytest.fixture(scope="module")
def html(report):
    return report.to_html()


def test_it_needs_nothing_else(html):
    page = Page(html)
    sources = [image["src"] for image in page.all("img") if "src" in image]
    # Before and after, two transforms; the two of the slider; the empty one that zooms.
    assert len(sources) == 2 * 2 * (3 * 4 + 1 * 3) + 2
    assert all(source.startswith("data:image/") for source in sources)
    assert page.all("script") == [{}]  # its own, inside it
    assert not page.all("link")
    assert not page.all("iframe")
    places = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"base64,[\w+/=]+", "", html))
    assert set(places) <= {"http://www.w3.org"}  # names of XML, not places


def test_it_fits_phones_and_both_themes(html):
    page = Page(html)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert "@media (prefers-color-scheme: dark)" in html
    assert all(image["alt"] for image in page.all("img") if "src" in image)


def test_it_says_what_the_report_says(report, html):
    page = Page(html)
    assert report.verdict in page.text
    assert report.command in page.text
    for row in report.rows_with_certainty()[1]:
        assert " ".join(" ".join(row).split()) in page.text
    assert all(note in page.text for note in report.footnotes())
    worst = report.metrics.spreads["round_trip_psnr/rot180"].worst_image
    assert worst in page.text
    expected = psnr(float((report.panels[0].back - report.panels[0].original).square().mean()))
    assert f"{expected:.2f} dB" in page.text
    for name in ("torch", "diffusers", "kornia"):
        assert f"{name} {report.to_dict()['versions'][name]}" in page.text


def test_names_are_escaped(html):
    assert "<b>.png" not in html
    assert "<b>.png : broken & lost" in Page(html).text


def test_curves_are_vectors_in_the_colours_of_the_page(html):
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 6  # round trips, two sweeps, spectrum, profile, loss
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "var(--ink)" in drawing
        assert "#1f2328" not in drawing
    ids = Counter(re.findall(r'\bid="([^"]+)"', html))
    assert [name for name, count in ids.items() if count > 1] == []
    for target in re.findall(r'(?:href="|url\()#([^")]+)', html):
        assert target in ids


def test_a_report_without_anything():
    page = Page(equivae.Report(equivae.evaluation.Metrics(1, 0.01, 20.0, 0.9)).to_html())
    assert "Reconstruction is 20.00 dB over 1 image." in page.text


def test_a_page_is_not_larger_than_it_has_to_be(html):
    assert len(html) < 400_000


def test_comparisons(tmp_path):
    vaes = {"<one>": ConvAE(), "two": PoolAE()}
    x = noise(3, 3, 16, 16)
    found = equivae.compare(vaes, x, ["rot180", "hflip"], sweep_samples=1, progress=False)
    alone = equivae.evaluate(PoolAE(), x, ["rot180", "hflip"], sweep_samples=1, progress=False)
    assert found.metrics["two"].transforms == alone.metrics.transforms
    assert "No VAE has the best round trip by more than noise: two has" in found.verdict
    assert found.rows()[0][0] == "reconstruction PSNR"
    assert all(len(row) == 3 for row in found.rows())
    folder = found.save(tmp_path / "out")
    page = Page((folder / "comparison.html").read_text(encoding="utf-8"))
    assert found.verdict in page.text
    assert "<one>" in page.text
    assert len([image for image in page.all("img") if "src" in image]) == 2 * 3 * 4 * 2
    names = {p.name for p in folder.iterdir()}
    texts = {f"comparison.{kind}" for kind in ("json", "md", "html", "csv", "tex")}
    charts = {
        "comparison.png",
        "sweep_rotate.png",
        "sweep_scale.png",
        "spectrum.png",
        "profile.png",
    }
    assert names == texts | charts
    with pytest.raises(equivae.InputError, match="holds a report already"):
        found.save(tmp_path / "out")


def test_comparisons_that_make_no_sense():
    with pytest.raises(equivae.InputError, match="at least two autoencoders, got 1"):
        equivae.compare([PoolAE()], noise(1, 3, 8, 8))


def test_alike_autoencoders_get_numbers():
    options = {"sweep_samples": 0, "progress": False, "panels": 0}
    found = equivae.compare([PoolAE(), PoolAE(), ConvAE()], noise(1, 3, 8, 8), **options)
    assert list(found.metrics) == ["PoolAE (1)", "PoolAE (2)", "ConvAE (3)"]
