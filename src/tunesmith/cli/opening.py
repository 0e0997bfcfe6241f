"""Opening what generates: device, precision and threads chosen and recorded, the base loaded, adapters attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DeviceError, RecipeError

if TYPE_CHECKING:
    from tunesmith.exchange.selection import Selection
    from tunesmith.generation.session import Session


@dataclass(frozen=True)
class Place:
    """Where to generate. `device_source` is the file that named the device, for the error where it is missing."""

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    device_source: str = ""


def open_on(selection: Selection, place: Place) -> tuple[Session, dict[str, Any]]:
    """(Session, everything besides request and weights that bits depend on)."""
    from tunesmith.generation.session import open_session
    from tunesmith.recipe.schema import MethodSection, ResourceSection
    from tunesmith.training.device import choose_device, choose_precision, environment_record, set_threads

    resources = ResourceSection(device=place.device, precision=_checked_precision(place.precision))
    try:
        device = choose_device(resources)
    except DeviceError as error:
        if not place.device_source:
            raise
        do = "set another with `tunesmith settings set device auto`, or name one with --device"
        found = error.found.replace("resources.device", "device")
        raise DeviceError(f"{place.device_source}: {found}", expected=error.expected, do=do) from error
    set_threads(place.threads, device)
    chosen = choose_precision(resources, device, MethodSection())
    session = open_session(
        selection.engine, selection.base, device=device, dtype=chosen.dtype, attachments=selection.attachments
    )
    return session, environment_record(device, chosen)


def _checked_precision(name: str) -> str:
    from tunesmith.recipe.knobs import knobs_of
    from tunesmith.recipe.schema import ResourceSection

    known = next(knob for knob in knobs_of(ResourceSection, "resources") if knob.name == "precision").choices
    if name not in known:
        raise RecipeError(f"--precision is {name!r}", expected=f"one of {', '.join(known)}")
    return name
