"""Open a base from headers: single file, diffusers folder, separate parts, or sizes alone. No torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.engines.protocol import Base, Part
from tunesmith.engines.stable_diffusion.architecture import DEFAULTS, ROLES, infer_sizes, named_architecture
from tunesmith.engines.stable_diffusion.names import PREFIXES, stored_names
from tunesmith.engines.stable_diffusion.recognise import foreign_architecture, pipeline_problem
from tunesmith.engines.stable_diffusion.shapes import parameter_count, tensor_shapes
from tunesmith.engines.stable_diffusion.tokenizer import has_tokenizer, is_shipped
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights.architectures import Sizes
from tunesmith.weights.header import Header, TensorInfo, header_hash
from tunesmith.weights.listing import list_tensors
from tunesmith.weights.locate import locate_base, near_names, read_json, weights_in

ENGINE = "stable_diffusion"
FOLDERS = {"denoiser": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}
TOKENIZER = "tokenizer"
ARCHITECTURE_KEY = "tunesmith.architecture"  # metadata of single files that we write: sizes shapes do not show
ABSENT_KEY = "_tunesmith_absent"  # in a model_index.json that we write: roles that no stage has trained yet
READS = "an SD 1.x single file (.safetensors, .ckpt), a diffusers folder or a hub id"
_MARKERS = {
    "denoiser": {"original": "input_blocks.0.0.weight", "diffusers": "time_embedding.linear_1.weight"},
    "autoencoder": {
        "original": "encoder.down.0.block.0.conv1.weight",
        "diffusers": "encoder.down_blocks.0.resnets.0.conv1.weight",
    },
    "text_encoder": {
        "original": "text_model.embeddings.token_embedding.weight",
        "diffusers": "embeddings.token_embedding.weight",
    },
}


@dataclass(frozen=True)
class _Found:
    """A part with its sizes and the tensors it is made of."""

    part: Part
    sizes: Sizes
    tensors: Mapping[str, TensorInfo]
    schedule: Sizes | None = None


def open_base(section: BaseSection) -> Base:
    """The base a recipe names. Raises WeightsError saying what was found and what can be read."""
    if section.path is None:
        return _open_sizes(section)
    path = resolve(section)
    found = _open_folder(path) if path.is_dir() else _open_single(path)
    schedule = next((entry.schedule for entry in found.values() if entry.schedule), DEFAULTS["scheduler"])
    found.update(_replacements(section))
    return _assemble(section.path, found, schedule, _tokenizer_part(section))


def resolve(section: BaseSection) -> Path:
    """The file or folder behind `section.path`. A hub id is only downloaded when the recipe allows it."""
    return locate_base(section.path or "", engine=ENGINE, allow_download=section.allow_download, reads=READS)


# ---------------------------------------------------------------- single files


def _open_single(path: Path) -> dict[str, _Found]:
    header = list_tensors(path)
    shapes = {name: info.shape for name, info in header.tensors.items()}
    located = {role: place for role in ROLES if (place := _locate(role, shapes, PREFIXES[role]))}
    if set(located) != set(ROLES) and (not located or ARCHITECTURE_KEY not in header.metadata):
        raise _not_whole(path, shapes, located)
    if problem := foreign_architecture(shapes):
        raise WeightsError(f"{path} is {problem}", expected="SD 1.x", do="use an SD 1.x base")
    found = {role: _found(role, path, header, place) for role, place in located.items()}
    for role in set(ROLES) - set(found):
        found[role] = _absent(role, {**DEFAULTS[role], **_declared(role, header, path)})
    return found


def _absent(role: str, sizes: Sizes) -> _Found:
    """A part that a base of ours declares but has no weights of yet."""
    return _Found(Part(role, None, "none", "", parameter_count(role, sizes)), sizes, {})


def _not_whole(path: Path, shapes: Mapping[str, tuple[int, ...]], located: Mapping[str, Any]) -> WeightsError:
    if problem := foreign_architecture(shapes):
        return WeightsError(f"{path} is {problem}", expected="an SD 1.x base", do="choose an SD 1.x base")
    alone = [role for role in ROLES if role in located or _locate(role, shapes, "")]
    if alone:
        missing = ", ".join(role for role in ROLES if role not in alone)
        return WeightsError(
            f"{path} holds only the {' and '.join(alone)}, not the {missing}",
            expected=READS,
            do=f"name it in base.parts, as {{{alone[0]}: {path.name}}}, beside a whole base",
        )
    return WeightsError(
        f"{path} holds no Stable Diffusion ({len(shapes)} tensors)", expected=READS, do="check the file"
    )


def _locate(role: str, names: Mapping[str, Any], prefix: str) -> tuple[str, str] | None:
    """(layout, prefix) of a part among a file's names."""
    for layout, marker in _MARKERS[role].items():
        if prefix + marker in names:
            return layout, prefix
    return None


