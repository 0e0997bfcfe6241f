"""Where a base lies: a path, a starter, a hub id; and what its folders hold. No torch."""

from __future__ import annotations

import difflib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith.errors import WeightsError
from tunesmith.weights.starter import starter_folder

STARTER = "starter"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# A name that ends so is meant as a file; other dots are part of hub ids (`…/stable-audio-open-1.0`).
_FILES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".json", ".yaml", ".zip"}
_WANTED = ["*.json", "*.txt", "*/*.json", "*/*.txt", "*/*.safetensors"]


def locate_base(name: str, *, engine: str, allow_download: bool, reads: str) -> Path:
    """The file or folder that a base's name means; a hub id is downloaded only where that is allowed.

    `reads` says what the engine can open. Raises WeightsError with the nearest names.
    """
    if name == STARTER:
        return starter_folder(engine)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if _HUB_ID.fullmatch(name) and path.suffix.lower() not in _FILES:
        return _hub_snapshot(name, allow_download, reads)
    raise WeightsError(f"the base {name} does not exist", expected=reads, do=near_names(path))


def near_names(path: Path) -> str:
    """What to do about a path that does not exist."""
    folder = path.parent
    if not folder.is_dir():
        return f"check the path: the folder {folder} does not exist either"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)} in {folder}?" if near else f"check the path: {folder} has no such file"


@lru_cache(maxsize=8)
def _hub_snapshot(name: str, allow_download: bool, reads: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=not allow_download, allow_patterns=_WANTED))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        if allow_download:
            raise WeightsError(
                f"the hub id {name} could not be fetched: {error}", do="check the id and the network"
            ) from error
        raise WeightsError(
            f"{name} is neither a file nor a folder, and no copy of that hub id is on this machine",
            expected=reads,
            do="set base.allow_download=true to download it, or give a path",
        ) from error


def weights_in(folder: Path) -> Path:
    """What to open of a folder that holds one part's weights. Raises WeightsError where there are none."""
    if any(folder.glob("*.safetensors")):
        return folder
    pickles = [entry for name in ("*.bin", "*.pt", "*.ckpt") for entry in sorted(folder.glob(name))]
    if len(pickles) != 1:
        raise WeightsError(f"{folder} holds no weights", expected="a .safetensors file", do="download it again")
    return pickles[0]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsError for anything else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read: {error}", expected="JSON", do="download it again") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{file} is not a mapping", expected="a JSON object")
    return document
