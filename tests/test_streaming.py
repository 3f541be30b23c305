"""Streams: what is read, in which order, by which process, and from where a run goes on."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import equivae
from equivae import InputError, Report
from equivae.data import load_images
from equivae.data.shards import open_shards
from equivae.data.sources import load_stream
from equivae.data.streaming import Decoding, ImageStream
from forked import run_two
from models import noise, tiny_kl
from test_cli import call
from test_finetune import changed, finetune, weights
from test_resume import without_time

COUNTS = (5, 4, 6)  # images of three shards
OPTIONS = {"max_train_steps": 7, "logging_steps": 2, "shuffle_buffer": 4, "stream_head": 5}


def encoded(seed: int, size: tuple[int, int] = (16, 16), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number, count in enumerate(COUNTS):
        members: dict[str, bytes] = {}
        for i in range(count):
            members[f"{number}{i}.png"] = encoded(10 * number + i)
            members[f"{number}{i}.json"] = b'{"label": 1}'
        write_shard(folder / f"train-{number:04d}.tar", members)
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})


def stream(source: Any, **options: Any) -> ImageStream:
    found = load_stream(source, **{"shuffle_buffer": 4, **options})
    assert found is not None
    return found


def names(found: ImageStream, count: int, rank: int = 0, processes: int = 1, place: Any = None):
    return [e.name for e in islice(found.examples(rank, processes, place), count)]


# Order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 4, 100])
def test_every_pass_has_every_image_once_in_another_order(shards: Path, buffer: int) -> None:
    found = stream(shards, shuffle_buffer=buffer)
    seen = names(found, 45)
    passes = [seen[i : i + 15] for i in (0, 15, 30)]
    assert all(len(set(one)) == 15 for one in passes)
    assert passes[0] != passes[1] or passes[1] != passes[2]  # of three shards there are six orders
    assert seen == names(stream(shards, shuffle_buffer=buffer), 45)
    assert seen != names(stream(shards, shuffle_buffer=buffer, seed=1), 45)
    assert buffer == 1 or seen[:15] != sorted(seen[:15])
    assert seen[0].startswith("train-000")


def test_reading_goes_on_behind_any_image(shards: Path) -> None:
    whole = list(islice(stream(shards).examples(0, 1), 40))
    for cut in range(1, 33):
        place = json.loads(json.dumps(whole[cut - 1].place))  # as a checkpoint holds it
        assert names(stream(shards), 7, place=place) == [e.name for e in whole[cut : cut + 7]]


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_the_images_without_repeats(
    shards: Path, processes: int, caplog: pytest.LogCaptureFixture
) -> None:
    every: list[str] = []
    for rank in range(processes):
        mine = shares(stream(shards), rank, processes)
        assert mine == set(names(stream(shards), len(mine), rank, processes))  # once in a pass
        every += mine
    assert len(every) == len(set(every)) == 15
    with caplog.at_level(logging.WARNING):
        stream(shards).say_how_it_is_shared(processes)
    said = {2: "do not divide by 2", 3: "", 4: "3 shards for 4 processes"}[processes]
    assert (said in caplog.text) if said else not caplog.records


def shares(found: ImageStream, rank: int, processes: int) -> set[str]:
    """The images of a process in its first pass."""
    mine: set[str] = set()
    for example in found.examples(rank, processes):
        if example.place["pass"]:
            return mine
        mine.add(example.name)
    raise AssertionError


# What is read -------------------------------------------------------------------------------------


def test_tar_shards_by_folder_file_pattern_and_address(shards: Path) -> None:
    folder = str(shards)
    for source in (shards, f"{folder}/*.tar", f"{folder}/train-{{0000..0002}}.tar"):
        assert len(stream(source).shards) == 3
    assert names(stream(shards / "train-0001.tar", shuffle_buffer=1), 4) == [
        f"train-0001/1{i}" for i in range(4)
    ]
    images = load_images(shards, resolution=8, max_samples=7)
    assert len(images) == 7
    assert images[0].shape == (3, 8, 8)
    by_hand = load_images([Image.open(io.BytesIO(encoded(11)))])[0]
    assert load_images(shards, max_samples=7)[6].equal(by_hand)


def test_a_folder_of_pictures_with_an_archive_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(0))
    write_shard(tmp_path / "backup.tar", {"0.png": encoded(1)})
    assert load_images(tmp_path).names == ["a.png"]


def test_shards_may_mix_kinds_of_pictures(tmp_path: Path) -> None:
    mixed = {f"{i}.png": encoded(i) for i in range(5)} | {"9.jpg": encoded(9, kind="JPEG")}
    write_shard(tmp_path / "a.tar", {"0.jpg": encoded(0, kind="JPEG"), "0.png": encoded(0)})
    write_shard(tmp_path / "b.tar", mixed)
    assert len(load_images(tmp_path, max_samples=7, image_column=None)) == 7


def test_streams_of_datasets(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": encoded(i), "path": None} for i in range(6)]
    table = datasets.Dataset.from_dict({"image": rows}, features=features)
    found = stream(table.to_iterable_dataset(num_shards=3))
    assert len(set(names(found, 6))) == 6
    table.to_parquet(tmp_path / "train.parquet")
    assert len(stream(tmp_path, streaming=True).shards) == 1
    assert load_stream(tmp_path) is None  # read by position unless asked for

    def generate(parts: list[int]) -> Any:
        for part in parts:
            yield {"pixel_values": np.full((8, 8, 3), part, np.uint8)}

    made = datasets.IterableDataset.from_generator(generate, gen_kwargs={"parts": [1, 2, 3]})
    assert load_images(made, max_samples=2)[1].unique().tolist() == pytest.approx([2 / 127.5 - 1])


def test_a_broken_picture_is_replaced_by_its_neighbour(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {f"{i}.png": encoded(i) for i in range(3)} | {"9.png": b"no"})
    found = stream(tmp_path, shuffle_buffer=1)
    batch = Decoding(found.preparing).__getitems__(list(islice(found.examples(0, 1), 4)))
    assert [(name, reason) for _, name, reason in batch if reason] == [
        ("a/9", "not an image that Pillow knows")
    ]
    assert batch[3][0].equal(batch[0][0])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("*.zip", {}, r"no file matches .*\.zip"),
        ("train-{0000..0005}.tar", {}, r"no file is called .*train-0003\.tar"),
        ("", {}, "say with max_samples how many"),
    ],
)
def test_what_is_no_stream_is_refused(shards: Path, source: str, options: Any, message: str):
    with pytest.raises(InputError, match=message):
        load_images(f"{shards}/{source}", **options)


def test_streams_that_cannot_be_resumed_or_shared_are_refused() -> None:
    from datasets.distributed import split_dataset_by_node

    made = datasets.Dataset.from_dict({"image": [[0]]}).to_iterable_dataset()
    with pytest.raises(InputError, match=r"leave out \.shuffle"):
        open_shards(made.shuffle(seed=0))
    with pytest.raises(InputError, match="split by node already"):
        open_shards(split_dataset_by_node(made, 0, 2))
    with pytest.raises(InputError, match="Tensor is in memory already"):
        load_images(noise(2, 3, 8, 8), streaming=True)


def test_evaluate_takes_the_first_of_a_stream(shards: Path, capsys: Any) -> None:
    report = equivae.evaluate(tiny_kl(), shards, "hflip", max_samples=3, progress=False)
    assert report.metrics.images == 3
    with pytest.raises(InputError, match="max_samples"):
        equivae.evaluate(tiny_kl(), shards, "hflip", progress=False)


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (3, {"random_flip": True, "dataloader_num_workers": 1}),
        (5, {"gradient_accumulation_steps": 2, "use_ema": True, "crop_size": 8}),
    ],
)
def test_a_run_over_a_stream_resumes_bit_for_bit(
    tmp_path: Path, shards: Path, step: int, options: Any
) -> None:
    options = {**OPTIONS, "images": shards, **options}
    checkpoints = {"checkpointing_steps": step, "checkpoints_total_limit": None}
    whole = finetune(tmp_path / "whole", **options, **checkpoints)
    name = f"checkpoint-{step}"
    shutil.copytree(tmp_path / "whole" / name, tmp_path / "cut" / name)
    options |= {"dataloader_num_workers": 0}  # the order is the same whatever the workers
    cut = finetune(tmp_path / "cut", **options, **checkpoints, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(cut.vae)) == set()
    assert without_time(cut.history) == without_time(whole.history)
    assert whole.report.settings["training_images"] == "a stream"


def test_held_out_images_are_not_learned_from(tmp_path: Path, shards: Path, monkeypatch) -> None:
    from equivae.training import streams

    seen: list[str] = []
    remember = streams.StreamBatches._remember

    def note(self: Any, samples: int, examples: Any) -> None:
        seen.extend(e.name for e in examples)
        remember(self, samples, examples)

    monkeypatch.setattr(streams.StreamBatches, "_remember", note)
    options = {**OPTIONS, "validation_split": 0.4, "stream_head": 5, "bottleneck_steps": 0}
    result = finetune(tmp_path, images=shards, **options)
    assert result.report.metrics.images == 2
    head = {f"train-0000/0{i}" for i in range(5)}
    assert len(set(seen)) == 13
    assert len(head & set(seen)) == 3


def test_a_shard_that_changes_is_named(tmp_path: Path, shards: Path) -> None:
    mine = tmp_path / "shards"
    shutil.copytree(shards, mine)
    options = {**OPTIONS, "images": mine, "checkpointing_steps": 3, "max_train_steps": 3}
    options |= {"stream_head": 2}
    finetune(tmp_path / "run", **options)
    options |= {"resume_from_checkpoint": "latest", "max_train_steps": 5}
    other = {f"1{i}.png": encoded(90 + i) for i in range(4)}
    found = stream(mine)
    write_shard(mine / "train-0001.tar", other)
    with pytest.raises(InputError, match=r"train-0001\.tar is another file now"):
        finetune(tmp_path / "run", **options)
    with pytest.raises(InputError, match=r"shard train-0001\.tar is another file than when"):
        names(found, 15)
    (mine / "train-0001.tar").unlink()
    with pytest.raises(InputError, match=r"train-0001\.tar is gone"):
        finetune(tmp_path / "run", **options)


def test_what_needs_a_length_or_sizes_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(InputError, match="the run needs max_train_steps"):
        finetune(tmp_path / "a", images=shards, max_train_steps=None)
    with pytest.raises(InputError, match="enable_bucket needs images whose sizes are known"):
        finetune(tmp_path / "a", images=shards, enable_bucket=True, resolution=16)
    drawn = datasets.IterableDataset.from_generator(
        lambda: ({"image": torch.rand(3, 16, 16).numpy()} for _ in range(6))
    )
    with pytest.raises(InputError, match="pass validation_images"):
        finetune(tmp_path / "a", images=drawn)
    assert not (tmp_path / "a").exists()


def test_the_command_line_streams(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_kl().save_pretrained(tmp_path / "vae")
    words = ["--transforms", "hflip", "--max_train_steps", "2", "--train_batch_size", "2"]
    words += ["--stream_head", "4", "--bottleneck_steps", "0", "--sweep_samples", "0"]
    vae, images = ["--pretrained_model_name_or_path", str(tmp_path / "vae")], f"{shards}/*.tar"
    out = ["--output_dir", str(tmp_path / "out")]
    assert call(monkeypatch, "finetune", *vae, "--train_data_dir", images, *words, *out) == 0
    recipe = (tmp_path / "out" / "recipe.yaml").read_text()
    assert images in recipe


TWO = """
import json, os, shutil, sys
import torch
import equivae
from equivae.training import streams
from test_streaming import OPTIONS, tiny_kl

