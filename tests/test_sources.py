"""What all sources promise: they go to workers, tell themselves apart, replace what breaks, draw by place."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from equivae import InputError
from equivae.data import DeadLeaves, ImageDataset, Source, load_images
from forked import run_code
from models import noise


class Augmented(Dataset):
    """Draws from all three generators that users draw from."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        drawn = [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002
        return torch.tensor(drawn).reshape(3, 1, 1) * 2 - 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def rows(*shades: int) -> datasets.Dataset:
    pictures = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in shades]
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict({"image": pictures}, features=features)


def every_kind(folder: Path) -> dict[str, ImageDataset]:
    return {
        "folder": load_images(folder, resolution=4),
        "tensor": load_images(noise(3, 3, 8, 8), resolution=4),
        "rows": load_images(rows(0, 50), resolution=4),
        "dataset": load_images(DeadLeaves(2, 8), resolution=4),
        "list": load_images([noise(3, 8, 8)], resolution=4),
        "again": load_images(load_images(folder), resolution=4),
        "subset": load_images(folder, resolution=4).split(0.5, 0)[1],
    }


class Stripes(Source):
    """A source of a user's own."""

    names = ("a", "b")

    def read(self, index):
        return torch.full((3, 8, 8), index / 2)

    def about(self):
        return "stripes"

    def marks(self):
        return ["", ""]


def test_a_source_of_ones_own():
    images = load_images(Stripes(), resolution=4)
    assert images.names == ["a", "b"]
    torch.testing.assert_close(images[1], torch.full((3, 4, 4), 0.5))
    assert pickle.loads(pickle.dumps(images)).fingerprint() == images.fingerprint()


def test_a_split_of_what_has_none():
    for source in (noise(1, 3, 8, 8), [noise(3, 8, 8)], rows(0)):
        with pytest.raises(InputError, match="split='test' is for folders and data sets"):
            load_images(source, split="test")


# Workers ------------------------------------------------------------------------------------------


def test_every_kind_pickles(folder):
    for kind, images in every_kind(folder).items():
        again = pickle.loads(pickle.dumps(images))
        assert again.names == images.names, kind
        assert all(again[i].equal(images[i]) for i in range(len(images))), kind
        assert again.fingerprint() == images.fingerprint(), kind


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_every_start_method(folder, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    kinds = every_kind(folder)
    (folder / "1.png").unlink()
    images = ConcatDataset(list(kinds.values()))
    loader = DataLoader(images, 4, num_workers=1, multiprocessing_context=method)
    found = torch.cat(list(loader))
    assert found.equal(torch.stack([images[i] for i in range(len(images))]))
    assert [name for name, _ in kinds["folder"].replaced] == ["1.png"]


def test_what_a_worker_replaced_is_counted_here(folder):
    images = load_images(folder)
    (folder / "1.png").unlink()
    list(DataLoader(images, 2, num_workers=1, multiprocessing_context="fork"))
    assert [name for name, _ in images.replaced] == ["1.png"]


# Images that break --------------------------------------------------------------------------------


def test_an_image_that_vanishes_is_replaced_by_its_neighbour(folder, caplog):
    images = load_images(folder)
    whole, fingerprint = [images[i] for i in range(6)], images.fingerprint()
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes(b"broken")
    for _ in range(2):
        assert images[2].equal(whole[4])
        assert images[3].equal(whole[4])
    assert len(images) == 6
    assert images.fingerprint() == fingerprint
    assert images.replaced == [
        ("2.png", "the file is not there"),
        ("3.png", "not an image that Pillow knows"),
    ]
    assert caplog.text.count("image 2.png is replaced by 4.png: the file is not there") == 1


def test_the_last_is_replaced_by_the_first(folder):
    images = load_images(folder)
    first = images[0]
    (folder / "5.png").unlink()
    assert images[-1].equal(first)


def test_neighbours_are_of_the_same_part(folder):
    training, held_out = load_images(folder).split(0.5, 0)
    other = held_out[1]
    (folder / held_out.names[0]).unlink()
    assert held_out[0].equal(other)
    assert held_out.replaced
    assert training.replaced == []


def test_a_set_of_which_nothing_is_left(folder):
    images = load_images(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(
        InputError, match=r"image 1\.png cannot be read: .*, nor can the 5 after it"
    ):
        images[1]


def test_mistakes_of_a_dataset_are_not_replaced():
    class Wrong(Augmented):
        def __getitem__(self, index):
            if index == 1:
                raise KeyError("label")
            return torch.zeros(3, 4, 4)

    with pytest.raises(KeyError, match="label"):
        load_images(Wrong())[1]


def test_rows_whose_decoder_fails_are_replaced():
    class Files(Augmented):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("image file is truncated")
            return torch.full((3, 4, 4), index / 10)

    images = load_images(Files())
    assert images[1].equal(images[2])
    assert images.replaced == [("#1", "image file is truncated")]


# Fingerprints -------------------------------------------------------------------------------------


def test_fingerprints_tell_sets_apart(folder):
    x = noise(4, 3, 8, 8)
    images = load_images(folder)
    kinds = [
        images,
        load_images(folder, resolution=4),
        load_images(folder, resolution=8),
        load_images(folder, channels=1),
        load_images(folder, background="black"),
        load_images(folder, max_samples=3),
        images.subset([0, 1]),
        images.subset([1, 0]),
        *images.split(0.5, 0),
        load_images(x),
        load_images(x.flip(0)),
        load_images(-x),
        load_images(x[:3]),
        load_images(list(x)),
        load_images(list(x.flip(0))),
        load_images(rows(0, 50)),
        load_images(rows(0, 50), resolution=4),
        load_images(rows(0, 50).select([1, 0])),
        load_images(DeadLeaves(4, 8)),
        load_images(DeadLeaves(4, 8, seed=1)),
    ]
    found = [images.fingerprint() for images in kinds]
    assert len(set(found)) == len(found)
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in found)
    assert images.subset(range(6)).fingerprint() == images.fingerprint()
    assert load_images(images).fingerprint() == images.fingerprint()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "3.png")
    assert load_images(folder).fingerprint() != images.fingerprint()


