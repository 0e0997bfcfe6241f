"""From a loaded model to a state that can train: what moves, at which rate, by which rule."""

from __future__ import annotations

import torch

from tunesmith.adapters.adapter import Adapter
from tunesmith.adapters.attach import attach
from tunesmith.adapters.attached import Attached
from tunesmith.engines.protocol import Engine, Model
from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import Recipe
from tunesmith.training.components import rates_of, settled
from tunesmith.training.optimisers import make_optimiser
from tunesmith.training.state import Group, TrainState
from tunesmith.training.world import World

ADAPTER_METHODS = ("lora", "dora")
# By method name: diffusers, transformers from 5.23, transformers before. The reentrant variant needs an input with a
# gradient, which a frozen embedding does not give.
_PLAIN = {"use_reentrant": False}
_CHECKPOINTING: tuple[tuple[str, dict[str, dict[str, bool]]], ...] = (
    ("enable_gradient_checkpointing", {}),
    ("activation_checkpointing_enable", {"activation_checkpointing_kwargs": _PLAIN}),
    ("gradient_checkpointing_enable", {"gradient_checkpointing_kwargs": _PLAIN}),
)


def prepare(
    engine: Engine,
    model: Model,
    *,
    recipe: Recipe,
    world: World | None = None,
    init: Adapter | None = None,
    scaler: bool = False,
) -> TrainState:
    """A state at step 0. Freezes everything first, then lets train exactly what the method says.

    `lora` and `dora` attach adapters (starting from `init` where given); `full` and `scratch` train the chosen
    components whole, in float32. `scaler` scales gradients against fp16 underflow (`Precision.scaler`). Raises
    PlanRefused for what the engine, the method or the optimiser cannot do.
    """
    rates, recipe = rates_of(engine.facts, recipe), settled(engine.facts, recipe)
    freeze(model)
    attached: Attached | None = None
    buffers: dict[str, torch.Tensor] = {}
    if recipe.method.name in ADAPTER_METHODS:
        attached = _attach(engine, model, recipe, init)
        parameters = attached.parameters()
    else:
        parameters, buffers = _unfreeze(model, recipe, init)
    _check_exactly(model, parameters)
    for name in rates:
        model.components[name].train()
        if recipe.method.gradient_checkpointing:
            recompute_activations(name, model.components[name])
    groups = tuple(
        Group(name, rate, {key: value for key, value in parameters.items() if key.startswith(f"{name}/")})
        for name, rate in rates.items()
    )
    for group in groups:
        if not group.parameters:
            raise PlanRefused(
                f"component {group.component} has no layer an adapter could go on",
                do=f"set optimiser.rates={{{group.component}: 0}}, or use method full",
            )
    device = next(iter(parameters.values())).device
    decay = recipe.optimiser.ema_decay
    return TrainState(
        groups=groups,
        optimiser=make_optimiser(recipe.optimiser, groups, device),
        seed=recipe.length.seed,
        buffers=buffers,
        ema=None if decay is None else {name: value.detach().clone() for name, value in _ordered(groups).items()},
        attached=attached,
        scaler=torch.amp.GradScaler(device.type) if scaler else None,
        world=world or World(),
    )


def freeze(model: Model) -> None:
    """Nothing trains: no gradients, evaluation mode, frozen helpers included."""
    for module in (*model.components.values(), *model.frozen.values()):
        module.requires_grad_(False).eval()


def recompute_activations(name: str, module: torch.nn.Module) -> None:
    """Switch gradient checkpointing on, by whichever name the component's library has for it."""
    for switch, arguments in _CHECKPOINTING:
        if hasattr(module, switch):
            getattr(module, switch)(**arguments)
            return
    raise PlanRefused(
        f"component {name} cannot recompute its activations", do="set method.gradient_checkpointing=false"
    )


def _attach(engine: Engine, model: Model, recipe: Recipe, init: Adapter | None) -> Attached:
    attached = attach(model, engine.targets(model, recipe.method), recipe.method, seed=recipe.length.seed)
    if init is not None:
        attached.load(init)
    return attached


def _unfreeze(
    model: Model, recipe: Recipe, init: Adapter | None
) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.Tensor]]:
    if init is not None:
        raise PlanRefused(
            f"base.init is an adapter, and method {recipe.method.name} trains whole components",
            do="merge it into a checkpoint first and open that as base.path, or use method lora",
        )
    parameters: dict[str, torch.nn.Parameter] = {}
    buffers: dict[str, torch.Tensor] = {}
    for name in recipe.method.components:
        module = model.components[name]
        # What the engine loaded frozen beside what trains stays so: fixed frequencies and the like.
        fixed = {key for key, value in module.named_parameters() if not value.requires_grad}
        if len(fixed) == sum(1 for _ in module.parameters()):
            fixed = set()
        for key, value in module.named_parameters():
            value.requires_grad_(key not in fixed)
        if any(value.dtype != torch.float32 for value in module.parameters()):
            module.to(torch.float32)
        own = {key: value for key, value in module.named_parameters() if key not in fixed}
        parameters.update({f"{name}/{key}": value for key, value in own.items()})
        buffers.update({f"{name}/{key}": value for key, value in module.named_buffers()})
    return parameters, buffers


def _ordered(groups: tuple[Group, ...]) -> dict[str, torch.nn.Parameter]:
    return {name: value for group in groups for name, value in group.parameters.items()}


def _check_exactly(model: Model, parameters: dict[str, torch.nn.Parameter]) -> None:
    """Our own invariant: what has a gradient is what the state moves, all of it float32."""
    modules = (*model.components.values(), *model.frozen.values())
    live = {id(value) for module in modules for value in module.parameters() if value.requires_grad}
    assert live == {id(value) for value in parameters.values()}, "something else than what was prepared would train"
    assert all(value.dtype == torch.float32 for value in parameters.values()), "what trains must be float32"
