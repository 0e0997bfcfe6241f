"""What a generation was asked for and what that comes to: engine, base, checkpoints, prompt.

Field by field a flag wins over the concept, and that over the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.outputs import SOUND_ENDINGS, as_path
from tunesmith.cli.sound_flags import FLAGS, POST, REQUEST, SPELLINGS, first_for_sounds
from tunesmith.errors import CatalogError, RecipeError, WeightsError

if TYPE_CHECKING:
    from tunesmith.catalog.resolving import ResolvedConcept
    from tunesmith.cli.screen import Screen
    from tunesmith.cli.surroundings import Surroundings
    from tunesmith.engines.protocol import Engine
    from tunesmith.exchange.selection import Selection

# Other tools' names of engines.
ENGINE_SPELLINGS: Mapping[str, str] = {"stable_audio_open": "stable_audio"}
# What an engine's adapters were usually trained on, looked for where nothing names a base.
USUAL_BASES: Mapping[str, str] = {"stable_audio": "stabilityai/stable-audio-open-1.0"}
PICTURES_ONLY = ("scheduler", "width", "height")


@dataclass(frozen=True)
class Asked:
    """Flags and words as they were typed.

    `request` holds knobs of the engine's request, `sound` what of FLAGS was used. `checkpoints` None means the active
    one, an empty list the bare base.
    """

    request: Mapping[str, Any]
    words: Sequence[str] = ()
    sound: Mapping[str, Any] | None = None
    concept: str | None = None
    checkpoints: list[str] | None = None
    base: str | None = None
    engine: str | None = None
    out: Path = Path()

    @property
    def flags(self) -> Mapping[str, Any]:
        """The sounds' flags that were used."""
        return self.sound or {}

    @property
    def only_sounds(self) -> str:
        """The first thing that only sounds have; "" where there is none."""
        ending = f"--out {self.out}" if self.out.suffix.lower() in SOUND_ENDINGS else ""
        return first_for_sounds(self.flags, self.words) or ending


@dataclass(frozen=True)
class Call:
    """What is generated with: settled, nothing opened. `request` maps knobs to what was typed."""

    engine: Engine
    request: dict[str, str]
    checkpoints: list[str] | None
    base: str | None
    prompt: str = ""
    family: str = ""
    trigger: str = ""

    @property
    def makes_sounds(self) -> bool:
        """Whether its media are sounds."""
        return self.engine.facts.media[:1] == ("audio",)


def settle(here: Surroundings, asked: Asked, screen: Screen) -> Call:
    """Flags over concept over defaults, field by field. Raises where names are unknown or flags do not belong."""
    from tunesmith.catalog.families import with_trigger
    from tunesmith.recipe.settings import find_base

    asked = _spelled(asked)
    concept = _concept(here, asked)
    if concept is not None:
        screen.say(concept.said)
    checkpoints = _checkpoints(asked, concept, screen)
    engine = _engine(here, asked, concept, checkpoints)
    _check_flags(engine, asked)
    request = {**asked.request, **_pairs([word for word in asked.words if not word.startswith(POST)])}
    prompt = str(request.get("prompt", ""))
    trigger = asked.flags.get("stable_audio_lora_trigger")
    if concept is not None:
        request["prompt"] = concept.prompt(prompt)
        if concept.negative_prompt:
            request.setdefault("negative", concept.negative_prompt)
    elif trigger is not None:
        request["prompt"] = with_trigger(prompt, trigger)
    pinned = concept.base or None if concept is not None else None
    base = find_base(asked.base if asked.base is not None else pinned, here.settings())
    _fetch(here, engine, base)
    call = Call(
        engine,
        request,
        checkpoints,
        base,
        prompt,
        family=concept.name if concept is not None else "",
        trigger=concept.trigger if concept is not None else trigger or "",
    )
    return _with_usual_base(here, call, screen) if call.makes_sounds else call


