"""Frozen name tables of the test engines, as data: canonical names <-> every file layout. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith.engines.protocol import Base


@dataclass(frozen=True)
class TestLayouts:
    """`stems` is the kohya prefix by component; `layers_of` lists the canonical layers of a base's component.

    `live_prefix` is what canonical names carry and running modules do not: libraries rename, files must not.
    """

    __test__ = False  # no test class, whatever its name begins with

    folders: Mapping[str, str]
    stems: Mapping[str, str]
    layers_of: Callable[[Base, str], tuple[str, ...]]
    live_prefix: Mapping[str, str]
    adapter_layouts: tuple[str, ...] = ("kohya", "diffusers", "peft")
    weight_layouts: tuple[str, ...] = ("single_file", "folder")

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """kohya: prefix and underscores; diffusers and peft: the component's folder and dots."""
        if layout == "kohya":
            return f"{self.stems[component]}_{canonical.replace('.', '_')}"
        return f"{self.folders[component]}.{canonical}"

    @property
    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """Folders, and peft's own start."""
        return {"peft": ("base_model.model.",), "diffusers": tuple(f"{name}." for name in self.folders.values())}

    def adapter_layers(self, layout: str, stem: str, base: Base) -> tuple[tuple[str, str], ...]:
        """Inverse of `adapter_stem` over the layers that `base` has."""
        for component in self.folders:
            for canonical in self.layers_of(base, component):
                if self.adapter_stem(layout, component, canonical) == stem:
                    return ((component, canonical),)
        return ()

    def live_name(self, component: str, canonical: str) -> str:
        """The layer's name in the running module."""
        return canonical.removeprefix(self.live_prefix.get(component, ""))

    def metadata(self, layout: str, base: Base) -> Mapping[str, str]:
        """What readers of `layout` look for."""
        return {"ss_base_model_version": base.engine} if layout == "kohya" else {}
