"""A plain training loop over diffusers' U-Net and transformers' CLIP, with LoRA by hand: the reference for replay.

Nothing of tunesmith is used here. It records what it draws and what comes out in the form of a run file.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from diffusers.optimization import get_scheduler
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import get_inverse_sqrt_schedule

START, END = 49406, 49407


@dataclass(frozen=True)
class Run:
    """How to train, in the loop's own words."""

    updates: int = 3
    accumulation: int = 1
    epoch: int | None = None  # micro-batches after which an update happens in any case
    rank: int = 4
    alpha: float = 2.0
    conv_rank: int | None = None
    conv_alpha: float = 1.0
    rates: dict[str, float] = field(default_factory=lambda: {"unet": 2e-3, "te": 1e-3})
    schedule: str = "constant"
    warmup: int = 0
    cycles: int = 1
    clip: float = 1.0
    clip_skip: int = 1
    chunks: int = 1
    offset: float = 0.0
    gamma: float | None = None
    velocity: bool = False
    weights: tuple[float, ...] | None = None
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    up_starts_at_zero: bool = True


class ByHand(nn.Module):
    """One layer with a LoRA beside it."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, draw: torch.Generator, zero: bool) -> None:
        super().__init__()
        self.layer = layer
        weight: Any = layer.weight
        bound = 1 / math.sqrt(weight[0].numel())
        self.down = nn.Parameter((torch.rand(rank, *weight.shape[1:], generator=draw) * 2 - 1) * bound)
        up = torch.zeros(weight.shape[0], rank, *[1] * (weight.dim() - 2))
        self.up = nn.Parameter(up if zero else torch.randn(up.shape, generator=draw) * 0.02)
        self.factor = alpha / rank

    def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
        if isinstance(self.layer, nn.Conv2d):
            inner = F.conv2d(x, self.down, stride=self.layer.stride, padding=self.layer.padding)  # type: ignore[arg-type]
            return self.layer(x) + F.conv2d(inner, self.up) * self.factor
        return self.layer(x) + F.linear(F.linear(x, self.down), self.up) * self.factor


def put_on(unet: nn.Module, text: nn.Module, run: Run) -> dict[str, ByHand]:
    """Wrap every layer that sd-scripts would, by kohya's name."""
    draw = torch.Generator().manual_seed(5)
    blocks = (ResnetBlock2D, Downsample2D, Upsample2D)
    wanted: list[tuple[nn.Module, str, str]] = []
    if "unet" in run.rates:
        for name, module in unet.named_modules():
            if isinstance(module, Transformer2DModel) or (run.conv_rank is not None and isinstance(module, blocks)):
                inner = [(child, m) for child, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
                wanted += [(unet, f"{name}.{child}", "lora_unet_") for child, _ in inner]
    if "te" in run.rates:
        ends = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
        wanted += [(text, name, "lora_te_text_model_") for name, _ in text.named_modules() if name.endswith(ends)]
    layers = {}
    for root, name, prefix in wanted:
        parent_name, _, child = name.rpartition(".")
        parent = root.get_submodule(parent_name)
        layer = getattr(parent, child)
        spatial = isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
        rank, alpha = (run.conv_rank or 0, run.conv_alpha) if spatial else (run.rank, run.alpha)
        by_hand = ByHand(layer, rank, alpha, draw, run.up_starts_at_zero)
        setattr(parent, child, by_hand)
        layers[prefix + name.removeprefix("text_model.").replace(".", "_")] = by_hand
    return layers


def states_of(text: Any, ids: torch.Tensor, run: Run) -> torch.Tensor:
    """[batch, chunks, 77] to [batch, 75 * chunks + 2, width]."""
    parts = []
    for chunk in range(ids.shape[1]):
        out = text(ids[:, chunk], output_hidden_states=True)
        norm = text.final_layer_norm if hasattr(text, "final_layer_norm") else text.text_model.final_layer_norm
        states = norm(out.hidden_states[-run.clip_skip])
        start, stop = (0 if chunk == 0 else 1), (77 if chunk == ids.shape[1] - 1 else 76)
        parts.append(states[:, start:stop])
    return torch.cat(parts, 1)


def rates_of(run: Run, optimiser: torch.optim.Optimizer) -> Any:
    """The schedule that sd-scripts would take, from the libraries it takes it from."""
    if run.schedule == "inverse_sqrt":
        return get_inverse_sqrt_schedule(optimiser, run.warmup)
    steps = {"num_warmup_steps": run.warmup, "num_training_steps": run.updates}
    return get_scheduler(run.schedule, optimiser, num_cycles=run.cycles, **steps)


def record(pipeline: Any, run: Run, path: Path, settings: list[str], *, flat_ids: bool = False) -> dict[str, Any]:
    """Train and write the run file; returns its tensors."""
    unet, text = copy.deepcopy(pipeline.unet), copy.deepcopy(pipeline.text_encoder)
    for module in (unet, text):
        module.requires_grad_(False)
    layers = put_on(unet, text, run)
    kept: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        kept[f"init.{name}.lora_down.weight"] = layer.down.detach().clone()
        if not run.up_starts_at_zero:
            kept[f"init.{name}.lora_up.weight"] = layer.up.detach().clone()
    parts = {"unet": "lora_unet_", "te": "lora_te_"}
    groups = [
        {"params": [p for n, m in layers.items() if n.startswith(parts[part]) for p in (m.down, m.up)], "lr": rate}
        for part, rate in run.rates.items()
    ]
    optimiser = run.optimiser(groups)
    rates = rates_of(run, optimiser)
    noise_schedule = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False
    )
    everything = [p for layer in layers.values() for p in (layer.down, layer.up)]
    done, index, since = 0, 0, 0
    while done < run.updates:
        loss = one_loss(unet, text, noise_schedule, run, index, kept, flat_ids=flat_ids)
        (loss / run.accumulation).backward()
        kept[f"step{index}.loss"] = loss.detach().clone()
        index, since = index + 1, since + 1
        if since == run.accumulation or (run.epoch is not None and index % run.epoch == 0):
            if run.clip > 0:
                torch.nn.utils.clip_grad_norm_(everything, run.clip)
            optimiser.step()
            rates.step()
            optimiser.zero_grad()
            done, since = done + 1, 0
    for name, layer in layers.items():
        kept[f"final.{name}.lora_up.weight"] = layer.up.detach().clone()
        kept[f"final.{name}.lora_down.weight"] = layer.down.detach().clone()
    save_file(
        {name: tensor.contiguous() for name, tensor in kept.items()}, str(path), {"settings": json.dumps(settings)}
    )
    return kept