def select_for(here: Surroundings, call: Call) -> Selection:
    """Open the base and the adapters that a call names."""
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.exchange.selection import select

    return select(Shelf(here.home), call.checkpoints, base=call.base, engine=call.engine.facts.name)


def request_of(section: type, given: Mapping[str, str]) -> Any:
    """The engine's request, every value checked against its knob."""
    from tunesmith.recipe.document import Node, plain_scalar
    from tunesmith.recipe.knobs import knobs_of
    from tunesmith.recipe.values import unwrap, value_of

    known = {knob.name: knob for knob in knobs_of(section, "request")}
    for name in given:
        if name not in known:
            raise RecipeError(f"this engine's request has no {name!r}", expected=f"one of {', '.join(known)}")
    values = {name: text if unwrap(known[name].type)[0] is str else plain_scalar(text) for name, text in given.items()}
    return section(
        **{name: value_of(known[name], Node(value, "the request", given[name])) for name, value in values.items()}
    )


def say_what(screen: Screen, selection: Selection) -> None:
    """Base and checkpoints, a line each."""
    screen.say(f"base {selection.base.source}")
    for used in selection.used:
        screen.say(f"checkpoint {used.name} at {used.weight:g}" + (" (the active one)" if used.active else ""))
    if not selection.used:
        screen.say("no checkpoint: the bare base")


def _spelled(asked: Asked) -> Asked:
    """Other tools' spellings put where they belong. Raises RecipeError where two spellings of one thing are given."""
    request, base = dict(asked.request), asked.base
    for name, value in asked.flags.items():
        parameter = SPELLINGS.get(name, name if name in REQUEST else None)
        if parameter is None:
            continue
        if parameter == "base":
            _refuse_both(base is not None, name, "--base")
            base = value
        else:
            _refuse_both(parameter in request, name, f"--{parameter.replace('_', '-')}")
            request[parameter] = value
    return replace(asked, request=request, base=base)


def _refuse_both(is_both: bool, name: str, flag: str) -> None:
    if is_both:
        raise RecipeError(f"{FLAGS[name].names[0]} and {flag} are both given, and mean the same", do="keep one")


def _concept(here: Surroundings, asked: Asked) -> ResolvedConcept | None:
    """The creature family or concept, under the model version where one is named, under the flags for its fields."""
    from tunesmith.catalog.families import find_project
    from tunesmith.catalog.resolving import resolve_concept

    project = find_project(Path.cwd())
    needed = asked.checkpoints is None and "stable_audio_lora_path" not in asked.flags
    found: ResolvedConcept | None = None
    for name in (asked.flags.get("model_version"), asked.concept):
        if name is None:
            continue
        below = resolve_concept(here.home, name, project, needs_adapter=needed)
        found = below if found is None else found.over(below)
        needed = needed and found.adapter is None
    trigger = asked.flags.get("stable_audio_lora_trigger")
    return replace(found, trigger=trigger) if found is not None and trigger is not None else found


def _checkpoints(asked: Asked, concept: ResolvedConcept | None, screen: Screen) -> list[str] | None:
    """`NAME:WEIGHT` of what to attach: those named, else the LoRA file's, else the concept's, else None.

    A single one without a weight of its own takes the flag's, else the concept's.
    """
    from tunesmith.exchange.selection import named_weight

    named = asked.checkpoints
    if "stable_audio_lora_path" in asked.flags:
        if named is not None:
            raise RecipeError("--stable-audio-lora-path and --checkpoint are both given", do="keep one")
        named = [str(as_path(asked.flags["stable_audio_lora_path"], "--stable-audio-lora-path", screen))]
    elif named is None and concept is not None and concept.adapter is not None:
        named = [str(concept.adapter)]
    scale = _scale(asked.flags.get("stable_audio_lora_scale"))
    is_bare = named is not None and len(named) == 1 and named_weight(named[0])[0] == named[0]
    if scale is not None and not is_bare:
        do = "name one with --checkpoint, or write its weight as NAME:0.8"
        raise RecipeError("--stable-audio-lora-scale is given, but not one LoRA without a weight", do=do)
    weight = scale if scale is not None else concept.strength if concept is not None else None
    return [f"{named[0]}:{weight!r}"] if named and is_bare and weight is not None else named


