from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipe_engines import ToySection, lookup
from tunesmith.errors import RecipeError
from tunesmith.recipe.checks import is_plain_name
from tunesmith.recipe.load import read_recipe, recipe_from, recipe_hash, to_document, to_yaml
from tunesmith.recipe.schema import Recipe

GUIDE = """\
engine: {name: toy, resolution: 512}
base: {path: v1-5.safetensors}
data: {paths: [friends/peter]}
method: {name: lora, rank: 16, alpha: 8, components: [denoiser, text_encoder]}
optimiser: {rate: 1e-4, rates: {text_encoder: 5e-5}, schedule: cosine}
length: {steps: 1200}
output: {name: qb_peter_lora, concepts: {peter: qb_peter}}
"""


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def read(folder: Path, text: str, *overrides: str) -> Recipe:
    return read_recipe([write(folder, text)], overrides, lookup)


def test_the_guide_reads_as_written(tmp_path: Path) -> None:
    recipe = read(tmp_path, GUIDE)
    assert recipe.engine == "toy"
    assert recipe.settings == ToySection(resolution=512)
    assert recipe.optimiser.rate == 1e-4
    assert recipe.optimiser.rates == {"text_encoder": 5e-5}
    assert recipe.method.alpha == 8.0
    assert isinstance(recipe.method.alpha, float)
    assert recipe.data.paths == ("friends/peter",)


def test_words_that_older_yaml_would_change_stay_text(tmp_path: Path) -> None:
    text = GUIDE.replace("paths: [", "default_caption: 1:30, paths: [") + "resources: {device: no}\n"
    recipe = read(tmp_path, text.replace("qb_peter}", "2024-01-01}"))
    assert recipe.resources.device == "no"
    assert recipe.data.default_caption == "1:30"
    assert recipe.output.concepts == {"peter": "2024-01-01"}


@pytest.mark.parametrize(
    ("written", "knob", "value"),
    [
        ("length: {steps: 1e3}", "steps", 1000),
        ("length: {steps: 0x10}", "steps", 16),
        ("length: {steps: 0o10}", "steps", 8),
        ("length: {steps: 010}", "steps", 10),
        ("length: {steps: 5, max_minutes: 3}", "max_minutes", 3.0),
        ("length: {steps: 5, epochs: ~}", "epochs", None),
    ],
)
def test_numbers(tmp_path: Path, written: str, knob: str, value: Any) -> None:
    found = getattr(read(tmp_path, GUIDE.replace("length: {steps: 1200}", written)).length, knob)
    assert found == value
    assert type(found) is type(value)


def test_files_merge_in_order_and_overrides_come_last(tmp_path: Path) -> None:
    first = write(tmp_path, GUIDE)
    second = write(
        tmp_path,
        "optimiser: {rates: {denoiser: 1e-3}, weight_decay: 0}\ndata: {paths: [b]}\nlength: {steps: 7}\n",
        "second.yaml",
    )
    recipe = read_recipe([first, second], ["length.steps=9", "optimiser.rates.text_encoder=0"], lookup)
    assert recipe.optimiser.rates == {"text_encoder": 0.0, "denoiser": 1e-3}
    assert recipe.optimiser.schedule == "cosine"
    assert recipe.data.paths == ("b",)
    assert recipe.length.steps == 9


@pytest.mark.parametrize(
    ("override", "expected"), [("optimiser.rates={}", {}), ("optimiser.rates.text_encoder=null", {})]
)
def test_maps_can_be_emptied(tmp_path: Path, override: str, expected: dict[str, float]) -> None:
    assert read(tmp_path, GUIDE, override).optimiser.rates == expected