seen = []
remember = streams.StreamBatches._remember


def note(self, samples, examples):
    seen.extend(e.name for e in examples)
    remember(self, samples, examples)


streams.StreamBatches._remember = note
equivae.Report.figures = lambda self: {}
folder, shards = sys.argv[1:]
options = {**OPTIONS, "train_batch_size": 2, "checkpointing_steps": 4, "progress": False}
options |= {"checkpoints_total_limit": None, "bottleneck_steps": 0, "max_eval_samples": 2}
equivae.finetune(tiny_kl(), shards, "hflip", f"{folder}/whole", **options)
rank = int(os.environ["RANK"])
with open(f"{folder}/seen-{rank}.json", "w") as file:
    json.dump(seen, file)
if rank == 0:
    shutil.copytree(f"{folder}/whole/checkpoint-4", f"{folder}/cut/checkpoint-4")
torch.distributed.barrier()
options |= {"resume_from_checkpoint": "latest"}
equivae.finetune(tiny_kl(), shards, "hflip", f"{folder}/cut", **options)
equivae.finetune(tiny_kl(), shards, "hflip", f"{folder}/one", **options)
"""


def test_two_processes_stream_apart_and_resume_bit_for_bit(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file

    script = tmp_path / "two.py"
    script.write_text(TWO)
    options = {**OPTIONS, "images": shards, "transforms": "hflip", "learning_rate": 3e-4}
    options |= {"bottleneck_steps": 0, "max_eval_samples": 2, "checkpointing_steps": 4}
    options |= {"checkpoints_total_limit": None}
    finetune(tmp_path / "alone", **options)
    shutil.copytree(tmp_path / "alone" / "checkpoint-4", tmp_path / "one" / "checkpoint-4")
    done = run_two(script, tmp_path, shards)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "do not divide by 2" in done.stderr
    assert "checkpoint-4 is of a run on 1 processes, this one has 2: weights, optim" in done.stderr
    went_on = json.loads((tmp_path / "one" / "checkpoint-7" / "run.json").read_text())
    assert min(place["pass"] for place in went_on["places"]) == 1  # afresh, in another order
    longer = {**options, "max_train_steps": 8, "resume_from_checkpoint": "latest"}
    with caplog.at_level(logging.WARNING):
        finetune(tmp_path / "cut", **longer)
    assert "is of a run on 2 processes, this one has 1: weights, optimiser" in caplog.text
    seen = [set(json.loads((tmp_path / f"seen-{rank}.json").read_text())) for rank in (0, 1)]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 14  # but for the one that is held out
    whole, cut = (
        load_file(tmp_path / part / "diffusion_pytorch_model.safetensors")
        for part in ("whole", "cut")
    )
    assert changed(whole, cut) == set()
