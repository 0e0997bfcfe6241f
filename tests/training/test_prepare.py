"""What trains after `prepare`: exactly what the method says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import Run, make_run, recipe_of
from tunesmith.engines.protocol import Model
from tunesmith.errors import AdapterError, PlanRefused
from tunesmith.training.prepare import prepare, recompute_activations

BOTH = {"components": ("denoiser", "text_encoder")}


def trains(run: Run) -> set[str]:
    return {
        f"{component}/{name}"
        for component, module in run.model.components.items()
        for name, value in module.named_parameters()
        if value.requires_grad
    }


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_adapters_leave_the_base_alone(world: Path, name: str) -> None:
    run = make_run(world, recipe_of(world, method={"name": name, **BOTH}))
    base = {
        k: v for module in run.model.components.values() for k, v in module.named_parameters() if not v.requires_grad
    }
    before = {key: value.detach().clone() for key, value in base.items()}
    run.go(3)
    assert all(torch.equal(value, before[key]) for key, value in base.items())
    assert all("lora_" in key for key in trains(run))
    slots = {key.rpartition(".")[2] for key in run.state.parameters}
    assert slots == ({"down", "up"} if name == "lora" else {"down", "up", "magnitude"})
    assert [group.component for group in run.state.groups] == ["denoiser", "text_encoder"]


@pytest.mark.parametrize("name", ["full", "scratch"])
def test_whole_components_train_in_float32(world: Path, name: str) -> None:
    run = make_run(world, recipe_of(world, method={"name": name}, resources={"precision": "bf16"}))
    assert trains(run) == set(run.state.parameters)
    assert {key.split("/")[0] for key in run.state.parameters} == {"denoiser"}
    assert {value.dtype for value in run.state.parameters.values()} == {torch.float32}
    before = run.bits()
    run.go(1)
    after = run.bits()
    assert all(not torch.equal(after[f"parameter/{key}"], before[f"parameter/{key}"]) for key in run.state.parameters)


def test_rate_zero_leaves_a_component_without_adapter(world: Path) -> None:
    recipe = recipe_of(world, method=BOTH, optimiser={"rates": {"text_encoder": 0.0}})
    run = make_run(world, recipe)
    assert {key.split("/")[0] for key in run.state.parameters} == {"denoiser"}
    only_denoiser = make_run(world, recipe_of(world))
    assert run.losses(3) == only_denoiser.losses(3)


def test_a_run_starts_from_another_adapter(world: Path) -> None:
    first = make_run(world, recipe_of(world))
    first.go(3)
    assert first.state.attached is not None
    second = make_run(world, recipe_of(world), init=first.state.attached.adapter())
    for name, value in first.state.parameters.items():
        assert torch.equal(second.state.parameters[name], value)
    assert second.state.step == 0
    with pytest.raises(AdapterError, match="rank"):
        make_run(world, recipe_of(world, method={"rank": 3}), init=first.state.attached.adapter())
    with pytest.raises(PlanRefused, match="trains whole components"):
        make_run(world, recipe_of(world, method={"name": "full"}), init=first.state.attached.adapter())


def test_frozen_helpers_stay_frozen(world: Path) -> None:
    run = make_run(world, recipe_of(world, data={"shuffle_tags": True}))
    assert run.model.frozen
    assert not any(value.requires_grad for module in run.model.frozen.values() for value in module.parameters())
    assert not any(module.training for module in run.model.frozen.values())
    assert run.model.components["denoiser"].training


def test_a_component_without_layers_is_refused(world: Path) -> None:
    run = make_run(world, recipe_of(world))

    class NoTextLayers:
        facts = run.engine.facts

        def targets(self, model: Model, method: Any) -> Any:
            return [target for target in run.engine.targets(model, method) if target.component == "denoiser"]

    recipe = recipe_of(world, method=BOTH)
    model = run.engine.load_model(run.base, recipe, torch.device("cpu"), torch.float32)
    with pytest.raises(PlanRefused, match="component text_encoder has no layer"):
        prepare(NoTextLayers(), model, recipe=recipe)  # type: ignore[arg-type]


class _Diffusers(torch.nn.Module):
    on = False

    def enable_gradient_checkpointing(self) -> None:
        self.on = True


class _Transformers(torch.nn.Module):
    on = False

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict[str, Any]) -> None:
        self.on = activation_checkpointing_kwargs == {"use_reentrant": False}

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
        raise AssertionError("the deprecated name of the above")


class _OlderTransformers(torch.nn.Module):
    on = False

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
        self.on = gradient_checkpointing_kwargs == {"use_reentrant": False}


@pytest.mark.parametrize("kind", [_Diffusers, _Transformers, _OlderTransformers])
def test_checkpointing_is_switched_on_by_any_of_its_names(kind: type) -> None:
    module = kind()
    recompute_activations("denoiser", module)
    assert module.on


def tiny_text_model() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = CLIPTextConfig(
        vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=6, attention_dropout=0.2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return CLIPTextModel(sizes)


def tiny_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def text_output(module: torch.nn.Module) -> torch.Tensor:
    output: torch.Tensor = module(torch.arange(6)[None]).last_hidden_state
    return output


def unet_output(module: torch.nn.Module) -> torch.Tensor:
    output: torch.Tensor = module(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 2, 8)).sample
    return output


@pytest.mark.parametrize(
    ("make", "output", "part"),
    [(tiny_text_model, text_output, "mlp.fc1"), (tiny_unet, unet_output, "attn1.to_q")],
    ids=["transformers", "diffusers"],
)
def test_recomputing_gives_the_same_gradients_by_computing_twice(make: Any, output: Any, part: str) -> None:
    """With a frozen embedding and one trained layer in the middle, and dropout, which must be drawn the same twice."""
    gradients, calls = [], []
    for switch in (False, True):
        module = make().requires_grad_(False).train()
        layer = next(found for name, found in module.named_modules() if name.endswith(part))
        layer.weight.requires_grad_(True)
        seen: list[int] = []
        layer.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        if switch:
            recompute_activations("part", module)
        torch.manual_seed(1)
        output(module).square().sum().backward()
        gradients.append(layer.weight.grad)
        calls.append(len(seen))
    assert calls == [1, 2]
    assert torch.equal(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0


def test_checkpointing_is_refused_where_it_does_not_exist(world: Path) -> None:
    recipe = recipe_of(world, "test_tokens", method={"gradient_checkpointing": True})
    engine = make_run(world, recipe_of(world, "test_tokens")).engine
    model = engine.load_model(engine.open(recipe.base), recipe, torch.device("cpu"), torch.float32)
    bare = replace(
        model, components={"decoder": torch.nn.ModuleDict(dict(model.components["decoder"].named_children()))}
    )
    with pytest.raises(PlanRefused, match=r"gradient_checkpointing=false"):
        recompute_activations("decoder", bare.components["decoder"])
