"""The encoded cache: exact, whole or absent, bounded, and shared by processes that may be killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.data.cache import Cache, cache_key
from tunesmith.errors import DataError, DiskFull

LARGE = 1 << 30


def key(number: int) -> str:
    return cache_key(f"input{number}", "encoder", "variant")


def entry(number: int, numbers: int = 64) -> dict[str, torch.Tensor]:
    return {"mean": torch.arange(numbers, dtype=torch.float32) + number}


def age(cache: Cache, number: int, seconds: float) -> None:
    """Make an entry look last used `seconds` ago."""
    path = cache._path(key(number))
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64, torch.int32],
)
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 2)])
def test_round_trip_bit_for_bit(tmp_path, dtype, shape):
    tensor = (torch.arange(12).reshape(3, 4) % 5).to(dtype)
    tensor = tensor if shape == (3, 4) else torch.ones(shape).to(dtype)
    Cache(tmp_path, LARGE).put("ab12", {"x": tensor})
    got = Cache(tmp_path, LARGE).get("ab12")["x"]
    assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(got, tensor)


def test_views_of_one_storage(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    Cache(tmp_path, LARGE).put("ab", {"rows": whole[:2], "turned": whole.T, "whole": whole})
    got = Cache(tmp_path, LARGE).get("ab")
    assert torch.equal(got["turned"], whole.T)
    assert torch.equal(got["rows"], whole[:2])


def test_files_are_plain_safetensors_in_shards(tmp_path):
    cache = Cache(tmp_path, LARGE)
    cache.put(key(1), entry(1))
    path = tmp_path / key(1)[:2] / f"{key(1)}.safetensors"
    assert torch.equal(load_file(path)["mean"], entry(1)["mean"])
    assert cache.size_bytes() == path.stat().st_size


def test_key_depends_on_every_part():
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("b", "a", "c")]
    assert len({cache_key(*part) for part in parts}) == len(parts)


def test_missing(tmp_path):
    cache = Cache(tmp_path / "not there yet", LARGE)
    assert not cache.has("abc")
    assert cache.size_bytes() == 0
    assert cache.prune(0) == 0
    with pytest.raises(DataError, match="is gone"):
        cache.get("abc")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\0" * len(data),
        lambda data: b"\xff" * len(data),
        lambda data: data[:8] + b"{}" + b" " * (int.from_bytes(data[:8], "little") - 2) + data[8:],
    ],
    ids=["empty", "stub", "header cut", "one byte short", "one too many", "zeros", "ones", "other header"],
)
def test_a_torn_entry_counts_as_missing_and_is_deleted(tmp_path, damage):
    cache = Cache(tmp_path, LARGE)
    cache.put(key(1), entry(1))
    path = cache._path(key(1))
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert not cache.has(key(1))
    assert not path.exists()
    path.write_bytes(damage(whole))
    with pytest.raises(DataError, match="damaged"):
        cache.get(key(1))
    assert not path.exists()
    cache.put(key(1), entry(1))
    assert torch.equal(cache.get(key(1))["mean"], entry(1)["mean"])


def test_a_flipped_bit_is_found_on_reading(tmp_path):
    cache = Cache(tmp_path, LARGE)
    cache.put(key(1), entry(1))
    path = cache._path(key(1))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        cache.get(key(1))
    assert not cache.has(key(1))


def test_foreign_safetensors_without_checksums_is_not_trusted(tmp_path):
    from safetensors.torch import save_file

    cache = Cache(tmp_path, LARGE)
    path = cache._path(key(1))
    path.parent.mkdir(parents=True)
    save_file(entry(1), path)
    with pytest.raises(DataError, match="damaged"):
        cache.get(key(1))


def test_prune_takes_the_least_recently_used(tmp_path):
    cache = Cache(tmp_path, LARGE)
    for number in range(6):
        cache.put(key(number), entry(number))
        age(cache, number, seconds=1000 - number)
    cache.get(key(0))  # now the latest
    one = cache.size_bytes() // 6
    freed = cache.prune(3 * one, keep=[key(1)])
    assert freed == 3 * one
    assert [number for number in range(6) if cache.has(key(number))] == [0, 1, 5]


def test_put_evicts_what_others_left(tmp_path):
    old = Cache(tmp_path, LARGE)
    for number in range(4):
        old.put(key(number), entry(number))
        age(old, number, seconds=1000 - number)
    limit = old.size_bytes()
    cache = Cache(tmp_path, limit)
    assert cache.has(key(0))  # wanted by this run: stays, though it is the oldest
    cache.put(key(9), entry(9))
    assert cache.size_bytes() <= limit
    assert cache.has(key(0))
    assert cache.has(key(9))
    assert not Cache(tmp_path, limit).has(key(1))


def test_a_run_that_needs_more_than_the_limit_is_told(tmp_path):
    probe = Cache(tmp_path / "probe", LARGE)
    probe.put(key(0), entry(0))
    cache = Cache(tmp_path / "c", int(probe.size_bytes() * 2.5))
    cache.put(key(0), entry(0))
    cache.put(key(1), entry(1))
    with pytest.raises(DiskFull, match="cache_limit_bytes"):
        cache.put(key(2), entry(2))
    assert cache.has(key(0))
    assert cache.has(key(1))


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    cache = Cache(tmp_path, LARGE)
    cache.put(key(1), entry(1))
    write = Path.write_bytes

    def fails(path: Path, data: bytes) -> int:
        write(path, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(DiskFull, match="no room"):
        cache.put(key(2), entry(2))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{key(1)}.safetensors"]


def test_orphans_of_killed_processes_go_after_an_hour(tmp_path):
    cache = Cache(tmp_path, LARGE)
    cache.put(key(1), entry(1))
    shard = cache._path(key(1)).parent
    old, fresh = shard / "x.1.aa.part", shard / "y.2.bb.part"
    for path in (old, fresh):
        path.write_bytes(b"half")
    then = cache._path(key(1)).stat().st_mtime - 7200
    os.utime(old, (then, then))
    assert cache.prune(LARGE) == 4
    assert (old.exists(), fresh.exists(), cache.has(key(1))) == (False, True, True)


WRITER = """
import sys, torch
from pathlib import Path
from tunesmith.data.cache import Cache, cache_key
folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = Cache(folder, 1 << 30)
for number in range(first, last):
    key = cache_key(f"input{number}", "encoder", "variant")
    if not cache.has(key):
        cache.put(key, {"mean": torch.arange(20_000, dtype=torch.float32) + number})
    print(number, flush=True)
