"""Put adapters on running modules through peft. Freeze first, attach second, check that exactly the adapter trains."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from tunesmith.adapters.adapter import Adapter, Layer, check_pair, check_whole, delta, row_norm
from tunesmith.adapters.attached import Attached, Place, check_exactly_trains
from tunesmith.adapters.seams import HasComponents, Spot
from tunesmith.errors import AdapterError
from tunesmith.numeric.rng import generator
from tunesmith.recipe.schema import MethodSection

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def attach(
    model: HasComponents, targets: Sequence[Spot], method: MethodSection, seed: int, name: str = "default"
) -> Attached:
    """A new adapter on `targets`: everything of the model's components is frozen, the factors (float32) train.

    `down` starts Kaiming-uniform with a = sqrt(5), so within 1 / sqrt(fan_in), from a generator that depends only on
    the seed and the layer's canonical name; `up` starts at zero, the magnitude of DoRA at the rows' norms, so the
    model starts out unchanged. Raises AdapterError, leaving the model as it was.
    """
    components = model.components
    dora = method.name == "dora"
    layers = _layers(components, targets, name)
    wanted = {layer: _rank_alpha(spot, method) for layer, spot in zip(layers, targets, strict=True)}
    if dora:
        _check_dora(layers, method)
    before = {parameter: parameter.requires_grad for module in components.values() for parameter in module.parameters()}
    for parameter in before:
        parameter.requires_grad_(False)
    attached = _wrap(components, targets, wanted, name, frozen=before, dropout=method.dropout, dora=dora)
    for (component, canonical), place in attached.places.items():
        _start(place.wrapper, name, generator(seed, 0, f"adapter/{component}/{canonical}"))
    try:
        check_exactly_trains(components, attached)
    except AdapterError:
        attached.detach()
        raise
    return attached


def attach_adapter(
    components: Mapping[str, nn.Module],
    targets: Sequence[Spot],
    adapter: Adapter,
    name: str,
    weight: float = 1.0,
) -> Attached:
    """Given factors on running modules, for generation: they do not train, and what trains goes on as it was.

    `targets` are the engine's targets for every layer the adapter could have; those without factors stay free.
    Raises AdapterError where a factor finds no layer or does not fit it ("LoRA for another base").
    """
    spots = {(spot.component, spot.canonical): spot for spot in targets}
    absent = [layer for layer in adapter.layers if layer not in spots]
    if absent or not adapter.layers:
        first = f": {absent[0][1]} of {absent[0][0]}" if absent else ""
        raise AdapterError(
            f"{len(absent)} of {len(adapter.layers)} layers of the adapter are not in this model{first}",
            expected="an adapter of this architecture",
            do="choose the base that it was trained on",
        )
    chosen = [spots[layer] for layer in adapter.layers]
    for layer, module in _layers(components, chosen, name, strict=False).items():
        check_whole(layer[1], adapter.layers[layer])
        check_pair(layer[1], adapter.layers[layer], _weight_of(module).shape)
    trained = {p: p.requires_grad for module in components.values() for p in module.parameters()}
    groups: list[Attached] = []
    for dora in (False, True):
        part = [s for s in chosen if (adapter.layers[s.component, s.canonical].magnitude is not None) == dora]
        wanted = {(s.component, s.canonical): adapter.layers[s.component, s.canonical] for s in part}
        ranks = {layer: (pair.rank, pair.alpha) for layer, pair in wanted.items()}
        if part:
            groups.append(_wrap(components, part, ranks, name, frozen={}, dora=dora))
    attached = Attached(name, {layer: place for group in groups for layer, place in group.places.items()}, {})
    for place in attached.places.values():
        _start(place.wrapper, name, torch.Generator())
    attached.load(adapter)
    for parameter in attached.parameters().values():
        parameter.requires_grad_(False)
    for parameter, flag in trained.items():
        parameter.requires_grad_(flag)
    attached.scale(weight)
    return attached


def fuse(components: Mapping[str, nn.Module], attached: Attached) -> None:
    """Add the adapter, at full strength, to the weights themselves and take it off; there is no way back.

    Computed in float32 and rounded once to the weight's dtype.
    """
    adapter = attached.adapter()
    weights = {layer: _weight_of(place.wrapper) for layer, place in attached.places.items()}
    attached.detach()
    with torch.no_grad():
        for layer, weight in weights.items():
            pair = adapter.layers[layer]
            change = delta(pair, weight.detach().cpu())
            weight.copy_((weight.float() + change.reshape(weight.shape).to(weight.device)).to(weight.dtype))


def _layers(
    components: Mapping[str, nn.Module], targets: Sequence[Spot], name: str, *, strict: bool = True
) -> dict[Layer, nn.Module]:
    """The modules of all targets. Raises AdapterError for a missing, doubled or unsuitable one."""
    if not targets:
        raise AdapterError("there is no layer to put an adapter on", do="name components that this stage can train")
    if "." in name or not name:
        raise AdapterError(f"an adapter cannot be called {name!r}", expected="a name without dots")
    found: dict[Layer, nn.Module] = {}
    for spot in targets:
        layer = (spot.component, spot.canonical)
        if spot.component not in components:
            raise AdapterError(f"no component is called {spot.component!r}", expected=f"one of {', '.join(components)}")
        module = _module_at(components[spot.component], spot)
        if layer in found or module in found.values():
            raise AdapterError(f"the layer {spot.canonical} of {spot.component} is named twice")
        if isinstance(module, LoraLayer) and name in module.lora_A:
            raise AdapterError(f"an adapter called {name!r} is already on {spot.canonical}", do="use another name")
        found[layer] = _suitable(spot, module, spot.kind if strict else None)
    return found


def _module_at(root: nn.Module, spot: Spot) -> nn.Module:
    try:
        return root.get_submodule(spot.live)
    except AttributeError:
        near = difflib.get_close_matches(spot.live, [name for name, _ in root.named_modules()], n=1)
        raise AdapterError(
            f"the layer {spot.live!r} is not in the running {spot.component}",
            expected=f"the layer that files call {spot.canonical!r}",
            do=f"did you mean {near[0]!r}?" if near else "check the engine's name tables against the library",
        ) from None


def _suitable(spot: Spot, module: nn.Module, kind: str | None) -> nn.Module:
    """The module, if peft's LoRA of it is what a merge computes, and it is of `kind` where one is given."""
    inner = module.get_base_layer() if isinstance(module, LoraLayer) else module
    plain = isinstance(inner, nn.Linear) and kind in (None, "linear")
    if isinstance(inner, _CONVOLUTIONS) and kind != "linear":
        one = all(size == 1 for size in inner.kernel_size)
        # peft's own convolution has neither groups nor dilation; with them its sum and a merge would differ.
        simple = inner.groups == 1 and all(step == 1 for step in inner.dilation) and inner.padding_mode == "zeros"
        plain = simple and kind in (None, "conv1x1" if one else "conv")
    if not plain:
        raise AdapterError(
            f"{spot.canonical} of {spot.component} is a {type(inner).__name__}, named as {spot.kind}",
            expected="a linear layer or a plain convolution; a bare parameter trains only with method full",
            do="leave it out, or use method full",
        )
    return module


