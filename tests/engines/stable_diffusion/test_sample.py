"""Sampling against diffusers' own pipeline: same latents in, same pictures out."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tunesmith.engines.protocol import Media
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import SCHEDULERS, GenerationRequest
from tunesmith.engines.stable_diffusion.sample import denoise, make_scheduler, prompt_states, starting_latents
from tunesmith.errors import RecipeError, WeightsError
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe

CPU = torch.device("cpu")
CLASSES = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "pndm": diffusers.PNDMScheduler,
}


@pytest.fixture(scope="module")
def sampler(tiny: Any) -> Any:
    return engine.load_sampler(tiny.open(), CPU, torch.float32)


def _request(**changed: Any) -> GenerationRequest:
    values = {"prompt": "a red cat", "negative": "blurry", "steps": 5, "width": 32, "height": 24, "seed": 4, **changed}
    return GenerationRequest(**values)


def _reference(tiny: Any, request: GenerationRequest, output: str) -> Any:
    """The pipeline on its own scheduler of the same kind, from the base's published config."""
    config = {**tiny.pipeline.scheduler.config, "clip_sample": False}
    pipeline = tiny.pipeline
    before = pipeline.scheduler
    pipeline.scheduler = CLASSES[request.scheduler].from_config(config)
    try:
        return pipeline(
            request.prompt,
            negative_prompt=request.negative,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            width=request.width,
            height=request.height,
            generator=torch.Generator().manual_seed(request.seed),
            output_type=output,
        ).images[0]
    finally:
        pipeline.scheduler = before


@pytest.mark.parametrize("guidance", [7.5, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_latents_are_those_of_the_pipeline(tiny: Any, sampler: Any, scheduler: str, guidance: float) -> None:
    request = _request(scheduler=scheduler, guidance=guidance)
    generator = torch.Generator().manual_seed(request.seed)
    states = prompt_states(sampler, request)
    latents = starting_latents(sampler, generator, 32, 24)
    *_, (_, ours) = denoise(sampler, request, states, latents, generator)
    theirs = _reference(tiny, request, "latent")
    assert float(theirs.abs().max()) > 0.1
    torch.testing.assert_close(ours[0], theirs, rtol=1e-5, atol=1e-5)


def test_pictures_are_those_of_the_pipeline(tiny: Any, sampler: Any) -> None:
    request = _request()
    media = list(engine.sample(sampler, request))[-1]
    assert isinstance(media, Media)
    assert media.data.size == (32, 24)
    theirs = np.asarray(_reference(tiny, request, "pil"), dtype=int)
    assert np.abs(np.asarray(media.data, dtype=int) - theirs).max() <= 1  # rounding to 8 bits


def test_all_schedulers_are_known_and_no_others() -> None:
    assert set(CLASSES) == set(SCHEDULERS)
    with pytest.raises(RecipeError, match="no scheduler is called"):
        make_scheduler("plms", {}, 3)


def test_picture_i_of_a_batch_is_the_picture_of_seed_plus_i(sampler: Any) -> None:
    batch = [event for event in engine.sample(sampler, _request(count=3)) if isinstance(event, Media)]
    assert [media.parameters["seed"] for media in batch] == [4, 5, 6]
    for media in batch:
        alone = list(engine.sample(sampler, _request(seed=media.parameters["seed"])))[-1]
        assert np.array_equal(np.asarray(alone.data), np.asarray(media.data))
        assert alone.parameters == media.parameters


def test_long_prompts_take_more_chunks_for_both(sampler: Any) -> None:
    long = " ".join(f"word{index}" for index in range(100))
    states = prompt_states(sampler, _request(prompt=long))
    assert states.shape[0] == 2
    assert (states.shape[1] - 2) % 75 == 0
    assert states.shape[1] > 77
    assert prompt_states(sampler, _request(guidance=1.0)).shape == (1, 77, 32)


def test_a_model_in_training_is_shared_and_left_as_it_was(tiny: Any) -> None:
    recipe = Recipe(
        "stable_diffusion",
        engine.facts.section(resolution=32),
        base=BaseSection(path=str(tiny.single)),
        method=MethodSection(name="full", components=("denoiser", "text_encoder")),
    )
    base = tiny.open()
    model = engine.load_model(base, recipe, CPU, torch.float32)
    sampler = engine.load_sampler(base, CPU, torch.float32, model)
    assert all(sampler.components[role] is module for role, module in model.components.items())
    assert all(module.training for module in model.components.values())
    for event in engine.sample(sampler, _request(steps=2)):
        if not isinstance(event, Media):
            assert not any(module.training for module in model.components.values())
    assert all(module.training for whole in model.components.values() for module in whole.modules())
    assert all(parameter.grad is None for parameter in model.components["denoiser"].parameters())


def test_half_precision_decodes_in_float32(tiny: Any) -> None:
    sampler = engine.load_sampler(tiny.open(), CPU, torch.bfloat16)
    assert next(sampler.components["denoiser"].parameters()).dtype == torch.bfloat16
    assert next(sampler.frozen["autoencoder"].parameters()).dtype == torch.float32
    assert isinstance(list(engine.sample(sampler, _request(steps=2)))[-1], Media)


def test_the_bases_own_size_is_the_default(sampler: Any) -> None:
    media = list(engine.sample(sampler, GenerationRequest(prompt="x", steps=1)))[-1]
    side = sampler.base.architecture["denoiser"]["sample_size"] * 2
    assert media.data.size == (side, side)


@pytest.mark.parametrize(
    ("changed", "message"), [({"width": 33}, "multiple of 2"), ({"clip_skip": 3}, "clip_skip is 3")]
)
def test_impossible_requests_are_refused(sampler: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        list(engine.sample(sampler, _request(**changed)))


def test_a_base_without_weights_cannot_generate() -> None:
    with pytest.raises(WeightsError, match="has no weights yet"):
        engine.load_sampler(engine.open(BaseSection(architecture="tiny32")), CPU, torch.float32)


def test_velocity_bases_reach_the_scheduler(tiny: Any) -> None:
    assert make_scheduler("ddim", {"prediction_type": "v_prediction"}, 2).config.prediction_type == "v_prediction"


def test_a_request_may_say_what_is_predicted(sampler: Any) -> None:
    pictures = [
        list(engine.sample(sampler, _request(steps=2, prediction=how)))[-1].data for how in ("auto", "velocity")
    ]
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))