"""


def writer(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [3, 17])
def test_kill_nine_leaves_whole_entries_and_goes_on(tmp_path, after):
    child = writer(tmp_path, 0, 100_000)
    assert child.stdout is not None
    for _ in range(after):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    printed = after + len([line for line in child.stdout.read().split("\n") if line])
    child.wait()
    cache = Cache(tmp_path, LARGE)
    done = [number for number in range(printed + 2) if cache.has(key(number))]
    assert len(done) >= printed - 1
    assert done == list(range(len(done)))
    for number in done:
        assert torch.equal(cache.get(key(number))["mean"], entry(number, 20_000)["mean"])
    again = writer(tmp_path, 0, len(done) + 5)
    assert again.communicate()[0].count("\n") == len(done) + 5
    assert cache.has(key(len(done) + 4))


def test_two_processes_at_once(tmp_path):
    children = [writer(tmp_path, 0, 60), writer(tmp_path, 0, 60)]
    deadline = time.monotonic() + 120
    cache = Cache(tmp_path, LARGE)
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        cache.prune(10 * 80_000)  # meanwhile a third one evicts
    for child in children:
        child.communicate()
        assert child.returncode == 0
    for number in range(60):
        if cache.has(key(number)):
            assert torch.equal(cache.get(key(number))["mean"], entry(number, 20_000)["mean"])
    assert not list(tmp_path.rglob("*.part"))