def _found(role: str, path: Path, header: Header, place: tuple[str, str], sizes: Sizes | None = None) -> _Found:
    layout, prefix = place
    shapes = {name[len(prefix) :]: info.shape for name, info in header.tensors.items() if name.startswith(prefix)}
    if sizes is None:
        try:
            sizes = infer_sizes(role, shapes, layout)
        except (KeyError, IndexError) as error:
            raise WeightsError(
                f"the {role} in {path} is not one of SD 1.x: it lacks {error}",
                expected="SD 1.x",
                do="choose another file",
            ) from error
        sizes.update(_declared(role, header, path))
    stored = stored_names(role, layout, prefix, header.tensors, sizes)
    for canonical, shape in tensor_shapes(role, sizes).items():
        info = header.tensors.get(stored.get(canonical, ""))
        # Older autoencoders keep their attention as 1x1 convolutions: the same numbers in another shape.
        if info is None or (info.shape != shape and info.shape != (*shape, 1, 1)):
            held = "nothing" if info is None else f"shape {list(info.shape)}"
            raise WeightsError(
                f"the {role} in {path} has {held} for {canonical}",
                expected=f"shape {list(shape)}",
                do="the file is damaged or of another architecture; choose another",
            )
    used = {name: header.tensors[name] for name in stored.values()}
    part = Part(
        role, path, layout, prefix, parameter_count(role, sizes), sum(info.size_bytes for info in used.values())
    )
    return _Found(part, sizes, used, _declared("scheduler", header, path) or None)


