"""What trains, loaded: the modules of a stage and the settings their loss needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from tunesmith.engines.protocol import Base, Model, Target
from tunesmith.engines.stable_diffusion.choices import text_is_live, trained
from tunesmith.engines.stable_diffusion.encode import check_clip_skip
from tunesmith.engines.stable_diffusion.layouts import ADAPTED, adapter_layers
from tunesmith.engines.stable_diffusion.load import canonical_tensors, part_module
from tunesmith.engines.stable_diffusion.names import live_layer
from tunesmith.errors import PlanRefused
from tunesmith.numeric.noise import alphas_cumprod, scaled_linear_betas
from tunesmith.recipe.schema import MethodSection, Recipe


@dataclass(frozen=True)
class ModelSettings:
    """Schedule and provenance of a loaded model. `alpha_bar` [steps] float32 on the CPU."""

    alpha_bar: torch.Tensor
    prediction: str  # epsilon or velocity
    base: Base
    created: Mapping[str, nn.Module] = field(default_factory=dict)  # frozen parts that no file holds yet


def schedule_of(base: Base) -> torch.Tensor:
    """alpha_bar [steps] of a base's noise schedule."""
    schedule = base.architecture["scheduler"]
    betas = scaled_linear_betas(schedule["beta_start"], schedule["beta_end"], schedule["num_train_timesteps"])
    return alphas_cumprod(betas)


def prediction_of(base: Base) -> str:
    """What the base's denoiser predicts: epsilon or velocity."""
    return "velocity" if base.architecture["scheduler"]["prediction_type"] == "v_prediction" else "epsilon"


def load_model(base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
    """The stage's modules: components that train and frozen ones their loss needs.

    Frozen weights and the base under an adapter come in `dtype`; components that train fully in float32.
    """
    names = trained(recipe)
    whole = recipe.method.name in ("full", "scratch")
    if recipe.method.stage == "autoencoder":
        roles = ["autoencoder"]
    else:
        roles = ["denoiser", *(["text_encoder"] if text_is_live(recipe) else [])]
        check_clip_skip(recipe.settings.clip_skip, base.architecture["text_encoder"]["num_hidden_layers"])
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
    components = {role: module for role, module in modules.items() if role in names}
    frozen = {role: module for role, module in modules.items() if role not in names}
    settings = ModelSettings(schedule_of(base), _prediction(base, recipe), base, _created(base, recipe, frozen))
    return Model(components, frozen, settings)


def _prediction(base: Base, recipe: Recipe) -> str:
    """What the recipe says the denoiser predicts, or else the base."""
    chosen, declared = str(recipe.settings.prediction), prediction_of(base)
    if chosen in ("auto", declared):
        return declared
    if recipe.method.name == "scratch" and recipe.method.stage == "denoiser":
        raise PlanRefused(
            f"engine.prediction is {chosen}, but the architecture declares {declared}, and the new base would say so",
            do="set scheduler.prediction_type in an architecture file (epsilon or v_prediction) instead",
        )
    return chosen


def _created(base: Base, recipe: Recipe, frozen: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Parts made from the seed that do not train: a checkpoint has to carry them too."""
    made = {role: module for role, module in frozen.items() if base.parts[role].path is None}
    if recipe.method.stage == "denoiser":
        cpu = torch.device("cpu")
        for role in ("text_encoder", "autoencoder"):
            if base.parts[role].path is None and role not in made and role not in trained(recipe):
                made[role] = part_module(base, role, cpu, torch.float32, recipe.length.seed)
    return made


def _checkpoint(role: str, module: nn.Module) -> None:
    if role == "text_encoder":  # transformers renames this verb on its way to version 6
        enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # type: ignore[operator]
    else:
        module.enable_gradient_checkpointing()  # type: ignore[operator]


def targets_of(model: Model, method: MethodSection) -> tuple[Target, ...]:
    """The layers an adapter goes on; convolution blocks only where `conv_rank` is set."""
    architecture = model.settings.base.architecture
    found = []
    for component in model.components:
        if component not in ADAPTED:
            raise PlanRefused(f"an adapter cannot go on the {component}", do="use method full or scratch")
        layers = adapter_layers(component, architecture[component], convolutions=method.conv_rank is not None)
        found += [Target(component, layer, live_layer(component, layer), kind) for layer, kind in layers.items()]
    return tuple(found)


def trained_weights(model: Model) -> dict[str, dict[str, torch.Tensor]]:
    """role -> canonical name -> tensor of what trained and of frozen parts that no file holds."""
    modules = {**model.settings.created, **model.components}
    return {role: canonical_tensors(role, module) for role, module in modules.items()}