def _weight_of(module: nn.Module) -> torch.Tensor:
    inner = module.get_base_layer() if isinstance(module, LoraLayer) else module
    weight: torch.Tensor = inner.weight  # type: ignore[assignment]
    return weight


def _rank_alpha(spot: Spot, method: MethodSection) -> tuple[int, float]:
    if spot.kind != "conv":
        return method.rank, float(method.alpha if method.alpha is not None else method.rank)
    if method.conv_rank is None:
        raise AdapterError(f"{spot.canonical} is a spatial convolution", do="set method.conv_rank to train those")
    return method.conv_rank, float(method.conv_alpha if method.conv_alpha is not None else method.conv_rank)


def _check_dora(layers: Mapping[Layer, nn.Module], method: MethodSection) -> None:
    for (component, canonical), module in layers.items():
        weight = _weight_of(module)
        if bool((row_norm(weight.detach().float()) == 0).any()):
            raise AdapterError(
                f"DoRA cannot scale {canonical} of {component}: some of its rows are all zero", do="use method lora"
            )
        if method.dropout > 0 and weight.dim() > 2 and weight.dtype != torch.float32:
            raise AdapterError(
                f"DoRA with dropout on the convolution {canonical} needs the base in float32",
                do="set dropout to 0, or resources.precision to fp32",
            )


