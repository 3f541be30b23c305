"""What the command line says when something is wrong, and what it never says: secrets."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import typer
from accelerate import PartialState
from huggingface_hub.errors import LocalTokenNotFoundError
from PIL import Image

import equivae
from doc_blocks import load_script
from equivae import InputError, RunInterrupted
from equivae.cli import main
from equivae.cli.program import app
from equivae.cli.words import as_options, options_of, shortened
from equivae.files.hub import open_repo
from equivae.reporting.report import Report
from tiny_pipeline import tiny_vae

TOKEN = "hf_" + "Zz9" * 11
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(4):
        noise = Image.effect_noise((16, 16), 90).convert("RGB")
        noise.save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of stderr."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# Secrets ------------------------------------------------------------------------------------------


class Hub:
    """Stands for `HfApi`, and quotes the token in what it says, as an address in an error does."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.token, self.files = fails, "", dict[str, bytes]()

    def __call__(self, token: str) -> Hub:
        self.token = token
        return self

    def _answer(self, name: str) -> None:
        print(f"{name} with {self.token}")
        if name == self.fails:
            raise RuntimeError(f"401 for https://someone:{self.token}@hub/api with {self.token}")

    def whoami(self) -> None:
        self._answer("whoami")

    def create_repo(self, name: str, **_: Any) -> Any:
        self._answer("create_repo")
        return huggingface_hub.RepoUrl(f"https://huggingface.co/someone/{name}")

    def upload_folder(self, *, folder_path: Path, allow_patterns: list[str], **_: Any) -> None:
        self._answer("upload_folder")
        self.files = {name: (folder_path / name).read_bytes() for name in allow_patterns}


@pytest.mark.parametrize(
    ("fails", "form"), [("", "apart"), ("whoami", "joined"), ("upload_folder", "joined")]
)
def test_the_token_is_written_uploaded_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    photos: Path,
    fails: str,
    form: str,
) -> None:
    hub = Hub(fails)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(Report, "figures", lambda self: {})
    tiny_vae().save_pretrained(tmp_path / "vae")
    token = "a-token-that-looks-like-none" if fails else TOKEN
    given = ["--hub_token", token] if form == "apart" else [f"--hub_token={token}"]
    code = call(
        monkeypatch,
        *("finetune", "--pretrained_model_name_or_path", tmp_path / "vae"),
        *("--train_data_dir", photos, "--output_dir", tmp_path / "out", "--max_train_steps", 1),
        *("--bottleneck_steps", 0, "--push_to_hub", *given),
    )
    shown = capfd.readouterr()
    assert hub.token == token
    assert code == {"": 0, "whoami": 2, "upload_folder": 1}[fails], shown.err
    assert "***" in shown.out  # the hub printed it
    for text in (shown.out, shown.err):
        assert token not in text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if token.encode() in path.read_bytes()]
    assert not [name for name, content in hub.files.items() if token.encode() in content]
    if not fails:
        assert {"README.md", "report.json", "report.md", "report.html"} <= set(hub.files)
        assert b"--hub_token" in hub.files["report.json"]


def test_a_traceback_shows_no_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"a fault of ours with {TOKEN}")

    monkeypatch.setattr(equivae, "evaluate", broken, raising=False)
    arguments = ["evaluate", "--pretrained_model_name_or_path", "embedded", "--data_dir", photos]
    assert call(monkeypatch, *arguments) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "a fault of ours with ***" in said
    assert TOKEN not in said


def test_a_token_among_wrong_options_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["demo", "--seed", TOKEN], ["finetune", "--train", TOKEN], [TOKEN]):
        assert call(monkeypatch, *words) == 2
        assert TOKEN not in sentence(capsys)


# Sentences ----------------------------------------------------------------------------------------

RAISED = {
    "interrupt": (KeyboardInterrupt(), 130, "interrupted."),
    "signal": (RunInterrupted("the run is saved.", 15), 143, "the run is saved."),
    "system": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"),
        2,
        "/x: No space left on device.",
    ),
    "socket": (TimeoutError("the hub is slow"), 2, "the hub is slow."),
}


