"""Bases on disk: headers without torch, tensors one by one, complete bases written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from tunesmith.engines.protocol import Base, Part
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection

if TYPE_CHECKING:
    import torch

KEY = "test_base"  # one metadata entry: safetensors writes several in no fixed order, and file hashes would differ
Shapes = Mapping[str, tuple[int, ...]]
ShapesOf = Callable[[str, Mapping[str, Any]], Shapes]  # (role, architecture of the role) -> canonical name -> shape


def count(shapes: Shapes) -> int:
    """How many numbers tensors of these shapes hold."""
    total = 0
    for shape in shapes.values():
        size = 1
        for axis in shape:
            size *= axis
        total += size
    return total


def read_header(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], str]], dict[str, str]]:
    """name -> (shape, dtype) and the metadata of a safetensors file. No torch."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}", expected="a .safetensors file or a folder of them")
    try:
        with safe_open(path, framework="numpy") as file:
            found = {
                name: (tuple(file.get_slice(name).get_shape()), str(file.get_slice(name).get_dtype()))
                for name in file.keys()  # noqa: SIM118 - safe_open is no mapping
            }
            return found, dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error


class BaseFiles:
    """Where an engine's parts lie: `single_file` (one file, role prefixes) or `folder` (one file per role)."""

    def __init__(self, engine: str, roles: tuple[str, ...], shapes_of: ShapesOf, named: Mapping[str, Any]) -> None:
        self.engine = engine
        self.roles = roles
        self.shapes_of = shapes_of
        self.named = named

    def open(self, section: BaseSection) -> Base:
        """Read every part's header and check it against the architecture stored with it."""
        architecture: dict[str, Any] = {}
        parts: dict[str, Part] = {}
        if section.path is not None:
            self._add_path(Path(section.path), architecture, parts)
        else:
            architecture = dict(self._named_architecture(section.architecture))
        for role, path in section.parts.items():
            self._add_replacement(role, Path(path), architecture, parts)
        digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
        for role in self.roles:
            shapes = self.shapes_of(role, architecture[role])
            if role not in parts:
                parts[role] = Part(role, None, "created", parameters=count(shapes), size_bytes=4 * count(shapes))
                continue
            digest.update(self._checked(parts[role], shapes).encode())
        ordered = {role: parts[role] for role in self.roles}
        return Base(self.engine, section.path or "scratch", architecture, ordered, digest.hexdigest())

    def _named_architecture(self, name: str | None) -> Mapping[str, Any]:
        chosen = name or next(iter(self.named))
        if chosen in self.named:
            return self.named[chosen]
        if Path(chosen).is_file():
            return json.loads(Path(chosen).read_text(encoding="utf-8"))
        raise WeightsError(f"no architecture is called {chosen!r}", expected=f"one of {', '.join(self.named)}")

    def _add_path(self, path: Path, architecture: dict[str, Any], parts: dict[str, Part]) -> None:
        files = {role: path / role / "model.safetensors" for role in self.roles} if path.is_dir() else {}
        for role in self.roles:
            file = files.get(role, path)
            self._add_part(role, file, "" if files else f"{role}.", architecture, parts)

    def _add_replacement(self, role: str, path: Path, architecture: dict[str, Any], parts: dict[str, Part]) -> None:
        if role not in self.roles:
            raise WeightsError(f"a {self.engine} base has no part {role!r}", expected=f"one of {', '.join(self.roles)}")
        file = path / role / "model.safetensors" if path.is_dir() else path
        whole = any(name.startswith(f"{role}.") for name in read_header(file)[0])
        self._add_part(role, file, f"{role}." if whole else "", architecture, parts)

    def _add_part(
        self, role: str, file: Path, prefix: str, architecture: dict[str, Any], parts: dict[str, Part]
    ) -> None:
        tensors, metadata = read_header(file)
        facts = json.loads(metadata.get(KEY, "{}"))
        if facts.get("engine") != self.engine:
            found = facts.get("engine", "another architecture")
            raise WeightsError(f"{file} is a base of {found}", expected=f"one of {self.engine}")
        architecture[role] = facts["architecture"][role]
        own = [shape for name, (shape, _) in tensors.items() if name.startswith(prefix)]
        numbers = count(dict(enumerate(own)))  # type: ignore[arg-type]
        widths = {"F32": 4, "F16": 2, "BF16": 2}
        size = sum(
            count({"": shape}) * widths[dtype] for name, (shape, dtype) in tensors.items() if name.startswith(prefix)
        )
        layout = "single_file" if prefix else "folder"
        parts[role] = Part(role, file, layout, prefix, numbers, size)

    def _checked(self, part: Part, shapes: Shapes) -> str:
        assert part.path is not None
        tensors = read_header(part.path)[0]
        lines = []
        for canonical, shape in sorted(shapes.items()):
            found = tensors.get(part.prefix + canonical)
            if found is None or found[0] != tuple(shape):
                got = "nothing" if found is None else str(found[0])
                raise WeightsError(f"{part.path}: {canonical} is {got}", expected=str(tuple(shape)))
            lines.append(f"{part.role} {canonical} {shape} {found[1]}")
        return "\n".join(lines)

    def write(
        self, path: Path, layout: str, parts: Mapping[str, Mapping[str, torch.Tensor]], architecture: Any
    ) -> Path:
        """A complete base at `path`, written aside and renamed."""
        from safetensors.torch import save_file

        facts = {"engine": self.engine, "architecture": dict(architecture)}
        metadata = {KEY: json.dumps(facts, sort_keys=True)}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        if layout == "single_file":
            flat = {f"{role}.{name}": tensor for role, part in parts.items() for name, tensor in part.items()}
            save_file({name: tensor.contiguous() for name, tensor in flat.items()}, aside, metadata)
        else:
            for role, part in parts.items():
                (aside / role).mkdir(parents=True)
                contiguous = {name: tensor.contiguous() for name, tensor in part.items()}
                save_file(contiguous, aside / role / "model.safetensors", metadata)
        aside.rename(path)
        return path


def read_part(part: Part) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one part under canonical names, one by one, in the file's dtype."""
    assert part.path is not None
    with safe_open(part.path, framework="pt") as file:
        for name in sorted(file.keys()):
            if name.startswith(part.prefix):
                yield name.removeprefix(part.prefix), file.get_tensor(name)


def part_hash(base: Base, role: str) -> str:
    """Changes whenever a part's numbers would: the SHA-256 of its file, or of what it would be created from."""
    part = base.parts[role]
    if part.path is None:
        return hashlib.sha256(json.dumps(base.architecture[role], sort_keys=True).encode()).hexdigest()
    return hashlib.sha256(part.path.read_bytes()).hexdigest()


def formula(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights by formula, a function of (seed, name, shape): biases 0, norms 1, the rest scaled normal numbers."""
    import torch

    from tunesmith.numeric.rng import generator

    filled = {}
    for name, shape in shapes.items():
        if name.endswith("bias"):
            filled[name] = torch.zeros(shape)
        elif len(shape) == 1:
            filled[name] = torch.ones(shape)
        else:
            fan_in = max(1, count({"": tuple(shape)[1:]}))
            filled[name] = torch.randn(shape, generator=generator(seed, 0, name)) * (0.8 / fan_in**0.5)
    return filled
