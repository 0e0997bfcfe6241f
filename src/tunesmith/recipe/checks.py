"""Contradictions between knobs that are each fine alone. What needs the engine's facts or the files is the plan's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

from tunesmith.errors import RecipeError
from tunesmith.recipe.schema import DataSection, LengthSection, MethodSection, OptimiserSection, OutputSection, Recipe

_TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_Finding = tuple[str, str, str, str]  # knob path, found, expected, do


def is_plain_name(name: str) -> bool:
    """Whether a name can be shown and be a part of a file's name: no control characters, no path separators."""
    seen = bool(name.strip().strip(" ."))  # strip() alone knows every kind of space
    return seen and len(name) <= 100 and not any(map(is_control, name)) and not set(name) & set("/\\")


def is_control(letter: str) -> bool:
    """Whether a character moves the cursor, breaks the line or turns the writing round, rather than being seen."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNING


def check_together(recipe: Recipe, place_of: Callable[[str], str]) -> None:
    """Raise RecipeError for the first contradiction; `place_of(knob path)` says where a knob was written."""
    for path, found, expected, do in _contradictions(recipe):
        raise RecipeError(f"{place_of(path)}: {found}", expected=expected, do=do)


def _contradictions(recipe: Recipe) -> Iterator[_Finding]:
    yield from _length(recipe.length, recipe.optimiser)
    yield from _base(recipe)
    yield from _method(recipe.method)
    yield from _optimiser(recipe.optimiser, recipe.method)
    yield from _data(recipe.data)
    yield from _output(recipe.output)


def _length(length: LengthSection, optimiser: OptimiserSection) -> Iterator[_Finding]:
    if length.steps is None and length.epochs is None:
        yield "length.steps", "neither length.steps nor length.epochs is set", "", "set one of the two"
    if length.steps is not None and optimiser.warmup_steps > length.steps:
        found = f"optimiser.warmup_steps is {optimiser.warmup_steps} and length.steps {length.steps}"
        yield "optimiser.warmup_steps", found, "a warm-up that ends within the run", ""


def _base(recipe: Recipe) -> Iterator[_Finding]:
    base, scratch = recipe.base, recipe.method.name == "scratch"
    if scratch and base.path is not None:
        do = "remove it, or name the parts to keep under base.parts"
        yield "base.path", "base.path is set and method.name is scratch, which starts from nothing", "", do
    if scratch and base.architecture is None and not base.parts:
        yield "base.architecture", "base.architecture is not set", "an architecture for method scratch", ""
    if not scratch and base.path is None and base.architecture is None:
        yield "base.path", "base.path is not set", "the weights to start from: a file, a folder or `starter`", ""
    for name in ("path", "init", "architecture"):
        if getattr(base, name) is not None and not getattr(base, name).strip():
            yield f"base.{name}", f"base.{name} is empty", "a name or a path", "leave it out"
    if base.path is not None and base.architecture is not None:
        do = "keep one of the two"
        yield "base.architecture", "base.path and base.architecture are both set", "", do


def _method(method: MethodSection) -> Iterator[_Finding]:
    adapter = method.name in ("lora", "dora")
    if method.conv_alpha is not None and method.conv_rank is None:
        yield "method.conv_alpha", "method.conv_alpha is set and method.conv_rank is not", "", "set method.conv_rank"
    for name in ("alpha", "conv_rank", "dropout"):
        if not adapter and getattr(method, name):
            found = f"method.{name} is {getattr(method, name)} and method.name is {method.name}"
            yield f"method.{name}", found, f"method.{name} with an adapter (lora, dora) only", "remove it"
    if len(set(method.components)) < len(method.components):
        yield "method.components", "method.components names a component twice", "each once", ""


def _optimiser(optimiser: OptimiserSection, method: MethodSection) -> Iterator[_Finding]:
    if len(optimiser.betas) != 2 or optimiser.betas[0] >= 1 or optimiser.betas[1] >= 1:
        yield "optimiser.betas", f"optimiser.betas is {list(optimiser.betas)}", "two numbers below 1", ""
    if optimiser.restarts > 1 and optimiser.schedule != "cosine_restarts":
        found = f"optimiser.restarts is {optimiser.restarts} and optimiser.schedule {optimiser.schedule}"
        yield "optimiser.restarts", found, "", "set optimiser.schedule to cosine_restarts"
    for component, rate in optimiser.rates.items():
        if rate > 0 and method.components and component not in method.components:
            found = f"optimiser.rates has {component!r}, which does not train"
            yield "optimiser.rates", found, f"one of {', '.join(method.components)}", "add it to method.components"


def _data(data: DataSection) -> Iterator[_Finding]:
    if data.prior == "given" and not data.prior_paths:
        yield "data.prior", "data.prior is given and data.prior_paths is empty", "", "name the folders of prior items"
    if data.prior == "generated" and not data.prior_prompts:
        yield "data.prior", "data.prior is generated and data.prior_prompts is empty", "", "give prompts to draw from"
    if data.prior_paths and data.prior != "given":
        yield (
            "data.prior_paths",
            f"data.prior_paths is set and data.prior is {data.prior}",
            "",
            "set data.prior to given",
        )
    if data.prior_prompts and data.prior != "generated":
        found = f"data.prior_prompts is set and data.prior is {data.prior}"
        yield "data.prior_prompts", found, "", "set data.prior to generated"
    for name in ("paths", "holdout_paths", "prior_paths"):
        if any(not path.strip() for path in getattr(data, name)):
            yield f"data.{name}", f"data.{name} has an empty entry", "folders or files", ""
    both = [path for path in data.holdout_paths if path in data.paths]
    if both:
        found = f"{both[0]!r} is in data.paths and in data.holdout_paths"
        yield "data.holdout_paths", found, "items that train or that measure", "keep it in one of the two"
    for extension in data.caption_extensions:
        if not extension.startswith(".") or "/" in extension or len(extension) < 2:
            yield "data.caption_extensions", f"the caption extension {extension!r}", "such as .txt", ""


def _output(output: OutputSection) -> Iterator[_Finding]:
    name = output.name
    if output.folder is not None and not output.folder.strip():
        yield "output.folder", "output.folder is empty", "a folder", "leave it out"
    if not name.strip(" .") or len(name) > 100 or not name.isprintable() or any(mark in name for mark in '/\\:*?"<>|'):
        yield "output.name", f"output.name is {name!r}", "a name that a file can have, up to 100 characters", ""
    for concept, trigger in output.concepts.items():
        if not concept.strip() or not trigger.strip():
            found = f"output.concepts has {concept!r} with the trigger {trigger!r}"
            yield "output.concepts", found, "a name and a trigger word for each", ""
        elif not is_plain_name(concept) or any(map(is_control, trigger)):
            found = f"output.concepts has {concept!r} with the trigger {trigger!r}"
            yield "output.concepts", found, "names without control characters, / and \\, up to 100 characters", ""
    if len(set(output.exports)) < len(output.exports):
        yield "output.exports", "output.exports names a layout twice", "each once", ""
