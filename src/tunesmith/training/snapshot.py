"""States on disk: complete or absent, checked by hash, restored bit for bit. No pickles.

states/step-00000120/  state.safetensors  state.json  manifest.json
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tunesmith.errors import JobError, NonFinite
from tunesmith.events import StateSaved
from tunesmith.training.device import available_threads, environment_notes
from tunesmith.training.records import groups_record, packed, restore_optimiser, unpacked
from tunesmith.training.state import TrainState
from tunesmith.weights.atomic import explained, replace_folder, write_json
from tunesmith.weights.files import TensorFile, open_tensors, write_safetensors

FORMAT = 1
TENSORS, FACTS, MANIFEST = "state.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")


def save_state(
    state: TrainState, states_folder: Path, *, environment: Mapping[str, Any], recipe_hash: str
) -> StateSaved:
    """Write states/step-XXXXXXXX: aside, fsynced, with hashes, renamed. A state of this step that is whole stays.

    Raises DiskFull with every older state intact and nothing half-written; JobError for a state that was interrupted
    within its update, NonFinite for one that holds a NaN or Inf: neither may ever replace a good one.
    """
    if state.updating:
        raise JobError("the weights were being moved when the step broke off", do="resume from the last saved state")
    if (bad := state.first_bad()) is not None:
        raise NonFinite(f"{bad} holds a NaN or Inf, so this state is not kept", do="resume from the last saved state")
    final = states_folder / f"step-{state.step:08d}"
    if not (_is_whole(final) and describe_state(final)["recipe_hash"] == recipe_hash):
        aside = states_folder / f".{final.name}.{os.getpid()}.partial"
        try:
            with explained(final):
                _clear(states_folder)
                aside.mkdir(parents=True)
                write_safetensors(aside / TENSORS, _tensors(state))
                facts = _facts(state) | {"recipe_hash": recipe_hash, "environment": dict(environment)}
                write_json(aside / FACTS, facts)
                files = {name: _signature(aside / name) for name in (TENSORS, FACTS)}
                write_json(aside / MANIFEST, {"format": FORMAT, "step": state.step, "files": files})
                replace_folder(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    state.last_file = final
    return state_saved(final)


def state_saved(folder: Path) -> StateSaved:
    """What there is to say of a whole state on disk."""
    step = int(folder.name.removeprefix("step-"))
    return StateSaved(step, str(folder), sum(path.stat().st_size for path in folder.iterdir()))


def load_state(
    state: TrainState, folder: Path, *, environment: Mapping[str, Any], threads_asked: int | None = None
) -> tuple[str, ...]:
    """Bring a freshly prepared state to where `folder` was saved, in place and bit for bit.

    `folder` comes from `newest_state`, which checked its hashes. The recorded number of threads is set again unless
    `threads_asked` names one; what then still differs from `environment` comes back as notes, "not bit-exact: …".
    Raises JobError where the state belongs to another recipe's tensors.
    """
    recorded = restore(state, folder)["environment"]
    threads = recorded.get("threads")
    if threads is not None and threads_asked is None and threads <= available_threads():
        torch.set_num_threads(threads)
    return environment_notes(recorded, {**environment, "threads": torch.get_num_threads()})


def restore(state: TrainState, folder: Path) -> dict[str, Any]:
    """Everything `folder` holds into `state`, in place; returns its facts. Raises JobError where they do not fit."""
    facts = describe_state(folder)
    with open_tensors(folder / TENSORS) as file, torch.no_grad():
        live = _live(state)
        _check_names(folder, live, file)
        for name, tensor in live.items():
            tensor.copy_(file.read(name))
        restore_optimiser(state, facts["optimiser"], file)
    if state.scaler is not None and facts["scaler"] is not None:
        state.scaler.load_state_dict(unpacked(facts["scaler"]))
    for name in ("step", "batch_index", "position_items", "overflows"):
        setattr(state, name, facts[name])
    state.updating = False
    state.optimiser.zero_grad(set_to_none=True)
    state.last_file = folder
    return facts


def roll_back(state: TrainState) -> int:
    """Make `state` the last good one after a NaN or Inf, and return its step.

    Nothing moved in the broken step, so the state in memory is good unless its weights went bad before; then the last
    file is read back. Without one the weights stay as they are, and `save_state` refuses them.
    """
    state.optimiser.zero_grad(set_to_none=True)
    if state.first_bad() is not None and state.last_file is not None:
        restore(state, state.last_file)
    return state.step


def newest_state(states_folder: Path) -> Path | None:
    """The newest state whose files match their hashes, or None where none was ever saved.

    Damaged newer ones are set aside as `damaged-step-…`, so that they never count as one of those to keep. Raises
    JobError where there are states and all are damaged: starting again from nothing must be asked for.
    """
    _put_back(states_folder)
    found = _states(states_folder)
    for path in reversed(found):
        if _is_whole(path):
            for damaged in found[found.index(path) + 1 :]:
                _set_aside(damaged)
            return path
    if found:
        raise JobError(
            f"all {len(found)} states in {states_folder} are damaged",
            expected="files that match their manifest",
            do="restore one from a backup, or delete the folder to start again from step 0",
        )
    return None


def describe_state(folder: Path) -> dict[str, Any]:
    """A state's facts: step, batch_index, position_items, recipe_hash, environment and the optimiser's numbers."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{folder / FACTS} cannot be read ({error})", do="resume from another state") from error
    if facts.get("format") != FORMAT:
        raise JobError(f"{folder} has state format {facts.get('format')}", expected=f"format {FORMAT}")
    return facts


