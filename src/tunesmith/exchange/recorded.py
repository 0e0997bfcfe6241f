"""A recorded run as stored: its steps, the adapter it started from, and what came out.

One safetensors file (or .ckpt): `step{i}.latents .noise .noisy .timesteps .input_ids .loss`, optional `.loss_weights`,
`init.<kohya module>.lora_down.weight`, optional `.lora_up.weight` and `.alpha`, `final.<kohya module>.lora_up.weight`,
optional `.lora_down.weight`; header metadata `settings`, optional `captions`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tunesmith.errors import ExchangeError
from tunesmith.numeric.noise import add_noise
from tunesmith.weights.files import TensorFile

TOKENS_PER_CHUNK = 77
_STEP = re.compile(r"step(\d+)\.(\w+)$")
_LORA = re.compile(r"(init|final)\.(.+)\.(lora_down\.weight|lora_up\.weight|alpha)$")
_SLOTS = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}
_STATES = ("states", "encoder_hidden_states")


@dataclass(frozen=True)
class RecordedRun:
    """What a run file holds, by name: `steps` in order, step -> what -> tensor name; `init` and `final` by module."""

    file: TensorFile
    steps: tuple[Mapping[str, str], ...]
    init: Mapping[str, Mapping[str, torch.Tensor]]
    final: Mapping[str, Mapping[str, torch.Tensor]]

    def read(self, step: int, what: str) -> torch.Tensor | None:
        """One tensor of a step, or None where it was not recorded."""
        name = self.steps[step].get(what)
        return None if name is None else self.file.read(name)

    def loss(self, step: int) -> float | None:
        """The recorded loss of a micro-batch."""
        found = self.read(step, "loss")
        return None if found is None else float(found.float().mean())


def read_run(file: TensorFile) -> RecordedRun:
    """Sort a run file's names. Raises ExchangeError for a file without steps, or with a gap between them."""
    steps: dict[int, dict[str, str]] = {}
    adapters: dict[str, dict[str, dict[str, torch.Tensor]]] = {"init": {}, "final": {}}
    for name in file.names:
        if match := _STEP.match(name):
            steps.setdefault(int(match[1]), {})[match[2]] = name
        elif match := _LORA.match(name):
            adapters[match[1]].setdefault(match[2], {})[_SLOTS[match[3]]] = file.read(name)
    if not steps:
        raise ExchangeError(f"{file.path} holds no recorded step", expected="tensors called step0.latents and so on")
    numbers = sorted(steps)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ExchangeError(f"{file.path} lacks steps between {numbers[0]} and {numbers[-1]}", expected="all of them")
    return RecordedRun(file, tuple(steps[number] for number in numbers), adapters["init"], adapters["final"])


def batch_tensors(run: RecordedRun, step: int, alpha_bar: torch.Tensor, *, free_noise: bool) -> dict[str, torch.Tensor]:
    """The engine's batch of one micro-batch: latents, noise, timesteps, maybe offsets, input_ids or states.

    `offsets` [batch, 4] are what `noisy` holds beyond the recorded noise. With `free_noise` any other difference
    is taken into the noise. Raises ExchangeError naming what is missing or does not add up.
    """
    latents, timesteps = run.read(step, "latents"), run.read(step, "timesteps")
    if latents is None or timesteps is None:
        raise ExchangeError(f"recorded step {step} lacks {'latents' if latents is None else 'timesteps'}")
    latents = latents.float()
    if latents.dim() != 4:
        raise ExchangeError(f"latents of step {step} are {list(latents.shape)}", expected="[batch, 4, height, width]")
    tensors = {"latents": latents, "timesteps": timesteps.long().reshape(-1).expand(latents.shape[0]).clone()}
    tensors |= _noise(run, step, tensors, alpha_bar, free_noise=free_noise)
    return tensors | _text(run, step, latents.shape[0])