def _wrap(
    components: Mapping[str, nn.Module],
    targets: Sequence[Spot],
    wanted: Mapping[Layer, tuple[int, float]],
    name: str,
    *,
    frozen: Mapping[nn.Parameter, bool],
    dropout: float = 0.0,
    dora: bool = False,
) -> Attached:
    """Let peft wrap the layers, its factors still without memory (meta device: nothing is drawn from global RNG).

    Where peft leaves one out, what it did wrap is taken off again, and AdapterError is raised.
    """
    places: dict[Layer, Place] = {}
    for component in dict.fromkeys(spot.component for spot in targets):
        root = components[component]
        spots = [spot for spot in targets if spot.component == component]
        modes = {spot.live: root.get_submodule(spot.live).training for spot in spots}
        active = {spot.live: _active(root.get_submodule(spot.live)) for spot in spots}
        config = _config({s.live: wanted[s.component, s.canonical] for s in spots}, dropout, dora)
        _inject(root, config, name)
        for spot in spots:
            wrapper = root.get_submodule(spot.live)
            if isinstance(wrapper, LoraLayer) and name in wrapper.lora_A:
                wrapper.train(modes[spot.live])
                wrapper._active_adapter = [*active[spot.live], name]
                places[component, spot.canonical] = Place(root, spot.live, wrapper)
    attached = Attached(name, places, frozen)
    missing = [spot for spot in targets if (spot.component, spot.canonical) not in places]
    if missing:
        attached.detach()
        raise AdapterError(f"peft left out {missing[0].live!r} of {missing[0].component}", do="report this")
    return attached


def _active(module: nn.Module) -> list[str]:
    return list(module.active_adapters) if isinstance(module, LoraLayer) else []


def _config(layers: Mapping[str, tuple[int, float]], dropout: float, dora: bool) -> LoraConfig:
    rank = _usual(rank for rank, _ in layers.values())
    alpha = _usual(alpha for _, alpha in layers.values())
    exact = {name: f"^{re.escape(name)}" for name in layers}
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={exact[name]: own for name, (own, _) in layers.items() if own != rank},
        alpha_pattern={exact[name]: own for name, (_, own) in layers.items() if own != alpha},
        # As one expression, since names in a list would also match as endings of longer ones.
        target_modules="|".join(re.escape(name) for name in layers),
        lora_dropout=dropout,
        use_dora=dora,
        init_lora_weights=False,
    )


def _usual(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _inject(root: nn.Module, config: LoraConfig, name: str) -> None:
    """peft's injection without what it leaves on the module or changes beside its own layers."""
    marks = {parameter: parameter.requires_grad for parameter in root.parameters()}
    active = {module: _active(module) for module in root.modules() if isinstance(module, LoraLayer)}
    kept = root.__dict__.pop("peft_config", None)
    try:
        inject_adapter_in_model(config, root, adapter_name=name, low_cpu_mem_usage=True)
    finally:
        root.__dict__.pop("peft_config", None)
        if kept is not None:
            root.__dict__["peft_config"] = kept
        for parameter, trained in marks.items():
            parameter.requires_grad_(trained)
        for module, names in active.items():
            module._active_adapter = names


def _start(wrapper: LoraLayer, name: str, draw: torch.Generator) -> None:
    """Give a layer's factors memory on the layer's device, in float32, and their first values."""
    weight = wrapper.get_base_layer().weight
    down, up = wrapper.lora_A[name], wrapper.lora_B[name]
    first = torch.empty(down.weight.shape, dtype=torch.float32)
    nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=draw)
    down.weight = nn.Parameter(first.to(weight.device))
    up.weight = nn.Parameter(torch.zeros(up.weight.shape, dtype=torch.float32, device=weight.device))
    if name in wrapper.lora_magnitude_vector:
        vector = wrapper.lora_magnitude_vector[name]
        vector.weight = nn.Parameter(row_norm(weight.detach().float()).reshape(vector.weight.shape))