def retain(states_folder: Path, *, newest: int = 2, best: int | None = None) -> tuple[Path, ...]:
    """Keep the `newest` states and that of step `best`; delete the others, and what killed processes left half-written
    or half-deleted. Returns the states that are gone."""
    _clear(states_folder)
    found = _states(states_folder)
    kept = {*found[-newest:], *(path for path in found if _step_of(path) == best)}
    gone = tuple(path for path in found if path not in kept)
    for path in gone:
        # Renamed first: a folder half deleted must not look like a damaged state.
        doomed = path.with_name(f".{path.name}.{os.getpid()}.partial")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    return gone


def _states(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _put_back(folder: Path) -> None:
    """A state that was moved aside for a newer one of its step, which a kill then kept from arriving."""
    for path in folder.glob(".step-*.old"):
        final = folder / path.name.split(".")[1]
        if not final.exists():
            path.rename(final)


def _set_aside(damaged: Path) -> None:
    """Out of the way, but not gone: somebody may want to look."""
    place = damaged.with_name(f"damaged-{damaged.name}")
    shutil.rmtree(place, ignore_errors=True)
    damaged.rename(place)


def _clear(folder: Path) -> None:
    """Remove what killed processes left; only the holder of the job's lock writes here."""
    _put_back(folder)
    if folder.is_dir():
        for path in folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)


def _signature(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size_bytes": path.stat().st_size}


def _is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there with its hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        return set(files) == {TENSORS, FACTS} and all(_signature(folder / n) == files[n] for n in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _live(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of the state but the optimiser's, by its name in the file."""
    kinds: dict[str, Mapping[str, torch.Tensor]] = {
        "parameter": state.parameters, "buffer": state.buffers, "ema": state.ema or {}
    }  # fmt: skip
    return {f"{kind}/{name}": tensor for kind, named in kinds.items() for name, tensor in named.items()}


def _tensors(state: TrainState) -> dict[str, torch.Tensor]:
    tensors, _ = groups_record(state)
    return {**{name: tensor.detach() for name, tensor in _live(state).items()}, **tensors}


def _facts(state: TrainState) -> dict[str, Any]:
    _, numbers = groups_record(state)
    return {
        "format": FORMAT,
        "step": state.step,
        "batch_index": state.batch_index,
        "position_items": state.position_items,
        "overflows": state.overflows,
        "seed": state.seed,
        "scaler": None if state.scaler is None else packed(state.scaler.state_dict()),
        "optimiser": numbers,
    }


def _check_names(folder: Path, live: Mapping[str, torch.Tensor], file: TensorFile) -> None:
    stored = {
        name: file.info(name).shape for name in file.names if name.split("/")[0] in ("parameter", "buffer", "ema")
    }
    expected = {name: tuple(tensor.shape) for name, tensor in live.items()}
    if stored != expected:
        wrong = sorted(name for name in {*stored, *expected} if stored.get(name) != expected.get(name))
        raise JobError(
            f"{folder} holds other tensors than this run trains; the first of {len(wrong)} is {wrong[0]}",
            expected=f"shape {expected.get(wrong[0], 'none')}, found {stored.get(wrong[0], 'none')}",
            do="resume with the recipe that the state was saved with",
        )
