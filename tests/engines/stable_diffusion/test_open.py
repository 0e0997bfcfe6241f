"""Opening bases from headers: every form that is read, and one clear line for those that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_sd
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.recognise import foreign_architecture
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection

COUNTS = {"denoiser": 792_964, "autoencoder": 658_375, "text_encoder": 1_608_992}


def _counts(base: Any) -> dict[str, int]:
    return {role: part.parameters for role, part in base.parts.items() if role != "tokenizer"}


@pytest.mark.parametrize("form", ["single", "checkpoint", "folder"])
def test_every_form_opens(tiny: Any, form: str) -> None:
    base = tiny.open(form)
    assert _counts(base) == COUNTS
    assert base.engine == "stable_diffusion"
    assert base.architecture["denoiser"]["block_out_channels"] == [32, 64]
    assert base.architecture["autoencoder"]["scaling_factor"] == 0.18215
    assert base.architecture["scheduler"]["prediction_type"] == "epsilon"
    json.dumps(base.architecture)


def test_the_header_hash_is_of_names_and_shapes(tiny: Any, tmp_path: Path) -> None:
    other = tiny_sd.write_single_file(tmp_path / "other.safetensors", seed=1)
    assert engine.open(BaseSection(path=str(other))).header_hash == tiny.open().header_hash
    assert tiny.open("checkpoint").header_hash == tiny.open().header_hash
    half = tiny_sd.write_single_file(tmp_path / "half.safetensors", dtype=torch.float16)
    assert engine.open(BaseSection(path=str(half))).header_hash != tiny.open().header_hash


def test_older_text_encoders_are_read(tiny: Any, tmp_path: Path) -> None:
    """Files from before transformers 4 lack `text_model.`; averages and schedules beside the weights are ignored."""
    tensors = {name.replace(".text_model.", "."): value for name, value in load_file(tiny.single).items()}
    tensors["model_ema.diffusion_modelinput_blocks00weight"] = torch.zeros(2)
    tensors["alphas_cumprod"] = torch.zeros(1000)
    tensors["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77)
    save_file(tensors, str(tmp_path / "old.safetensors"))
    base = engine.open(BaseSection(path=str(tmp_path / "old.safetensors")))
    new = dict(engine.tensors(tiny.open(), "text_encoder"))
    old = dict(engine.tensors(base, "text_encoder"))
    assert new.keys() == old.keys()
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())


@pytest.mark.parametrize("form", ["original file", "bare file", "diffusers file", "folder", "whole folder"])
def test_a_separate_autoencoder(tiny: Any, tmp_path: Path, form: str) -> None:
    other = tiny_sd.write_single_file(tmp_path / "other.safetensors", seed=1)
    tensors = load_file(other)
    path = tmp_path / "vae.safetensors"
    if form == "original file":
        path = other
    elif form == "bare file":
        start = "first_stage_model."
        save_file({name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}, str(path))
    else:
        base = engine.open(BaseSection(path=str(other)))
        folder = engine.write_base(base, {}, tmp_path / "folder", "diffusers", "fp32")
        path = {
            "diffusers file": folder / "vae" / "diffusion_pytorch_model.safetensors",
            "folder": folder / "vae",
            "whole folder": folder,
        }[form]
    base = tiny.open(parts={"autoencoder": str(path)})
    read = dict(engine.tensors(base, "autoencoder"))
    expected = dict(engine.tensors(engine.open(BaseSection(path=str(other))), "autoencoder"))
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    assert base.parts["denoiser"].path == tiny.single
    assert not torch.equal(
        read["encoder.conv_in.weight"], dict(engine.tensors(tiny.open(), "autoencoder"))["encoder.conv_in.weight"]
    )


@pytest.mark.parametrize("name", ["sd15", "small64", "tiny32"])
def test_sizes_alone(name: str) -> None:
    base = engine.open(BaseSection(architecture=name))
    assert all(part.path is None for part in base.parts.values())
    assert base.files == ()
    if name == "sd15":
        assert sum(_counts(base).values()) == 1_066_235_307


def test_sizes_from_a_file_with_a_trained_part(tiny: Any, tmp_path: Path) -> None:
    document = {"like": "tiny32", "denoiser": {"layers_per_block": 2}}
    (tmp_path / "mine.json").write_text(json.dumps(document))
    section = BaseSection(architecture=str(tmp_path / "mine.json"), parts={"autoencoder": str(tiny.single)})
    base = engine.open(section)
    assert base.architecture["denoiser"]["layers_per_block"] == 2
    assert base.parts["denoiser"].path is None
    assert base.parts["autoencoder"].path == tiny.single


def _without(path: Path, target: Path, start: str) -> Path:
    save_file({name: value for name, value in load_file(path).items() if not name.startswith(start)}, str(target))
    return target


def _only(path: Path, target: Path, start: str) -> Path:
    save_file({name: value for name, value in load_file(path).items() if name.startswith(start)}, str(target))
    return target


def _changed(path: Path, target: Path, name: str, shape: tuple[int, ...]) -> Path:
    save_file({**load_file(path), name: torch.zeros(shape)}, str(target))
    return target


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
TEXT_IN = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, t: _without(p, t, "cond_stage_model"), "holds only the denoiser and autoencoder"),
        (lambda p, t: _only(p, t, "first_stage_model"), r"holds only the autoencoder.*base\.parts"),
        (lambda p, t: _only(p, t, "nothing"), "holds no Stable Diffusion"),
        (lambda p, t: _changed(p, t, CONV_IN, (32, 9, 3, 3)), "inpainting"),
        (lambda p, t: _changed(p, t, TEXT_IN, (32, 1024)), r"SD 2\.x"),
        (lambda p, t: _changed(p, t, "conditioner.embedders.1.model.ln_final.weight", (8,)), "SDXL"),
        (lambda p, t: _without(p, t, "model.diffusion_model.out.2.bias"), r"denoiser.*nothing for conv_out\.bias"),
        (lambda p, t: _changed(p, t, "first_stage_model.quant_conv.weight", (8, 9, 1, 1)), r"shape \[8, 9, 1, 1\]"),
    ],
)
def test_other_single_files_are_named(tiny: Any, tmp_path: Path, make: Any, message: str) -> None:
    path = make(tiny.single, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=message) as caught:
        engine.open(BaseSection(path=str(path)))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",), "a LoRA"),
        (("base_model.model.down_blocks.0.lora_A.weight",), "LoRA"),
        (("model.diffusion_model.joint_blocks.0.x",), "SD 3"),
        (("double_blocks.0.img_attn.weight",), "Flux"),
        (("control_model.input_blocks.0.0.weight",), "ControlNet"),
        (("cond_stage_model.model.ln_final.weight",), r"SD 2.x"),
        (("model.diffusion_model.label_emb.0.0.weight",), "SDXL"),
    ],
)
def test_foreign_files_are_recognised(names: tuple[str, ...], what: str) -> None:
    assert what in (foreign_architecture(dict.fromkeys(names, (4, 4))) or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "has no vae folder"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "holds no weights"),
        (lambda folder: _edit(folder / "unet" / "config.json", addition_embed_type="text_time"), "SDXL"),
        (lambda folder: _edit(folder / "unet" / "config.json", use_linear_projection=True), r"SD 2\.x"),
        (lambda folder: _edit(folder / "unet" / "config.json", in_channels=9), "9 input channels"),
        (lambda folder: _edit(folder / "model_index.json", _class_name="StableDiffusionXLPipeline"), "XLPipeline"),
        (
            lambda folder: _edit(folder / "scheduler" / "scheduler_config.json", beta_schedule="linear"),
            "scaled_linear",
        ),
        (
            lambda folder: _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample"),
            "v_prediction",
        ),
    ],
)
def test_other_folders_are_named(tiny: Any, tmp_path: Path, change: Any, message: str) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny.folder, folder)
    change(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        engine.open(BaseSection(path=str(folder)))
    assert "\n" not in str(caught.value)


def _edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_what_a_folder_says_about_its_schedule_counts(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny.folder, folder)
    _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert engine.open(BaseSection(path=str(folder))).architecture["scheduler"]["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (BaseSection(), "no base was named"),
        (BaseSection(path="somebody/some-model"), r"base\.allow_download=true"),
        (BaseSection(path="no/such/folder/x.safetensors"), "does not exist either"),
        (BaseSection(architecture="sd14"), "no architecture is called 'sd14'"),
        (BaseSection(architecture="missing.json"), "cannot be read"),
    ],
)
def test_missing_bases_are_explained(section: BaseSection, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        engine.open(section)


def test_a_misspelt_file_gets_near_names(tiny: Any) -> None:
    with pytest.raises(WeightsError, match=r"[Dd]id you mean tiny\.safetensors"):
        engine.open(BaseSection(path=str(tiny.single.with_name("tiny.safetensor"))))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"vae": "x"}, "no part 'vae'"),
        ({"autoencoder": "missing.safetensors"}, "does not exist"),
    ],
)
def test_bad_parts_are_explained(tiny: Any, parts: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        tiny.open(parts=parts)


def test_parts_that_do_not_fit_are_refused(tiny: Any, tmp_path: Path) -> None:
    wide = tiny_sd.Sizes(text_width=64)
    path = tiny_sd.write_single_file(tmp_path / "wide.safetensors", wide)
    with pytest.raises(WeightsError, match="text encoder is 64 wide"):
        tiny.open(parts={"text_encoder": str(path)})


def test_an_architecture_file_must_name_roles(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    for content, message in (('{"unet": {}}', "is not an architecture"), ('{"like": "sd9"}', "like 'sd9'")):
        file.write_text(content)
        with pytest.raises(WeightsError, match=message):
            engine.open(BaseSection(architecture=str(file)))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_hub_id_is_fetched_only_when_allowed(tiny: Any, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    import huggingface_hub

    seen = []

    def snapshot(name: str, *, local_files_only: bool, allow_patterns: list[str]) -> str:
        seen.append((name, local_files_only))
        return str(tiny.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    base = engine.open(BaseSection(path=f"somebody/model-{allowed}", allow_download=allowed))
    assert seen == [(f"somebody/model-{allowed}", not allowed)]
    assert base.parts["denoiser"].path == tiny.folder / "unet"


def test_a_failed_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def snapshot(name: str, **_: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(WeightsError, match=r"could not be fetched: no route to host"):
        engine.open(BaseSection(path="somebody/away", allow_download=True))


def test_a_folder_around_one_file_names_the_file(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(tiny.checkpoint.read_bytes())
    with pytest.raises(WeightsError, match=r"[Nn]ame the file .*model\.ckpt"):
        engine.open(BaseSection(path=str(tmp_path)))


def test_pickled_parts_of_a_folder_are_read(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny.folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    base = engine.open(BaseSection(path=str(folder)))
    expected = dict(engine.tensors(tiny.open("folder"), "denoiser"))
    assert all(torch.equal(expected[name], tensor) for name, tensor in engine.tensors(base, "denoiser"))


def test_a_file_that_describes_itself_wrongly_is_refused(tiny: Any, tmp_path: Path) -> None:
    save_file(load_file(tiny.single), str(tmp_path / "x.safetensors"), {"tunesmith.architecture": "{"})
    with pytest.raises(WeightsError, match="describes its architecture wrongly"):
        engine.open(BaseSection(path=str(tmp_path / "x.safetensors")))


def test_latents_must_fit_the_denoiser(tiny: Any, tmp_path: Path) -> None:
    document = {"like": "tiny32", "autoencoder": {"latent_channels": 8}}
    (tmp_path / "mine.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match="latents of 8 channels"):
        engine.open(BaseSection(architecture=str(tmp_path / "mine.json")))


def test_a_part_of_another_kind_is_named(tiny: Any, tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, str(tmp_path / "lora.safetensors"))
    with pytest.raises(WeightsError, match="a LoRA"):
        tiny.open(parts={"autoencoder": str(tmp_path / "lora.safetensors")})
