"""Pictures from a base: a short denoising loop over diffusers' schedulers, sharing live modules with a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from tunesmith.engines.protocol import Base, Media, Model, Sampler
from tunesmith.engines.stable_diffusion.choices import downscale
from tunesmith.engines.stable_diffusion.encode import check_clip_skip
from tunesmith.engines.stable_diffusion.facts import SCHEDULERS, GenerationRequest
from tunesmith.engines.stable_diffusion.load import home_of, part_module
from tunesmith.engines.stable_diffusion.text import text_states
from tunesmith.engines.stable_diffusion.tokenizer import CHUNK, chunked_ids, open_tokenizer, token_ids
from tunesmith.errors import RecipeError
from tunesmith.events import Progress
from tunesmith.weights.modules import evaluating

PREDICTIONS = {"epsilon": "epsilon", "velocity": "v_prediction"}  # our words -> diffusers'
PROMPT_CHUNKS = 8  # prompts are cut after 600 tokens


@dataclass(frozen=True)
class SamplerSettings:
    """What sampling needs besides the modules. `side` is the base's own picture side in pixels."""

    tokenizer: Any
    schedule: dict[str, Any]
    scaling_factor: float
    downscale: int
    side: int
    layers: int


def load_sampler(base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
    """The three modules of a base; those of `model` are shared, the others loaded.

    The autoencoder is kept in float32: in half precision some overflow.
    """
    live = {**model.frozen, **model.components} if model else {}
    modules: dict[str, nn.Module] = {}
    for role in ("denoiser", "text_encoder", "autoencoder"):
        wanted = torch.float32 if role == "autoencoder" else dtype
        modules[role] = live[role] if role in live else part_module(base, role, device, wanted)
    tokenizer = base.parts.get("tokenizer")
    factor = downscale(base)
    settings = SamplerSettings(
        tokenizer=open_tokenizer(tokenizer.path if tokenizer else None),
        schedule={**base.architecture["scheduler"], **_live_prediction(model)},
        scaling_factor=float(base.architecture["autoencoder"]["scaling_factor"]),
        downscale=factor,
        side=int(base.architecture["denoiser"]["sample_size"]) * factor,
        layers=int(base.architecture["text_encoder"]["num_hidden_layers"]),
    )
    components = {role: modules[role] for role in ("denoiser", "text_encoder")}
    return Sampler(components, {"autoencoder": modules["autoencoder"]}, settings, base)


def _live_prediction(model: Model | None) -> dict[str, str]:
    """What a model in training learns to predict, which its recipe may have set."""
    return {} if model is None else {"prediction_type": PREDICTIONS[model.settings.prediction]}


def make_scheduler(name: str, schedule: dict[str, Any], steps: int) -> Any:
    """A diffusers scheduler for SD 1.x, its timesteps set."""
    import diffusers

    classes: dict[str, tuple[Any, dict[str, Any]]] = {
        "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
        "euler": (diffusers.EulerDiscreteScheduler, {"steps_offset": 1}),
        "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {"steps_offset": 1}),
        "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "steps_offset": 1}),
        "unipc": (diffusers.UniPCMultistepScheduler, {"steps_offset": 1}),
        "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    }
    if name not in classes:
        raise RecipeError(f"no scheduler is called {name!r}", expected=f"one of {', '.join(SCHEDULERS)}")
    kind, options = classes[name]
    scheduler = kind(**schedule, **options)
    scheduler.set_timesteps(steps)
    return scheduler


def sample(
    sampler: Sampler, request: GenerationRequest, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Progress | Media]:
    """Progress after every step, then a Media per picture; picture i uses seed + i, whatever `count` is."""
    width, height = _size(sampler.settings, request)
    total = request.count * request.steps
    with evaluating([*sampler.components.values(), *sampler.frozen.values()]):
        states = prompt_states(sampler, request)
        for index in range(request.count):
            seed = request.seed + index
            generator = torch.Generator().manual_seed(seed)
            latents = noise = starting_latents(sampler, generator, width, height)
            done = index * request.steps
            for step, now in denoise(sampler, request, states, noise, generator):
                latents = now
                yield Progress(min(done + step, done + request.steps), total, "steps")
                if should_stop():
                    return
            picture = decode(sampler, latents)
            parameters = {**dataclasses.asdict(request), "seed": seed, "count": 1, "width": width, "height": height}
            yield Media("image", picture, parameters)


def _size(settings: SamplerSettings, request: GenerationRequest) -> tuple[int, int]:
    width, height = request.width or settings.side, request.height or settings.side
    for name, side in (("width", width), ("height", height)):
        if side % settings.downscale:
            raise RecipeError(f"{name} is {side} pixels", expected=f"a multiple of {settings.downscale}")
    return width, height


@torch.no_grad()
def prompt_states(sampler: Sampler, request: GenerationRequest) -> torch.Tensor:
    """States [1 or 2, tokens, width]: the prompt's, and before them the negative prompt's when there is guidance.

    Long prompts take more chunks of 75 tokens; both prompts are padded to the same number.
    """
    settings: SamplerSettings = sampler.settings
    check_clip_skip(request.clip_skip, settings.layers)
    texts = [request.negative, request.prompt] if request.guidance > 1 else [request.prompt]
    longest = max(len(token_ids(settings.tokenizer, text)) for text in texts)
    chunks = min(PROMPT_CHUNKS, max(1, -(-longest // CHUNK)))
    ids = torch.tensor([chunked_ids(settings.tokenizer, text, chunks * CHUNK) for text in texts])
    return text_states(sampler.components["text_encoder"], ids, request.clip_skip)


def starting_latents(sampler: Sampler, generator: torch.Generator, width: int, height: int) -> torch.Tensor:
    """Standard normal latents [1, channels, height / f, width / f], drawn on the CPU so that devices agree."""
    channels = sampler.base.architecture["denoiser"]["in_channels"]
    factor = sampler.settings.downscale
    return torch.randn((1, channels, height // factor, width // factor), generator=generator)


def denoise(
    sampler: Sampler,
    request: GenerationRequest,
    states: torch.Tensor,
    latents: torch.Tensor,
    generator: torch.Generator,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(steps done, latents) after every step, from standard normal latents."""
    denoiser = sampler.components["denoiser"]
    device, dtype = home_of(denoiser)
    schedule = dict(sampler.settings.schedule)
    if request.prediction != "auto":
        schedule["prediction_type"] = PREDICTIONS[request.prediction]
    scheduler = make_scheduler(request.scheduler, schedule, request.steps)
    latents = (latents * scheduler.init_noise_sigma).to(device)
    states = states.to(device, dtype)
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        with torch.no_grad():
            scaled = scheduler.scale_model_input(latents, timestep)
            prediction = denoiser(scaled.expand(len(states), -1, -1, -1).to(dtype), timestep, states).sample
            prediction = prediction.float()
            if len(states) == 2:
                without, with_prompt = prediction.chunk(2)
                prediction = without + request.guidance * (with_prompt - without)
            options = {} if request.scheduler in ("dpmpp_2m", "unipc", "pndm") else {"generator": generator}
            latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
        yield step, latents


@torch.no_grad()
def decode(sampler: Sampler, latents: torch.Tensor) -> Image.Image:
    """The picture of latents [1, channels, h, w]."""
    autoencoder = sampler.frozen["autoencoder"]
    weight = next(autoencoder.parameters())
    scaled = latents.to(weight.device, weight.dtype) / sampler.settings.scaling_factor
    pixels = autoencoder.decode(scaled).sample[0].float()  # type: ignore[operator]
    array = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)