def _scale(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise RecipeError(f"--stable-audio-lora-scale is {text!r}", expected="a number") from error


def _engine(here: Surroundings, asked: Asked, concept: ResolvedConcept | None, checkpoints: list[str] | None) -> Engine:
    """The engine named, else the concept's, else the checkpoint's, else the first that fits what is asked for."""
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.engines.index import engine_named, engine_names
    from tunesmith.exchange.selection import named_weight

    named = asked.engine or (concept.engine if concept is not None else "")
    if named:
        return engine_named(ENGINE_SPELLINGS.get(named, named))
    names = [named_weight(text)[0] for text in checkpoints or ()]
    shelf = Shelf(here.home)
    card = next((shelf.get(name) for name in names if not Path(name).exists()), None)
    if card is not None:
        return engine_named(card.engine)
    if asked.only_sounds:
        engines = [engine_named(name) for name in engine_names()]
        return next((one for one in engines if one.facts.media[:1] == ("audio",)), engines[0])
    return engine_named(engine_names()[0])


def _check_flags(engine: Engine, asked: Asked) -> None:
    """Raise RecipeError for a flag of the other kind of media."""
    if engine.facts.media[:1] == ("audio",):
        wrong = next((name for name in PICTURES_ONLY if name in asked.request), "")
        flag, makes = f"--{wrong}" if wrong else "", "sounds"
    else:
        flag, makes = asked.only_sounds, "pictures"
    if flag:
        other = "pictures" if makes == "sounds" else "sounds"
        raise RecipeError(f"{flag} is for {other}, and {engine.facts.name} makes {makes}", do="leave it out")


def _with_usual_base(here: Surroundings, call: Call, screen: Screen) -> Call:
    """The call with the engine's usual base, else its starter, where neither flags nor cards name one."""
    from tunesmith.weights.locate import STARTER, locate_base

    usual = USUAL_BASES.get(call.engine.facts.name)
    if call.base is not None or usual is None or _has_base(here, call):
        return call
    settings = here.settings()
    reads = "a base"
    try:
        locate_base(usual, engine=call.engine.facts.name, allow_download=settings.allow_download, reads=reads)
    except WeightsError as missing:
        try:
            locate_base(STARTER, engine=call.engine.facts.name, allow_download=False, reads=reads)
        except WeightsError:
            raise CatalogError(
                f"no base is named, and {usual} is not on this machine",
                expected="a base to generate with",
                do="name one with --base, or let it be fetched: tunesmith settings set allow_download true",
            ) from missing
        usual = STARTER
    screen.say(f"no base is named: {usual}")
    return replace(call, base=usual)


def _fetch(here: Surroundings, engine: Engine, base: str | None) -> None:
    """Download a base that is named by its hub id, where the settings let that happen without asking."""
    from tunesmith.weights.locate import locate_base

    if base is not None and "/" in base and here.settings().allow_download and not Path(base).expanduser().exists():
        locate_base(base, engine=engine.facts.name, allow_download=True, reads="a base")


def _has_base(here: Surroundings, call: Call) -> bool:
    """Whether a card of the catalog says what its checkpoint stands on."""
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.exchange.selection import named_weight

    shelf = Shelf(here.home)
    if call.checkpoints is None:
        return shelf.active(call.engine.facts.name) is not None
    names = [named_weight(text)[0] for text in call.checkpoints]
    cards = [shelf.get(name) for name in names if not Path(name).exists()]
    return any(card.base or card.kind == "weights" for card in cards)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is not a setting", expected="KNOB=VALUE, or --prompt for the words")
        found[name] = value
    return found
