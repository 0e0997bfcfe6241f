"""Checkpoints: real ones are read exactly; hostile ones are refused and run nothing."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tunesmith.errors import WeightsError
from tunesmith.weights import pickle_child, pickles
from tunesmith.weights.files import open_tensors
from tunesmith.weights.pickles import read_pickle_header

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.arange(5, dtype=torch.float16),
    "brain": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "ids": torch.arange(4),
    "turned": torch.arange(12, dtype=torch.float32).reshape(3, 4).T,
    "piece": torch.arange(100, dtype=torch.float32)[10:20],
    "none": torch.empty(0, 7),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
}


class Attack:
    """Unpickling this touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


class Raw:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def zipped(path: Path, data: bytes, storages: dict[str, bytes] | None = None, **options: int) -> Path:
    """A zip checkpoint around a pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:  # type: ignore[arg-type]
        archive.writestr("m/data.pkl", data)
        for key, content in (storages or {}).items():
            archive.writestr(f"m/data/{key}", content)
    return path


def pickled(shape: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    """A state dict with one float32 tensor, whatever its numbers claim."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    out = io.BytesIO()
    Pickler(out, 2).dump(
        {"w": Raw(torch._utils._rebuild_tensor_v2, Storage(), offset, shape, stride, False, OrderedDict())}
    )
    return out.getvalue()


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3, "note": "x"}, OrderedDict])
def test_checkpoints_of_torch_are_read_exactly(tmp_path: Path, wrap: Callable[[dict[str, object]], object]) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(wrap(dict(TENSORS)), path)
    header = read_pickle_header(path)
    assert {name: info.shape for name, info in header.tensors.items()} == {
        n: tuple(t.shape) for n, t in TENSORS.items()
    }
    with open_tensors(path) as file:
        assert file.names == tuple(TENSORS)
        for name, tensor in TENSORS.items():
            back = file.read(name)
            assert back.dtype == tensor.dtype
            assert torch.equal(back, tensor)


def test_parameters_modules_and_their_attributes_are_read(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    path = tmp_path / "m.pt"
    torch.save(module.state_dict(), path)  # carries the attribute _metadata
    with open_tensors(path) as file:
        assert torch.equal(file.read("weight"), module.weight)
    torch.save({"p": module.weight}, path)
    with open_tensors(path) as file:
        assert torch.equal(file.read("p"), module.weight)


def test_training_logs_of_published_checkpoints_do_not_get_in_the_way() -> None:
    # protocol 0, as text: {'state_dict': {...}, 'callbacks': {<ModelCheckpoint>: numpy scalar}}
    inner = pickled((1,), (1,), 1)
    assert pickle_child.listed(inner)[0][0] == "w"
    logs = (
        b"\x80\x02}("
        b"X\x05\x00\x00\x00logs_"
        b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
        b"X\x05\x00\x00\x00scaleccollections\nOrderedDict\n)R"
        b"X\x03\x00\x00\x00lr_cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R"
        b"X\x02\x00\x00\x00ab\x86Ru."
    )
    with pytest.raises(pickle_child.Refused, match="not a tensor"):
        pickle_child.listed(logs)  # read without running anything; but such a thing among the tensors is refused


def test_a_hostile_zip_checkpoint_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = zipped(tmp_path / "m.ckpt", pickle.dumps({"state_dict": Attack(marker)}, 2))
    with pytest.raises(WeightsError, match=r"(posix|nt)\.system"):
        read_pickle_header(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Attack(marker), 2))  # the attack itself works
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_raw_pickle_is_refused_unread(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "m.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Attack(marker)}, protocol))
    with pytest.raises(WeightsError, match=r"m\.ckpt"):
        read_pickle_header(path)
    assert not marker.exists()


def test_the_older_torch_formats_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="older format") as caught:
        read_pickle_header(path)
    assert "safetensors" in caught.value.do


@pytest.mark.parametrize(
    "function",
    [eval, open, __import__, getattr, torch.load, torch.storage._load_from_bytes, pickle.loads, OrderedDict.fromkeys],
)
def test_every_global_that_is_not_listed_is_refused_by_name(tmp_path: Path, function: object) -> None:
    path = zipped(tmp_path / "m.ckpt", pickle.dumps({"a": Raw(function, "x")}, 2))
    with pytest.raises(WeightsError, match="names the global"):
        read_pickle_header(path)