def one_loss(
    unet: Any, text: Any, schedule: Any, run: Run, index: int, kept: dict[str, torch.Tensor], *, flat_ids: bool
) -> torch.Tensor:
    """Draw one micro-batch, note it, and return its loss."""
    draw = torch.Generator().manual_seed(100 + index)
    items = 2
    latents = torch.randn(items, 4, 8, 8, generator=draw)
    plain = torch.randn(latents.shape, generator=draw)
    noise = plain + run.offset * torch.randn(items, 4, 1, 1, generator=draw) if run.offset else plain
    times = torch.randint(0, 1000, (items,), generator=draw)
    ids = torch.randint(1000, 40000, (items, run.chunks, 77), generator=draw)
    ids[:, :, 0], ids[:, :, 60:] = START, END
    noisy = schedule.add_noise(latents, noise, times)
    target = schedule.get_velocity(latents, noise, times) if run.velocity else noise
    prediction = unet(noisy, times, states_of(text, ids, run)).sample
    per_item = F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))
    if run.weights is not None:
        per_item = per_item * torch.tensor(run.weights)
        kept[f"step{index}.loss_weights"] = torch.tensor(run.weights)
    if run.gamma is not None:
        kept_share = schedule.alphas_cumprod[times]
        snr = (kept_share.sqrt() / (1 - kept_share).sqrt()) ** 2
        low = torch.minimum(snr, torch.full_like(snr, run.gamma))
        per_item = per_item * (low / (snr + 1) if run.velocity else low / snr)
    recorded = {"latents": latents, "noise": plain, "noisy": noisy, "timesteps": times}
    kept |= {f"step{index}.{name}": value for name, value in recorded.items()}
    kept[f"step{index}.input_ids"] = ids.flatten(0, 1) if flat_ids else ids
    return per_item.mean()
