"""Hashes against hashlib and the safetensors library; the cache against the clock."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from tunesmith.weights.hashes import HashCache, kohya_legacy_hash, sha256_of, sshs_legacy_hash, tensor_hash

WINDOW = slice(0x100000, 0x110000)


def test_sha256_is_cached_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "m.bin", tmp_path / "cache" / "hashes.json"
    path.write_bytes(b"one")
    assert sha256_of(path, cache) == hashlib.sha256(b"one").hexdigest()
    facts = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # same size, same time: taken from the cache
    assert sha256_of(path, cache) == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert sha256_of(path, cache) == hashlib.sha256(b"two").hexdigest()
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', ""])
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, text: str) -> None:
    path, cache = tmp_path / "m.bin", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    cache.write_text(text)
    assert sha256_of(path, cache) == hashlib.sha256(b"one").hexdigest()
    assert len(json.loads(cache.read_text())) >= 1


def test_two_writers_keep_each_others_entries(tmp_path: Path) -> None:
    file = tmp_path / "hashes.json"
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    one, two = HashCache(file), HashCache(file)
    one.get(tmp_path / "a")
    two.get(tmp_path / "b")
    one.save()
    two.save()
    assert len(json.loads(file.read_text())) == 2


def test_progress_counts_bytes(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\0" * 10_000_000)
    seen: list[int] = []
    HashCache(None).get(tmp_path / "m", seen.append)
    assert seen[-1] == 10_000_000
    assert seen == sorted(seen)


def test_the_hash_of_tensors_is_that_of_the_bytes_after_the_header(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(5, dtype=torch.float32)}, path, {"x": "y"})
    data = torch.arange(5, dtype=torch.float32).numpy().tobytes()
    assert tensor_hash(path) == hashlib.sha256(data).hexdigest()


def test_the_legacy_hash_is_64_kib_at_1_mib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "m").write_bytes(content)
    assert kohya_legacy_hash(tmp_path / "m") == hashlib.sha256(content[WINDOW]).hexdigest()[:8]


@pytest.mark.parametrize("count", [1000, 400_000])
def test_the_legacy_hash_of_a_lora_is_of_a_serialisation_with_ss_metadata_only(tmp_path: Path, count: int) -> None:
    tensors = {
        "a.alpha": torch.tensor(8.0).half(),
        "a.lora_up.weight": torch.arange(count, dtype=torch.float32),
        "b.lora_up.weight": torch.arange(count, dtype=torch.float16).reshape(2, -1),
    }
    path = tmp_path / "m.safetensors"
    save_file(tensors, path, {"ss_seed": "1", "modelspec.title": "Käfer", "format": "pt"})
    expected = hashlib.sha256(save(tensors, {"ss_seed": "1"})[WINDOW]).hexdigest()[:8]
    assert sshs_legacy_hash(path) == expected
