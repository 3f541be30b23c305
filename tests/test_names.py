"""Whatever an image, a transform or a VAE is called: no output breaks on it, and every one shows it."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import equivae
from equivae.cli import main
from equivae.evaluation.results import Metrics, TransformMetrics
from equivae.reporting import Comparison, Report
from equivae.reporting.card import base_model_of
from equivae.reporting.content import json_types, save_figure
from equivae.reporting.figures import draw_latents, draw_panels
from equivae.reporting.tables import markdown_table
from equivae.reporting.text import code, figure_text, file_names, markdown, readable
from models import ConvAE, noise, tiny_kl
from tiny_pipeline import tiny_vae

NASTY = [
    "$\\frac{$.png",
    "a$b$c_{2}.png",
    "<img src=x onerror=alert(1)>&amp;.png",
    "| `tick` ``two`` | *bold* _it_ [a](b) ~~s~~.png",
    "[bold red]x[/] [/nothing]",
    "bytes-\udcff\udc80.png",
    "line\nbreak\ttab\x1b[31m\x00.png",
    "_hidden",
    "# 1. heading",
    "回転 Größe ﷽ 🦊.png",
    "right\u202eto-left",
    "%s {0} %(x)s \\n",
    "x" * 300,
    "",
]


class Named(equivae.Transform):
    """A half turn by any name."""

    exact = True

    def __init__(self, name: str) -> None:
        self.name = name

    def pixel(self, x):
        return x.flip(-2, -1)

    def latent(self, z):
        return z.flip(-2, -1)

    @property
    def inverse(self):
        return self


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.shown, self.tags = "", []
        self.feed(page)

    def handle_data(self, data):
        self.shown += data

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def dataset(name: str):
    images = equivae.data.load_images(noise(2, 3, 8, 8))
    images.names[0] = name
    return images


def test_a_report(tmp_path):
    """All of them at once; figures have a test of their own."""
    images = equivae.data.load_images(noise(len(NASTY), 3, 8, 8))
    images.names[:] = NASTY
    report = equivae.evaluate(
        ConvAE(), images, [Named(n) for n in NASTY], sweep_samples=0, panels=0, progress=False
    )
    report.skipped = [(name, name) for name in NASTY]
    report.settings |= {name: name for name in NASTY}
    report.command = " ".join(NASTY)
    folder = report.save(tmp_path / "out")
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    json.dumps(content, ensure_ascii=False).encode("utf-8")
    spelled = [name.encode("utf-8", "backslashreplace").decode() for name in NASTY]
    assert content["metrics"]["names"] == spelled
    page = Text((folder / "report.html").read_text(encoding="utf-8"))
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in NASTY:
        assert readable(name) in page.shown.replace("\u00a0", " ")
        assert f"- {code(name)}: {markdown(name)}" in text.splitlines()
    assert [attributes for tag, attributes in page.tags if tag == "img"] == [{"alt": ""}]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    settings = lines.index("| setting | value |")
    for place, line in enumerate(lines):  # three columns and two, whatever stands in them
        assert len(re.findall(r"(?<!\\)\|", line)) == (4 if place < settings else 3), line


def test_a_comparison(tmp_path):
    one = equivae.evaluate(
        ConvAE(), dataset("x"), [Named(NASTY[3])], sweep_samples=1, panels=0, progress=False
    )
    found = Comparison(dict.fromkeys(NASTY, one.metrics), dict.fromkeys(NASTY, NASTY[5]))
    folder = found.save(tmp_path / "out")
    page = Text((folder / "comparison.html").read_text(encoding="utf-8"))
    assert all(readable(name) in page.shown.replace("\u00a0", " ") for name in NASTY)
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(NASTY) + 2}
    json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [NASTY[0], NASTY[6], NASTY[9], NASTY[12]])
def test_figures(name, tmp_path):
    x = torch.rand(3, 8, 8)
    panel = equivae.evaluation.Panel(name, name, x, x, x, x, "best", x, x, x)
    for figure in (draw_panels([panel]), draw_latents([panel])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.set_dpi(40)
            save_figure(figure, tmp_path / "a.png")


def test_an_analysis(tmp_path):
    found = equivae.analyze_latents(
        ConvAE(), noise(4, 3, 8, 8), [Named(NASTY[0]), Named(NASTY[6])], progress=False
    )
    found.save(tmp_path)
    assert "\udcff" not in (tmp_path / "analysis.md").read_text(encoding="utf-8")


def test_a_card(tmp_path, monkeypatch):
    monkeypatch.setattr(Report, "figures", lambda self: {})
    name = "a`b|c$d\udcff"
    place = tmp_path / "base`$|"
    tiny_kl().save_pretrained(place)
    options = {"train_batch_size": 2, "max_train_steps": 1, "progress": False}
    equivae.finetune(
        str(place),
        dataset("x" + name).subset([0, 1, 0, 1]),
        [Named(name)],
        tmp_path / 'o"u`t',
        **options,
    )
    card = ModelCard.load(tmp_path / 'o"u`t' / "README.md")
    assert "a local model, ``base`$|``" in card.text
    assert "a`b|c$d\\udcff" in card.text
    assert 'from_pretrained("o\\"u`t")' in card.text
    assert str(tmp_path) not in card.text


def test_the_base_of_a_loaded_module_is_on_the_card(tmp_path):
    tiny_kl().save_pretrained(tmp_path / "secret" / "mine")
    path = equivae.export_single_file(tiny_kl(), tmp_path / "secret" / "one.safetensors")
    for place, words in (
        (tmp_path / "secret" / "mine", "a local model, `mine`"),
        (path, "the file `one.safetensors`"),
    ):
        vae = equivae.load_vae(place)
        assert base_model_of(vae, vae).words == words
    embedded = equivae.load_vae("embedded")
    assert base_model_of(embedded, embedded).words == "the embedded VAE of equivae"


# The terminal -------------------------------------------------------------------------------------


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_of_any_code_page(monkeypatch, tmp_path, encoding):
    from equivae.cli import showing

    vae = tmp_path / "[bold]回_vae"
    tiny_vae().save_pretrained(vae)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (16, 16), "teal").save(folder / "[red]回転.png")
    bad = os.fsencode(folder) + b"/[x]\xff\x1b[31m.png"
    Path(os.fsdecode(bad)).write_bytes(b"broken")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(showing.console, "width", 200)
    command = ("compare", vae, "embedded", "--data_dir", folder, "--resolution", 16)
    assert call(monkeypatch, *command, "--sweep_samples", 0) == 0
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    assert "[bold]\\u56de_vae" in shown
    assert "skipped [x]\\xff\\x1b[31m.png" in shown
    assert "\x1b[31m.png" not in shown


# The functions ------------------------------------------------------------------------------------


def test_readable():
    assert readable("Größe 5 µm 回転 🦊\u200d🦊.png") == "Größe 5 µm 回転 🦊\u200d🦊.png"
    assert readable("a\n\x1b\u202e\udcff\u2028") == r"a\n\x1b\u202e\udcff\u2028"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("round_trip", "round_trip"),
        ("shift(y=1,x=-1)", "shift(y=1,x=-1)"),
        ("-0.12 dB", "-0.12 dB"),
        ("9.50 dB", "9.50 dB"),
        ("a|b `c` *d* _e_", r"a\|b \`c\` \*d\* \_e\_"),
        ("# x", r"\# x"),
        ("1. x", r"1\. x"),
        ("- x", r"\- x"),
        ("<b>&amp;$x$", r"\<b\>\&amp;\$x\$"),
    ],
)
def test_markdown(text, shown):
    assert markdown(text) == shown
    assert markdown(markdown(text)) == shown


def test_code():
    assert code("a") == "`a`"
    assert code("a`b") == "``a`b``"
    assert code("`a``") == "``` `a`` ```"
    assert code("a|b") == "`a|b`"
    assert markdown_table(("h",), [[code("a|b", in_table=True)]])[-1] == r"| `a\|b` |"


def test_figure_text():
    assert figure_text("a$b$") == r"a\$b\$"
    assert figure_text("_a") == " _a"
    assert len(figure_text("x" * 100)) == 32


def test_file_names_are_apart():
    assert file_names(["shift(y=1,x=1)", "rot90"]) == {
        "shift(y=1,x=1)": "shift_y=1,x=1",
        "rot90": "rot90",
    }
    names = file_names(["回", "転", "a b", "a_b", "A b", "../../evil", "x" * 300])
    assert len({name.casefold() for name in names.values()}) == 7
    assert all(re.fullmatch(r"[\w.=,-]{1,110}", name) for name in names.values())
    assert names["../../evil"] == "..\u005f..\u005fevil"


def test_pictures_of_two_alike_names_are_two():
    metrics = Metrics(1, 0.1, 10.0, 0.5, {"x": TransformMetrics(0.1, 10.0, 0.5, 0.0, 0.1)})
    one = equivae.evaluation.Panel("i", "回", *(torch.zeros(3, 8, 8),) * 3, None)
    two = equivae.evaluation.Panel("i", "転", *(torch.zeros(3, 8, 8),) * 3, None)
    assert set(Report(metrics, panels=[one, two]).figures()) == {
        "panels_unnamed.png",
        "panels_unnamed_2.png",
    }


def test_json_has_only_characters():
    assert json_types({"a\udcff": ["b\udc80", float("nan"), ("c",)]}) == {
        "a\\udcff": ["b\\udc80", None, ["c"]]
    }
