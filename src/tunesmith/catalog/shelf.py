"""The shelf: checkpoints by id in `checkpoints/<id>/`, and which one is active for each engine."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.catalog.card import FILE, Card, check, read_card, to_json
from tunesmith.errors import CatalogError
from tunesmith.weights.atomic import explained, replace_folder, write_json

_ACTIVE = "active.json"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}\Z")
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Damaged:
    """A folder in `checkpoints/` whose card cannot be read, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class Shelf:
    """Checkpoints under a home folder. Opens no tensor; every change is one rename, made under a lock."""

    home: Path

    @property
    def folder(self) -> Path:
        """`checkpoints/` of the home folder."""
        return self.home / "checkpoints"

    def put(self, card: Card, folder: Path) -> Card:
        """Take over a finished folder and return its card with id and file hashes filled in.

        The card is written into the folder, then the folder is renamed into place: until then the checkpoint does
        not exist, afterwards it is whole. Raises CatalogError for an empty folder, a used id, a missing file.
        """
        present = _files(folder)
        if not present:
            raise CatalogError(f"{folder} holds no files", expected="a finished checkpoint")
        missing = sorted(set(card.files) - set(present))
        if missing:
            raise CatalogError(f"{folder} lacks {missing[0]}, which its card lists")
        check(card, f"the card of {card.name!r}")
        card = replace(card, files=card.files or {name: _sha256(folder / name) for name in present})
        with self._locked():
            card = replace(card, id=self._free_id(card))
            write_json(folder / FILE, to_json(card))
            replace_folder(self._beside(folder, card.id), self.folder / card.id)
            shutil.rmtree(folder, ignore_errors=True)  # only there still where it lay on another file system
        return card

    def list(self, engine: str | None = None) -> tuple[Card, ...]:
        """Every readable card, newest first; damaged ones are left to `damaged`."""
        cards = [card for card, _ in self._read() if card is not None]
        found = [card for card in cards if engine is None or card.engine == engine]
        return tuple(sorted(found, key=lambda card: (card.created_utc, card.step, card.id), reverse=True))

    def damaged(self) -> tuple[Damaged, ...]:
        """Folders whose card cannot be read."""
        return tuple(problem for _, problem in self._read() if problem is not None)

    def get(self, id_or_name: str) -> Card:
        """A checkpoint by id, else the newest of that name, else by the beginning of its id.

        Raises CatalogError with the nearest names.
        """
        if _ID.match(id_or_name) and (self.folder / id_or_name / FILE).exists():
            return read_card(self.folder / id_or_name)
        cards = self.list()
        for card in cards:
            if card.name == id_or_name:
                return card
        begun = [card for card in cards if len(id_or_name) >= 4 and card.id.startswith(id_or_name)]
        if len(begun) == 1:
            return begun[0]
        raise _missing(id_or_name, cards, begun)

    def path(self, card: Card) -> Path:
        """The checkpoint's folder."""
        return self.folder / card.id

    def base_path(self, name: str, engine: str | None = None) -> str:
        """What to open for a base called `name`: a path as it is, else full weights of the catalog by id or name.

        Of several checkpoints of one name the newest. Other names stay (a hub id, `starter`). Raises CatalogError for
        the name of an adapter, and where a name of the catalog is near.
        """
        if Path(name).expanduser().exists():
            return name
        cards = self.list(engine)
        for card in cards:  # newest first
            if card.kind == "weights" and name in (card.id, card.name):
                return str(weights_path(self.path(card)))
        if any(name in (card.id, card.name) for card in cards):
            raise CatalogError(f"{name} is an adapter, which is no base", expected="full weights", do=_bases(cards))
        near = difflib.get_close_matches(name, [card.name for card in cards if card.kind == "weights"], n=1, cutoff=0.7)
        if near and len(Path(name).parts) == 1:
            raise CatalogError(f"no base is called {name!r}", do=f"did you mean {near[0]!r}?")
        return name

    def activate(self, id_or_name: str) -> Card:
        """Make a checkpoint the one its engine uses unless told otherwise."""
        card = self.get(id_or_name)
        with self._locked():
            write_json(self.folder / _ACTIVE, {**self._active_ids(), card.engine: card.id})
        return card

    def deactivate(self, engine: str) -> Card | None:
        """Let no checkpoint of `engine` be active; returns the one that was."""
        before = self.active(engine)
        with self._locked():
            remaining = {name: id_ for name, id_ in self._active_ids().items() if name != engine}
            write_json(self.folder / _ACTIVE, remaining)
        return before

    def active(self, engine: str) -> Card | None:
        """The active checkpoint of `engine`; None where there is none or it is gone."""
        found = self._active_ids().get(engine)
        if found is None or not (self.folder / found / FILE).exists():
            return None
        return read_card(self.folder / found)

    def delete(self, id_or_name: str, *, force: bool = False) -> Card:
        """Delete a checkpoint, called by its whole id or name.

        Refuses a name that several have, and without `force` what is active, a parent, or a base that others need.
        """
        card = self.get(id_or_name)
        if id_or_name not in (card.id, card.name):
            raise CatalogError(f"{id_or_name!r} is only the beginning of {card.id}", do="name it in full to delete it")
        twins = [other for other in self.list() if other.name == id_or_name != card.id]
        if len(twins) > 1:
            ids = ", ".join(other.id for other in twins)
            raise CatalogError(f"{len(twins)} checkpoints are called {id_or_name!r}", expected=f"one of the ids {ids}")
        with self._locked():
            is_active = self._active_ids().get(card.engine) == card.id
            if not force:
                self._refuse_in_use(card, is_active=is_active)
            if is_active:
                remaining = {name: id_ for name, id_ in self._active_ids().items() if id_ != card.id}
                write_json(self.folder / _ACTIVE, remaining)
            # One rename takes it off the shelf; a crash while its files go leaves nothing that is listed.
            doomed = self.folder / f".deleted-{card.id}"
            shutil.rmtree(doomed, ignore_errors=True)
            self.path(card).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        return card

    def _refuse_in_use(self, card: Card, *, is_active: bool) -> None:
        if is_active:
            raise CatalogError(
                f"{card.id} is the active checkpoint of {card.engine}", do="deactivate it first, or force"
            )
        others = [other for other in self.list() if other.id != card.id]
        if children := [other.id for other in others if other.parent == card.id]:
            raise CatalogError(f"{card.id} is the parent of {', '.join(children)}", do="delete those first, or force")
        if above := [other.id for other in others if self._stands_on(other, card)]:
            raise CatalogError(
                f"{card.id} is the base of {', '.join(above[:4])}{' and others' if len(above) > 4 else ''}",
                do="delete those first, or force",
            )

    def _stands_on(self, card: Card, base: Card) -> bool:
        """Whether `card` was trained on the files of `base`."""
        named = [card.base.get("path"), *dict(card.base.get("parts") or {}).values()]
        return any(self.path(base) in (Path(path), *Path(path).parents) for path in named if isinstance(path, str))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise CatalogError(f"another process has kept {self.folder} locked for a minute", do="try again") from error

    def _read(self) -> Iterator[tuple[Card | None, Damaged | None]]:
        if not self.folder.is_dir():
            return
        for folder in sorted(self.folder.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                yield read_card(folder), None
            except CatalogError as error:
                yield None, Damaged(folder, error.message)

    def _active_ids(self) -> dict[str, str]:
        file = self.folder / _ACTIVE
        if not file.exists():
            return {}
        try:
            document = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise CatalogError(f"{file} is damaged: {error}", do="delete it and activate again") from error
        if not isinstance(document, dict):
            raise CatalogError(f"{file} is damaged: not a map", do="delete it and activate again")
        return {name: id_ for name, id_ in document.items() if isinstance(id_, str) and _ID.match(id_)}

    def _free_id(self, card: Card) -> str:
        if card.id:
            if not _ID.match(card.id):
                raise CatalogError(f"the id {card.id!r}", expected="small letters, digits, dots, dashes, underscores")
            if (self.folder / card.id).exists():
                raise CatalogError(
                    f"there is a checkpoint {card.id} already", do="leave the id empty to get a free one"
                )
            return card.id
        digest = hashlib.sha256(json.dumps(to_json(card), sort_keys=True, default=str).encode()).hexdigest()[:8]
        stem = f"{_slug(card.name)}-{digest}"
        taken = (stem, *(f"{stem}-{count}" for count in range(2, 10_000)))
        return next(name for name in taken if not (self.folder / name).exists())

    def _beside(self, folder: Path, name: str) -> Path:
        """The folder where one rename puts it on the shelf: itself, or a copy where it lies on another file system."""
        if folder.stat().st_dev == self.folder.stat().st_dev:
            return folder
        incoming = self.folder / f".incoming-{name}"
        shutil.rmtree(incoming, ignore_errors=True)
        with explained(incoming):
            shutil.copytree(folder, incoming)
        return incoming


def _missing(wanted: str, cards: tuple[Card, ...], begun: list[Card]) -> CatalogError:
    if begun:
        return CatalogError(f"{len(begun)} ids begin with {wanted!r}", expected=", ".join(card.id for card in begun))
    names = {label: card.id for card in reversed(cards) for label in (card.id, card.name)}
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    near += [label for label in names if wanted.lower() in label.lower() and label not in near][:3]
    hint = f"did you mean {' or '.join(repr(label) for label in near)}?" if near else "see `tunesmith checkpoints list`"
    return CatalogError(f"no checkpoint is called {wanted!r}", do=hint)


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "checkpoint"


def weights_path(folder: Path) -> Path:
    """What to open of a checkpoint of kind "weights": the single file in it, or the folder itself."""
    single = folder / "model.safetensors"
    return single if single.is_file() else folder


def _bases(cards: Sequence[Card]) -> str:
    """What of the catalog can be named as a base."""
    names = list(dict.fromkeys(card.name for card in cards if card.kind == "weights"))
    return f"name {' or '.join(names[:4])}, or a file" if names else "name a file or a folder"
