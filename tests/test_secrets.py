"""No secret is written, logged, uploaded or shown; and no name leads out of the folder it belongs to."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import equivae
from equivae import FinetuneConfig, InputError, UploadError
from equivae.errors import first_line
from equivae.files.writing import child, write_beside, write_folder_beside
from equivae.operators import FittedTransform, load_latent_op
from equivae.operators.modules import ConvOperator
from equivae.reporting.content import command_line
from equivae.reporting.text import file_names
from equivae.secrets import (
    carries_secret,
    hiding_secrets,
    redact,
    redact_arguments,
    register_secret,
)

TOKEN = "hf_" + "ab1" * 11
EVIL = [
    "../../evil",
    "/tmp/evil",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "",
    " ",
    "-rf",
    "x" * 201,
    "a\0b",
    "a\nb",
]


# Secrets ------------------------------------------------------------------------------------------


def test_secrets_are_known_by_looks_option_environment_and_registration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register_secret("correct horse")
    monkeypatch.setenv("HF_TOKEN", "battery staple")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    shown = redact(
        f"{TOKEN} correct horse battery staple 0123456789abcdef Bearer abcdefgh123 "
        "https://me:mine@hub.example/x"
    )
    assert shown == "*** *** *** *** Bearer *** https://***@hub.example/x"
    assert redact("hf_checkpoints of a horse") == "hf_checkpoints of a horse"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--hub_token", "x1", "--seed", "3"], ["--hub_token", "***", "--seed", "3"]),
        (["--hub_token=x1"], ["--hub_token=***"]),
        (["--token", "x1", "y"], ["--token", "***", "y"]),
        (["--api-key", "x1"], ["--api-key", "***"]),
        (["--hub_token", "--seed", "3"], ["--hub_token", "--seed", "3"]),
        (["--tokens_per_batch", "8"], ["--tokens_per_batch", "8"]),
        ([f"in/{TOKEN}/x"], ["in/***/x"]),
    ],
)
def test_the_command_line_without_secrets(
    given: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redact_arguments(given) == shown
    monkeypatch.setattr("sys.argv", ["/usr/bin/equivae", *given])
    assert shlex.split(command_line()) == ["equivae", *shown]


def test_the_names_of_secret_options_say_that_they_are() -> None:
    secret = [option.name for option in fields(FinetuneConfig) if option.metadata["secret"]]
    assert secret == ["hub_token"]
    for option in fields(FinetuneConfig):
        assert carries_secret(option.name) == option.metadata["secret"], option.name


def test_a_config_registers_its_token_even_where_it_is_refused() -> None:
    FinetuneConfig(hub_token="one-good-token")
    with pytest.raises(InputError):
        FinetuneConfig(hub_token="one bad token", train="decodr")  # type: ignore[arg-type]
    assert redact("one-good-token, one bad token") == "***, ***"


@pytest.mark.parametrize("kind", [InputError, UploadError])
def test_errors_quote_no_token(kind: type[Exception]) -> None:
    hub = RuntimeError(f"401 for https://hub.example/api with token {TOKEN}")
    assert TOKEN not in str(kind(f"the hub refuses: {first_line(hub)}."))


def test_texts_are_written_without_secrets_and_other_bytes_as_they_are(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "run.json").write_text(json.dumps({"token": TOKEN}))
        (folder / "latin.txt").write_bytes(b"caf\xe9")
        (folder / "weights.bin").write_bytes(TOKEN.encode())

    write_folder_beside(tmp_path / "run", write)
    write_beside(tmp_path / "report.md", lambda path: path.write_text(f"by {TOKEN}"))
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"token": "***"}
    assert (tmp_path / "run" / "latin.txt").read_bytes() == b"caf\xe9"
    assert (tmp_path / "run" / "weights.bin").read_bytes() == TOKEN.encode()
    assert (tmp_path / "report.md").read_text() == "by ***"


def test_every_text_is_written_by_the_functions_that_hide_secrets() -> None:
    source = Path(equivae.__file__).parent
    writers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for code in [re.sub(r'""".*?"""', "", path.read_text(), flags=re.S)]
        if re.search(r"\.write_text\(|\.write_bytes\(|\bopen\([^)]*['\"][wax]", code)
        and "write_beside" not in code
    }
    # A config of a published layout, in a temporary folder; checkpoints and the best VAE are written by
    # write_folder_beside; a cache's manifest holds a digest and the name of a move, its lock a number;
    # kohya's archives and the kept rows hold arrays, beside what they are, in names of classes and numbers.
    known = {"files/single_file.py", "files/writing.py"}
    known |= {f"training/{name}.py" for name in ("checkpoints", "kept", "rows", "validation")}
    assert writers <= known | {"caches/kohya.py", "caches/plain.py", "caches/writing.py"}


def test_what_is_printed_is_redacted_and_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr("sys.stdout", screen)
    with hiding_secrets():
        print(f"{TOKEN} of caf\xe9 \udcff \u2713")
        assert sys.stdout.encoding == "latin-1"
    assert sys.stdout is screen
    assert screen.buffer.getvalue() == b"*** of caf\xe9 \\udcff \\u2713\n"  # type: ignore[attr-defined]


# Names that become paths --------------------------------------------------------------------------


def fitted(name: str | None = "op") -> FittedTransform:
    return FittedTransform(
        equivae.get_transform("hflip"), ConvOperator(2, (1, 1), "zeros"), name=name
    )


@pytest.mark.parametrize("name", EVIL)
def test_a_fitted_transform_has_no_name_that_leads_elsewhere(name: str) -> None:
    if name:  # an empty one stands for the usual one
        with pytest.raises(InputError, match="cannot be used: it becomes the name of a file"):
            fitted(name)
    with pytest.raises(InputError, match="cannot be used"):
        child(Path("out"), name)


def test_fit_refuses_a_name_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "equivae.operators.fit.load_vae", lambda *a, **k: pytest.fail("it loaded the VAE")
    )
    with pytest.raises(InputError, match=r"name '\.\./\.\./evil' cannot be used"):
        equivae.fit_latent_op("embedded", "hflip", torch.zeros(2, 3, 16, 16), name="../../evil")


@pytest.mark.parametrize("name", ["../../evil", 5, ["op"]])
def test_a_saved_latent_op_with_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, name: object
) -> None:
    made = fitted()
    folder = made.save(tmp_path / "op")
    weights = load_file(folder / "latent_op.safetensors")
    header = json.dumps({**made.header(), "name": name})
    save_file(weights, folder / "latent_op.safetensors", {"equivae": header})
    with pytest.raises(InputError, match="cannot be used"):
        load_latent_op(folder)


def test_a_symmetrized_folder_reads_no_context_from_elsewhere(tmp_path: Path) -> None:
    vae = equivae.zoo.load()
    images = equivae.data.dead_leaves(2, size=64)
    equivae.symmetrize(vae, "c2", images=images, progress=False).save_pretrained(tmp_path / "s")
    path = tmp_path / "s" / "symmetrize.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "context": ["x/../../evil"]}))
    with pytest.raises(InputError, match="cannot be used"):
        equivae.load_vae(tmp_path / "s")


def test_names_of_files_are_bounded_and_stay_apart() -> None:
    long, other = "a" * 300 + "b", "a" * 300 + "c"
    named = file_names([long, other, "../../evil"])
    assert len(set(named.values())) == 3
    assert all(len(name) < 110 and "/" not in name for name in named.values())
    assert fitted(None).name == "hflip_fitted"
