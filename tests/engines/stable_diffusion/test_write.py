"""Written bases: self-contained, read back the same, and loaded by diffusers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tiny_sd
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.architecture import ROLES, autoencoder_sizes
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe

CPU = torch.device("cpu")


def _all(base: Any) -> dict[str, dict[str, torch.Tensor]]:
    return {role: dict(engine.tensors(base, role)) for role in ROLES}


def _same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(
        a[role].keys() == b[role].keys() and all(torch.equal(a[role][name], b[role][name]) for name in a[role])
        for role in ROLES
    )


def test_a_single_file_is_the_one_it_came_from(tiny: Any, tmp_path: Path) -> None:
    path = engine.write_base(tiny.open("folder"), {}, tmp_path / "again", "single_file", "fp32")
    assert path == tmp_path / "again.safetensors"
    with safe_open(str(path), "pt") as ours, safe_open(str(tiny.single), "pt") as original:
        assert set(ours.keys()) == set(original.keys())
        for name in original.keys():  # noqa: SIM118 - not a mapping
            assert torch.equal(ours.get_tensor(name), original.get_tensor(name)), name


@pytest.mark.parametrize("source", ["single", "checkpoint", "folder"])
@pytest.mark.parametrize("layout", ["single_file", "diffusers"])
def test_every_layout_reads_back_the_same(tiny: Any, tmp_path: Path, source: str, layout: str) -> None:
    base = tiny.open(source)
    path = engine.write_base(base, {}, tmp_path / "written", layout, "fp32")
    again = engine.open(BaseSection(path=str(path)))
    assert _same(_all(again), _all(base))
    for role in (*ROLES, "scheduler"):
        kept = {k: v for k, v in base.architecture[role].items() if v is not None}
        assert {key: again.architecture[role].get(key) for key in kept} == kept
    assert not list(tmp_path.glob(".*"))


def test_diffusers_loads_a_written_folder(tiny: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    path = engine.write_base(tiny.open(), {}, tmp_path / "folder", "diffusers", "fp32")
    pipeline = StableDiffusionPipeline.from_pretrained(str(path), local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(pipeline, name).state_dict(), getattr(tiny.pipeline, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_diffusers_loads_a_written_single_file(tiny: Any, tmp_path: Path) -> None:
    path = engine.write_base(tiny.open("folder"), {}, tmp_path / "single.safetensors", "single_file", "fp32")
    pipeline = tiny_sd.diffusers_pipeline(path, tmp_path / "configs")
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(pipeline, name).state_dict(), getattr(tiny.pipeline, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("layout", ["single_file", "diffusers"])
def test_dtypes(tiny: Any, tmp_path: Path, name: str, dtype: torch.dtype, layout: str) -> None:
    path = engine.write_base(tiny.open(), {}, tmp_path / "written", layout, name)
    for role, tensors in _all(engine.open(BaseSection(path=str(path)))).items():
        for key, tensor in engine.tensors(tiny.open(), role):
            assert torch.equal(tensors[key], tensor.to(dtype)), key


def test_replaced_parts_are_taken_as_given(tiny: Any, tmp_path: Path) -> None:
    base = tiny.open()
    given = {name: tensor + 1 for name, tensor in engine.tensors(base, "text_encoder")}
    path = engine.write_base(base, {"text_encoder": given}, tmp_path / "x.safetensors", "single_file", "fp32")
    again = _all(engine.open(BaseSection(path=str(path))))
    assert all(torch.equal(again["text_encoder"][name], tensor) for name, tensor in given.items())
    assert all(torch.equal(again["denoiser"][name], tensor) for name, tensor in engine.tensors(base, "denoiser"))


@pytest.mark.parametrize("layout", ["single_file", "diffusers"])
def test_stages_trained_from_nothing_follow_each_other(tmp_path: Path, layout: str) -> None:
    """An autoencoder alone, then a denoiser on it with a new, frozen text encoder: the last one is whole."""
    base = engine.open(BaseSection(architecture="tiny32"))
    section = engine.facts.section(resolution=32)

    def trained(base: Any, stage: str) -> Any:
        recipe = Recipe("stable_diffusion", section, method=MethodSection(name="scratch", stage=stage))
        return engine.trained_weights(engine.load_model(base, recipe, CPU, torch.float32))

    first = trained(base, "autoencoder")
    assert set(first) == {"autoencoder"}
    path = engine.write_base(base, first, tmp_path / "first", layout, "fp32")
    opened = engine.open(BaseSection(path=str(path)))
    assert {role: part.path is None for role, part in opened.parts.items() if role in ROLES} == {
        "denoiser": True,
        "autoencoder": False,
        "text_encoder": True,
    }
    assert opened.architecture["autoencoder"]["scaling_factor"] == 1.0
    second = engine.open(BaseSection(architecture="tiny32", parts={"autoencoder": str(path)}))
    for start in (opened, second):
        weights = trained(start, "denoiser")
        assert set(weights) == {"denoiser", "text_encoder"}
        whole = engine.write_base(start, weights, tmp_path / "second", layout, "fp32")
        final = engine.open(BaseSection(path=str(whole)))
        assert all(final.parts[role].path is not None for role in ROLES)
        assert all(
            torch.equal(tensor, first["autoencoder"][name]) for name, tensor in engine.tensors(final, "autoencoder")
        )
        engine.load_sampler(final, CPU, torch.float32)


def test_sizes_that_shapes_do_not_show_survive(tiny: Any, tmp_path: Path) -> None:
    base = tiny.open()
    sizes = {**base.architecture["autoencoder"], "scaling_factor": 0.5}
    text = {**base.architecture["text_encoder"], "num_attention_heads": 4}
    changed = type(base)(
        base.engine,
        base.source,
        {**base.architecture, "autoencoder": sizes, "text_encoder": text},
        base.parts,
        base.header_hash,
    )
    path = engine.write_base(changed, {}, tmp_path / "x.safetensors", "single_file", "fp32")
    again = engine.open(BaseSection(path=str(path)))
    assert again.architecture["autoencoder"]["scaling_factor"] == 0.5
    assert again.architecture["text_encoder"]["num_attention_heads"] == 4
    assert autoencoder_sizes([32, 64], 1)["scaling_factor"] == 0.18215


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tiny: Any, tmp_path: Path) -> None:
    base = tiny.open()
    short = dict(list(engine.tensors(base, "text_encoder"))[:-1])
    for layout in ("single_file", "diffusers"):
        with pytest.raises(WeightsError, match="does not have its tensors"):
            engine.write_base(base, {"text_encoder": short}, tmp_path / "x", layout, "fp32")
    with pytest.raises(WeightsError, match="dtype is 'int8'"):
        engine.write_base(base, {}, tmp_path / "x", "single_file", "int8")
    with pytest.raises(WeightsError, match="no layout"):
        engine.write_base(base, {}, tmp_path / "x", "gguf", "fp32")
    with pytest.raises(WeightsError, match="no part 'unet'"):
        engine.write_base(base, {"unet": {}}, tmp_path / "x", "single_file", "fp32")
    assert not list(tmp_path.iterdir())
