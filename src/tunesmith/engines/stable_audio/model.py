"""What trains, loaded: the modules of a stage and the settings their loss needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from tunesmith.engines.protocol import Base, Model, Target
from tunesmith.engines.stable_audio.architecture import ROLES
from tunesmith.engines.stable_audio.choices import text_is_live, trained
from tunesmith.engines.stable_audio.layouts import ADAPTED, adapter_layers
from tunesmith.engines.stable_audio.load import canonical_tensors, part_module
from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import MethodSection, Recipe


@dataclass(frozen=True)
class ModelSettings:
    """Provenance of a loaded model, and parts made from the seed that no file holds yet."""

    base: Base
    created: Mapping[str, nn.Module] = field(default_factory=dict)


def load_model(base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
    """The stage's modules: components that train and frozen ones their loss needs.

    Frozen weights and the base under an adapter come in `dtype`; components that train fully in float32.
    """
    names = trained(recipe)
    whole = recipe.method.name in ("full", "scratch")
    if recipe.method.stage == "autoencoder":
        roles = ["autoencoder"]
    else:
        roles = ["denoiser", "projection", *(["text_encoder"] if text_is_live(recipe) else [])]
    if not set(names) <= set(roles) or not names:
        raise PlanRefused(f"stage {recipe.method.stage} cannot train {', '.join(names) or 'nothing'}")
    modules = {}
    for role in roles:
        wanted = torch.float32 if whole and role in names else dtype
        modules[role] = part_module(base, role, device, wanted, recipe.length.seed)
        modules[role].requires_grad_(whole and role in names)
        modules[role].train(role in names)
        if recipe.method.gradient_checkpointing:
            _checkpoint(role, modules[role])
    if "denoiser" in modules:  # fixed random frequencies, not weights: the library keeps them out of training too
        modules["denoiser"].get_parameter("time_proj.weight").requires_grad_(False)
    components = {role: module for role, module in modules.items() if role in names}
    frozen = {role: module for role, module in modules.items() if role not in names}
    return Model(components, frozen, ModelSettings(base, _created(base, recipe, frozen)))


def _created(base: Base, recipe: Recipe, frozen: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Parts made from the seed that do not train: a checkpoint has to carry them too."""
    made = {role: module for role, module in frozen.items() if base.parts[role].path is None}
    if recipe.method.stage == "denoiser":
        cpu = torch.device("cpu")
        for role in ROLES:
            if base.parts[role].path is None and role not in made and role not in trained(recipe):
                made[role] = part_module(base, role, cpu, torch.float32, recipe.length.seed)
    return made


def _checkpoint(role: str, module: nn.Module) -> None:
    if role == "denoiser":
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    elif role == "text_encoder":  # transformers renames this verb on its way to version 6
        enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # type: ignore[operator]


def targets_of(model: Model, method: MethodSection) -> tuple[Target, ...]:
    """The layers an adapter goes on: attention and feed-forward, all linear."""
    del method
    architecture = model.settings.base.architecture
    found = []
    for component in model.components:
        if component not in ADAPTED:
            raise PlanRefused(f"an adapter cannot go on the {component}", do="use method full or scratch")
        found += [Target(component, layer, layer, "linear") for layer in adapter_layers(architecture[component])]
    return tuple(found)


def trained_weights(model: Model) -> dict[str, dict[str, torch.Tensor]]:
    """role -> canonical name -> tensor of what trained and of frozen parts that no file holds."""
    modules = {**model.settings.created, **model.components}
    return {role: canonical_tensors(module) for role, module in modules.items()}
