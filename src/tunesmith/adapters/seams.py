"""What adapters need to know of a model and an engine, as Protocols; engines stand above this package. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class HasComponents(Protocol):
    """A model in training or a sampler: torch modules by component name."""

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """Modules by component name."""
        ...


class Spot(Protocol):
    """One layer an adapter goes on (`engines.protocol.Target`)."""

    @property
    def component(self) -> str:
        """Component name."""
        ...

    @property
    def canonical(self) -> str:
        """Our frozen name of the layer."""
        ...

    @property
    def live(self) -> str:
        """Its name in the running module."""
        ...

    @property
    def kind(self) -> str:
        """linear, conv1x1 (both take `rank`) or conv (takes `conv_rank`)."""
        ...


class Names(Protocol):
    """An engine's frozen name tables (`engines.protocol.Layouts`), as far as adapter files need them.

    Stems of layout `diffusers` begin with the component's folder and a dot. Those of `peft` begin either so or with
    peft's `base_model.model.`; inside a PEFT folder, which names the component, the rest of the stem is used.
    """

    @property
    def folders(self) -> Mapping[str, str]:
        """Component -> subfolder."""
        ...

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """The layer's name in an adapter file of `layout`."""
        ...

    @property
    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """Layout -> what its stems begin with; `kohya` needs none, its stems have no dot."""
        ...

    def adapter_layers(self, layout: str, stem: str, base: Any) -> tuple[tuple[str, str], ...]:
        """The (component, canonical) layers of a stem, several where the layout stacks their outputs; () for none."""
        ...

    def metadata(self, layout: str, base: Any) -> Mapping[str, str]:
        """Header metadata that readers of `layout` look for."""
        ...
