"""Engine contract, the torch-free half: facts, opening, estimates, wants, name tables."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract_cases import CASES, MACHINE, METHODS, VARIANTS
from tunesmith.errors import WeightsError
from tunesmith.recipe.knobs import knobs_of
from tunesmith.recipe.schema import BaseSection, MethodSection

TORCH_FREE = """
import sys
for heavy in ("torch", "diffusers", "transformers", "peft"):
    sys.modules[heavy] = None
import pickle
from contract_cases import CASES, MACHINE, one_shape
name, path = sys.argv[1:]
case = CASES[name]
items = pickle.load(sys.stdin.buffer)
for method in case.methods().values():
    for variant in case.variants:
        recipe = case.recipe(path, method, variant)
        base = case.engine.open(recipe.base)
        shapes = {}
        for item in items:
            shape = case.engine.shape(item, recipe)
            shapes[shape] = shapes.get(shape, 0) + 1
            assert case.engine.wants(item, recipe)
        assert case.engine.encoders(base, recipe)
        case.engine.facts.request(**case.engine.trained_at(base, recipe))
        assert case.engine.estimate(base, recipe, shapes, MACHINE).phases
for layout in case.engine.layouts.adapter_layouts:
    assert case.engine.layouts.adapter_layers(layout, "no such layer", base) == ()
    case.engine.layouts.metadata(layout, base)