def test_fingerprints_are_the_same_in_another_process_and_place(folder, tmp_path):
    program = (
        "import sys, torch\n"
        "from equivae.data import load_images\n"
        "folder, x = sys.argv[1], torch.arange(96.).reshape(2, 3, 4, 4) / 96\n"
        "found = [load_images(folder, resolution=4).split(0.5, 0)[0], load_images(x - 0.5)]\n"
        "print(*[images.fingerprint() for images in found])\n"
    )
    folder.rename(tmp_path / "moved")
    run = run_code(program, tmp_path / "moved")
    (tmp_path / "moved").rename(folder)
    x = torch.arange(96.0).reshape(2, 3, 4, 4) / 96
    here = [load_images(folder, resolution=4).split(0.5, 0)[0], load_images(x - 0.5)]
    assert run.stdout.split() == [images.fingerprint() for images in here], run.stderr


def test_items_that_differ_each_time_have_a_fingerprint_that_does_not():
    class Own(Augmented):
        draws = np.random.default_rng()

        def __getitem__(self, index):
            return torch.full((3, 4, 4), float(self.draws.random()))

    assert load_images(Own()).fingerprint() == load_images(Own()).fingerprint()
    assert load_images(Augmented()).fingerprint() == load_images(Augmented()).fingerprint()


def test_a_fingerprint_of_a_folder_decodes_nothing(folder, monkeypatch):
    images = load_images(folder)
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("a picture was opened"))
    images.fingerprint()


# Going on -----------------------------------------------------------------------------------------


def test_a_run_goes_on_without_an_image_that_is_gone(folder):
    before = load_images(folder)
    record = json.loads(json.dumps(before.record()))
    whole = [before[i] for i in range(6)]
    (folder / "2.png").unlink()
    Image.new("RGB", (8, 8)).save(folder / "new.png")
    images = load_images(folder).restore(record)
    assert images.names == before.names
    assert images.fingerprint() == before.fingerprint()
    assert images[2].equal(whole[3])
    assert images[5].equal(whole[5])
    assert images.replaced == [("2.png", "it is gone since the run began")]
    parts, again = before.split(0.5, 0), pickle.loads(pickle.dumps(images)).split(0.5, 0)
    assert [p.names for p in again] == [p.names for p in parts]
    assert [p.fingerprint() for p in again] == [p.fingerprint() for p in parts]


def test_the_order_is_that_of_the_run(folder):
    images = load_images(folder)
    turned = images.subset([5, 4, 3, 2, 1, 0])
    restored = turned.restore(images.record())
    assert restored.names == images.names
    assert restored[0].equal(images[0])
    assert images.restore(images.record()) is images


def test_other_images_are_not_taken_for_those_of_the_run(folder):
    record = load_images(folder).record()
    with pytest.raises(InputError, match="prepared differently from those of the run"):
        load_images(folder, resolution=4).restore(record)
    for name in ("1.png", "2.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"of its 6, 2 are gone \(1\.png, 2\.png\); pass"):
        load_images(folder).restore(record)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (9, 9)).save(folder / name)
    with pytest.raises(InputError, match=r"2 are others now \(1\.png, 2\.png\)"):
        load_images(folder).restore(record)


# Draws --------------------------------------------------------------------------------------------


def drawn(images, order=range(6), **options) -> dict[int, torch.Tensor]:
    loader = DataLoader(images, 1, sampler=list(order), **options)
    return {i: batch[0] for i, batch in zip(order, loader, strict=True)}


def test_draws_depend_on_seed_epoch_rank_and_index_alone():
    images = load_images(Augmented())
    images.set_draws(3, epoch=1)
    first = drawn(images)
    assert len({tuple(x.flatten().tolist()) for x in first.values()}) == 6
    for again in (
        drawn(images, [5, 2, 0, 1]),
        drawn(images, num_workers=2, multiprocessing_context="fork"),
        drawn(pickle.loads(pickle.dumps(images)), [4]),
    ):
        assert all(x.equal(first[i]) for i, x in again.items())
    for place in ((4, 1, 0), (3, 2, 0), (3, 1, 1)):
        images.set_draws(*place)
        other = drawn(images)
        assert not any(x.equal(first[i]) for i, x in other.items())
    images.set_draws(-1)
    images.set_draws(2**64 - 1)
    assert images[0].shape == (3, 1, 1)


def test_running_workers_follow_the_epoch():
    images = load_images(Augmented())
    images.set_draws(0, epoch=0)
    loader = DataLoader(
        images, 6, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    zeroth = next(iter(loader))
    images.set_draws(0, epoch=1)
    first = next(iter(loader))
    assert not first.equal(zeroth)
    assert first[2].equal(images[2])


def test_draws_leave_the_global_state_as_it_was():
    images = load_images(Augmented())
    images.set_draws(0)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    images[0]
    load_images(Augmented()).fingerprint()
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected  # noqa: NPY002


def test_without_set_draws_the_users_own_seed_counts():
    images = load_images(Augmented())
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert images[0].equal(images[0]) is False
