"""Options of a fine-tune: types, ranges and the rules between them, each refused in one sentence."""

from __future__ import annotations

import math
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers.optimization import SchedulerType

from equivae import FinetuneConfig, InputError
from equivae.data.sources import load_images
from equivae.options import Options, above, at_least, check_path, check_value, within
from equivae.training import RECIPES, config, length, options, recipes
from equivae.training.feeding import Feed
from equivae.training.length import max_steps_of
from equivae.training.options.run import trackers_of
from models import noise

GROUPS = (
    options.ImageOptions,
    options.ObjectiveOptions,
    options.OptimisationOptions,
    options.RunOptions,
    options.HubOptions,
)
LONG = "x" * 300


def test_the_config_is_flat_and_holds_every_field_of_its_groups_once() -> None:
    names = [option.name for option in fields(FinetuneConfig)]
    grouped = [option.name for group in GROUPS for option in fields(group)]
    assert names == grouped
    assert len(set(names)) == len(names)
    made = FinetuneConfig(train_batch_size=3)
    assert made.train_batch_size == made.to_dict()["train_batch_size"] == 3
    assert {"image_column", "split", "max_train_samples", "background"} <= set(names)
    assert made.checkpointing_minutes == 10.0
    assert config.RECIPES is recipes.RECIPES is RECIPES


def test_every_option_says_what_it_takes() -> None:
    for option in fields(FinetuneConfig):
        numeric = isinstance(option.default, (int, float)) and not isinstance(option.default, bool)
        rules = option.metadata
        assert rules["help"], option.name
        assert not numeric or rules["range"] or rules["check"], option.name


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_checks_itself(group: type[Options]) -> None:
    group()
    for option in fields(group):
        with pytest.raises(InputError, match=option.name):
            group(**{option.name: b"nonsense"})


@pytest.mark.parametrize("option", fields(FinetuneConfig), ids=lambda option: option.name)
def test_no_nonsense_passes(option: Any) -> None:
    wrong: list[Any] = [math.inf, -math.inf, math.nan, -1, 10**400, 5000 * "x", [1], {}]
    if isinstance(option.default, str) and option.name != "reconstruction":
        wrong += [1, 1.0, True, "", "\0", "a\nb"]
    elif isinstance(option.default, bool):
        wrong += [0, 1, "yes", None]
    for value in wrong:
        if option.name == "terms" and value == {}:  # none
            continue
        with pytest.raises(InputError) as error:
            FinetuneConfig(**{option.name: value})
        said = str(error.value)
        assert said.count("\n") == 0
        assert len(said) < 300, said