@pytest.mark.parametrize(
    ("override", "section", "knob", "value"),
    [
        ("output.preview_prompts=a fox: red, #1", "output", "preview_prompts", ("a fox: red, #1",)),
        ('output.preview_prompts=["a, b", c]', "output", "preview_prompts", ("a, b", "c")),
        ("output.name=2024", "output", "name", "2024"),
        ("data.default_caption=''", "data", "default_caption", ""),
        ("data.shuffle_tags=true", "data", "shuffle_tags", True),
        ("output.concepts.mr. fox=zz", "output", "concepts", {"peter": "qb_peter", "mr. fox": "zz"}),
        ("method.conv_rank=", "method", "conv_rank", None),
        (" method.rank = 4 ", "method", "rank", 4),
        ("data.paths=C:\\pictures", "data", "paths", ("C:\\pictures",)),
    ],
)
def test_overrides(tmp_path: Path, override: str, section: str, knob: str, value: Any) -> None:
    assert getattr(getattr(read(tmp_path, GUIDE, override), section), knob) == value


def test_an_engine_can_be_named_in_short(tmp_path: Path) -> None:
    assert read(tmp_path, GUIDE.replace("{name: toy, resolution: 512}", "toy")).settings == ToySection()
    assert read_recipe([], ["engine=toy", "base.path=x", "length.steps=1", "engine.flip=true"], lookup).settings.flip


WRONG = [
    ("optimiser.rte=1", "no knob is called 'optimiser.rte'", "optimiser.rate"),
    ("method.rate=1", "no knob is called 'method.rate'", "optimiser.rate"),
    ("metod.rank=1", "no knob is called 'metod'", "method"),
    ("rank=1", "no knob is called 'rank'", "method.rank"),
    ("lr=1", "no knob is called 'lr'", "optimiser.rate"),
    ("engine.resoluton=64", "no knob is called 'engine.resoluton'", "engine.resolution"),
    ("engine.mode=fany", "engine.mode is 'fany'", "fancy"),
    ("engine=tox", "no engine is called 'tox'", "toy"),
    ("method.rank=0", "method.rank is 0", "at least 1"),
    ("optimiser.rate=-1e-4", "optimiser.rate is -1e-4", "at least 0"),
    ("optimiser.rate=.nan", "optimiser.rate is .nan", "finite"),
    ("optimiser.rate=.inf", "optimiser.rate is .inf", "finite"),
    ("optimiser.rates.denoiser=11", "optimiser.rates.denoiser is 11", "at most 10"),
    ("optimiser.rate=fast", "optimiser.rate is 'fast'", "number"),
    ("optimiser.rate=true", "optimiser.rate is true", "number"),
    ("optimiser.rate=1e999", "optimiser.rate is 1e999", "finite"),
    ("length.steps=1.5", "length.steps is 1.5", "whole"),
    ("length.steps=" + "9" * 400, "length.steps is", "whole"),
    ("optimiser.weight_decay=" + "9" * 299, "optimiser.weight_decay is", "at most"),
    ("data.shuffle_tags=yes", "data.shuffle_tags is 'yes'", "true or false"),
    ("method.rank=[1]", "method.rank is a list", "whole"),
    ("data.paths={a: 1}", "data.paths is a map", "list of texts"),
    ("optimiser.rates=3", "optimiser.rates is 3", "map of names"),
    ("method.rank=null", "method.rank is empty", "whole"),
    ("method=lora", "'method=lora': no knob", ""),
    ("method.rank", "is not an override", "section.knob=value"),
    ("=3", "is not an override", "section.knob=value"),
    ("method.rank={", "method.rank={", "YAML"),
    ("method.rank=[1, 2", "", "YAML"),
    ("preset=best", "toy has no preset 'best'", "no presets"),
]


