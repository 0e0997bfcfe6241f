"""Generation: conditions, a denoiser of sounds' latents, and the samplers over it.

The base predicts a velocity v on the cosine schedule. At a noise level s = tan(pi t / 2), with latents x of variance
1 + s^2, its input is x / sqrt(1 + s^2), its time t, and the clean latents are x / (1 + s^2) - v s / sqrt(1 + s^2)
(Karras et al., 2022, arXiv 2206.00364, equation 7, with sigma_data 1; diffusers' CosineDPMSolverMultistepScheduler).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.engines.protocol import Base, Media, Model, Sampler
from tunesmith.engines.stable_audio.choices import frame_seconds, window_frames
from tunesmith.engines.stable_audio.conditions import Conditions, conditions, predict, rotary
from tunesmith.engines.stable_audio.encode import prompt_states
from tunesmith.engines.stable_audio.facts import GenerationRequest
from tunesmith.engines.stable_audio.load import part_module
from tunesmith.engines.stable_audio.open import TOKENIZER
from tunesmith.engines.stable_audio.shapes import hop_length
from tunesmith.engines.stable_audio.tokenizer import open_tokenizer, token_ids
from tunesmith.errors import RecipeError
from tunesmith.events import Progress
from tunesmith.numeric.samplers import SAMPLERS, exponential_levels
from tunesmith.weights.modules import evaluating


@dataclass(frozen=True)
class SamplerSettings:
    """What sampling needs besides the modules. `hop` samples make a latent frame."""

    tokenizer: Any
    schedule: Mapping[str, Any]
    rate: int
    hop: int


def load_sampler(base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
    """The modules of a base; those of `model` are shared, the others loaded. The autoencoder is kept in float32."""
    live = {**model.frozen, **model.components} if model else {}
    modules: dict[str, nn.Module] = {}
    for role in ("denoiser", "projection", "text_encoder", "autoencoder"):
        wanted = torch.float32 if role == "autoencoder" else dtype
        modules[role] = live[role] if role in live else part_module(base, role, device, wanted)
    part, sizes = base.parts.get(TOKENIZER), base.architecture["autoencoder"]
    settings = SamplerSettings(
        tokenizer=open_tokenizer(part.path if part else None, int(base.architecture[TOKENIZER]["max_tokens"])),
        schedule=base.architecture["scheduler"],
        rate=int(sizes["sampling_rate"]),
        hop=hop_length(sizes),
    )
    frozen = {"autoencoder": modules.pop("autoencoder")}
    return Sampler(modules, frozen, settings, base)


def sample(
    sampler: Sampler, request: GenerationRequest, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Progress | Media]:
    """Progress after every step, then a Media per sound [channels, samples]; sound i uses seed + i."""
    settings: SamplerSettings = sampler.settings
    frames = frames_of(sampler.base, request)
    total = request.count * request.steps
    with evaluating([*sampler.components.values(), *sampler.frozen.values()]):
        told = told_of(sampler, request)
        for index in range(request.count):
            seed = request.seed + index
            latents = torch.empty(0)
            for step, now in denoise(sampler, request, told, frames, seed):
                latents = now
                yield Progress(index * request.steps + step, total, "steps")
                if should_stop():
                    return
            sound = decode(sampler, latents)[:, : round(request.seconds * settings.rate)]
            asked = {**dataclasses.asdict(request), "seed": seed, "count": 1, "rate": settings.rate}
            yield Media("audio", sound.numpy(), asked)


def frames_of(base: Base, request: GenerationRequest) -> int:
    """Latent frames that are denoised. Raises RecipeError where the sound is longer than its window."""
    window = request.window_seconds if request.window_seconds is not None else request.seconds
    if window + 1e-6 < request.seconds:
        raise RecipeError(
            f"the sound is {request.seconds:g} seconds and its window {window:g}",
            expected="a window at least as long",
            do="leave window_seconds out, or raise it",
        )
    return window_frames(base, min(window, _longest(base, request)))


def _longest(base: Base, request: GenerationRequest) -> float:
    longest = int(base.architecture["denoiser"]["sample_size"]) * frame_seconds(base)
    if request.seconds > longest + 1e-6:
        raise RecipeError(
            f"the sound is {request.seconds:g} seconds", expected=f"at most {longest:.2f}, the base's window"
        )
    return longest


@torch.no_grad()
def told_of(sampler: Sampler, request: GenerationRequest) -> Conditions:
    """Conditions [1 or 2, ...]: the prompt's, and before them those of guidance.

    Without a negative prompt guidance starts from a zero sequence, as training dropped it; with one, even "", the
    seconds stay (as diffusers' pipeline has it: another result).
    """
    encoder, projection = sampler.components["text_encoder"], sampler.components["projection"]
    seconds = torch.tensor([[0.0, request.seconds]])
    asked = _prompted(sampler, encoder, projection, request.prompt, seconds)
    if request.guidance <= 1:
        return asked
    if request.negative is None:
        against = Conditions(torch.zeros_like(asked.cross), asked.whole)
    else:
        against = _prompted(sampler, encoder, projection, request.negative, seconds)
    return Conditions(torch.cat([against.cross, asked.cross]), torch.cat([against.whole, asked.whole]))


def _prompted(
    sampler: Sampler, encoder: nn.Module, projection: nn.Module, text: str, seconds: torch.Tensor
) -> Conditions:
    ids, own = token_ids(sampler.settings.tokenizer, text)
    counts = torch.tensor([own])
    return conditions(projection, prompt_states(encoder, torch.tensor([ids]), counts), counts, seconds, None)


@torch.no_grad()
def denoise(
    sampler: Sampler, request: GenerationRequest, told: Conditions, frames: int, seed: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """(steps done, latents [1, channels, frames]) after every step; the last are clean."""
    denoiser, sizes = sampler.components["denoiser"], sampler.base.architecture["denoiser"]
    places = rotary(sizes, frames)
    device = denoiser.get_parameter("preprocess_conv.weight").device

    def velocity(given: torch.Tensor, time: float) -> torch.Tensor:
        times = torch.full((len(told.cross),), time)
        answer = predict(denoiser, given.expand(len(told.cross), -1, -1), times, told, places)
        if len(answer) == 1:
            return answer
        without, with_prompt = answer.chunk(2)
        return without + request.guidance * (with_prompt - without)

    def clean(noisy: torch.Tensor, level: float) -> torch.Tensor:
        size = math.sqrt(1.0 + level * level)
        return noisy / (size * size) - velocity(noisy / size, math.atan(level) * 2 / math.pi) * (level / size)

    schedule = sampler.settings.schedule
    lowest, highest = float(schedule["sigma_min"]), float(schedule["sigma_max"])
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, sizes["in_channels"], frames), generator=draw).to(device)
    start = noise * math.sqrt(highest**2 + 1.0)
    if request.sampler in SAMPLERS:
        levels = exponential_levels(lowest, highest, request.steps)
        yield from SAMPLERS[request.sampler](clean, start, levels, seed=seed)
    else:
        yield from _published(velocity, start, schedule, request.steps, draw)


def _published(
    velocity: Callable[[torch.Tensor, float], torch.Tensor],
    latents: torch.Tensor,
    schedule: Mapping[str, Any],
    steps: int,
    draw: torch.Generator,
) -> Iterator[tuple[int, torch.Tensor]]:
    """The sampler that the base was published with, diffusers' own; its noise comes from the generator's seed."""
    from diffusers import CosineDPMSolverMultistepScheduler

    scheduler = CosineDPMSolverMultistepScheduler(**schedule)
    scheduler.set_timesteps(steps)
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        answer = velocity(scheduler.scale_model_input(latents, timestep), float(timestep))
        with warnings.catch_warnings():  # its noise is asked for at levels rounded past the ends by a ten-millionth
            warnings.filterwarnings("ignore", message="Should have t[ab]", category=UserWarning)
            latents = scheduler.step(answer, timestep, latents, generator=draw).prev_sample
        yield step, latents


@torch.no_grad()
def decode(sampler: Sampler, latents: torch.Tensor) -> torch.Tensor:
    """The sound [channels, samples] float32 on the CPU of latents [1, channels, frames]."""
    autoencoder = sampler.frozen["autoencoder"]
    weight = next(autoencoder.parameters())
    sound: torch.Tensor = autoencoder.decode(latents.to(weight.device, weight.dtype)).sample[0]  # type: ignore[operator]
    return sound.float().cpu()