@pytest.mark.parametrize("case", RAISED)
def test_errors_of_the_system_and_interrupts_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, case: str
) -> None:
    error, code, said = RAISED[case]

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(equivae, "evaluate", broken, raising=False)
    arguments = ["evaluate", "--pretrained_model_name_or_path", "embedded", "--data_dir", photos]
    assert call(monkeypatch, *arguments) == code
    assert sentence(capsys) == said


def test_a_missing_token_is_one_short_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def whoami(self: object) -> None:
        raise LocalTokenNotFoundError(
            "Token is required to call the /whoami-v2 endpoint. See https://..."
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", whoami)
    with pytest.raises(InputError) as error:
        open_repo("owner/name")
    said = as_options(str(error.value), OPTIONS | {"hub_token": []})
    assert said == "--push_to_hub needs a token: run `hf auth login`, or pass --hub_token."


def test_the_folder_of_a_run_may_be_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photos: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-4" / "run.json").write_text("{}")
    words = ["--pretrained_model_name_or_path", "embedded", "--train_data_dir", str(photos)]
    assert call(monkeypatch, "finetune", *words, "--output_dir", str(tmp_path / "run")) == 2
    assert "or go on with its run by --resume_from_checkpoint latest." in sentence(capsys)


def test_images_of_several_sizes_ask_for_a_resolution(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    Image.new("RGB", (32, 16)).save(photos / "wide.png")
    words = ["--pretrained_model_name_or_path", "embedded", "--train_data_dir", str(photos)]
    assert call(monkeypatch, "finetune", *words, "--output_dir", str(photos / "out")) == 2
    assert "; pass --resolution 256, or another one, to which they are" in sentence(capsys)


def test_of_several_processes_one_says_which_signal_ended_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RunInterrupted("the run is saved.", 15)

    monkeypatch.setattr(equivae, "evaluate", broken, raising=False)
    arguments = ["evaluate", "--pretrained_model_name_or_path", "embedded", "--data_dir", photos]
    for index, said in ((0, "the run is saved."), (1, "")):
        monkeypatch.setattr(PartialState, "is_main_process", not index)
        assert call(monkeypatch, *arguments) == 143
        assert said in capsys.readouterr().err
    assert not capsys.readouterr().err


REFUSED = {
    "demo --max_train_steps -1": "--max_train_steps must be at least 1, got -1.",
    "demo --seed -1": "--seed must not be negative, got -1.",
    "finetune --hub_model_id x": "--hub_model_id x does nothing without --push_to_hub",
    "finetune --hub_private": "--hub_private does nothing without --push_to_hub",
    "finetune --fit_operator": "--fit_operator needs --train decoder, got --train all",
    "finetune --lr_scheduler piecewise_constant": "--lr_scheduler piecewise_constant needs step",
    "finetune --learning_rate inf": "--learning_rate must be a finite number, got inf.",
    "finetune --output_dir FILE/x": "--output_dir FILE/x cannot be made: ",
    "finetune --transforms ,": "--transforms , names none",
    "evaluate --max_samples 0": "--max_samples must be at least 1, got 0.",
    "evaluate --features resnet": "--features must be 'inception' or a callable",
    "evaluate --data_dir nowhere": "--data_dir nowhere does not exist; pass a folder of images.",
    "evaluate --background blu": "--background blu is not a colour",
    "evaluate --model_config_name_or_path sdxl": "--model_config_name_or_path sdxl is for a single",
    "finetune --mixed_precision fp17": "Invalid value for '--mixed_precision': 'fp17' is not one of",
    "finetune --max_train_steps x": "Invalid value for '--max_train_steps': it should be a valid int",
    "finetune --train_data_dir shard/*.tar": "no file matches shard/*.tar; pass shards that are",
    "finetune --report_to csv": "--report_to csv is unknown.",
    "fit --name ../../evil": "--name '../../evil' cannot be used",
    "fit --ridge inf": "--ridge must be a finite number, got inf.",
    "fit --kernel_size ²": "--kernel_size must be an odd number or 'auto'",
    "fit --validation_split 0": "--validation_split must lie in (0, 1), got 0.0.",
    "export --dtype fp8": "--dtype fp8 is unknown.",
    "export --output_file x.txt": "the exported file has to end in .safetensors, got 'x.txt'.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_before_any_work_in_the_words_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    photos: Path,
    words: str,
) -> None:
    command, option, *value = words.split()
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    usual = {"--output_file": "x.safetensors"} if command == "export" else {"--output_dir": "out"}
    if command != "demo":
        usual["--pretrained_model_name_or_path"] = "embedded"
    if command in ("finetune", "fit"):
        usual["--train_data_dir"] = str(photos)
    if command == "evaluate":
        usual["--data_dir"] = str(photos)
    usual.pop(option, None)
    arguments = [word for pair in usual.items() for word in pair]
    assert call(monkeypatch, command, *arguments, option, *value) == 2
    assert sentence(capsys).startswith(REFUSED[words])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "photos"]


OPTIONS = {
    "hub_private": ["--hub_private", "--no_hub_private"],
    "push_to_hub": ["--push_to_hub", "--no_push_to_hub"],
    "overwrite": ["--overwrite"],
    "scaled": ["--scaled", "--unscaled"],
    "train": [],
    "seed": [],
    "max_samples": [],
}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("hub_private=True needs push_to_hub.", "--hub_private needs --push_to_hub."),
        ("push_to_hub=False here", "--no_push_to_hub here"),
        ("say so with scaled=False for", "say so with --unscaled for"),
        ("overwrite=False keeps", "no --overwrite keeps"),
        ("seed must not be negative", "--seed must not be negative"),
        ("the seed and the train", "the seed and the train"),
        ("use `seed` or train='all'.", "use --seed or --train all."),
        ("train='a b' is unknown", "--train 'a b' is unknown"),
        ("max_samples=3. No", "--max_samples 3. No"),
        ("/tmp/max_samples/x and set_max_samples(1)", "/tmp/max_samples/x and set_max_samples(1)"),
        ("spectrum(seed=3) is one", "spectrum(seed=3) is one"),
        ("--max_samples 3 stays", "--max_samples 3 stays"),
    ],
)
def test_messages_in_the_words_of_the_command_line(said: str, shown: str) -> None:
    assert as_options(said, OPTIONS) == shown


COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_a_message_can_name_is_one(command: str) -> None:
    options = options_of(COMMANDS[command])
    known = {word for one in COMMANDS[command].params for word in [*one.opts, *one.secondary_opts]}
    said = [f"pass {name}={value}." for name in options for value in (True, False)]
    for message in said:
        typed = re.findall(r"--[\w-]+", as_options(message, options))
        assert len(typed) == 1
        assert set(typed) <= known, message


# Of the program and of every command; of accelerate, pip and hf.
FURTHER = {
    "--version",
    "--help",
    "--multi_gpu",
    "--no-deps",
    "--exclude",
    "--no_",
    "--name",
    "--no_name",
}


def test_every_option_in_the_sources_is_one() -> None:
    """What messages and help write out."""
    known = {
        w for one in COMMANDS.values() for p in one.params for w in [*p.opts, *p.secondary_opts]
    }
    root = Path(equivae.__file__).parent
    named = {
        (word, path.name)
        for path in root.rglob("*.py")
        if path.parent.name != "reporting"  # whose pages have style sheets
        for word in re.findall(r"(?<![\w-])--[a-z]\w[\w-]*\w(?![\w-]*})", path.read_text("utf-8"))
    }
    assert len(named) > 30
    assert sorted(one for one in named if one[0] not in known | FURTHER) == []


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert shortened("a\nb  c") == "a b c"
    assert len(shortened("x" * 5000)) < 150
    assert len(shortened("word " * 500)) <= 600


# Nonsense -----------------------------------------------------------------------------------------


def test_nonsense_is_refused_or_may_be_meant() -> None:
    """A sample; `python benchmarks/nonsense_options.py` tries all."""
    import random

    nonsense = load_script(BENCHMARKS / "nonsense_options.py")
    every = nonsense.cases()
    assert len(every) > 4000
    trials = nonsense.try_all(random.Random(1).sample(every, 80))
    good = ("refused", "taken, may be meant")
    assert [trial for trial in trials if trial.outcome not in good] == []
    assert {trial.outcome for trial in trials} == set(good)