@pytest.mark.parametrize(("override", "found", "hint"), WRONG, ids=[case[0][:40] for case in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, override: str, found: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, GUIDE, override)
    assert found in caught.value.found
    assert hint in caught.value.message
    assert "\n" not in caught.value.message


CONTRADICTIONS = [
    (["length.steps=null"], "neither length.steps nor length.epochs"),
    (["optimiser.warmup_steps=1201"], "warmup_steps is 1201"),
    (["optimiser.rates.vae=1e-4"], "'vae', which does not train"),
    (["data.prior=given"], "prior_paths is empty"),
    (["data.prior=generated"], "prior_prompts is empty"),
    (["data.prior_paths=p"], "data.prior is none"),
    (["data.prior_prompts=p"], "data.prior is none"),
    (["method.name=scratch"], "starts from nothing"),
    (["method.name=scratch", "base.path=null"], "base.architecture is not set"),
    (["base.path=null"], "base.path is not set"),
    (["base.architecture=tiny"], "both set"),
    (["method.conv_alpha=4"], "method.conv_rank is not"),
    (["method.name=full"], "method.alpha is 8.0"),
    (["method.components=[denoiser, denoiser]"], "twice"),
    (["optimiser.betas=[0.9]"], "optimiser.betas"),
    (["optimiser.betas=[0.9, 1.0]"], "optimiser.betas"),
    (["optimiser.restarts=3"], "optimiser.restarts is 3"),
    (["data.holdout_paths=friends/peter"], "in data.paths and in data.holdout_paths"),
    (["data.caption_extensions=txt"], "extension 'txt'"),
    (["output.name=a/b"], "output.name is 'a/b'"),
    (["output.name=.."], "output.name is '..'"),
    (["output.concepts.fox=' '"], "trigger"),
    (["output.concepts.a/b=zz"], "'a/b'"),
    (['output.concepts.fox="\\x1b[2J"'], "with the trigger '\\x1b[2J'"),
    (["output.exports=[kohya, kohya]"], "twice"),
]


@pytest.mark.parametrize(("overrides", "found"), CONTRADICTIONS, ids=[case[1] for case in CONTRADICTIONS])
def test_knobs_that_contradict_each_other(tmp_path: Path, overrides: list[str], found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, GUIDE, *overrides)
    assert found in caught.value.found


def test_what_is_missing_is_not_blamed_on_the_last_override() -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe([], ["engine=toy", "data.paths=d", "base.path=b"], lookup)
    assert caught.value.found == "the recipe: neither length.steps nor length.epochs is set"


def test_an_unknown_section_lists_the_sections() -> None:
    with pytest.raises(RecipeError, match=r"no knob is called 'foo'\. Expected one of the sections engine, data, base"):
        read_recipe([], ["engine=toy", "foo=1"], lookup)


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml, line 4: method\.rank is 0"):
        read(tmp_path, GUIDE.replace("rank: 16", "rank: 0"))
    text = GUIDE + "resources:\n  device: cpu\n  theads: 3\n"
    with pytest.raises(RecipeError, match=r"recipe\.yaml, line 10: no knob is called 'resources\.theads'"):
        read(tmp_path, text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml, line 7: output\.name is 5.*in quotes: \"5\""):
        read(tmp_path, GUIDE.replace("qb_peter_lora", "5"))


@pytest.mark.parametrize(
    "document",
    [
        {"engine": "toy", "length": {"steps": float("nan")}},
        {"engine": "toy", "data": {"paths": [b"x"]}},
        {"engine": "toy", 3: {}},
        {"engine": {}},
        {"engine": {"name": ["toy"]}},
        {"engine": "toy", "length": []},
        {"engine": "toy", "output": {"name": "a\0b"}},
        {"engine": "toy", "output": {"name": "\ud800"}},
        {"engine": "toy", "output": {"name": "x" * 70_000}},
        {"engine": "toy", "output": {"concepts": {"\ud800": "x"}}},
        {},
    ],
)
def test_plain_documents_are_checked_too(document: Mapping[Any, Any]) -> None:
    with pytest.raises(RecipeError):
        recipe_from(document, lookup)


def test_presets_go_under_the_recipe(tmp_path: Path) -> None:
    quick = write(tmp_path, "engine: {name: toy, resolution: 128}\noptimiser: {rate: 1e-3}\n", "quick.yaml")
    nested = write(tmp_path, "preset: quick\n", "nested.yaml")
    foreign = write(tmp_path, "engine: other\n", "foreign.yaml")

    def engines(name: str) -> tuple[type, Mapping[str, Path]]:
        return ToySection, {"quick": quick, "nested": nested, "foreign": foreign}

    text = "engine: {name: toy, flip: true}\npreset: quick\nbase: {path: x}\nlength: {steps: 1}\n"
    recipe = read_recipe([write(tmp_path, text)], ["optimiser.weight_decay=0"], engines)
    assert recipe.settings == ToySection(resolution=128, flip=True)
    assert recipe.optimiser.rate == 1e-3
    assert read_recipe([write(tmp_path, text)], ["engine.resolution=8"], engines).settings.resolution == 8
    for preset, words in (("quik", "did you mean 'quick'"), ("nested", "another preset"), ("foreign", "is for other")):
        with pytest.raises(RecipeError, match=rf"(?i){words}"):
            read_recipe([write(tmp_path, text)], [f"preset={preset}"], engines)


def test_every_shipped_preset_reads() -> None:
    from tunesmith.engines.index import engine_names, recipe_facts

    for name in engine_names():
        for preset in recipe_facts(name)[1]:
            document = {"engine": name, "preset": preset, "base": {"path": "x"}, "length": {"steps": 1}}
            assert recipe_from(document, recipe_facts).engine == name


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
PATH = TEXT.filter(lambda text: bool(text.strip()))
NAME = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(is_plain_name)
DOCUMENTS = st.fixed_dictionaries(
    {
        "engine": st.fixed_dictionaries(
            {"name": st.just("toy")},
            optional={
                "resolution": st.integers(8, 4096),
                "gamma": st.none() | st.floats(1e-300, 1e300),
                "flip": st.booleans(),
                "sizes": st.lists(st.integers(8, 10**6)),
            },
        ),
        "base": st.fixed_dictionaries({"path": PATH}, optional={"parts": st.dictionaries(TEXT, TEXT, max_size=3)}),
        "length": st.fixed_dictionaries({"steps": st.integers(1, 10**7)}, optional={"seed": st.integers(0, 2**63 - 1)}),
    },
    optional={
        "data": st.fixed_dictionaries({}, optional={"paths": st.lists(PATH, max_size=3), "default_caption": TEXT}),
        "optimiser": st.fixed_dictionaries(
            {}, optional={"rate": st.floats(0, 10), "rates": st.dictionaries(TEXT, st.floats(0, 10), max_size=3)}
        ),
        "output": st.fixed_dictionaries(
            {}, optional={"preview_prompts": st.lists(TEXT, max_size=3), "concepts": st.dictionaries(NAME, NAME)}
        ),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS)
def test_what_is_written_reads_back_as_the_same_recipe(tmp_path: Path, document: dict[str, Any]) -> None:
    recipe = recipe_from(document, lookup)
    again = read_recipe([write(tmp_path, to_yaml(recipe))], [], lookup)
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)
    assert recipe_from(to_document(recipe, full=True), lookup) == recipe


def test_the_hash_follows_the_recipe_not_its_spelling(tmp_path: Path) -> None:
    longhand = GUIDE.replace("schedule: cosine", "schedule: cosine, name: adamw, weight_decay: 0.01")
    assert recipe_hash(read(tmp_path, longhand)) == recipe_hash(read(tmp_path, GUIDE))
    assert recipe_hash(read(tmp_path, GUIDE, "length.seed=1")) != recipe_hash(read(tmp_path, GUIDE))


@pytest.mark.parametrize("name", ["", " ", ".", " . ", "\xa0", "\u2003.", "a/b", "a\\b", "a\nb", "x" * 101])
def test_what_is_no_name(name: str) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["peter", "a.b", "...a", "Ünïcode ☃", "x" * 100])
def test_what_is_a_name(name: str) -> None:
    assert is_plain_name(name)
