from __future__ import annotations

import json

import pytest

from tunesmith.errors import ExchangeError
from tunesmith.exchange.sd_scripts import HARMLESS, HONOURED, NEUTRAL, parse_flags, recorded_settings


def settings(text: str) -> object:
    return recorded_settings(parse_flags(text))


@pytest.mark.parametrize(
    "text",
    [
        "--network_dim 4 --network_args conv_dim=2 conv_alpha=1 --seed=-1",
        '["--network-dim", 4, "--network_args", "conv_dim=2", "conv_alpha=1", "--seed=-1"]',
    ],
)
def test_words_and_lists_are_read(text: str) -> None:
    assert parse_flags(text) == {"network_dim": ("4",), "network_args": ("conv_dim=2", "conv_alpha=1"), "seed": ("-1",)}


def test_defaults_are_those_of_sd_scripts() -> None:
    found = recorded_settings({})
    assert found.steps == 1600
    assert found.accumulation == 1
    assert found.document["method"] == {
        "name": "lora",
        "components": ["denoiser", "text_encoder"],
        "rank": 4,
        "alpha": 1.0,
    }
    optimiser = found.document["optimiser"]
    assert optimiser["rates"] == {"denoiser": 2e-6, "text_encoder": 2e-6}
    assert optimiser["schedule"] == "constant"
    assert optimiser["clip_norm"] == 1.0
    assert optimiser["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("--masked_loss", "--masked_loss"),
        ("--loss_type huber", "--loss_type huber"),
        ("--network_dropout 0.1", "--network_dropout 0.1"),
        ("--ip_noise_gamma 0.05", "--ip_noise_gamma 0.05"),
        ("--network_module networks.dylora", "networks.dylora"),
        ("--network_args block_dims=2,2", "block_dims=2,2"),
        ("--network_args dropout=0.1", "dropout=0.1"),
        ("--network_args conv_dim", "conv_dim"),
        ("--lr_scheduler polynomial", "polynomial"),
        ("--lr_scheduler cosine --lr_scheduler_num_cycles 3", "num_cycles 3"),
        ("--lr_scheduler inverse_sqrt --lr_scheduler_timescale 5", "lr_scheduler_timescale 5"),
        ("--lr_warmup_steps 5", "no warm-up"),
        ("--optimizer_type AdaFactor", "AdaFactor"),
        ("--optimizer_type DAdaptAdam", "DAdaptAdam"),
        ("--optimizer_type Prodigy --lr_scheduler cosine --lr_warmup_steps 5", "safeguard"),
        ("--optimizer_args amsgrad=True", "amsgrad"),
        ("--optimizer_args eps=x()", "x()"),
        ("--unet_lr 0 --text_encoder_lr 0", "nothing to train"),
        ("--text_encoder_lr 1e-4 2e-4", "several rates"),
        ("--mixed_precision fp8", "fp8"),
        ("--learning_rate fast", "--learning_rate fast"),
        ("--made_up_flag 3 --another", "--made_up_flag 3, --another"),
        ('{"a": 1}', "no list of flags"),
    ],
)
def test_what_cannot_be_honoured_is_named(text: str, named: str) -> None:
    with pytest.raises(ExchangeError) as caught:
        settings(text)
    assert named in caught.value.message


def test_flags_left_at_nothing_are_no_reason_to_refuse() -> None:
    recorded_settings(parse_flags("--network_dropout 0 --loss_type l2 --ip_noise_gamma None --xformers --seed 42"))


@pytest.mark.parametrize(
    ("text", "steps", "warmup"),
    [
        ("--lr_warmup_steps 10", 1600, 10.0),
        ("--lr_warmup_steps 0.05", 1600, 0.05),
        ("--lr_warmup_steps 5%", 1600, 0.05),
        ("--lr_warmup_steps 10.0 --max_train_steps 7", 7, 10.0),
        ("--max_train_epochs 3", None, 0.0),
    ],
)
def test_lengths(text: str, steps: int | None, warmup: float) -> None:
    found = recorded_settings(parse_flags(f"--lr_scheduler cosine {text}"))
    assert (found.steps, found.warmup) == (steps, warmup)


@pytest.mark.parametrize(
    ("text", "name"),
    [("--use_8bit_adam", "adamw8bit"), ("--use_lion_optimizer", "lion"), ("--optimizer_type prodigy", "prodigy")],
)
def test_optimisers_that_differ_say_so(text: str, name: str) -> None:
    found = recorded_settings(parse_flags(text))
    assert found.document["optimiser"]["name"] == name
    assert found.notes


def test_each_flag_is_in_one_list() -> None:
    assert not HONOURED & HARMLESS
    assert not set(NEUTRAL) & (HONOURED | HARMLESS)


def test_the_fixture_is_understood() -> None:
    words = ["--network_module", "networks.lora", "--mixed_precision", "no", "--learning_rate", "1e-3"]
    words += ["--text_encoder_lr", "5e-4", "--lr_scheduler", "cosine", "--max_train_steps", "6", "--seed", "42"]
    found = recorded_settings(parse_flags(json.dumps(words)))
    assert found.document["optimiser"]["rates"] == {"denoiser": 1e-3, "text_encoder": 5e-4}
    assert found.steps == 6
