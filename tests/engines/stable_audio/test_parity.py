"""Against diffusers: shapes and names, the training objective, whole generations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import tiny_audio
from contract_cases import CASES
from tunesmith.engines.protocol import Batch
from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.load import build_module
from tunesmith.engines.stable_audio.shapes import tensor_shapes
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import MethodSection

CPU = torch.device("cpu")


@pytest.mark.parametrize("form", ["folder", "original"])
def test_every_tensor_is_the_very_one(form: str, tiny: Any) -> None:
    """Both layouts against the modules that diffusers and transformers read: largest difference 0."""
    base = tiny.open(form)
    modules = {
        "denoiser": tiny.pipeline.transformer,
        "autoencoder": tiny.pipeline.vae,
        "projection": tiny.pipeline.projection_model,
        "text_encoder": tiny.pipeline.text_encoder,
    }
    for role, module in modules.items():
        read = dict(engine.tensors(base, role))
        wanted = dict(module.named_parameters())
        assert read.keys() == wanted.keys()
        assert all(torch.equal(read[name], wanted[name]) for name in wanted)
        assert {name: tuple(tensor.shape) for name, tensor in wanted.items()} == tensor_shapes(
            role, base.architecture[role]
        )


@pytest.mark.parametrize("role", ["denoiser", "projection", "autoencoder", "text_encoder"])
def test_shapes_of_the_published_model(role: str) -> None:
    """Stable Audio Open 1.0 without memory: names, shapes and the published counts."""
    from tunesmith.engines.stable_audio.architecture import named_architecture

    sizes = named_architecture("stable_audio_open_1")[role]
    with torch.device("meta"):
        module = build_module(role, sizes)
    found = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    found.pop("encoder.embed_tokens.weight", None)  # the shared embedding's second name
    assert found == tensor_shapes(role, sizes)
    millions = sum(math.prod(shape) for shape in found.values()) / 1e6
    published = {"denoiser": 1056.9, "projection": 0.4, "autoencoder": 156.1, "text_encoder": 109.6}
    assert millions == pytest.approx(published[role], abs=0.06)


def independent_loss(pipeline: Any, batch: Batch, times: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The v objective on diffusers' modules, written from the model's description."""
    latents = batch.tensors["latents"]
    alpha, sigma = torch.cos(times * math.pi / 2), torch.sin(times * math.pi / 2)
    states = batch.tensors["states"]
    start, total = batch.tensors["seconds"].unbind(1)
    told = pipeline.projection_model(text_hidden_states=states, start_seconds=start, end_seconds=total)
    numbers = (told.seconds_start_hidden_states, told.seconds_end_hidden_states)
    cross = torch.cat([told.text_hidden_states, *numbers], dim=1)
    cross = torch.stack([row * keep for row, keep in zip(cross, batch.tensors["keep"], strict=True)])
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    rotary = get_1d_rotary_pos_embed(
        tiny_audio.DENOISER["attention_head_dim"] // 2,
        latents.shape[2] + 1,
        use_real=True,
        repeat_interleave_real=False,
    )
    noisy = alpha[:, None, None] * latents + sigma[:, None, None] * noise
    answer = pipeline.transformer(
        noisy,
        times,
        encoder_hidden_states=cross,
        global_hidden_states=torch.cat(numbers, dim=2),
        rotary_embedding=rotary,
        return_dict=False,
    )[0]
    target = alpha[:, None, None] * noise - sigma[:, None, None] * latents
    return F.mse_loss(answer, target, reduction="none").mean(dim=(1, 2))


def test_the_loss_is_the_independent_one(tiny: Any) -> None:
    base, draw = tiny.open(), torch.Generator().manual_seed(1)
    recipe = CASES["stable_audio"].recipe(tiny.folder, MethodSection(name="full"))
    model = engine.load_model(base, recipe, CPU, torch.float32)
    own = torch.tensor([12, 5, 1])
    states = torch.randn(3, 12, 32, generator=draw) * (torch.arange(12)[None, :, None] < own[:, None, None])
    noise, times = torch.randn(3, 8, 20, generator=draw), torch.tensor([0.05, 0.5, 0.97])
    tensors = {
        "latents": torch.randn(3, 8, 20, generator=draw),
        "seconds": torch.tensor([[0.0, 1.0], [3.0, 9.0], [0.0, 600.0]]),
        "keep": torch.tensor([1.0, 0.0, 1.0]),
        "states": states,
        "own_tokens": own,
        "noise": noise,
        "times": times,
    }
    batch = Batch(tensors, ("a", "b", "c"), ("", "", ""), torch.ones(3))
    loss = engine.loss(model, batch, recipe, BatchRng(0, (0, 1, 2)))
    wanted = independent_loss(tiny.pipeline, batch, times, noise)
    torch.testing.assert_close(loss.per_item, wanted, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(loss.total, model.components["denoiser"].get_parameter("proj_in.weight"))
    theirs = torch.autograd.grad(wanted.mean(), tiny.pipeline.transformer.proj_in.weight)
    torch.testing.assert_close(gradients, theirs, rtol=1e-4, atol=1e-7)


def test_training_rule_and_sampler_agree() -> None:
    """From the velocity that training asks for, the published scheduler finds the clean latents."""
    from diffusers import CosineDPMSolverMultistepScheduler

    from tunesmith.numeric.noise import cosine_angles

    scheduler = CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500)
    scheduler.set_timesteps(8)
    clean, noise = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2)).unbind(0)
    for time, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        alpha, share = cosine_angles(time.double())
        velocity = alpha * noise - share * clean
        found = scheduler.precondition_outputs(clean.double() + sigma * noise, velocity, sigma.double())
        torch.testing.assert_close(found.float(), clean, rtol=0, atol=2e-4 * max(1.0, float(sigma) / 100))


@pytest.mark.parametrize("negative", [None, "", "music"])
@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_a_generation_is_the_pipelines_own(negative: str | None, guidance: float, tiny: Any) -> None:
    base = tiny.open()
    request = engine.facts.request(
        prompt="a creature growl", negative=negative, seconds=0.5, steps=5, seed=3, guidance=guidance
    )
    sampler = engine.load_sampler(base, CPU, torch.float32)
    *_, media = engine.sample(sampler, request)
    draw = torch.Generator().manual_seed(3)
    latents = torch.randn((1, 8, math.ceil(500 / 8)), generator=draw)
    wanted = tiny.pipeline(
        "a creature growl",
        negative_prompt=negative,
        audio_end_in_s=0.5,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=draw,
        latents=latents,
    ).audios[0]
    assert media.data.shape == (2, 500)
    torch.testing.assert_close(torch.from_numpy(media.data), wanted[:, :500], rtol=1e-4, atol=1e-4)


def test_our_folder_loads_in_diffusers(tiny: Any, tmp_path: Any) -> None:
    import diffusers

    path = engine.write_base(tiny.open("original"), {}, tmp_path / "written", "diffusers", "fp32")
    pipeline = diffusers.StableAudioPipeline.from_pretrained(str(path))
    for name in ("transformer", "vae", "projection_model", "text_encoder"):
        ours = dict(getattr(pipeline, name).named_parameters())
        theirs = dict(getattr(tiny.pipeline, name).named_parameters())
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    words = "a creature growl, ghoul"
    assert pipeline.tokenizer(words).input_ids == tiny.pipeline.tokenizer(words).input_ids
    assert pipeline.tokenizer.model_max_length == tiny_audio.TOKENS