print("done", base.header_hash)
"""


@pytest.mark.parametrize("name", CASES)
def test_facts_agree_with_each_other(name: str) -> None:
    engine = CASES[name].engine
    facts = engine.facts
    assert facts.name == name
    assert facts.stages, "something must be trainable"
    assert len({stage.name for stage in facts.stages}) == len(facts.stages)
    assert not set(facts.media) & set(facts.optional_media)
    assert 1 <= facts.minimum_items <= facts.advised_items[0] <= facts.advised_items[1]
    for stage in facts.stages:
        assert stage.usual
        assert set(stage.usual) <= set(stage.components)
        assert set(stage.methods) <= {"lora", "dora", "full", "scratch"}
        if "lora" in stage.methods:
            assert set(stage.components) <= set(engine.layouts.folders)
    assert all(path.is_file() for path in facts.presets.values())
    assert set(engine.layouts.weight_layouts) <= set(facts.base_layouts)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", ["section", "request"])
def test_knob_sections_are_valid(name: str, which: str) -> None:
    section = getattr(CASES[name].engine.facts, which)
    assert section.__dataclass_params__.frozen
    knobs = knobs_of(section, "engine")
    assert len(knobs) == len(dataclasses.fields(section))
    for knob in knobs:
        assert knob.help, knob.path
        if isinstance(knob.default, int | float) and not isinstance(knob.default, bool):
            assert knob.low is None or knob.default >= knob.low, knob.path
            assert knob.high is None or knob.default <= knob.high, knob.path
            assert knob.above is None or knob.default > knob.above, knob.path
        assert not knob.choices or knob.default in knob.choices, knob.path
    section()  # every knob has a default
    if which == "request":
        assert {"prompt", "seed"} <= {knob.name for knob in knobs}


@pytest.mark.parametrize("name", CASES)
def test_torch_free_methods_never_import_torch(name: str, open_case: Callable[[str], Any]) -> None:
    import pickle

    opened = open_case(name)
    tests = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{TORCH_FREE}", name, str(opened.path)],
        input=pickle.dumps(opened.items),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.decode().split() == ["done", opened.base.header_hash]


@pytest.mark.parametrize("name", CASES)
def test_open_refuses_what_is_no_base(name: str, tmp_path: Path) -> None:
    engine = CASES[name].engine
    with pytest.raises(WeightsError):
        engine.open(BaseSection(path=str(tmp_path / "missing.safetensors")))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no header at all")
    with pytest.raises(WeightsError):
        engine.open(BaseSection(path=str(damaged)))
    foreign = next(case for other, case in CASES.items() if other != name)
    path = foreign.write_base(tmp_path / "foreign.safetensors", 0)
    with pytest.raises(WeightsError):
        engine.open(BaseSection(path=str(path)))


@pytest.mark.parametrize("name", CASES)
def test_base_counts_its_own_numbers(name: str, open_case: Callable[[str], Any]) -> None:
    opened = open_case(name)
    for role, part in opened.base.parts.items():
        if not part.parameters:  # a tokenizer
            continue
        tensors = list(opened.engine.tensors(opened.base, role))
        assert sum(tensor.numel() for _, tensor in tensors) == part.parameters
        assert sum(tensor.nbytes for _, tensor in tensors) == part.size_bytes
        assert len({key for key, _ in tensors}) == len(tensors)
    assert opened.base.files
    assert all(path == opened.path or opened.path in path.parents for path in opened.base.files)


@pytest.mark.parametrize(("name", "label"), METHODS)
def test_estimated_parameters_are_the_real_ones(name: str, label: str, open_case: Callable[[str], Any]) -> None:
    opened = open_case(name)
    method: MethodSection = opened.case.methods()[label]
    recipe = opened.recipe(method)
    shapes = {opened.engine.shape(opened.items[0], recipe): 2}
    estimate = opened.engine.estimate(opened.base, recipe, shapes, MACHINE)
    stage = next(stage for stage in opened.engine.facts.stages if stage.name == method.stage)
    trains = method.components or stage.usual
    model = opened.model(recipe)
    if method.name == "full":
        expected = sum(p.numel() for role in trains for p in model.components[role].parameters() if p.requires_grad)
    else:
        expected = 0
        for target in opened.engine.targets(model, method):
            weight = model.components[target.component].get_submodule(target.live).weight
            rank = method.conv_rank if target.kind == "conv" else method.rank
            expected += rank * (weight[0].numel() + weight.shape[0])
    assert estimate.trainable_parameters == expected
    assert estimate.total_parameters == sum(part.parameters for part in opened.base.parts.values())
    assert estimate.state_bytes > 0
    assert estimate.checkpoint_bytes > 0
    assert {phase.name for phase in estimate.phases} >= {"encode", "train"}
    assert all(phase.peak_bytes > 0 and sum(phase.operations.values()) >= 0 for phase in estimate.phases)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_wants_name_real_encoders_and_inputs(name: str, variant: str, open_case: Callable[[str], Any]) -> None:
    opened = open_case(name)
    for method in opened.case.methods().values():
        recipe = opened.recipe(method, variant)
        specs = {spec.name: spec for spec in opened.engine.encoders(opened.base, recipe)}
        assert all(spec.key for spec in specs.values())
        for item in opened.items:
            wants = opened.engine.wants(item, recipe)
            assert len({want.label for want in wants}) == len(wants)
            for want in wants:
                assert want.encoder in specs
                assert want.text is not None or want.role in item.media


@pytest.mark.parametrize("name", CASES)
def test_encoder_keys_follow_the_weights(name: str, open_case: Callable[[str], Any], tmp_path: Path) -> None:
    """Same weights elsewhere: same keys. Other weights of the same shapes: every key of a learned encoder changes."""
    opened = open_case(name)
    keys = []
    for seed in (0, 1):
        path = opened.case.write_base(tmp_path / f"{seed}.safetensors", seed)
        recipe = opened.case.recipe(path)
        base = opened.engine.open(recipe.base)
        assert base.header_hash == opened.base.header_hash
        keys.append({spec.name: spec.key for spec in opened.engine.encoders(base, recipe)})
    first = {spec.name: spec.key for spec in opened.engine.encoders(opened.base, opened.recipe())}
    assert keys[0] == first
    assert keys[1] != keys[0]


@pytest.mark.parametrize("name", CASES)
def test_adapter_stems_invert(name: str, open_case: Callable[[str], Any]) -> None:
    opened = open_case(name)
    layouts = opened.engine.layouts
    for stage in opened.engine.facts.stages:
        if "lora" not in stage.methods:
            continue
        method = MethodSection(stage=stage.name, components=stage.adaptable, conv_rank=1)
        targets = opened.engine.targets(opened.model(opened.recipe(method)), method)
        assert targets
        for layout in layouts.adapter_layouts:
            stems = [layouts.adapter_stem(layout, target.component, target.canonical) for target in targets]
            for stem in dict.fromkeys(stems):  # a layout that fuses layers stacks all that share a stem
                own = [(t.component, t.canonical) for t, named in zip(targets, stems, strict=True) if named == stem]
                assert list(layouts.adapter_layers(layout, stem, opened.base)) == own
            assert layouts.adapter_layers(layout, stems[0] + "_not", opened.base) == ()
            assert all(isinstance(value, str) for value in layouts.metadata(layout, opened.base).values())
