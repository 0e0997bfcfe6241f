"""Exports: proven by reading back, or not there at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from small_adapters import pictures_adapter
from tunesmith.adapters.adapter import Adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.engines.protocol import Base
from tunesmith.errors import AdapterError, DiskFull, ExchangeError, TunesmithError
from tunesmith.exchange import export
from tunesmith.exchange.export import export_adapter, export_checkpoint
from tunesmith.exchange.merge import merge_adapters
from tunesmith.exchange.settling import check_target
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights import atomic
from tunesmith.weights.hashes import kohya_legacy_hash, sha256_of
from tunesmith.weights.header import read_header
from tunesmith_test_engines.pictures import engine, write_pictures_base


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """An opened base."""
    return engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "base.safetensors"))))


def shelved(home: Path, base: Base, adapter: Adapter) -> tuple[Card, Shelf]:
    """The adapter as a trained checkpoint."""
    folder = home / "made"
    write_adapter(folder, adapter, engine.layouts, base, "peft", "fp32", {})
    card = Card(
        name="qb_peter_lora",
        engine="test_pictures",
        method="lora",
        stage="denoiser",
        step=1200,
        item_count=35,
        concepts={"peter": "qb_peter"},
        licences=("CC0-1.0",),
        created_utc="2026-01-31T12:00:00Z",
        recipe={
            "engine": {"name": "test_pictures", "resolution": 512, "clip_skip": None},
            "optimiser": {"rate": 1e-4, "rates": {"text_encoder": 5e-5}, "name": "adamw", "schedule": "cosine"},
            "length": {"steps": 1200, "seed": 42, "batch_items": 1},
        },
    )
    shelf = Shelf(home)
    return shelf.put(card, folder), shelf


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_a_checkpoint_is_exported_and_proven(tmp_path: Path, base: Base, layout: str, dtype: str) -> None:
    adapter = pictures_adapter(base)
    card, shelf = shelved(tmp_path / "home", base, adapter)
    path = tmp_path / "out" / ("peter" if layout == "peft" else "peter.safetensors")
    done = export_checkpoint(card, shelf, engine=engine, base=base, layout=layout, path=path, dtype=dtype)
    assert done.path == path
    assert done.size_bytes > 0
    assert done.verification.matched == len(adapter.layers)
    assert done.verification.leftover == ()
    assert done.verification.layout == layout
    assert done.verification.largest_difference <= {"fp32": 1e-7, "fp16": 1e-3, "bf16": 1e-2}[dtype]
    names = {path.name, "peter.json"} if layout == "kohya" else {path.name}
    assert {entry.name for entry in path.parent.iterdir()} == names


def test_a_kohya_file_says_how_it_was_made(tmp_path: Path, base: Base) -> None:
    card, shelf = shelved(tmp_path / "home", base, pictures_adapter(base))
    path = tmp_path / "peter.safetensors"
    export_checkpoint(card, shelf, engine=engine, base=base, layout="kohya", path=path, dtype="fp16")
    lines = read_header(path).metadata
    source = tmp_path / "base.safetensors"
    expected = {
        "ss_output_name": "qb_peter_lora",
        "ss_base_model_version": "test_pictures",
        "ss_network_module": "networks.lora",
        "ss_sd_model_name": "base.safetensors",
        "ss_sd_model_hash": kohya_legacy_hash(source),
        "ss_new_sd_model_hash": sha256_of(source),
        "ss_resolution": "(512, 512)",
        "ss_clip_skip": "None",
        "ss_num_train_images": "35",
        "ss_steps": "1200",
        "ss_seed": "42",
        "ss_learning_rate": "0.0001",
        "ss_unet_lr": "0.0001",
        "ss_text_encoder_lr": "5e-05",
        "modelspec.title": "qb_peter_lora",
        "modelspec.resolution": "512x512",
        "modelspec.trigger_phrase": "qb_peter",
        "modelspec.license": "CC0-1.0",
        "modelspec.date": "2026-01-31T12:00:00Z",
    }
    assert {key: lines.get(key) for key in expected} == expected
    assert json.loads(lines["ss_tag_frequency"]) == {"peter": {"qb_peter": 35}}
    assert {"sshs_model_hash", "sshs_legacy_hash"} <= set(lines)
    sidecar = json.loads((tmp_path / "peter.json").read_text())
    assert sidecar["activation text"] == "qb_peter"
    assert sidecar["sd version"] == "Other"


def test_a_name_gets_its_ending_and_another_json_is_left_alone(tmp_path: Path, base: Base) -> None:
    card, shelf = shelved(tmp_path / "home", base, pictures_adapter(base))
    (tmp_path / "peter.v2.json").write_text('{"mine": 1}')
    path = tmp_path / "peter.v2"
    for _ in range(2):
        done = export_checkpoint(card, shelf, engine=engine, base=base, layout="kohya", path=path, dtype="fp16")
        assert done.path == tmp_path / "peter.v2.safetensors"
    assert (tmp_path / "peter.v2.json").read_text() == '{"mine": 1}'


def test_an_export_that_does_not_load_back_is_not_there(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "a.safetensors"
    adapter = pictures_adapter(base)
    export_adapter(adapter, path, engine=engine, base=base, layout="kohya", dtype="fp32")
    before = path.read_bytes()

    def damaging(target: Path, wrong: Adapter, *rest: object) -> None:
        layers = dict(wrong.layers)
        layers.popitem()
        write_adapter(target, Adapter(layers), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "write_adapter", damaging)
    with pytest.raises(ExchangeError, match="1 layers missing"):
        export_adapter(adapter, path, engine=engine, base=base, layout="kohya", dtype="fp32")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    path = tmp_path / "out" / "a.safetensors"
    with pytest.raises(DiskFull):
        export_adapter(pictures_adapter(base), path, engine=engine, base=base, layout="kohya", dtype="fp32")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "layout", "dtype", "says"),
    [
        ("a.safetensors", "single_file", "fp16", "does not export an adapter as single_file"),
        ("a.safetensors", "kohya", "fp8", "in fp8"),
        ("a.ckpt", "kohya", "fp16", "ending in .safetensors"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, base: Base, name: str, layout: str, dtype: str, says: str
) -> None:
    with pytest.raises(ExchangeError, match=says):
        export_adapter(pictures_adapter(base), tmp_path / name, engine=engine, base=base, layout=layout, dtype=dtype)


def test_dora_goes_to_diffusers_and_peft_only(tmp_path: Path, base: Base) -> None:
    adapter = pictures_adapter(base, dora=True)
    with pytest.raises(AdapterError, match="DoRA"):
        export_adapter(adapter, tmp_path / "a.safetensors", engine=engine, base=base, layout="kohya", dtype="fp32")
    for layout, name in (("diffusers", "a.safetensors"), ("peft", "a")):
        done = export_adapter(adapter, tmp_path / name, engine=engine, base=base, layout=layout, dtype="fp32")
        assert done.verification.matched == len(adapter.layers)


def test_other_peoples_files_and_folders_are_not_replaced(tmp_path: Path, base: Base) -> None:
    adapter = pictures_adapter(base)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ExchangeError, match=r"holds cat\.jpg"):
        export_adapter(adapter, folder, engine=engine, base=base, layout="peft", dtype="fp32")
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(ExchangeError, match="is a folder already"):
        export_adapter(adapter, tmp_path / "a.safetensors", engine=engine, base=base, layout="kohya", dtype="fp32")
    (tmp_path / "notes").write_text("mine")
    path = tmp_path / "notes" / "a.safetensors"
    with pytest.raises(TunesmithError, match="notes is a file"):
        export_adapter(adapter, path, engine=engine, base=base, layout="kohya", dtype="fp32")
    assert (folder / "cat.jpg").read_bytes() == b"cat"
    again = tmp_path / "peft"
    for _ in range(2):  # an earlier export of ours is
        export_adapter(adapter, again, engine=engine, base=base, layout="peft", dtype="fp32")
    assert sorted(entry.name for entry in again.iterdir()) == ["denoiser", "text_encoder"]


@pytest.mark.parametrize(("layout", "name"), [("single_file", "model.safetensors"), ("folder", "model")])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_full_weights_are_exported_and_proven(tmp_path: Path, layout: str, name: str, dtype: str) -> None:
    folder = tmp_path / "made"
    write_pictures_base(folder / "model.safetensors", seed=9)
    shelf = Shelf(tmp_path / "home")
    shelf.folder.mkdir(parents=True)
    card = shelf.put(Card(name="new", engine="test_pictures", kind="weights", method="full"), folder)
    trained = engine.open(BaseSection(path=str(weights_path(shelf.path(card)))))
    path = tmp_path / "out" / name
    done = export_checkpoint(card, shelf, engine=engine, base=trained, layout=layout, path=path, dtype=dtype)
    back = engine.open(BaseSection(path=str(done.path)))
    for role in trained.parts:
        given = dict(engine.tensors(trained, role))
        for key, tensor in engine.tensors(back, role):
            wanted = given.pop(key).to({"fp16": torch.float16, "fp32": torch.float32}[dtype])
            assert torch.equal(tensor.to(wanted.dtype), wanted)
        assert not given
    with pytest.raises(ExchangeError, match="full weights as kohya"):
        export_checkpoint(card, shelf, engine=engine, base=trained, layout="kohya", path=path, dtype=dtype)


def test_the_export_equals_what_is_on_the_shelf(tmp_path: Path, base: Base) -> None:
    adapter = pictures_adapter(base)
    card, shelf = shelved(tmp_path / "home", base, adapter)
    path = tmp_path / "a.safetensors"
    export_checkpoint(card, shelf, engine=engine, base=base, layout="kohya", path=path, dtype="fp32")
    tensors = load_file(path)
    for (component, layer), pair in read_adapter(shelf.path(card), engine.layouts, base).layers.items():
        stem = engine.layouts.adapter_stem("kohya", component, layer)
        assert torch.equal(tensors[f"{stem}.lora_down.weight"], pair.down)
        up, alpha = tensors[f"{stem}.lora_up.weight"], float(tensors[f"{stem}.alpha"])
        torch.testing.assert_close(up * alpha, pair.up * pair.alpha)


def test_a_base_is_never_written_over(tmp_path: Path, base: Base) -> None:
    before = sha256_of(tmp_path / "base.safetensors", None)
    with pytest.raises(ExchangeError, match="belongs to the base"):
        export_adapter(
            pictures_adapter(base),
            tmp_path / "base.safetensors",
            engine=engine,
            base=base,
            layout="kohya",
            dtype="fp32",
        )
    with pytest.raises(ExchangeError, match="belongs to the base"):
        merge_adapters(
            engine,
            base,
            adapters=[(pictures_adapter(base), 1.0)],
            path=tmp_path / "base.safetensors",
            layout=engine.layouts.weight_layouts[0],
            dtype="fp32",
        )
    assert sha256_of(tmp_path / "base.safetensors", None) == before


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path, base: Base) -> None:
    there = tmp_path / "peter.safetensors"
    there.write_text("mine")
    with pytest.raises(ExchangeError, match="is there already"):
        check_target(there, base, replace=False)
    check_target(there, base, replace=True)