REFUSED = [
    ({"learning_rate": "1e-4"}, r"learning_rate must be a number, got '1e-4' \(str\)"),
    ({"learning_rate": math.inf}, "learning_rate must be a finite number, got inf"),
    ({"weight": math.inf}, "weight must be a finite number, got inf"),
    ({"weight": 1e39}, r"weight must be a finite number, got 1e\+39"),
    ({"train_batch_size": True}, r"train_batch_size must be a whole number, got True \(bool\)"),
    ({"train_batch_size": 2.0}, r"train_batch_size must be a whole number, got 2.0 \(float\)"),
    ({"use_ema": 1}, r"use_ema must be True or False, got 1 \(int\)"),
    ({"seed": -1}, "seed must not be negative, got -1"),
    ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
    ({"train": None}, "train must be 'all' or 'decoder' or 'encoder' or 'lora', got None"),
    ({"kernel_size": 4}, "kernel_size must be an odd number"),
    ({"kernel_size": 10**9 + 1}, "at most 99, got 1000000001"),
    ({"reconstruction": ["mse"]}, "unknown reconstruction loss"),
    ({"lr_scheduler": "piecewise_constant"}, "needs step rules"),
    ({"lr_scheduler": "cosin"}, "Did you mean 'cosine'"),
    ({"lr_scheduler": "polynomial", "learning_rate": 1e-8}, "learning_rate must be above that"),
    ({"resume_from_checkpoint": LONG}, "resume_from_checkpoint is too long a path"),
    ({"background": "blu"}, "background='blu' is not a colour"),
    ({"resolution": 10**9}, "resolution must be at most 65536"),
    ({"license": "mit: yes"}, "license='mit: yes' is not a licence"),
    ({"hub_private": True}, "hub_private=True does nothing without push_to_hub"),
    ({"hub_model_id": LONG, "push_to_hub": True}, "is not the name of a repository"),
    ({"report_to": "tensorbord"}, "Did you mean 'tensorboard'"),
    ({"report_to": "tensorbord,all"}, "Did you mean 'tensorboard'"),
    ({"report_to": ","}, "report_to='' is unknown"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_refused_in_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FinetuneConfig(**given)


def test_a_token_is_not_quoted_when_it_is_refused() -> None:
    for wrong in ("hf_secret with blanks", ("hf_secret",)):
        with pytest.raises(InputError) as error:
            FinetuneConfig(hub_token=wrong)  # type: ignore[arg-type]
        assert "secret" not in str(error.value)


def test_a_tracker_that_is_not_installed_is_refused_with_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate import tracking

    monkeypatch.setattr(tracking, "_available_trackers", [])
    for name, package in (("tensorboard", "tensorboard"), ("comet_ml", "comet-ml")):
        with pytest.raises(InputError, match=f"pip install {package}"):
            FinetuneConfig(report_to=name)
    with pytest.raises(InputError, match="finds no tracker"):
        FinetuneConfig(report_to="all")
    monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType.WANDB])
    assert (
        FinetuneConfig(report_to="wandb").report_to == FinetuneConfig(report_to="wandb").report_to
    )
    assert trackers_of("wandb, tensorboard") == ["wandb", "tensorboard"]
    with pytest.raises(InputError, match="report_to='tensorboard' needs a package"):
        FinetuneConfig(report_to="wandb,tensorboard")


def test_every_schedule_that_needs_no_rules_is_taken() -> None:
    for kind in SchedulerType:
        if kind is not SchedulerType.PIECEWISE_CONSTANT:
            assert FinetuneConfig(lr_scheduler=kind.value).lr_scheduler == kind.value


def test_numpy_numbers_are_numbers() -> None:
    made = FinetuneConfig(train_batch_size=np.int64(3), learning_rate=np.float32(0.5))  # type: ignore[arg-type]
    assert (made.train_batch_size, made.learning_rate) == (3, 0.5)


def test_what_may_change_when_a_run_is_resumed() -> None:
    fixed = FinetuneConfig(hub_token="hf_secret").fixed()
    assert {"learning_rate", "seed", "resolution", "split", "background"} <= set(fixed)
    assert not {"checkpointing_minutes", "push_to_hub", "hub_token", "logging_steps"} & set(fixed)


def test_ranges_say_what_they_want() -> None:
    for range, value, said in (
        (at_least(1), 0, "be at least 1"),
        (at_least(0), -1, "not be negative"),
        (at_least(1, 8), 9, "be at most 8"),
        (above(0), 0, "be above 0"),
        (within(0, 1, open_high=True), 1, r"lie in [0, 1)"),
    ):
        assert value not in range
        assert range.wanted(value) == said


def test_paths_that_no_file_system_takes() -> None:
    check_path("output_dir", "a/b")
    for wrong in ("", " ", "a\0b", LONG, "/".join(["x" * 200] * 30)):
        with pytest.raises(InputError, match="output_dir"):
            check_path("output_dir", wrong)


def test_a_value_of_several_types() -> None:
    check_value("kernel_size", 3, int | str)
    check_value("kernel_size", None, int | None)
    with pytest.raises(InputError, match="kernel_size must be a whole number, got None"):
        check_value("kernel_size", None, int)


def test_a_step_of_more_images_than_there_are_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, images = FinetuneConfig(train_batch_size=3), load_images(noise(4, 3, 8, 8))
    assert max_steps_of(config, images, Feed()) == 2 * config.num_train_epochs
    assert not caplog.records
    two = SimpleNamespace(num_processes=2, is_main_process=True)
    monkeypatch.setattr(length, "process_state", lambda: two)
    assert max_steps_of(config, images, Feed()) == config.num_train_epochs
    assert "A step of 2 processes takes 6 images and there are 4" in caplog.text
