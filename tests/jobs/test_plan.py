from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from job_cases import World, write_world
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Estimate, Machine, PhaseCost
from tunesmith.errors import DataError, PlanRefused, RecipeError, WeightsError
from tunesmith.jobs import plan as plan_module
from tunesmith.jobs.forecast import minutes_text, to_json, to_text
from tunesmith.jobs.items import gather
from tunesmith.jobs.machine import available_memory_bytes, read_machine, unmeasured_machine
from tunesmith.jobs.plan import make_plan, phase_seconds, plan_recipe, refuse_or_pass
from tunesmith.jobs.refusals import refusals_of
from tunesmith.recipe.schema import Recipe
from tunesmith.weights.atomic import write_json

MACHINE = Machine("cpu", 8 << 30, 2, False, {"fp32": 2e11}, {"fp32": 4e11})
GIB = 1 << 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@dataclass
class Costly:
    """The test engine with the memory of a large one: 1 GiB, 2 GiB an item at 16 pixels, a third of that rechecked."""

    engine: Any
    fixed_bytes: int = GIB
    item_bytes: int = 2 * GIB

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def estimate(self, base: Any, recipe: Recipe, shapes: Any, machine: Machine) -> Estimate:
        real = self.engine.estimate(base, recipe, shapes, machine)
        area = (recipe.settings.resolution / 16) ** 2
        item = self.item_bytes * area / (3 if recipe.method.gradient_checkpointing else 1)
        peak = int(self.fixed_bytes + recipe.length.batch_items * item)
        visits = recipe.length.batch_items * recipe.length.accumulation
        operations = {"matrix": visits * (4e9 if recipe.method.gradient_checkpointing else 3e9)}
        train = PhaseCost("train", peak, operations, recipe.length.steps or 1)
        return replace(real, phases=(PhaseCost("load", GIB, {}, 1), train))


def planned(world: World, home: Path, engine: Any = None, machine: Machine | None = MACHINE, **changes: Any) -> Any:
    recipe = world.recipe(**changes)
    engine = engine or engine_named(recipe.engine)
    base = engine.open(recipe.base)
    return make_plan(recipe, engine, base, gathered=gather(recipe, engine, home=home), machine=machine, home=home)


def test_counts_follow_from_items_and_length(world: World, tmp_path: Path) -> None:
    plan = planned(world, tmp_path, length__steps=None, length__epochs=5, length__accumulation=2)
    assert (plan.items, plan.held_out, plan.prior_items) == (6, 2, 0)
    # 6 items in batches of 2: 3 batches an epoch, 5 epochs are 15 batches, 2 a step.
    assert (plan.batches_per_epoch, plan.steps, plan.epochs) == (3, 8, pytest.approx(16 / 3))
    assert plan.views_per_item == (pytest.approx(16 / 3), pytest.approx(16 / 3))
    assert sum(plan.shapes.values()) == 6
    assert 0 < plan.trainable_parameters < plan.total_parameters
    assert plan.components == ("denoiser",)
    assert not plan.refusals