def test_a_packed_bomb_is_refused_by_the_zip_directory(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "m.ckpt",
        pickled((25_000_000,), (1,), 25_000_000),
        {"0": b"\0" * 100_000_000},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 1_000_000
    with pytest.raises(WeightsError, match="packs"):
        read_pickle_header(path)


@pytest.mark.parametrize(
    ("shape", "stride", "count", "offset"),
    [
        ((1 << 40,), (0,), 4, 0),
        ((1 << 20, 1 << 20), (0, 1), 4, 0),
        ((5,), (1,), 4, 0),
        ((4,), (1,), 4, 1),
        ((2, 2), (3, 1), 4, 0),
        ((4,), (1,), 1 << 40, 0),
        ((4,), (-1,), 4, 0),
        ((4,), (1, 1), 4, 0),
    ],
)
def test_tensors_larger_than_their_storage_are_refused(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int
) -> None:
    path = zipped(tmp_path / "m.ckpt", pickled(shape, stride, count, offset), {"0": b"\0" * 16})
    with pytest.raises(WeightsError, match=r"describes 'w'|in an unknown way"):
        read_pickle_header(path)


def test_a_pickle_that_eats_memory_or_time_ends_with_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "CPU_LIMIT_SECONDS", 1)
    grow = b"\x80\x02]q\x00" + b"h\x00h\x00\x86" * 10 + b"."
    doubling = b"\x80\x02X\x04\x00\x00\x00aaaaq\x00" + b"0h\x00h\x00\x86q\x00" * 40 + b"}h\x00K\x01s."
    for data in (grow, doubling):
        with pytest.raises(WeightsError, match=r"m\.ckpt is not opened"):
            read_pickle_header(zipped(tmp_path / "m.ckpt", data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickle.dumps([1, 2]), "no mapping"),
        (pickle.dumps({"a": 1}), "no tensors"),
        (pickle.dumps({"model": {"a": 1}}), "not a tensor"),
        (pickle.dumps({})[:-1], "damaged"),
        (b"\x80\x02Qcbuiltins\neval\n.", "damaged|refers"),
        (b"", "damaged"),
    ],
)
def test_other_contents_are_explained(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        read_pickle_header(zipped(tmp_path / "m.ckpt", data))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole[:50], b"<html>no</html>"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"m\.ckpt"):
            read_pickle_header(path)
    with pytest.raises(WeightsError, match="lacks the storage"):
        read_pickle_header(zipped(tmp_path / "n.ckpt", pickled((4,), (1,), 4)))  # storage missing
    with zipfile.ZipFile(tmp_path / "o.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"without one data\.pkl"):
        read_pickle_header(tmp_path / "o.ckpt")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_pickle_header(tmp_path / "missing.ckpt")


def test_the_child_script_answers_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Input:
        buffer = io.BytesIO(pickled((2, 2), (2, 1), 4))

    monkeypatch.setattr(pickle_child, "_limit", lambda seconds: None)  # the limits would be this process's own
    monkeypatch.setattr(pickle_child.sys, "argv", ["child", "1"])
    monkeypatch.setattr(pickle_child.sys, "stdin", Input)
    assert pickle_child.main() == 0
    assert capsys.readouterr().out == '{"tensors": [["w", "F32", [2, 2], [2, 1], "0", 0, 4]]}'
    Input.buffer = io.BytesIO(pickle.dumps(3))
    assert pickle_child.main() == 0
    assert "refused" in capsys.readouterr().out


# ------------------------------------------------------------------ the child's own rules, in this process


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickle.dumps([1, 2]), "no mapping"),
        (pickle.dumps({"a": 1}), "no tensors"),
        (pickle.dumps({"model": {"a": 1}}), "not a tensor"),
        (pickle.dumps({})[:-1], "damaged"),
        (pickle.dumps({"a": os.getcwd}), "names the global"),
        (pickled((4,), (-1,), 4), "in an unknown way"),
        (pickled((4,), (1, 1), 4), "in an unknown way"),
        (b"\x80\x02(X\x07\x00\x00\x00storageK\x01K\x02tQ.", "refers to something"),
        (b"\x80\x02(X\x07\x00\x00\x00storageK\x01K\x02K\x03K\x04tQ.", "describes a storage"),
    ],
)
def test_the_child_refuses(data: bytes, says: str) -> None:
    with pytest.raises(pickle_child.Refused, match=says):
        pickle_child.listed(data)


def test_placeholders_hold_nothing_and_parameters_are_their_tensors() -> None:
    thing = pickle_child.Placeholder(1, "a", os.system)
    thing["a"] = 1
    thing.__setstate__({"b": 2})
    assert not hasattr(thing, "__dict__")
    assert pickle_child._rebuild_parameter("tensor", True, None) == "tensor"


def test_more_tensors_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_child, "TENSOR_LIMIT", 0)
    with pytest.raises(pickle_child.Refused, match="lists 1 tensors"):
        pickle_child.listed(pickled((4,), (1,), 4))


def test_limits_come_down_as_far_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limits:
        RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIM_INFINITY = "memory", "cpu", "size", "files", -1
        seen: ClassVar[dict[str, tuple[int, int]]] = {}

        @staticmethod
        def getrlimit(kind: str) -> tuple[int, int]:
            return (-1, 5) if kind == "cpu" else (-1, -1)

        @classmethod
        def setrlimit(cls, kind: str, bounds: tuple[int, int]) -> None:
            if kind == "memory":
                raise ValueError("not here")
            cls.seen[kind] = bounds

    monkeypatch.setitem(sys.modules, "resource", Limits)
    pickle_child._limit(10)
    assert Limits.seen == {"cpu": (5, 5), "size": (0, 0), "files": (0, 0)}
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    pickle_child._limit(10)


@pytest.mark.parametrize("limit", ["MEMBER_LIMIT", "PICKLE_LIMIT_BYTES"])
def test_oversized_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = zipped(tmp_path / "m.ckpt", pickled((4,), (1,), 4), {"0": b"\0" * 16})
    monkeypatch.setattr(pickles, limit, 1)
    with pytest.raises(WeightsError, match=r"members|pickle of"):
        read_pickle_header(path)


def test_a_child_that_takes_too_long_or_answers_nonsense_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "m.ckpt", pickled((4,), (1,), 4), {"0": b"\0" * 16})
    monkeypatch.setattr(pickles, "TIMEOUT_SECONDS", 0.0)
    with pytest.raises(WeightsError, match="took more than"):
        read_pickle_header(path)
    monkeypatch.setattr(pickles, "TIMEOUT_SECONDS", 60.0)
    (tmp_path / "child.py").write_text("print('{')")
    monkeypatch.setattr(pickles, "CHILD", tmp_path / "child.py")
    with pytest.raises(WeightsError, match="broke down"):
        read_pickle_header(path)
