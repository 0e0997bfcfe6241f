"""Engine contract, the training half: encode, draw, collate, loss, targets, weights there and back."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract_cases import CASES, METHODS, VARIANTS
from tunesmith.numeric.rng import BatchRng, ItemRng
from tunesmith.recipe.schema import BaseSection, MethodSection

# Matrix products are blocked by batch size, so an item's value moves by float32 rounding with its batch mates.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}

Open = Callable[[str], Any]


def _trains(opened: Any, method: MethodSection) -> tuple[str, ...]:
    stage = next(stage for stage in opened.engine.facts.stages if stage.name == method.stage)
    return method.components or stage.usual


def _reader(encoded: Any, item: Any) -> Callable[[str], Any]:
    return lambda label: encoded[item.key, label]


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return bool(first == second)


def _loss(opened: Any, model: Any, examples: list[Any], recipe: Any, positions: tuple[int, ...], seed: int = 3) -> Any:
    return opened.engine.loss(model, opened.engine.collate(examples), recipe, BatchRng(seed, positions))


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_encode_gives_the_same_bits(name: str, variant: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe(variant=variant)
    torch.manual_seed(1)
    first = opened.encoded(recipe)
    torch.manual_seed(2)
    second = opened.encoded(recipe)
    assert first.keys() == second.keys()
    for key, tensors in first.items():
        assert tensors.keys() == second[key].keys()
        for label, tensor in tensors.items():
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad
            assert torch.equal(tensor, second[key][label]), (key, label)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
@pytest.mark.parametrize("which", ["first stage", "every stage"])
def test_draw_is_a_function_of_item_and_position(name: str, variant: str, which: str, open_case: Open) -> None:
    """`encoded` holds exactly what `wants` lists, so this also proves that the list is enough."""
    opened = open_case(name)
    for method in list(opened.case.methods().values()) if which == "every stage" else [None]:
        recipe = opened.recipe(method, variant)
        encoded = opened.encoded(recipe)
        seen = []
        for item in opened.items:
            for position in range(12):
                draws = []
                for seed in (1, 2):
                    torch.manual_seed(seed)
                    draws.append(opened.engine.draw(item, _reader(encoded, item), recipe, ItemRng(0, position)))
                assert draws[0].tensors.keys() == draws[1].tensors.keys()
                assert all(_equal(value, draws[1].tensors[key]) for key, value in draws[0].tensors.items())
                assert (draws[0].key, draws[0].concept, draws[0].weight) == (item.key, item.concept, item.weight)
                seen.append(draws[0])
        if variant != "plain" and method is None:
            pairs = itertools.pairwise(seen[:12])  # one item, twelve visits
            assert any(not all(_equal(v, b.tensors[k]) for k, v in a.tensors.items()) for a, b in pairs)
        heavy = dataclasses.replace(opened.items[0], weight=2.5)
        assert opened.engine.draw(heavy, _reader(encoded, heavy), recipe, ItemRng(0, 0)).weight == 2.5


@pytest.mark.parametrize("name", CASES)
def test_collate_keeps_order_and_weights(name: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe()
    examples = [dataclasses.replace(e, weight=w) for e, w in zip(opened.examples(recipe), (1.0, 0.5, 2.0), strict=True)]
    batch = opened.engine.collate(examples)
    assert batch.keys == tuple(example.key for example in examples)
    assert batch.concepts == tuple(example.concept for example in examples)
    assert batch.weights.tolist() == [1.0, 0.5, 2.0]
    assert batch.weights.dtype == torch.float32
    for value in batch.tensors.values():
        if isinstance(value, torch.Tensor):
            assert len(value) == 3


@pytest.mark.parametrize(("name", "label"), METHODS)
def test_loss_is_the_weighted_mean_of_its_items(name: str, label: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe(opened.case.methods()[label])
    model = opened.model(recipe)
    weights = (1.0, 0.25, 3.0)
    examples = [dataclasses.replace(e, weight=w) for e, w in zip(opened.examples(recipe), weights, strict=True)]
    loss = _loss(opened, model, examples, recipe, (0, 1, 2))
    assert loss.per_item.shape == (3,)
    assert not loss.per_item.requires_grad
    assert loss.total.shape == ()
    expected = (loss.per_item.double() * torch.tensor(weights)).mean()
    torch.testing.assert_close(loss.total.double(), expected, **ROUNDING)
    lighter = _loss(opened, model, [dataclasses.replace(e, weight=1.0) for e in examples], recipe, (0, 1, 2))
    torch.testing.assert_close(lighter.per_item, loss.per_item, **ROUNDING)
    assert all(torch.isfinite(value).all() for value in loss.named.values())


@pytest.mark.parametrize(("name", "label"), METHODS)
def test_an_item_does_not_see_its_batch_mates(name: str, label: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe(opened.case.methods()[label])
    model = opened.model(recipe)
    examples = opened.examples(recipe)
    together = _loss(opened, model, examples, recipe, (0, 1, 2)).per_item
    turned = _loss(opened, model, examples[::-1], recipe, (2, 1, 0)).per_item
    torch.testing.assert_close(turned.flip(0), together, **ROUNDING)
    for place, example in enumerate(examples):
        alone = _loss(opened, model, [example], recipe, (place,)).per_item
        torch.testing.assert_close(alone[0], together[place], **ROUNDING)


@pytest.mark.parametrize("name", CASES)
def test_loss_ignores_global_randomness(name: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe()
    model, examples = opened.model(recipe), opened.examples(recipe)
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(_loss(opened, model, examples, recipe, (0, 1, 2)).per_item)
    assert torch.equal(values[0], values[1])


@pytest.mark.parametrize(("name", "label"), [(n, m) for n, m in METHODS if "-full-" in m])
def test_gradient_reaches_exactly_what_trains(name: str, label: str, open_case: Open) -> None:
    opened = open_case(name)
    method = opened.case.methods()[label]
    recipe = opened.recipe(method)
    model = opened.model(recipe)
    trains = _trains(opened, method)
    assert set(trains) <= set(model.components)
    for group in (model.components, model.frozen):
        for role, module in group.items():
            module.requires_grad_(role in trains and group is model.components)
    _loss(opened, model, opened.examples(recipe), recipe, (0, 1, 2)).total.backward()
    for role in trains:
        grads = {key: p.grad for key, p in model.components[role].named_parameters()}
        assert any(grad is not None and grad.abs().sum() > 0 for grad in grads.values()), role
        missing = [key for key, grad in grads.items() if grad is None]
        assert set(missing) <= opened.case.without_gradient, f"{role}: no gradient reaches {missing}"
    idle = [m for role, m in (*model.components.items(), *model.frozen.items()) if role not in trains]
    assert all(p.grad is None for module in idle for p in module.parameters())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.recorded])
def test_recorded_draws_replace_random_ones(name: str, open_case: Open) -> None:
    opened = open_case(name)
    recipe = opened.recipe()
    model = opened.model(recipe)
    batch = opened.batch(recipe)
    random = opened.engine.loss(model, batch, recipe, BatchRng(3, (0, 1, 2))).per_item
    other = opened.engine.loss(model, batch, recipe, BatchRng(4, (0, 1, 2))).per_item
    assert not torch.equal(random, other), "nothing is random here, so there is nothing to record"
    recorded = {}
    for key, like in opened.case.recorded.items():
        if isinstance(like, int | float):
            recorded[key] = torch.full((3,), like)
        else:
            recorded[key] = torch.linspace(-1, 1, batch.tensors[like].numel()).view_as(batch.tensors[like])
    fixed = dataclasses.replace(batch, tensors={**batch.tensors, **recorded})
    first, second = (opened.engine.loss(model, fixed, recipe, BatchRng(s, (0, 1, 2))).per_item for s in (3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, random)


@pytest.mark.parametrize(("name", "label"), [(n, m) for n, m in METHODS if "-lora-" in m])
def test_targets_are_layers_of_the_running_modules(name: str, label: str, open_case: Open) -> None:
    opened = open_case(name)
    method = opened.case.methods()[label]
    model = opened.model(opened.recipe(method))
    targets = opened.engine.targets(model, method)
    assert {target.component for target in targets} == set(_trains(opened, method))
    kinds = {"linear": torch.nn.Linear, "conv": torch.nn.Conv2d, "conv1x1": torch.nn.Conv2d}
    for target in targets:
        layer = model.components[target.component].get_submodule(target.live)
        assert isinstance(layer, kinds[target.kind])
        assert target.kind != "conv1x1" or layer.kernel_size == (1, 1)
        assert opened.engine.layouts.live_name(target.component, target.canonical) == target.live
    without = dataclasses.replace(method, conv_rank=None)
    rest = opened.engine.targets(model, without)
    assert rest
    assert set(rest) <= {target for target in targets if target.kind != "conv"}


@pytest.mark.parametrize("name", CASES)
def test_weights_go_there_and_back(name: str, open_case: Open, tmp_path: Path) -> None:
    """Replace every part by another base's, write, open, load: the same bits, in every layout, self-contained."""
    opened = open_case(name)
    other = opened.engine.open(BaseSection(path=str(opened.case.write_base(tmp_path / "other.safetensors", 1))))
    weights = {role: dict(opened.engine.tensors(other, role)) for role, part in other.parts.items() if part.parameters}
    for layout in opened.engine.layouts.weight_layouts:
        suffix = ".safetensors" if layout == "single_file" else ""
        path = opened.engine.write_base(opened.base, weights, tmp_path / f"written-{layout}{suffix}", layout, "fp32")
        again = opened.engine.open(BaseSection(path=str(path)))
        for role, tensors in weights.items():
            read = dict(opened.engine.tensors(again, role))
            assert read.keys() == tensors.keys()
            assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items()), (layout, role)
        for method in opened.case.methods().values():
            recipe = opened.case.recipe(path, method)
            model = opened.engine.load_model(again, recipe, torch.device("cpu"), torch.float32)
            for role, tensors in opened.engine.trained_weights(model).items():
                assert tensors.keys() <= weights[role].keys()
                assert all(torch.equal(weights[role][key], tensor) for key, tensor in tensors.items())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "something half-written is left"