def _declared(role: str, header: Header, path: Path) -> Sizes:
    """What a single file of ours says about itself."""
    text = header.metadata.get(ARCHITECTURE_KEY)
    if text is None:
        return {}
    try:
        declared = json.loads(text)
        return dict(declared.get(role, {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} describes its architecture wrongly: {error}", do="write the file again") from error


# ---------------------------------------------------------------- diffusers folders


def _open_folder(folder: Path) -> dict[str, _Found]:
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    if problem := pipeline_problem(str(index.get("_class_name", ""))):
        raise WeightsError(f"{folder} is {problem}", expected="an SD 1.x base", do="choose an SD 1.x base")
    missing = [name for name in FOLDERS.values() if not (folder / name).is_dir()]
    if missing:
        inside = sorted(entry.name for entry in folder.iterdir())[:8]
        files = [name for name in inside if Path(name).suffix in (".safetensors", ".ckpt")]
        raise WeightsError(
            f"{folder} has no {' or '.join(missing)} folder (it holds {', '.join(inside) or 'nothing'})",
            expected="a diffusers folder with unet, vae and text_encoder",
            do=f"name the file {folder / files[0]}"
            if files
            else "name the folder that holds them, or one weights file",
        )
    absent = index.get(ABSENT_KEY, [])
    schedule = _schedule(folder)
    return {
        role: _absent(role, _folder_sizes(role, folder / name))
        if role in absent
        else _open_part_folder(role, folder / name, schedule)
        for role, name in FOLDERS.items()
    }


def _folder_sizes(role: str, folder: Path) -> Sizes:
    config = folder / "config.json"
    if not config.is_file():
        raise WeightsError(f"{folder} has no config.json", expected=f"a diffusers {FOLDERS[role]} folder")
    document = {key: value for key, value in read_json(config).items() if not key.startswith("_")}
    kept = set(DEFAULTS[role]) | {"act_fn", "norm_eps", "mid_block_scale_factor", "attention_dropout"}
    sizes = {**DEFAULTS[role], **{key: value for key, value in document.items() if key in kept}}
    if problem := _config_problem(role, document):
        raise WeightsError(f"{folder} is {problem}", expected="SD 1.x", do="choose an SD 1.x base")
    return sizes


def _open_part_folder(role: str, folder: Path, schedule: Sizes | None = None) -> _Found:
    sizes = _folder_sizes(role, folder)
    weights = weights_in(folder)
    header = list_tensors(weights)
    found = _found(role, weights, header, ("diffusers", ""), sizes)
    return _Found(found.part, found.sizes, found.tensors, schedule)


def _config_problem(role: str, document: Mapping[str, Any]) -> str | None:
    if role != "denoiser":
        return None
    if document.get("addition_embed_type"):
        return "a U-Net of SDXL"
    if document.get("use_linear_projection") or isinstance(document.get("attention_head_dim"), list):
        return "a U-Net of SD 2.x"
    channels = document.get("in_channels", 4)
    return None if channels == 4 else f"a U-Net with {channels} input channels (inpainting or editing)"


def _schedule(folder: Path) -> Sizes:
    file = folder / "scheduler" / "scheduler_config.json"
    document = read_json(file) if file.is_file() else {}
    schedule = {key: document.get(key, value) for key, value in DEFAULTS["scheduler"].items()}
    if schedule["beta_schedule"] != "scaled_linear":
        raise WeightsError(f"{file} asks for {schedule['beta_schedule']!r} betas", expected="scaled_linear, as SD 1.x")
    if schedule["prediction_type"] not in ("epsilon", "v_prediction"):
        raise WeightsError(f"{file} predicts {schedule['prediction_type']!r}", expected="epsilon or v_prediction")
    return schedule


# ---------------------------------------------------------------- parts and assembly


def _replacements(section: BaseSection) -> dict[str, _Found]:
    found = {}
    for role, name in section.parts.items():
        if role == TOKENIZER:
            continue
        if role not in ROLES:
            near = difflib.get_close_matches(role, (*ROLES, TOKENIZER), n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise WeightsError(
                f"stable_diffusion has no part {role!r}", expected=f"one of {', '.join((*ROLES, TOKENIZER))}", do=hint
            )
        found[role] = _open_part(role, Path(name).expanduser())
    return found


def _open_part(role: str, path: Path) -> _Found:
    if not path.exists():
        raise WeightsError(
            f"the {role} {path} does not exist", expected="a weights file or folder", do=near_names(path)
        )
    if path.is_dir():
        inner = path / FOLDERS[role]
        return _open_part_folder(role, inner if inner.is_dir() else path)
    header = list_tensors(path)
    place = _locate(role, header.tensors, PREFIXES[role]) or _locate(role, header.tensors, "")
    if place is None:
        shapes = {name: info.shape for name, info in header.tensors.items()}
        problem = foreign_architecture(shapes) or f"no {role} ({len(shapes)} tensors)"
        raise WeightsError(f"{path} is {problem}", expected=f"an SD 1.x {role}", do="choose another file")
    return _found(role, path, header, place)


def _open_sizes(section: BaseSection) -> Base:
    if section.architecture is None:
        raise WeightsError(
            "no base was named", expected=READS, do="set base.path, or base.architecture for method scratch"
        )
    sizes = named_architecture(section.architecture)
    found = {
        role: _Found(Part(role, None, "none", "", parameter_count(role, sizes[role])), sizes[role], {})
        for role in ROLES
    }
    given = _replacements(section)
    found.update(given)
    declared = next((entry.schedule for entry in given.values() if entry.schedule), None)
    return _assemble(section.architecture, found, declared or sizes["scheduler"], _tokenizer_part(section))


def tokenizer_folder(section: BaseSection) -> Path | None:
    """The base's own tokenizer: the one named as a part, or in its folder. None where the shipped one serves."""
    named = section.parts.get(TOKENIZER)
    if named is not None:
        folder = Path(named).expanduser()
        inner = folder / TOKENIZER
        folder = inner if has_tokenizer(inner) else folder
        if not has_tokenizer(folder):
            raise WeightsError(f"{folder} is no tokenizer", expected="a folder with vocab.json and merges.txt")
    elif section.path is not None:
        folder = resolve(section) / TOKENIZER
    else:
        return None
    return folder if has_tokenizer(folder) and not is_shipped(folder) else None


def _tokenizer_part(section: BaseSection) -> Part | None:
    folder = tokenizer_folder(section)
    return Part(TOKENIZER, folder, "files") if folder is not None else None


def _assemble(source: str, found: Mapping[str, _Found], schedule: Sizes, tokenizer: Part | None) -> Base:
    architecture = {role: found[role].sizes for role in ROLES} | {"scheduler": dict(schedule)}
    _check_fit(architecture)
    parts = {role: found[role].part for role in ROLES}
    if tokenizer is not None:
        parts["tokenizer"] = tokenizer
    infos: dict[str, TensorInfo] = {}
    for role in ROLES:
        for name, info in found[role].tensors.items():
            infos[f"{role}/{name}"] = info
        if found[role].part.path is None:
            for name, shape in tensor_shapes(role, found[role].sizes).items():
                infos[f"{role}/{name}"] = TensorInfo("F32", shape, 4 * math.prod(shape))
    return Base(ENGINE, source, architecture, parts, header_hash(infos))


def _check_fit(architecture: Mapping[str, Sizes]) -> None:
    latent = architecture["autoencoder"]["latent_channels"]
    if latent != architecture["denoiser"]["in_channels"]:
        raise WeightsError(
            f"the autoencoder makes latents of {latent} channels",
            expected=f"{architecture['denoiser']['in_channels']}, as the denoiser takes",
            do="choose parts that belong together",
        )
    width = architecture["text_encoder"]["hidden_size"]
    if width != architecture["denoiser"]["cross_attention_dim"]:
        raise WeightsError(
            f"the text encoder is {width} wide",
            expected=f"{architecture['denoiser']['cross_attention_dim']}, as the denoiser takes",
            do="choose parts that belong together",
        )
