"""Files, overrides or a plain mapping to a checked Recipe, and back to a document, YAML and an identity."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.checks import check_together
from tunesmith.recipe.document import Node, from_plain, merge, nested, plain_scalar
from tunesmith.recipe.knobs import Knob, knobs_of
from tunesmith.recipe.reader import read_file, read_text
from tunesmith.recipe.resume import resume_differences
from tunesmith.recipe.schema import SECTIONS, Recipe
from tunesmith.recipe.values import value_of
from tunesmith.recipe.writer import dump

__all__ = [
    "EngineLookup",
    "read_recipe",
    "recipe_from",
    "recipe_hash",
    "resume_differences",
    "to_document",
    "to_yaml",
]

EngineLookup = Callable[[str], tuple[type, Mapping[str, Path]]]


def read_recipe(files: Sequence[Path], overrides: Sequence[str], engines: EngineLookup) -> Recipe:
    """The recipe of YAML files merged in order, then `a.b=c` overrides; a `preset` goes under all of them.

    Raises RecipeError naming file, line and knob.
    """
    document = Node({}, "the recipe")
    for file in files:
        document = merge(document, _as_map(_normal(read_file(file))))
    for override in overrides:
        # What is missing from the whole is not the last override's fault.
        document = Node(merge(document, _normal(_override(override))).value, document.place)
    return _build(document, engines)


def recipe_from(document: Mapping[str, Any], engines: EngineLookup) -> Recipe:
    """The recipe of a plain mapping (JSON, a form): the same checks of every key, type and range."""
    return _build(_normal(from_plain(document, "the recipe")), engines)


def to_document(recipe: Recipe, *, full: bool = False) -> dict[str, Any]:
    """The recipe as JSON- and YAML-ready data; only knobs that differ from their defaults, unless `full`."""
    document: dict[str, Any] = {"engine": {"name": recipe.engine, **_differing(recipe.settings, "engine", full)}}
    for name in SECTIONS:
        knobs = _differing(getattr(recipe, name), name, full)
        if knobs:
            document[name] = knobs
    return document


def to_yaml(recipe: Recipe) -> str:
    """The recipe as a YAML 1.2 document that reads back as the same recipe."""
    return dump(to_document(recipe))


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 (hex) of the full document in canonical JSON: the identity of a run."""
    canonical = json.dumps(to_document(recipe, full=True), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# ---------------------------------------------------------------- reading


def _as_map(node: Node) -> Node:
    if not isinstance(node.value, dict):
        raise RecipeError(f"{node.place}: not a recipe", expected="a map of sections, such as `engine: {name: ...}`")
    return node


def _normal(node: Node) -> Node:
    """`engine: NAME` is short for `engine: {name: NAME}`; an empty section is a section left alone."""
    _as_map(node)
    sections = {name: child for name, child in node.value.items() if child.value is not None or name not in SECTIONS}
    engine = sections.get("engine")
    if engine is not None and isinstance(engine.value, str):
        sections["engine"] = Node({"name": engine}, engine.place)
    return Node(sections, node.place)


def _override(text: str) -> Node:
    """`a.b=c` as a document; what follows a knob's name belongs to one key of its map, dots and all."""
    path, equals, value = text.partition("=")
    place = f"{text!r}"
    parts = tuple(part.strip() for part in path.split(".", 2))
    if not equals or not all(parts):
        raise RecipeError(f"{place} is not an override", expected="section.knob=value, such as method.rank=8")
    if len(parts) == 1 and parts[0] not in ("engine", "preset"):
        raise _unknown(parts[0], place, _every_path(()))
    value = value.strip()
    # Only lists, maps and quoted texts are YAML here: a prompt with a colon or a hash is typed as it is meant.
    leaf = read_text(value, place) if value[:1] in tuple("[{\"'") else Node(plain_scalar(value), place, value)
    return nested(parts, Node(leaf.value, place, leaf.raw, loose=True))


def _build(document: Node, engines: EngineLookup) -> Recipe:
    name, section, presets = _engine(document, engines)
    preset = document.value.get("preset")
    if preset is not None:
        document = merge(_preset(preset, name, presets), document)
    sections = {"engine": section, **SECTIONS}
    for key, node in document.value.items():
        if key not in sections and key != "preset":
            raise _unknown(key, node.place, _every_path(knobs_of(section, "engine")))
    built = {key: _section(key, kind, document.value.get(key)) for key, kind in sections.items()}
    recipe = Recipe(engine=name, settings=built.pop("engine"), **built)
    check_together(recipe, lambda path: _place(document, path))
    return recipe


def _engine(document: Node, engines: EngineLookup) -> tuple[str, type, Mapping[str, Path]]:
    node = document.value.get("engine")
    named = node.value.get("name") if node is not None and isinstance(node.value, dict) else None
    if node is None or named is None:
        place = node.place if node is not None else document.place
        raise RecipeError(f"{place}: no engine is named", do="write `engine: {name: stable_diffusion}`")
    if not isinstance(named.value, str):
        raise RecipeError(f"{named.place}: engine.name is {named.plain()!r}", expected="the name of an engine")
    try:
        section, presets = engines(named.value)
    except RecipeError as error:
        raise RecipeError(f"{named.place}: {error.found}", expected=error.expected, do=error.do) from error
    return named.value, section, presets


def _preset(node: Node, engine: str, presets: Mapping[str, Path]) -> Node:
    if not isinstance(node.value, str) or node.value not in presets:
        near = difflib.get_close_matches(str(node.value), presets, n=1)
        listed = ", ".join(sorted(presets)) or "none, this engine has no presets"
        raise RecipeError(
            f"{node.place}: {engine} has no preset {node.plain()!r}",
            expected=f"one of {listed}" if presets else listed,
            do=f"did you mean {near[0]!r}?" if near else "",
        )
    preset = _normal(read_file(presets[node.value]))
    for key in ("preset", "engine"):
        child = preset.value.get(key)
        owner = child.value.get("name") if child is not None and isinstance(child.value, dict) else None
        if key == "preset" and child is not None:
            raise RecipeError(f"{child.place}: a preset cannot use another preset")
        if owner is not None and owner.value != engine:
            raise RecipeError(f"{owner.place}: this preset is for {owner.value}, the recipe is for {engine}")
    return preset


def _section(name: str, kind: type, node: Node | None) -> Any:
    given: dict[str, Node] = {}
    place = "the recipe"
    if node is not None:
        place = node.place
        if not isinstance(node.value, dict):
            raise RecipeError(f"{place}: {name} is not a map", expected=f"knobs, such as `{name}: {{...}}`")
        given = {key: child for key, child in node.value.items() if not (name == "engine" and key == "name")}
    knobs = {knob.name: knob for knob in knobs_of(kind, name)}
    for key, child in given.items():
        if key not in knobs:
            raise _unknown(f"{name}.{key}", child.place, _every_path(tuple(knobs.values())))
    for knob in knobs.values():
        if knob.required and knob.name not in given:
            raise RecipeError(f"{place}: {knob.path} is missing", expected=knob.help)
    return kind(**{key: value_of(knobs[key], child) for key, child in given.items()})


def _every_path(own: Sequence[Knob]) -> list[str]:
    """Every knob that may stand in the recipe, `own` (the section at hand, or the engine's) first."""
    paths = [knob.path for knob in own]
    paths += [knob.path for name, kind in SECTIONS.items() for knob in knobs_of(kind, name)]
    return [*dict.fromkeys(paths), "engine", "preset", *SECTIONS]


# What other trainers call these knobs.
_SYNONYMS = {
    "resolution": "engine.resolution",
    "lr": "optimiser.rate",
    "learning_rate": "optimiser.rate",
    "unet_lr": "optimiser.rates.denoiser",
    "text_encoder_lr": "optimiser.rates.text_encoder",
    "optimizer": "optimiser",
    "optimizer_type": "optimiser.name",
    "lr_scheduler": "optimiser.schedule",
    "network_dim": "method.rank",
    "network_alpha": "method.alpha",
    "batch_size": "length.batch_items",
    "train_batch_size": "length.batch_items",
    "max_train_steps": "length.steps",
    "max_train_epochs": "length.epochs",
    "gradient_accumulation_steps": "length.accumulation",
    "max_grad_norm": "optimiser.clip_norm",
    "train_data_dir": "data.paths",
    "pretrained_model_name_or_path": "base.path",
    "output_name": "output.name",
    "trigger": "output.concepts",
}


def _unknown(path: str, place: str, known: Sequence[str]) -> RecipeError:
    """Unknown key: the knob of that name in another section, else the nearest in its own, else the nearest anywhere."""
    section, _, name = path.rpartition(".")
    tails: dict[str, str] = {}
    for other in known:
        tails.setdefault(other.rpartition(".")[2], other)
    inside = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == section]
    near = tails.get(name) or _SYNONYMS.get(name)
    if near is None and (match := difflib.get_close_matches(name, inside, n=1)):
        near = f"{section}.{match[0]}" if section else match[0]
    if near is None and (match := difflib.get_close_matches(name, tails, n=1)):
        near = tails[match[0]]
    do = f"did you mean {near!r}?" if near else ""
    sections = "" if near or section else f"one of the sections engine, {', '.join(SECTIONS)}"
    return RecipeError(f"{place}: no knob is called {path!r}", expected=sections, do=do)


def _place(document: Node, path: str) -> str:
    """Where `section.knob` was written, or the whole document's place where it was not."""
    section, _, name = path.partition(".")
    node = document.value.get(section)
    if node is None or not isinstance(node.value, dict):
        return document.place
    return str(node.value[name].place) if name in node.value else document.place


# ---------------------------------------------------------------- writing


def _differing(section: Any, name: str, full: bool) -> dict[str, Any]:
    found = {}
    for knob in knobs_of(type(section), name):
        value = getattr(section, knob.name)
        if full or knob.required or value != knob.default:
            found[knob.name] = _ready(value)
    return found


def _ready(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