def _text(run: RecordedRun, step: int, items: int) -> dict[str, torch.Tensor]:
    ids = run.read(step, "input_ids")
    if ids is not None:
        if ids.shape[-1] % TOKENS_PER_CHUNK or ids.numel() % (items * TOKENS_PER_CHUNK):
            raise ExchangeError(
                f"input_ids of step {step} are {list(ids.shape)}", expected=f"[{items}, 77] or [{items}, chunks, 77]"
            )
        return {"input_ids": ids.long().reshape(items, -1, TOKENS_PER_CHUNK)}
    for name in _STATES:
        states = run.read(step, name)
        if states is not None:
            return {"states": states.float()}
    raise ExchangeError(f"recorded step {step} lacks input_ids", expected="the token ids of its captions")


def _noise(
    run: RecordedRun, step: int, tensors: Mapping[str, torch.Tensor], alpha_bar: torch.Tensor, *, free_noise: bool
) -> dict[str, torch.Tensor]:
    noise, noisy = run.read(step, "noise"), run.read(step, "noisy")
    if noise is None and noisy is None:
        raise ExchangeError(f"recorded step {step} lacks noise")
    latents, kept = tensors["latents"], alpha_bar[tensors["timesteps"]]
    if noisy is None:
        assert noise is not None
        return {"noise": noise.float()}
    share = kept[:, None, None, None]
    found = (noisy.double() - share.double().sqrt() * latents.double()) / (1 - share.double()).sqrt()
    if noise is None:
        return {"noise": found.float()}
    tolerance = _rounding(noisy, noise, latents)
    if _close(add_noise(latents, noise.float(), kept), noisy, tolerance):
        return {"noise": noise.float()}
    # Noise offset adds one number per picture and channel; its mean is free of the division's rounding.
    offsets = (found - noise.double()).mean((2, 3)).float()
    if _close(add_noise(latents, noise.float() + offsets[:, :, None, None], kept), noisy, tolerance):
        return {"noise": noise.float(), "offsets": offsets}
    if free_noise:
        return {"noise": found.float()}
    worst = float((add_noise(latents, noise.float(), kept) - noisy.float()).abs().max())
    raise ExchangeError(
        f"noisy of step {step} is not latents, noise and timesteps put together (off by {worst:.2g})",
        expected="the DDPM schedule of SD 1.x (scaled linear, 0.00085 to 0.012, 1000 steps)",
    )


def _rounding(*tensors: torch.Tensor) -> float:
    """How far apart equal numbers may be, given the coarsest dtype that took part."""
    precision = max(float(torch.finfo(tensor.dtype).eps) for tensor in tensors if tensor.is_floating_point())
    largest = max(float(tensor.abs().max()) for tensor in tensors)
    return 8 * precision * max(1.0, largest)


def _close(ours: torch.Tensor, recorded: torch.Tensor, tolerance: float) -> bool:
    return float((ours - recorded.float()).abs().max()) <= tolerance


def update_groups(count: int, accumulation: int, steps: int | None, epoch: int | None) -> tuple[Sequence[int], str]:
    """Which micro-batches make each update, and a note where that had to be found out.

    An update comes after `accumulation` micro-batches and at an epoch's end (`epoch` micro-batches), as accelerate
    does. Where `epoch` is not given and full groups do not make `steps` updates, the longest epoch that does is taken,
    whole epochs before broken ones, if there is one longer than a full group.
    Returns the number of micro-batches per update.
    """
    if epoch is not None:
        return _groups(count, accumulation, epoch), ""
    plain = _groups(count, accumulation, count)
    if accumulation == 1 or steps is None or len(plain) == steps:
        return plain, ""
    lengths = sorted(range(accumulation + 1, count), key=lambda length: (count % length > 0, -length))
    for length in lengths:
        groups = _groups(count, accumulation, length)
        if len(groups) == steps:
            return groups, f"{count} micro-batches make {steps} updates with epochs of {length}, so that was taken"
    return plain, f"{count} micro-batches make {len(plain)} updates; the run was to have {steps}"


def _groups(count: int, accumulation: int, epoch: int) -> list[int]:
    groups: list[int] = []
    for start in range(0, count, epoch):
        length = min(epoch, count - start)
        groups += [min(accumulation, length - at) for at in range(0, length, accumulation)]
    return groups
