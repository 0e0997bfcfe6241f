"""Open a base from headers: diffusers folder, original checkpoint with its config, separate parts, or sizes alone.

No torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.engines.protocol import Base, Part
from tunesmith.engines.stable_audio.architecture import (
    DEFAULTS,
    ROLES,
    named_architecture,
    sizes_from_model_config,
)
from tunesmith.engines.stable_audio.names import PREFIXES, Stored, stored_names
from tunesmith.engines.stable_audio.recognise import foreign_architecture, foreign_folder
from tunesmith.engines.stable_audio.shapes import Shape, parameter_count, tensor_shapes
from tunesmith.engines.stable_audio.tokenizer import TOKENIZER_FILE, has_tokenizer, max_tokens_of
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights.architectures import Sizes
from tunesmith.weights.header import Header, TensorInfo, header_hash
from tunesmith.weights.listing import list_tensors
from tunesmith.weights.locate import locate_base, near_names, read_json, weights_in

ENGINE = "stable_audio"
FOLDERS = {
    "denoiser": "transformer",
    "projection": "projection_model",
    "autoencoder": "vae",
    "text_encoder": "text_encoder",
}
CLASSES = {  # library and class of each part, as a model_index.json says
    "denoiser": ("diffusers", "StableAudioDiTModel"),
    "projection": ("stable_audio", "StableAudioProjectionModel"),
    "autoencoder": ("diffusers", "AutoencoderOobleck"),
    "text_encoder": ("transformers", "T5EncoderModel"),
}
TOKENIZER = "tokenizer"
MODEL_CONFIG = "model_config.json"
ABSENT_KEY = "_tunesmith_absent"  # in a model_index.json that we write: roles that no stage has trained yet
READS = "a Stable Audio Open diffusers folder, an original checkpoint beside its model_config.json, or a hub id"


@dataclass(frozen=True)
class _Found:
    """A part with its sizes and the tensors it is made of."""

    part: Part
    sizes: Sizes
    tensors: Mapping[str, TensorInfo]


def open_base(section: BaseSection) -> Base:
    """The base a recipe names. Raises WeightsError saying what was found and what can be read."""
    if section.path is None:
        return _open_sizes(section)
    path = locate_base(section.path, engine=ENGINE, allow_download=section.allow_download, reads=READS)
    given = _replacements(section)
    tokenizer = _named_tokenizer(section)
    if path.is_dir() and not (path / MODEL_CONFIG).is_file():
        found, schedule = _open_folder(path)
        tokenizer = tokenizer or (path / TOKENIZER if has_tokenizer(path / TOKENIZER) else None)
    else:
        found, sizes, beside = _open_original(path, given)
        tokenizer = tokenizer or beside
        return _assemble(section.path, {**found, **given}, sizes["scheduler"], tokenizer, sizes[TOKENIZER])
    return _assemble(section.path, {**found, **given}, schedule, tokenizer)


# ---------------------------------------------------------------- diffusers folders


def _open_folder(folder: Path) -> tuple[dict[str, _Found], Sizes]:
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    inside = sorted(entry.name for entry in folder.iterdir())
    if problem := foreign_folder(str(index.get("_class_name", "")), inside):
        raise WeightsError(f"{folder} is {problem}", expected=READS, do="choose a Stable Audio Open base")
    missing = [name for name in FOLDERS.values() if not (folder / name).is_dir()]
    if missing:
        inside = inside[:8]
        files = [name for name in inside if Path(name).suffix in (".safetensors", ".ckpt")]
        raise WeightsError(
            f"{folder} has no {' or '.join(missing)} folder (it holds {', '.join(inside) or 'nothing'})",
            expected=READS,
            do=f"put the model's {MODEL_CONFIG} beside {files[0]}" if files else "name the folder that holds them",
        )
    absent = index.get(ABSENT_KEY, [])
    found = {
        role: _absent(role, _folder_sizes(role, folder / name)) if role in absent else _part_folder(role, folder / name)
        for role, name in FOLDERS.items()
    }
    return found, _schedule(folder)


def _absent(role: str, sizes: Sizes) -> _Found:
    """A part that is declared but has no weights yet."""
    return _Found(Part(role, None, "none", "", parameter_count(role, sizes)), sizes, {})


def _folder_sizes(role: str, folder: Path) -> Sizes:
    config = folder / "config.json"
    if not config.is_file():
        raise WeightsError(f"{folder} has no config.json", expected=f"a diffusers {FOLDERS[role]} folder")
    document = read_json(config)
    if role == "text_encoder" and document.get("model_type") not in (None, "t5"):
        found = f"{folder} is a text encoder of type {document['model_type']!r}"
        raise WeightsError(found, expected="t5", do="choose another part")
    if (stated := document.get("_class_name", CLASSES[role][1])) != CLASSES[role][1]:
        raise WeightsError(f"{folder} is of the class {stated}", expected=CLASSES[role][1], do="choose another part")
    return {**DEFAULTS[role], **{key: document[key] for key in DEFAULTS[role] if key in document}}


def _part_folder(role: str, folder: Path) -> _Found:
    weights = weights_in(folder)
    return _found(role, weights, list_tensors(weights), ("diffusers", ""), _folder_sizes(role, folder))


def _schedule(folder: Path) -> Sizes:
    file = folder / "scheduler" / "scheduler_config.json"
    document = read_json(file) if file.is_file() else {}
    schedule = {key: document.get(key, value) for key, value in DEFAULTS["scheduler"].items()}
    if schedule["prediction_type"] != "v_prediction":
        raise WeightsError(f"{file} predicts {schedule['prediction_type']!r}", expected="v_prediction")
    return schedule


# ---------------------------------------------------------------- original checkpoints


def _open_original(path: Path, given: Mapping[str, _Found]) -> tuple[dict[str, _Found], dict[str, Sizes], Path | None]:
    """Parts, stated sizes and tokenizer folder of a stable-audio-tools checkpoint with its model_config.json."""
    folder = path if path.is_dir() else path.parent
    config = folder / MODEL_CONFIG
    stated = sizes_from_model_config(config) if config.is_file() else None
    file = _checkpoint_in(path) if path.is_dir() else path
    header = list_tensors(file)
    shapes = {name: info.shape for name, info in header.tensors.items()}
    if problem := foreign_architecture(shapes):
        raise WeightsError(f"{path} is {problem}", expected=READS, do="choose a Stable Audio Open base")
    if not any(name.startswith(PREFIXES["denoiser"]) for name in shapes):
        raise WeightsError(f"{path} holds no Stable Audio ({len(shapes)} tensors)", expected=READS, do="check the file")
    if stated is None:
        raise WeightsError(
            f"{file} has no {MODEL_CONFIG} beside it",
            expected="the model_config.json that came with the checkpoint: sizes and heads are only there",
            do=f"put it into {folder}",
        )
    sizes = _with_shapes(stated, shapes)
    found = {
        role: _found(role, file, header, ("original", PREFIXES[role]), sizes[role])
        for role in ("denoiser", "projection", "autoencoder")
        if role not in given
    }
    tokenizer = None
    if "text_encoder" not in given:
        found["text_encoder"], tokenizer = _text_encoder_beside(file, folder)
    return found, sizes, tokenizer


def _with_shapes(sizes: dict[str, Sizes], shapes: Mapping[str, Shape]) -> dict[str, Sizes]:
    """Sizes that the config takes for granted, from the tensors: time features, and the width of the text states."""
    features = shapes.get(f"{PREFIXES['denoiser']}timestep_features.weight", (128,))[0]
    text = shapes.get(f"{PREFIXES['projection']}prompt.proj_out.weight", (0, sizes["projection"]["conditioning_dim"]))
    return {
        **sizes,
        "denoiser": {**sizes["denoiser"], "time_proj_dim": 2 * features},
        "projection": {**sizes["projection"], "text_encoder_dim": text[1]},
    }


def _checkpoint_in(folder: Path) -> Path:
    candidates = [entry for end in (".safetensors", ".ckpt") for entry in sorted(folder.glob(f"*{end}"))]
    named = [entry for entry in candidates if entry.stem == "model"] or candidates
    if len(named) != 1 and not (len(named) > 1 and named[0].stem == "model"):
        raise WeightsError(
            f"{folder} holds {len(candidates)} checkpoints beside its {MODEL_CONFIG}",
            expected="one, or model.safetensors",
            do="name the file itself",
        )
    return named[0]


def _text_encoder_beside(file: Path, folder: Path) -> tuple[_Found, Path | None]:
    """The T5 encoder that original checkpoints leave out, from folders that usually lie beside them."""
    for name in ("text_encoder", "t5-base", "google-t5-t5-base"):
        place = folder / name
        if (place / "config.json").is_file():
            beside = [entry for entry in (folder / TOKENIZER, place) if has_tokenizer(entry)]
            return _part_folder("text_encoder", place), beside[0] if beside else None
    raise WeightsError(
        f"{file} holds no text encoder: original checkpoints leave T5 out",
        expected=f"a T5 base folder called text_encoder or t5-base in {folder}",
        do="or name it in base.parts.text_encoder",
    )


# ---------------------------------------------------------------- parts and assembly


def _found(role: str, path: Path, header: Header, place: tuple[str, str], sizes: Sizes) -> _Found:
    layout, prefix = place
    stored = stored_names(role, layout, prefix, header.tensors, sizes)
    for canonical, shape in tensor_shapes(role, sizes).items():
        at = stored.get(canonical)
        info = header.tensors[at.name] if at else None
        if info is None or at is None or not _holds(info.shape, at, shape):
            held = "nothing" if info is None else f"shape {list(info.shape)}"
            raise WeightsError(
                f"the {role} in {path} has {held} for {canonical}",
                expected=f"shape {list(shape)}",
                do="the file is damaged or of another architecture; choose another",
            )
    used = {at.name: header.tensors[at.name] for at in stored.values()}
    size_bytes = sum(info.size_bytes for info in used.values())
    return _Found(Part(role, path, layout, prefix, parameter_count(role, sizes), size_bytes), sizes, used)


def _holds(stored: Shape, at: Stored, wanted: Shape) -> bool:
    """Whether a stored tensor's row range is the wanted one; axes of size 1 may be missing (snakes, features)."""
    if not stored or stored[0] % at.parts:
        return False
    share = (stored[0] // at.parts, *stored[1:])
    return [size for size in share if size != 1] == [size for size in wanted if size != 1]


def _replacements(section: BaseSection) -> dict[str, _Found]:
    found = {}
    for role, name in section.parts.items():
        if role == TOKENIZER:
            continue
        if role not in ROLES:
            known = (*ROLES, TOKENIZER)
            near = difflib.get_close_matches(role, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise WeightsError(f"stable_audio has no part {role!r}", expected=f"one of {', '.join(known)}", do=hint)
        found[role] = _open_part(role, Path(name).expanduser())
    return found


def _open_part(role: str, path: Path) -> _Found:
    if not path.exists():
        raise WeightsError(f"the {role} {path} does not exist", expected="a folder", do=near_names(path))
    inner = path / FOLDERS[role]
    folder = inner if inner.is_dir() else path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{path} is no {role}", expected=f"a folder with config.json and weights, as {FOLDERS[role]}"
        )
    return _part_folder(role, folder)


def _open_sizes(section: BaseSection) -> Base:
    if section.architecture is None:
        raise WeightsError(
            "no base was named", expected=READS, do="set base.path, or base.architecture for method scratch"
        )
    sizes = named_architecture(section.architecture)
    found = {role: _absent(role, sizes[role]) for role in ROLES} | _replacements(section)
    tokenizer = _named_tokenizer(section)
    stated = None if tokenizer else sizes[TOKENIZER]
    return _assemble(section.architecture, found, sizes["scheduler"], tokenizer, stated)


def _named_tokenizer(section: BaseSection) -> Path | None:
    """The tokenizer folder that `base.parts.tokenizer` names, or that lies in a named text encoder."""
    named = section.parts.get(TOKENIZER) or section.parts.get("text_encoder")
    if named is None:
        return None
    folder = Path(named).expanduser()
    for place in (folder / TOKENIZER, folder, folder.parent / TOKENIZER):
        if has_tokenizer(place):
            return place
    if TOKENIZER in section.parts:
        raise WeightsError(f"{folder} is no tokenizer", expected=f"a folder with {TOKENIZER_FILE}")
    return None


def _assemble(
    source: str, found: Mapping[str, _Found], schedule: Sizes, tokenizer: Path | None, prompts: Sizes | None = None
) -> Base:
    """`prompts` is what is said of prompts' length elsewhere than in the tokenizer's own folder."""
    architecture = {role: found[role].sizes for role in ROLES} | {"scheduler": dict(schedule)}
    _check_fit(architecture)
    parts = {role: found[role].part for role in ROLES}
    if tokenizer is not None:
        parts[TOKENIZER] = Part(TOKENIZER, tokenizer, "files")
    architecture[TOKENIZER] = dict(prompts) if prompts else {"max_tokens": max_tokens_of(tokenizer)}
    infos: dict[str, TensorInfo] = {}
    for role in ROLES:
        for name, info in found[role].tensors.items():
            infos[f"{role}/{name}"] = info
        if found[role].part.path is None:
            for name, shape in tensor_shapes(role, found[role].sizes).items():
                infos[f"{role}/{name}"] = TensorInfo("F32", shape, 4 * math.prod(shape))
    return Base(ENGINE, source, architecture, parts, header_hash(infos))


def _check_fit(architecture: Mapping[str, Sizes]) -> None:
    denoiser, numbers = architecture["denoiser"], architecture["projection"]
    for what, has, wants in (
        ("the autoencoder makes latents of", architecture["autoencoder"]["decoder_input_channels"], "in_channels"),
        ("the projection makes conditions of", numbers["conditioning_dim"], "cross_attention_input_dim"),
        ("start and end in seconds make", 2 * numbers["conditioning_dim"], "global_states_input_dim"),
    ):
        if has != denoiser[wants]:
            raise WeightsError(
                f"{what} {has} numbers",
                expected=f"{denoiser[wants]}, as the denoiser takes",
                do="choose parts that belong together",
            )
    if architecture["text_encoder"]["d_model"] != numbers["text_encoder_dim"]:
        raise WeightsError(
            f"the text encoder is {architecture['text_encoder']['d_model']} wide",
            expected=f"{numbers['text_encoder_dim']}, as the projection takes",
            do="choose parts that belong together",
        )
