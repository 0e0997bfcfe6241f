"""Replay against a plain loop over diffusers and transformers with LoRA by hand (`plain_loop`), on a tiny base."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_sd
from tunesmith.errors import ExchangeError, TunesmithError
from tunesmith.exchange.replay import main, replay

sys.path.insert(0, str(Path(__file__).parent))
from plain_loop import Run, record, states_of

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], Tensors]

# Both sides compute in float32 on this machine; they differ by the order of sums and by fused kernels.
LOSS_TOLERANCE = 1e-6
WEIGHT_TOLERANCE = 1e-4

PLAIN = ["--network_dim", "4", "--network_alpha", "2", "--unet_lr", "2e-3", "--text_encoder_lr", "1e-3"]
UNET_ONLY = {"rates": {"unet": 2e-3}}


def lion() -> Callable[..., torch.optim.Optimizer]:
    """Lion as published (Chen et al., 2023, arXiv 2302.06675, program 1), written down once more."""

    class Lion(torch.optim.Optimizer):
        def __init__(self, groups: Any) -> None:
            super().__init__(groups, {"lr": 1e-4})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    m = self.state[p].setdefault("m", torch.zeros_like(p))
                    p.add_(torch.sign(0.9 * m + 0.1 * p.grad), alpha=-group["lr"])
                    m.mul_(0.99).add_(p.grad, alpha=0.01)

    return Lion


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, []),
    "cosine": ({"schedule": "cosine", "updates": 4}, ["--lr_scheduler", "cosine"]),
    "linear": ({"schedule": "linear", "updates": 4}, ["--lr_scheduler", "linear"]),
    "warm-up": (
        {"schedule": "constant_with_warmup", "warmup": 2, "updates": 4},
        ["--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "2"],
    ),
    "warm-up as a fraction": (
        {"schedule": "cosine", "warmup": 1, "updates": 5},
        ["--lr_scheduler=cosine", "--lr_warmup_steps", "0.3"],
    ),
    "restarts": (
        {"schedule": "cosine_with_restarts", "cycles": 2, "warmup": 1, "updates": 6},
        ["--lr_scheduler", "cosine_with_restarts", "--lr_scheduler_num_cycles", "2", "--lr_warmup_steps", "1"],
    ),
    "inverse": (
        {"schedule": "inverse_sqrt", "warmup": 1, "updates": 4, **UNET_ONLY},
        ["--lr_scheduler", "inverse_sqrt", "--lr_warmup_steps", "1", "--network_train_unet_only"],
    ),
    "accumulation": (
        {"accumulation": 3, "schedule": "cosine"},
        ["--gradient_accumulation_steps", "3", "--lr_scheduler", "cosine"],
    ),
    "accumulation that meets an epoch's end": (
        {"accumulation": 2, "epoch": 3, "updates": 4},
        ["--gradient_accumulation_steps", "2"],
    ),
    "convolutions": (
        {"conv_rank": 2, "conv_alpha": 1.0},
        ["--network_args", "conv_dim=2", "conv_alpha=1"],
    ),
    "convolutions of alpha 0": (
        {"conv_rank": 3, "conv_alpha": 3.0, "alpha": 4.0},
        ["--network_alpha=0", "--network_args", "conv_dim=3", "conv_alpha=0"],
    ),
    "clip skip": ({"clip_skip": 2}, ["--clip_skip", "2"]),
    "225 tokens": ({"chunks": 3, "clip_skip": 2}, ["--max_token_length", "225", "--clip_skip", "2"]),
    "150 tokens": ({"chunks": 2}, ["--max_token_length", "150"]),
    "noise offset": ({"offset": 0.1}, ["--noise_offset", "0.1"]),
    "min-SNR": ({"gamma": 5.0}, ["--min_snr_gamma", "5"]),
    "velocity": ({"velocity": True, "gamma": 5.0}, ["--v_parameterization", "--min_snr_gamma", "5"]),
    "prior weights": (
        {"weights": (1.0, 0.5)},
        ["--reg_data_dir", "reg", "--prior_loss_weight", "0.5"],
    ),
    "U-Net only": (UNET_ONLY, ["--network_train_unet_only"]),
    "text encoder only": ({"rates": {"te": 1e-3}}, ["--network_train_text_encoder_only"]),
    "text encoder of rate 0": (UNET_ONLY, ["--text_encoder_lr", "0"]),
    "no clipping": ({"clip": 0.0}, ["--max_grad_norm", "0"]),
    "tight clipping": ({"clip": 0.01}, ["--max_grad_norm", "0.01"]),
    "up-weights to start from": ({"up_starts_at_zero": False}, []),
    "AdamW's arguments": (
        {"optimiser": partial(torch.optim.AdamW, betas=(0.8, 0.95), weight_decay=0.2, eps=1e-6)},
        ["--optimizer_type", "AdamW", "--optimizer_args", "betas=0.8,0.95", "weight_decay=0.2", "eps=1e-6"],
    ),
    "Lion": (
        {"optimiser": lion(), "rates": {"unet": 1e-4}},
        ["--optimizer_type", "Lion", "--unet_lr=1e-4", "--network_train_unet_only"],
    ),
    "everything at once": (
        {
            "accumulation": 2,
            "conv_rank": 2,
            "clip_skip": 2,
            "chunks": 3,
            "offset": 0.05,
            "gamma": 5.0,
            "schedule": "cosine_with_restarts",
            "cycles": 2,
            "updates": 4,
        },
        shlex.split(
            "--gradient_accumulation_steps 2 --network_args conv_dim=2 --clip_skip 2 --max_token_length 225 --xformers "
            "--noise_offset 0.05 --min_snr_gamma 5 --lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 2 "
            "--shuffle_caption --cache_latents --output_name everything"
        ),
    ),
}


# Two channels to each of GroupNorm's 32 groups: with one, what time_emb_proj adds is normalised away again, its
# gradient is rounding, and AdamW makes steps of full size from that.
SIZES = tiny_sd.Sizes(channels=(64, 64))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd.write_single_file(tmp_path_factory.mktemp("base") / "tiny.safetensors", SIZES)


@pytest.fixture(scope="module")
def pipeline(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_sd.diffusers_pipeline(base, tmp_path_factory.mktemp("configs"), SIZES)


def recorded(pipeline: Any, path: Path, name: str, **options: Any) -> Tensors:
    changes, flags = CASES[name]
    run = Run(**changes)
    return record(pipeline, run, path, [*PLAIN, *flags, "--max_train_steps", str(run.updates)], **options)


@pytest.fixture(scope="module")
def plain_run(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    recorded(pipeline, path, "plain")
    return path


@pytest.mark.parametrize("name", CASES)
def test_replay_does_what_the_plain_loop_did(pipeline: Any, base: Path, tmp_path: Path, name: str) -> None:
    kept = recorded(pipeline, tmp_path / "run.safetensors", name)
    result = replay(tmp_path / "run.safetensors", base)
    assert len(result.losses) == sum(key.endswith(".loss") for key in kept)
    assert len(result.weights) == sum(key.startswith("final.") for key in kept)
    assert result.loss_difference is not None
    assert result.loss_difference <= LOSS_TOLERANCE, (result.losses, result.recorded_losses)
    assert result.weights_total is not None
    assert result.weights_total <= WEIGHT_TOLERANCE
    assert any(float(kept[key].abs().max()) > 0 for key in kept if key.startswith("final."))


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("cosine", ["--lr_scheduler", "linear"]),
        ("accumulation", ["--gradient_accumulation_steps", "1", "--max_train_steps", "9"]),
        ("clip skip", ["--clip_skip", "1"]),
        ("min-SNR", ["--min_snr_gamma", "4"]),
        ("velocity", ["--min_snr_gamma", "5", "--v_parameterization", "--network_alpha", "1"]),
        ("tight clipping", ["--max_grad_norm", "0.02"]),
        ("AdamW's arguments", ["--optimizer_args", "betas=0.8,0.95", "weight_decay=0.2", "eps=1e-7"]),
    ],
)
def test_the_tolerances_would_show_a_difference(
    pipeline: Any, base: Path, tmp_path: Path, name: str, flags: list[str]
) -> None:
    recorded(pipeline, tmp_path / "run.safetensors", name)
    own = [*PLAIN, *CASES[name][1], "--max_train_steps", str(Run(**CASES[name][0]).updates)]
    result = replay(tmp_path / "run.safetensors", base, settings=json.dumps([*own, *flags]))
    assert result.loss_difference is not None
    assert result.weights_total is not None
    assert result.loss_difference > LOSS_TOLERANCE or result.weights_total > WEIGHT_TOLERANCE


def rewritten(source: Path, target: Path, change: Change) -> Path:
    from safetensors import safe_open

    with safe_open(str(source), "pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(str(source))).items()}
    save_file(tensors, str(target), metadata)
    return target


def numbered_from_one(tensors: Tensors) -> Tensors:
    steps = {name: name.partition(".") for name in tensors if name.startswith("step")}
    renamed = {f"step{int(head[4:]) + 1:04d}.{tail}": tensors[name] for name, (head, _, tail) in steps.items()}
    return renamed | {name: tensor for name, tensor in tensors.items() if name not in steps}


SHAPES: dict[str, Change] = {
    "without noisy": lambda t: {n: v for n, v in t.items() if not n.endswith(".noisy")},
    "without noise": lambda t: {n: v for n, v in t.items() if not n.endswith(".noise")},
    "ids [batch, 77]": lambda t: {n: v.flatten(0, 1) if n.endswith("input_ids") else v for n, v in t.items()},
    "ids [batch, 77] int32": lambda t: {n: v[:, 0].int() if n.endswith("input_ids") else v for n, v in t.items()},
    "loss [1] float64": lambda t: {n: v.double()[None] if n.endswith(".loss") else v for n, v in t.items()},
    "timesteps [batch, 1] float": lambda t: {n: v.float()[:, None] if n.endswith("steps") else v for n, v in t.items()},
    "steps from 0001": numbered_from_one,
    "with alphas": lambda t: t | {n.replace("lora_down.weight", "alpha"): torch.tensor(2.0) for n in t if "init." in n},
}


@pytest.mark.parametrize("name", SHAPES)
def test_other_ways_to_store_the_same(plain_run: Path, base: Path, tmp_path: Path, name: str) -> None:
    changed = rewritten(plain_run, tmp_path / "changed.safetensors", SHAPES[name])
    result = replay(changed, base)
    tolerance = 1e-4 if name == "without noise" else LOSS_TOLERANCE  # recovered by a division by a small number
    assert result.agrees(tolerance, WEIGHT_TOLERANCE * 10)


def test_noise_recorded_with_the_offset_in_it(pipeline: Any, base: Path, tmp_path: Path) -> None:
    kept = recorded(pipeline, tmp_path / "run.safetensors", "noise offset")
    share = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def included(tensors: Tensors) -> Tensors:
        changed = dict(tensors)
        for name in [name for name in tensors if name.endswith(".noise")]:
            head = name.partition(".")[0]
            kept_share = share[tensors[f"{head}.timesteps"]][:, None, None, None].double()
            signal = kept_share.sqrt() * tensors[f"{head}.latents"].double()
            exact = (tensors[f"{head}.noisy"].double() - signal) / (1 - kept_share).sqrt()
            offset = (exact - tensors[name]).mean((2, 3), keepdim=True).float()
            assert float(offset.abs().max()) > 0.01
            changed[name] = tensors[name] + offset
        return changed

    result = replay(rewritten(tmp_path / "run.safetensors", tmp_path / "changed.safetensors", included), base)
    assert result.agrees(LOSS_TOLERANCE, WEIGHT_TOLERANCE)
    assert len(kept) == len(load_file(str(tmp_path / "changed.safetensors")))


def without(part: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def spoiled(ending: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensors: {n: change(v) if n.endswith(ending) else v for n, v in tensors.items()}


DAMAGED: dict[str, tuple[Change, str]] = {
    "no steps": (without("step"), "no recorded step"),
    "a gap": (without("step1."), "lacks steps between 0 and 2"),
    "no latents": (without(".latents"), "step 0 lacks latents"),
    "no timesteps": (without(".timesteps"), "step 0 lacks timesteps"),
    "no ids": (without(".input_ids"), "lacks input_ids"),
    "no adapter": (without("init."), "no initial adapter"),
    "a module less": (without("init.lora_unet_mid_block_attentions_0_proj_in."), "lacks init.lora_unet_mid_block"),
    "odd ids": (spoiled(".input_ids", lambda v: v[..., :70]), "input_ids of step 0 are"),
    "noise that does not add up": (spoiled(".noisy", lambda v: v * 1.1), "noisy of step 0 is not"),
    "another rank": (spoiled("lora_down.weight", lambda v: v[:2]), "by the flags and this base"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_missing_or_does_not_fit_is_named(plain_run: Path, base: Path, tmp_path: Path, name: str) -> None:
    change, found = DAMAGED[name]
    with pytest.raises(TunesmithError) as caught:
        replay(rewritten(plain_run, tmp_path / "changed.safetensors", change), base)
    assert found in caught.value.message


def test_a_recording_of_the_unet_alone_is_taken_as_that(pipeline: Any, base: Path, tmp_path: Path) -> None:
    run = Run(**UNET_ONLY)
    record(pipeline, run, tmp_path / "run.safetensors", [*PLAIN, "--max_train_steps", "3"])
    result = replay(tmp_path / "run.safetensors", base)
    assert result.agrees(LOSS_TOLERANCE, WEIGHT_TOLERANCE)
    assert "the recording has only denoiser" in result.notes[0]


def test_epochs_instead_of_steps_and_a_stated_epoch(pipeline: Any, base: Path, tmp_path: Path) -> None:
    recorded(pipeline, tmp_path / "run.safetensors", "accumulation that meets an epoch's end")
    flags = json.dumps([*PLAIN, "--gradient_accumulation_steps", "2", "--max_train_epochs", "2"])
    result = replay(tmp_path / "run.safetensors", base, settings=flags, epoch_batches=3)
    assert result.agrees(LOSS_TOLERANCE, WEIGHT_TOLERANCE)
    assert "epochs, not steps" in result.notes[0]


def test_more_updates_than_the_flags_allow(plain_run: Path, base: Path) -> None:
    with pytest.raises(ExchangeError, match="3 updates, its flags 2"):
        replay(plain_run, base, settings=json.dumps([*PLAIN, "--max_train_steps", "2"]))


def test_the_command(plain_run: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = plain_run
    assert main([str(run), str(base), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["agrees"] is True
    assert document["loss_difference"] <= LOSS_TOLERANCE
    assert len(document["losses"]) == len(document["rates"]) == 3
    assert main([str(run), str(base), "--weight-tolerance", "0"]) == 1
    assert "does not agree" in capsys.readouterr().out
    assert main([str(run), str(base), "--settings=--masked_loss"]) == 2
    assert "--masked_loss" in capsys.readouterr().err
    save_file({"step0.loss": torch.zeros(())}, str(tmp_path / "bare.safetensors"))
    assert main([str(tmp_path / "bare.safetensors"), str(base)]) == 2
    assert "how it was recorded" in capsys.readouterr().err


def test_states_instead_of_token_ids(pipeline: Any, base: Path, tmp_path: Path) -> None:
    recorded(pipeline, tmp_path / "run.safetensors", "U-Net only")

    def encoded(tensors: Tensors) -> Tensors:
        found = {name: tensor for name, tensor in tensors.items() if not name.endswith(".input_ids")}
        for name in set(tensors) - set(found):
            with torch.no_grad():
                states = states_of(pipeline.text_encoder, tensors[name], Run())
            found[name.replace("input_ids", "encoder_hidden_states")] = states
        return found

    result = replay(rewritten(tmp_path / "run.safetensors", tmp_path / "changed.safetensors", encoded), base)
    assert result.agrees(LOSS_TOLERANCE, WEIGHT_TOLERANCE)


def test_noise_that_flags_explain_is_taken_from_noisy(plain_run: Path, base: Path, tmp_path: Path) -> None:
    def other_noise(tensors: Tensors) -> Tensors:
        return {n: v.flip(0) if n.endswith(".noise") else v for n, v in tensors.items()}

    changed = rewritten(plain_run, tmp_path / "changed.safetensors", other_noise)
    with pytest.raises(ExchangeError, match="noisy of step 0 is not"):
        replay(changed, base)
    flags = json.dumps([*PLAIN, "--max_train_steps", "3", "--multires_noise_iterations", "6"])
    assert replay(changed, base, settings=flags).agrees(1e-4, WEIGHT_TOLERANCE * 10)


def test_half_precision_tensors_are_no_mismatch(plain_run: Path, base: Path, tmp_path: Path) -> None:
    halved = spoiled(".noisy", lambda tensor: tensor.half())
    result = replay(rewritten(plain_run, tmp_path / "changed.safetensors", halved), base)
    assert result.agrees(LOSS_TOLERANCE, WEIGHT_TOLERANCE)


def test_prior_weights_have_to_be_recorded(pipeline: Any, base: Path, tmp_path: Path) -> None:
    recorded(pipeline, tmp_path / "run.safetensors", "prior weights")
    changed = rewritten(tmp_path / "run.safetensors", tmp_path / "changed.safetensors", without("loss_weights"))
    with pytest.raises(ExchangeError, match="lacks loss_weights"):
        replay(changed, base)


def test_a_module_of_another_base_and_one_that_does_not_train(plain_run: Path, base: Path, tmp_path: Path) -> None:
    def foreign(tensors: Tensors) -> Tensors:
        return tensors | {"init.lora_unet_down_blocks_7_x.lora_down.weight": torch.ones(4, 4)}

    with pytest.raises(ExchangeError, match="no layer of this base"):
        replay(rewritten(plain_run, tmp_path / "a.safetensors", foreign), base)

    def moved(tensors: Tensors) -> Tensors:
        ups = {n.replace("lora_down", "lora_up"): torch.ones(1) for n in tensors if n.startswith("init.lora_te")}
        return tensors | ups

    flags = json.dumps([*PLAIN, "--max_train_steps", "3", "--network_train_unet_only"])
    with pytest.raises(ExchangeError, match="does not train"):
        replay(rewritten(plain_run, tmp_path / "b.safetensors", moved), base, settings=flags)
