"""An adapter on running modules: its parameters, its strength, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from tunesmith.adapters.adapter import Adapter, Layer, Pair, check_pair, column, row_norm
from tunesmith.errors import AdapterError


@dataclass(frozen=True)
class Place:
    """Where one layer's factors sit: `wrapper` stands at `live` in `root`, around the untouched layer."""

    root: nn.Module
    live: str
    wrapper: LoraLayer


class Attached:
    """One adapter on running modules. Several may be on at once, each under its own name."""

    def __init__(self, name: str, places: Mapping[Layer, Place], frozen: Mapping[nn.Parameter, bool]) -> None:
        self.name = name
        self.places = places
        self._frozen = frozen  # base parameters that attaching froze -> whether they trained before
        self._kept: dict[Layer, Pair] = {}  # true factors of DoRA layers while others stand in for a strength

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every number of the adapter: `component/canonical.down`, `.up` and, for DoRA, `.magnitude`."""
        found: dict[str, nn.Parameter] = {}
        for (component, canonical), place in self.places.items():
            for slot, parameter in _slots(place.wrapper, self.name).items():
                found[f"{component}/{canonical}.{slot}"] = parameter
        return found

    def adapter(self) -> Adapter:
        """A copy of the factors on the CPU, at full strength whatever the present scale."""
        return Adapter({layer: self._kept.get(layer) or self._pair(layer) for layer in self.places})

    def load(self, adapter: Adapter) -> None:
        """Take over other factors for the same layers with the same ranks. Raises AdapterError and changes nothing."""
        missing = [layer for layer in self.places if layer not in adapter.layers]
        extra = [layer for layer in adapter.layers if layer not in self.places]
        if missing or extra:
            first = (missing or extra)[0]
            raise AdapterError(
                f"the adapters cover different layers: {first[1]} of {first[0]} is only in one of them "
                f"({len(missing)} missing, {len(extra)} left over)",
                expected=f"the same {len(self.places)} layers",
                do="train the same components with the same conv_rank setting as the adapter you start from",
            )
        for layer, pair in adapter.layers.items():
            wrapper = self.places[layer].wrapper
            check_pair(layer[1], pair, _weight(wrapper).shape)
            ours = _slots(wrapper, self.name)
            if pair.rank != wrapper.r[self.name] or (pair.magnitude is None) != ("magnitude" not in ours):
                raise AdapterError(
                    f"{layer[1]} has rank {wrapper.r[self.name]}{' with magnitude' if 'magnitude' in ours else ''}, "
                    f"the other adapter {pair.rank}{'' if pair.magnitude is None else ' with magnitude'}",
                    do="set rank, conv_rank and method to those of the adapter you start from",
                )
        self._kept.clear()
        for layer, pair in adapter.layers.items():
            wrapper = self.places[layer].wrapper
            wrapper.lora_alpha[self.name] = pair.alpha
            wrapper.set_scale(self.name, 1.0)
            self._write(layer, pair)

    def scale(self, weight: float, component: str | None = None) -> None:
        """Set the strength, for one component or all: W + weight * (adapted - W). At 0 the base's own bits come out.

        A DoRA layer keeps a strength other than 0 and 1 in stand-in factors, so do not train while one is set.
        """
        for layer, place in self.places.items():
            if component is not None and layer[0] != component:
                continue
            wrapper = place.wrapper
            _activate(wrapper, self.name, active=weight != 0)
            if "magnitude" not in _slots(wrapper, self.name):
                wrapper.set_scale(self.name, weight)
            elif weight == 1 and layer in self._kept:
                self._write(layer, self._kept.pop(layer))
            elif weight not in (0, 1):
                pair = self._kept.setdefault(layer, self._pair(layer))
                self._write(layer, _dora_at(pair, _weight(wrapper), weight))

    def detach(self) -> None:
        """Take the adapter off; where no other one is left on a layer, the layer itself stands there again."""
        for place in self.places.values():
            wrapper = place.wrapper
            _activate(wrapper, self.name, active=False)
            for slots in (wrapper.lora_A, wrapper.lora_B, wrapper.lora_dropout, wrapper.lora_magnitude_vector):
                if self.name in slots:
                    del slots[self.name]
            for table in (wrapper.r, wrapper.lora_alpha, wrapper.scaling, wrapper.use_dora, wrapper.lora_variant):
                table.pop(self.name, None)
            if not wrapper.lora_A:
                parent, _, child = place.live.rpartition(".")
                setattr(place.root.get_submodule(parent), child, wrapper.get_base_layer())
        for parameter, trained in self._frozen.items():
            parameter.requires_grad_(trained)
        self.places, self._frozen = {}, {}

    def _pair(self, layer: Layer) -> Pair:
        wrapper = self.places[layer].wrapper
        found = {slot: value.detach().cpu().clone() for slot, value in _slots(wrapper, self.name).items()}
        magnitude = found.get("magnitude")
        return Pair(
            found["down"],
            found["up"],
            float(wrapper.lora_alpha[self.name]),
            None if magnitude is None else magnitude.flatten(),
        )

    def _write(self, layer: Layer, pair: Pair) -> None:
        given = {"down": pair.down, "up": pair.up, "magnitude": pair.magnitude}
        with torch.no_grad():
            for slot, parameter in _slots(self.places[layer].wrapper, self.name).items():
                value = given[slot]
                if value is not None:
                    parameter.copy_(value.reshape(parameter.shape))


def _slots(wrapper: LoraLayer, name: str) -> dict[str, nn.Parameter]:
    slots = {"down": wrapper.lora_A[name].weight, "up": wrapper.lora_B[name].weight}
    if name in wrapper.lora_magnitude_vector:
        slots["magnitude"] = wrapper.lora_magnitude_vector[name].weight
    return slots


def _weight(wrapper: LoraLayer) -> torch.Tensor:
    weight: torch.Tensor = wrapper.get_base_layer().weight
    return weight


def _activate(wrapper: LoraLayer, name: str, *, active: bool) -> None:
    """Add or remove an adapter from those a layer applies, leaving every requires_grad as it is."""
    names = [other for other in wrapper.active_adapters if other != name]
    wrapper._active_adapter = [*names, name] if active else names


def _dora_at(pair: Pair, weight: torch.Tensor, strength: float) -> Pair:
    """DoRA factors that make W + strength * (DoRA(W) - W), exactly.

    With s = m / |W + D| per output row, DoRA(W) = s (W + D). The row factor of W must become
    t = 1 - strength + strength * s, that of D strength * s, so D' = (strength * s / t) D and m' = t |W + D'|.
    """
    assert pair.magnitude is not None
    frozen = weight.detach().float().cpu()
    change = (pair.scale * (pair.up.float().flatten(1) @ pair.down.float().flatten(1))).reshape(frozen.shape)
    row = pair.magnitude.float() / row_norm(frozen + change)
    target = 1 - strength + strength * row
    share = strength * row / target
    magnitude = target * row_norm(frozen + change * column(share, change.dim()))
    return Pair(pair.down, pair.up.float() * column(share, pair.up.dim()), pair.alpha, magnitude)


def check_exactly_trains(components: Mapping[str, nn.Module], attached: Attached) -> None:
    """Raise AdapterError unless the parameters that train are those of `attached`, all of them and no others."""
    own = {id(parameter): name for name, parameter in attached.parameters().items()}
    for component, module in components.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in own:
                raise AdapterError(
                    f"{name} of {component} would train beside the adapter", do="report this; nothing ran"
                )
            if not parameter.requires_grad and id(parameter) in own:
                raise AdapterError(f"the adapter's {own[id(parameter)]} does not train", do="report this; nothing ran")
    present = {id(parameter) for module in components.values() for parameter in module.parameters()}
    for key, name in own.items():
        if key not in present:
            raise AdapterError(f"the adapter's {name} is not part of the model", do="report this; nothing ran")
