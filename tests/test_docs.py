"""Every code block of the README and of the docs runs, or is checked against the real signatures."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from doc_blocks import (
    NOTEBOOK_PAGE,
    ROOT,
    Block,
    blocks,
    check_calls,
    check_command,
    commands,
    pages,
)
from equivae import InputError
from equivae.transforms import registry

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
MARKED = [b for b in BLOCKS if b.language == "python" and b.needs]
SHELL = [b for b in BLOCKS if b.language == "bash"]
USAGE_ERROR = typer.BadParameter.__mro__[1]  # click's own or the one that newer typers bring along
CHECKED_ELSEWHERE = {"toml", "bibtex", "text"}  # nothing to run
DIFFS = [b for b in BLOCKS if b.language == "diff"]


def running(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.language == "python" and not b.needs]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if running(p) and p != NOTEBOOK_PAGE], ids=lambda p: p.name
)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in ("_FACTORIES", "_BUILTIN_GROUPS", "_PLUGIN_PACKAGES"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem.replace("-", "_")}
    for block in running(page):
        # Line numbers of an error are those of the page.
        code = "\n" * block.line + block.code
        exec(compile(code, block.page, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("block", MARKED, ids=str)
def test_the_calls_of_what_cannot_run_here_are_right(block: Block) -> None:
    assert check_calls(block.code) > 0


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_exist_and_take_these_options(block: Block) -> None:
    found = list(commands(block.code))
    assert found
    for words in found:
        check_command(words)


@pytest.mark.parametrize("block", DIFFS, ids=str)
def test_a_diff_is_python_before_and_after(block: Block) -> None:
    for side in "-+":
        lines = [line[2:] for line in block.code.splitlines() if line[:1] in (" ", side)]
        compile("\n".join(lines), block.page, "exec")


def test_no_block_is_left_out() -> None:
    known = {"python", "bash", "diff", *CHECKED_ELSEWHERE}
    assert [str(b) for b in BLOCKS if b.language not in known] == []
    assert {b.page for b in BLOCKS} >= {"README.md", "docs/get-started.md", "docs/concepts.md"}
    assert all(b.needs in (None, "network", "GPU", "network, GPU") for b in BLOCKS)


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (check_calls, "import equivae\nequivae.finetune('a', 'b', learning_rat=1.0)"),
        (check_calls, "import equivae\nequivae.evaluate('a', 'b', transforms='hflop')"),
        (check_calls, "import equivae\nequivae.evaluate('a', 'b', resolutio=1)"),
        (check_calls, "from diffusers import AutoencoderKLL"),
    ],
)
def test_a_wrong_call_is_found(check, code) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        check(code)


@pytest.mark.parametrize(
    "line",
    [
        "equivae finetun --output_dir a",
        "equivae finetune --pretrained_model_name_or_path a --resolutio 256",
        "equivae finetune --pretrained_model_name_or_path a --transforms hflop",
        "equivae finetune --pretrained_model_name_or_path a --recipe none",
        "equivae evaluate --data_dir a",
        "python examples/sotemix_rot180.py --output_dir a --nothing 1",
        "pip install equivae[nothing]",
        "make nothing",
        "curl example.org",
    ],
)
def test_a_wrong_command_is_found(line) -> None:
    words = next(commands(line))
    with pytest.raises((KeyError, AssertionError, InputError, USAGE_ERROR)):
        check_command(words)


def test_a_signature_shows_defaults_and_not_how_they_are_declared() -> None:
    griffe = pytest.importorskip("griffe", reason="it comes with equivae[docs]")
    tool = griffe.load_extensions(str(ROOT / "docs" / "tools" / "option_defaults.py"))
    package = griffe.load("equivae", search_paths=[ROOT / "src"], extensions=tool)
    fields = {
        each.name: str(each.default) for each in package["training.FinetuneConfig"].parameters
    }
    assert fields["learning_rate"] == "0.0003"
    assert not [name for name, default in fields.items() if "(" in default]
