"""Opening bases: what is read, what is refused and how it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.architecture import NAMED, named_architecture
from tunesmith.engines.stable_audio.open import _check_fit
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection


def opened(path: Path, **section: Any) -> Any:
    return engine.open(BaseSection(path=str(path), **section))


def test_both_forms_have_the_same_sizes(tiny: Any) -> None:
    folder, original = tiny.open(), tiny.open("original")
    assert folder.architecture == original.architecture
    assert folder.header_hash != ""
    single = opened(tiny.original / "model.safetensors")
    assert single.architecture == original.architecture


def test_original_to_folder_and_back_is_the_same_file(tiny: Any, tmp_path: Path) -> None:
    base = tiny.open("original")
    folder = engine.write_base(base, {}, tmp_path / "folder", "diffusers", "fp32")
    back = engine.write_base(opened(folder), {}, tmp_path / "back", "original", "fp32")
    ours, theirs = load_file(back / "model.safetensors"), load_file(tiny.original / "model.safetensors")
    assert set(theirs) - set(ours) == {"model.model.transformer.rotary_pos_emb.inv_freq"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    stated, wanted = (json.loads((path / "model_config.json").read_text()) for path in (back, tiny.original))
    for key in ("model_type", "sample_size", "sample_rate", "audio_channels"):
        assert stated[key] == wanted[key]
    assert stated["model"]["diffusion"] == wanted["model"]["diffusion"]


def test_an_original_without_its_config(tiny: Any, tmp_path: Path) -> None:
    shutil.copy(tiny.original / "model.safetensors", tmp_path)
    with pytest.raises(WeightsError, match="has no model_config"):
        opened(tmp_path / "model.safetensors")


def test_an_original_without_t5(tiny: Any, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model_config.json"):
        shutil.copy(tiny.original / name, tmp_path)
    with pytest.raises(WeightsError, match="holds no text encoder") as caught:
        opened(tmp_path)
    assert "base.parts.text_encoder" in caught.value.do
    base = opened(tmp_path, parts={"text_encoder": str(tiny.original / "t5-base")})
    assert base.parts["tokenizer"].path == tiny.original / "t5-base"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "autoencoder"}, "diffusion transformer"),
        ({"sample_rate": None, "model": None}, "is not the model_config.json"),
    ],
)
def test_configs_of_other_models(change: dict[str, Any], says: str, tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.original, tmp_path / "base")
    config = tmp_path / "base" / "model_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(WeightsError, match=says):
        opened(tmp_path / "base")


@pytest.mark.parametrize("missing", ["vae", "projection_model"])
def test_an_incomplete_folder(missing: str, tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / missing)
    with pytest.raises(WeightsError, match=f"no {missing} folder"):
        opened(tmp_path / "base")


def test_a_damaged_part_names_the_tensor(tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "base")
    file = tmp_path / "base" / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["proj_in.weight"]
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=r"has nothing for proj_in\.weight"):
        opened(tmp_path / "base")


def test_foreign_files_say_what_they_are(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}, tmp_path / "sd.safetensors")
    with pytest.raises(WeightsError, match="a Stable Diffusion base"):
        opened(tmp_path / "sd.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model_index.json").write_text('{"_class_name": "AudioLDM2Pipeline"}')
    with pytest.raises(WeightsError, match="a folder of AudioLDM2Pipeline"):
        opened(tmp_path / "folder")


SUCCESSOR_CONFIG = {
    "model_type": "diffusion_cond",
    "model": {"conditioning": {"configs": [{"id": "prompt", "type": "t5gemma", "config": {}}], "cond_dim": 768}},
}
SUCCESSOR_TENSORS = ("pretransform.model.bottleneck.running_std", "conditioner.conditioners.prompt.padding_embedding")


def successor(path: Path, form: str) -> Path:
    """What people have of Stable Audio 3: a folder with or without its index, a checkpoint with or without its config,
    or the config alone, as a download without the large file leaves it."""
    path.mkdir()
    if form == "index":
        (path / "model_index.json").write_text('{"_class_name": "StableAudio3InpaintPipeline"}')
    if form in ("index", "folders"):
        for name in ("transformer", "vae", "duration_embedder", "text_encoder", "tokenizer", "scheduler"):
            (path / name).mkdir()
    if form in ("config", "original"):
        (path / "model_config.json").write_text(json.dumps(SUCCESSOR_CONFIG))
    if form in SUCCESSOR_TENSORS or form == "original":
        names = SUCCESSOR_TENSORS if form == "original" else (form,)
        tensors = {"model.model.preprocess_conv.weight": torch.ones(2), **{name: torch.ones(1) for name in names}}
        save_file(tensors, path / "model.safetensors")
    return path / "model.safetensors" if form in SUCCESSOR_TENSORS else path


@pytest.mark.parametrize("form", ["index", "folders", "original", "config", *SUCCESSOR_TENSORS])
def test_stable_audio_3_is_named(form: str, tmp_path: Path) -> None:
    """One message whatever its form: found, expected, do. What stands in the way of reading it: docs/decisions.md."""
    with pytest.raises(WeightsError, match="a Stable Audio 3 base") as caught:
        opened(successor(tmp_path / "base", form))
    assert "Stable Audio Open" in caught.value.expected
    assert caught.value.do.startswith("choose")


@pytest.mark.parametrize(
    ("role", "config", "says"),
    [
        ("autoencoder", {"_class_name": "AutoencoderSAME"}, "class AutoencoderSAME. Expected AutoencoderOobleck"),
        ("text_encoder", {"model_type": "t5gemma"}, "type 't5gemma'. Expected t5"),
    ],
)
def test_parts_of_another_class(role: str, config: dict[str, Any], says: str, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"encoder.proj.weight": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=says):
        opened(tiny.folder, parts={role: str(tmp_path)})


def test_unknown_parts_get_near_names(tiny: Any) -> None:
    with pytest.raises(WeightsError, match="no part 'vae'"):
        opened(tiny.folder, parts={"vae": "x"})
    with pytest.raises(WeightsError, match="Did you mean 'denoiser'"):
        opened(tiny.folder, parts={"denoizer": "x"})


@pytest.mark.parametrize("name", NAMED)
def test_named_architectures_fit_together(name: str) -> None:
    _check_fit(named_architecture(name))
    base = engine.open(BaseSection(architecture=name))
    assert all(part.path is None for part in base.parts.values())


def test_parts_that_do_not_fit() -> None:
    sizes = named_architecture("small_voices")
    sizes["autoencoder"] = {**sizes["autoencoder"], "decoder_input_channels": 4}
    with pytest.raises(WeightsError, match="latents of 4 numbers"):
        _check_fit(sizes)