@pytest.mark.parametrize("name", CASES)
def test_trained_weights_make_a_base(name: str, open_case: Open, tmp_path: Path) -> None:
    opened = open_case(name)
    method = MethodSection(name="full", stage=opened.engine.facts.stages[0].name)
    model = opened.model(opened.recipe(method))
    with torch.no_grad():
        for module in model.components.values():
            for parameter in module.parameters():
                parameter.add_(0.125)
    trained = opened.engine.trained_weights(model)
    path = opened.engine.write_base(
        opened.base, trained, tmp_path / "trained.safetensors", opened.engine.layouts.weight_layouts[0], "fp32"
    )
    again = opened.engine.open(BaseSection(path=str(path)))
    for role in again.parts:
        read = dict(opened.engine.tensors(again, role))
        kept = trained.get(role) or dict(opened.engine.tensors(opened.base, role))
        assert all(torch.equal(read[key], tensor) for key, tensor in kept.items()), role


@pytest.mark.parametrize("name", CASES)
def test_models_are_created_from_a_seed(name: str, open_case: Open, tmp_path: Path) -> None:
    """The architecture of a base, written as JSON, is what `architecture` accepts to make another like it."""
    opened = open_case(name)
    (tmp_path / "sizes.json").write_text(json.dumps(opened.base.architecture), encoding="utf-8")
    facts = opened.engine.facts
    stage = next(stage for stage in facts.stages if "scratch" in stage.methods)
    base = opened.engine.open(BaseSection(architecture=str(tmp_path / "sizes.json")))
    assert base.architecture == opened.base.architecture
    assert all(part.path is None for part in base.parts.values())
    states = []
    for seed in (0, 0, 1):
        recipe = opened.recipe(MethodSection(name="scratch", stage=stage.name))
        recipe = dataclasses.replace(recipe, length=dataclasses.replace(recipe.length, seed=seed))
        torch.manual_seed(len(states))
        model = opened.engine.load_model(base, recipe, torch.device("cpu"), torch.float32)
        states.append({k: p for r in stage.usual for k, p in model.components[r].state_dict().items()})
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    assert any(not torch.equal(tensor, states[2][key]) for key, tensor in states[0].items())


@pytest.mark.parametrize("name", CASES)
def test_measures_are_numbers(name: str, open_case: Open) -> None:
    opened = open_case(name)
    for stage in opened.engine.facts.stages:
        recipe = opened.recipe(MethodSection(name="full", stage=stage.name))
        for measure in opened.engine.measures(stage.name).values():
            value = measure(opened.model(recipe), opened.batch(recipe), recipe)
            assert isinstance(value, float)
            assert value == value, "not a number"