def test_concept_balance_is_by_visits(world: World, tmp_path: Path) -> None:
    from PIL import Image

    for folder, count in (("3_peter", 2), ("1_lois", 4)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for index in range(count):
            colour = (40 * index, 30 * len(folder), 90)
            Image.new("RGB", (20, 20), colour).save(tmp_path / "data" / folder / f"{index}.png")
            (tmp_path / "data" / folder / f"{index}.txt").write_text(f"{folder} {index}")
    plan = planned(world, tmp_path, data__paths=[str(tmp_path / "data")], data__holdout_fraction=0, length__steps=10)
    shares = {share.name: (share.items, share.visits_per_epoch, share.share) for share in plan.concepts}
    assert shares == {"peter": (2, 6, 0.6), "lois": (4, 4, 0.4)}
    assert plan.views_per_item == (2.0, 6.0)
    assert "nothing is held out" in plan.notes[0]
    assert "peter: 2 items, 6 visits an epoch, 60% of the training" in to_text(plan)


def test_time_is_arithmetic_over_measured_rates(world: World, tmp_path: Path) -> None:
    cost = PhaseCost("train", 1, {"matrix": 4e11, "convolution": 4e11}, 10)
    assert phase_seconds(cost, MACHINE) == pytest.approx(10 * (2 + 1))
    assert phase_seconds(replace(cost, dtype="bf16"), MACHINE) == pytest.approx(30)
    assert phase_seconds(cost, unmeasured_machine("cpu")) is None
    plan = planned(world, tmp_path)
    assert plan.minutes is not None
    assert 0 < plan.minutes[0] < plan.minutes[1]
    # A tiny base: what a step takes besides its arithmetic decides.
    assert plan.minutes[0] * 60 >= 0.02 * plan.steps
    unknown = planned(world, tmp_path, machine=None)
    assert unknown.minutes is None
    assert "not measured" in to_text(unknown)


def test_what_does_not_fit_is_refused_with_the_change_that_makes_it_fit(world: World, tmp_path: Path) -> None:
    engine = Costly(engine_named("test_pictures"))
    limit = {"resources__memory_limit_bytes": 4 * GIB, "length__batch_items": 4}
    plan = planned(world, tmp_path, engine, **limit)
    assert plan.memory_peak_bytes == 9 * GIB
    (refusal,) = plan.refusals
    assert "9.00 GiB" in refusal.reason
    assert "4.00 GiB" in refusal.reason
    assert refusal.overrides == ("length.batch_items=1", "length.accumulation=4")
    assert "at the cost of the same 4 items a step in 4 passes of one" in refusal.change
    assert all(offer.peak_bytes <= 4 * GIB for offer in plan.offers)
    mended = planned(world, tmp_path, engine, **{**limit, "length__batch_items": 1, "length__accumulation": 4})
    assert not mended.refusals
    assert mended.memory_peak_bytes == plan.offers[0].peak_bytes == 3 * GIB


@pytest.mark.parametrize(
    ("limit", "overrides"),
    [
        (2 * GIB, ("length.batch_items=1", "length.accumulation=4", "method.gradient_checkpointing=true")),
        (int(3.8 * GIB), ("length.batch_items=1", "length.accumulation=4")),
        (8 * GIB, ("length.batch_items=1", "length.accumulation=4")),
        (GIB // 2, ()),
    ],
)
def test_the_gentlest_change_that_fits_comes_first(
    world: World, tmp_path: Path, limit: int, overrides: tuple[str, ...]
) -> None:
    engine = Costly(engine_named("test_pictures"))
    plan = planned(world, tmp_path, engine, resources__memory_limit_bytes=limit, length__batch_items=4)
    (refusal,) = plan.refusals
    assert refusal.overrides == overrides
    if not overrides:
        assert "the least that any change brings it to is 1.67 GiB" in refusal.reason


def test_gradient_checkpointing_says_what_it_costs(world: World, tmp_path: Path) -> None:
    engine = Costly(engine_named("test_pictures"))
    plan = planned(world, tmp_path, engine, resources__memory_limit_bytes=2 * GIB, length__batch_items=1)
    assert plan.refusals[0].overrides == ("method.gradient_checkpointing=true",)
    assert "1.33 times the arithmetic" in plan.refusals[0].change


def test_a_smaller_resolution_is_offered_where_the_engine_has_one(world: World, tmp_path: Path) -> None:
    engine = Costly(engine_named("test_pictures"), item_bytes=GIB // 256)
    recipe = world.recipe()
    large = replace(recipe, settings=replace(recipe.settings, resolution=512))
    base = engine.open(recipe.base)
    large = replace(large, length=replace(large.length, batch_items=1))
    large = replace(large, method=replace(large.method, gradient_checkpointing=True))
    large = replace(large, resources=replace(large.resources, memory_limit_bytes=2 * GIB))
    gathered = gather(recipe, engine, home=tmp_path)
    plan = make_plan(large, engine, base, gathered=gathered, machine=MACHINE, home=tmp_path)
    # 1 GiB and 4/3 GiB at 512 pixels do not fit in 2; at 448 the second is 1.02, at 384 it is 0.75.
    assert plan.refusals[0].overrides == ("engine.resolution=384",)


def test_a_disk_without_room_is_refused(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "free_bytes", lambda path: 1 << 20)
    plan = planned(world, tmp_path, resources__disk_reserve_bytes=1 << 30)
    assert plan.disk.needed_bytes > 1 << 30
    assert "must leave 1.00 GiB free" in plan.refusals[0].reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method__stage": "denoise"}, "method.stage can be denoiser, autoencoder"),
        ({"method__stage": "autoencoder", "method__components": []}, "no method 'lora'"),
        ({"method__components": ["denoisr"]}, "id you mean 'denoiser'"),
        ({"output__exports": ["kohia"]}, "id you mean 'kohya'"),
        ({"output__exports": ["single_file"]}, "no export layout 'single_file'"),
    ],
)
def test_what_the_engine_lacks_is_refused_with_its_choices(
    world: World, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(PlanRefused) as caught:
        refuse_or_pass(world.recipe(**changes), tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_scratch_cannot_draw_its_own_prior_items(world: World, tmp_path: Path) -> None:
    recipe = world.recipe("scratch", data__prior="generated", data__prior_prompts=["a thing"])
    with pytest.raises(PlanRefused, match=r"data\.prior=given"):
        refuse_or_pass(recipe, tmp_path)


@pytest.mark.parametrize(("media", "refused"), [(("image",), False), (("audio",), False), (("chart", "audio"), True)])
def test_prior_items_are_drawn_by_engines_of_pictures_and_sounds(
    world: World, media: tuple[str, ...], refused: bool
) -> None:
    recipe = world.recipe(data__prior="generated", data__prior_prompts=["a thing"])
    engine = engine_named(recipe.engine)
    other = Costly(engine)
    other.facts = replace(engine.facts, media=media)  # type: ignore[attr-defined]
    found = refusals_of(recipe, other)  # type: ignore[arg-type]
    assert [refusal.reason for refusal in found] == (
        ["Test pictures makes chart, which cannot be kept as prior items"] if refused else []
    )
    assert all("data.prior=given" in refusal.change for refusal in found)


def test_too_few_items_are_refused(world: World, tmp_path: Path) -> None:
    engine = engine_named("test_pictures")
    facts = replace(engine.facts, minimum_items=50)

    class Demanding(Costly):
        """Needs fifty items."""

        def __getattribute__(self, name: str) -> Any:
            return facts if name == "facts" else super().__getattribute__(name)

    plan = planned(world, tmp_path, Demanding(engine))
    assert any("50" in refusal.reason for refusal in plan.refusals)


@pytest.mark.parametrize("knob", [{"method__rank": 0}, {"optimiser__rate": -1.0}, {"length__steps": 0}])
def test_values_out_of_range_never_reach_the_plan(world: World, knob: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        world.recipe(**knob)


def test_a_missing_base_and_an_empty_folder_are_told_as_they_are(world: World, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        refuse_or_pass(world.recipe(base__path=str(tmp_path / "nothing.safetensors")), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        refuse_or_pass(world.recipe(data__paths=[str(tmp_path / "empty")]), tmp_path)


def test_prior_items_are_counted_before_they_exist(world: World, tmp_path: Path) -> None:
    plan = planned(world, tmp_path, data__prior="generated", data__prior_prompts=["a"], data__prior_items=7)
    assert plan.prior_items == 7
    given = planned(world, tmp_path, data__prior="given", data__prior_paths=[str(world.pictures)])
    assert given.prior_items == 8
    assert given.batches_per_epoch > plan.batches_per_epoch


def test_a_plan_reads_back_as_json_and_as_text(world: World, tmp_path: Path) -> None:
    plan, gathered = plan_recipe(world.recipe(output__exports=["kohya", "peft"]), tmp_path)
    content = json.loads(json.dumps(to_json(plan)))
    assert content["disk"]["needed_bytes"] == plan.disk.needed_bytes
    assert content["steps"] == 12
    assert gathered.hash
    text = to_text(plan)
    for words in ("peter lora", "6 items, 2 held out", "12 steps (batches of 2) = 4.0 epochs", "memory", "disk"):
        assert words in text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [((0.5, 0.9), "30 to 54 seconds"), ((12, 19), "12 to 19 minutes"), ((130, 200), "2.2 to 3.3 hours")],
)
def test_minutes_are_told_in_the_unit_that_fits(minutes: tuple[float, float], text: str) -> None:
    assert minutes_text(minutes) == text


def test_the_stored_machine_is_read_back(tmp_path: Path) -> None:
    assert read_machine(tmp_path) is None
    write_json(tmp_path / "machine.json", {**asdict(MACHINE), "later": 1})
    assert read_machine(tmp_path) == MACHINE
    (tmp_path / "machine.json").write_text("{")
    assert read_machine(tmp_path) is None


def test_the_container_limit_counts(tmp_path: Path) -> None:
    free = available_memory_bytes(tmp_path)
    assert free > 0
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert available_memory_bytes(tmp_path) > 0
    (tmp_path / "memory.max").write_text(str(100 << 20))
    (tmp_path / "memory.current").write_text(str(60 << 20))
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {10 << 20}\n")
    assert available_memory_bytes(tmp_path) == 50 << 20
