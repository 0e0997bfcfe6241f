"""Adapter files in each layout: there and back, exactly, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from small_net import BASE, Tables, make_adapter, make_net
from tunesmith.adapters.adapter import Adapter, Pair, delta
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.errors import AdapterError, DiskFull, TunesmithError
from tunesmith.weights import atomic
from tunesmith.weights.header import read_header

LAYOUTS = ("kohya", "diffusers", "peft")


def name_in(layout: str, folder: Path) -> Path:
    """A path for a file or folder of a layout."""
    return folder / ("adapter" if layout == "peft" else "adapter.safetensors")


def assert_same(one: Adapter, other: Adapter, *, exact: bool = True) -> None:
    """The same layers; factors equal bit for bit, or by what they add."""
    assert set(one.layers) == set(other.layers)
    for layer, pair in one.layers.items():
        back = other.layers[layer]
        if exact:
            assert back.alpha == pair.alpha
            assert all(torch.equal(a, b) for a, b in zip(pair.tensors, back.tensors, strict=True))
        elif pair.magnitude is None:
            torch.testing.assert_close(delta(back), delta(pair), rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(pair.magnitude, back.magnitude)
            torch.testing.assert_close(back.up * back.scale, pair.up * pair.scale)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_there_and_back(tmp_path: Path, layout: str, literal: bool, words: bool, dora: bool) -> None:
    adapter = make_adapter(make_net(), words=words, dora=dora)
    tables, path = Tables(literal_peft=literal), name_in(layout, tmp_path)
    if layout == "kohya" and dora:
        with pytest.raises(AdapterError, match=r"no DoRA.*diffusers or peft"):
            write_adapter(path, adapter, tables, BASE, layout, "fp32", {})
        assert list(tmp_path.iterdir()) == []
        return
    write_adapter(path, adapter, tables, BASE, layout, "fp32", {})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert_same(adapter, read_adapter(path, tables, BASE), exact=layout == "peft")


def test_kohya_files_have_one_alpha_for_each_kind_of_layer(tmp_path: Path) -> None:
    adapter = make_adapter(make_net(), words=True)
    write_adapter(tmp_path / "a.safetensors", adapter, Tables(), BASE, "kohya", "fp32", {})
    back = read_adapter(tmp_path / "a.safetensors", Tables(), BASE)
    assert {name: pair.alpha for (_, name), pair in back.layers.items()} == {
        "old.conv": 1.5,
        "old.line": 1.5,
        "old.point": 3.5,
        "old.linear": 3.5,
        "text.layer": 3.5,
    }
    even = Adapter({layer: Pair(pair.down, pair.up, 2.0) for layer, pair in adapter.layers.items()})
    write_adapter(tmp_path / "b.safetensors", even, Tables(), BASE, "kohya", "fp32", {})
    assert_same(even, read_adapter(tmp_path / "b.safetensors", Tables(), BASE))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_the_dtype_is_the_one_asked_for(tmp_path: Path, layout: str, dtype: str, torch_dtype: torch.dtype) -> None:
    adapter = make_adapter(make_net())
    write_adapter(name_in(layout, tmp_path), adapter, Tables(), BASE, layout, dtype, {})
    for layer, pair in read_adapter(name_in(layout, tmp_path), Tables(), BASE).layers.items():
        assert torch.equal(pair.down, adapter.layers[layer].down.to(torch_dtype))


def test_kohya_keys_alphas_and_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, make_adapter(make_net()), Tables(), BASE, "kohya", "fp16", {"ss_seed": 7, "ss_v2": "False"})
    tensors, header = load_file(path), read_header(path)
    stems = [f"lora_unet_old_{name}" for name in ("conv", "point", "linear", "line")]
    assert set(tensors) == {f"{s}.{end}" for s in stems for end in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert tensors["lora_unet_old_conv.alpha"].shape == ()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    metadata = dict(header.metadata)
    bare = {key: text for key, text in metadata.items() if key.startswith("ss_")}
    data = path.read_bytes()
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[header.data_start :]).hexdigest()
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(save(tensors, bare)[0x100000:0x110000]).hexdigest()[:8]
    assert metadata["ss_base_model_version"] == "net_v1"
    assert metadata["ss_seed"] == "7"
    assert metadata["ss_network_module"] == "networks.lora"
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "1.5"}
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "3.5")


def test_a_missing_alpha_means_the_rank(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stem = "lora_unet_old_linear"
    save_file({f"{stem}.lora_down.weight": torch.ones(3, 4), f"{stem}.lora_up.weight": torch.ones(5, 3)}, path)
    assert read_adapter(path, Tables(), BASE).layers["body", "old.linear"].alpha == 3.0


def test_diffusers_own_statement_of_alpha_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {
        "unet.old.linear.lora_A.weight": torch.ones(3, 4),
        "unet.old.linear.lora_B.weight": torch.ones(5, 3),
        "unet.old.point.lora_A.weight": torch.ones(2, 6, 1, 1),
        "unet.old.point.lora_B.weight": torch.ones(4, 2, 1, 1),
    }
    stated = {"unet.r": 3, "unet.lora_alpha": 6, "unet.alpha_pattern": {"old.point": 1}}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(stated)})
    layers = read_adapter(path, Tables(), BASE).layers
    assert (layers["body", "old.linear"].alpha, layers["body", "old.point"].alpha) == (6.0, 1.0)
    for wrong, says in (("{", "not JSON"), (json.dumps({"unet.use_rslora": True}), "use_rslora")):
        save_file(tensors, path, {"lora_adapter_metadata": wrong})
        with pytest.raises(AdapterError, match=says):
            read_adapter(path, Tables(), BASE)


def test_the_alpha_that_a_trainer_of_parametrizations_writes(tmp_path: Path) -> None:
    """Strength alpha / rank, alpha being in the header alone; without one it is 1."""
    path, stem = tmp_path / "a.safetensors", "unet.old.linear.parametrizations.weight.0"
    tensors = {f"{stem}.lora_A": torch.ones(2, 4), f"{stem}.lora_B": torch.ones(5, 2)}
    said = {"rank": 2, "alpha": 8, "adapter_type": "dora-rows", "include": None}
    for metadata, strength in (({"lora_config": json.dumps(said)}, 4.0), ({}, 1.0)):
        save_file(tensors, path, metadata)
        pair = read_adapter(path, Tables(), BASE).layers["body", "old.linear"]
        assert torch.equal(delta(pair), torch.full((5, 4), 2 * strength))
    for wrong, says in (
        ("{", "lora_config that is not JSON"),
        (json.dumps({**said, "adapter_type": "dora-cols"}), "kind 'dora-cols'"),
        (json.dumps({**said, "alpha": "8"}), "alpha of .* is '8'"),
    ):
        save_file(tensors, path, {"lora_config": wrong})
        with pytest.raises(AdapterError, match=says):
            read_adapter(path, Tables(), BASE)


GOOD = {"lora_unet_old_linear.lora_down.weight": (2, 4), "lora_unet_old_linear.lora_up.weight": (5, 2)}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"lora_unet_old_conv.hada_w1_a": (2, 2), "lora_unet_old_conv.hada_w1_b": (2, 2)}, r"2 tensors .*LoHa"),
        ({"lora_unet_old_conv.lokr_w1": (2, 2)}, "LoKr"),
        ({"lora_unet_old_conv.lora_mid.weight": (2, 2, 3, 3)}, "Tucker"),
        ({"lora_unet_old_conv.dora_scale": (2, 1)}, "disagree on the axis"),
        ({"lora_unet_old_conv.diff": (2, 1)}, "full weight differences"),
        ({"something": (1,)}, r"1 tensors that no LoRA has, such as 'something'"),
        ({"lora_unet_old_conv.lora_down.weight": (2, 3, 3, 3)}, r"lacks the lora_up of 'lora_unet_old_conv'"),
        ({"lora_unet_old_conv.lora_up.weight": (6, 2, 1, 1)}, "lacks the lora_down"),
        ({"lora_unet_old_conv.alpha": ()}, "lacks the lora_down"),
        (
            {"lora_unet_new.lora_down.weight": (2, 4), "lora_unet_new.lora_up.weight": (5, 2)},
            r"1 of 2 layers .* 'lora_unet_new'",
        ),
        ({"lora_unet_old_linear.lora_up.weight": (5, 3)}, "disagree"),
        ({"unet.old.conv.lora_A.weight": (2, 3, 3, 3)}, "no layout explains"),
    ],
)
def test_files_that_are_no_lora_of_this_base_are_refused(
    tmp_path: Path, extra: dict[str, tuple[int, ...]], says: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({name: torch.ones(shape) for name, shape in {**GOOD, **extra}.items()}, path)
    with pytest.raises(AdapterError, match=says) as caught:
        read_adapter(path, Tables(), BASE)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_both_ways(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {name: torch.ones(shape) for name, shape in GOOD.items()}
    tensors["lora_unet_old_linear.lora_up.weight"][0, 0] = value
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="NaN or Inf in lora_unet_old_linear"):
        read_adapter(path, Tables(), BASE)
    bad = Adapter({("body", "old.linear"): Pair(torch.ones(2, 4), torch.full((5, 2), value), 2.0)})
    for layout in LAYOUTS:
        with pytest.raises(AdapterError, match="NaN or Inf"):
            write_adapter(tmp_path / "out" / "b.safetensors", bad, Tables(), BASE, layout, "fp32", {})
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_numbers_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    large = Adapter({("body", "old.linear"): Pair(torch.full((2, 4), 1e6), torch.ones(5, 2), 2.0)})
    for layout in LAYOUTS:
        with pytest.raises(AdapterError, match="too large") as caught:
            write_adapter(name_in(layout, tmp_path), large, Tables(), BASE, layout, "fp16", {})
        assert "fp32" in caught.value.do
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("layout", "dtype"), [("lycoris", "fp16"), ("kohya", "fp8")])
def test_unknown_layouts_and_dtypes_are_refused(tmp_path: Path, layout: str, dtype: str) -> None:
    with pytest.raises(AdapterError, match=f"{layout} in {dtype}"):
        write_adapter(tmp_path / "a.safetensors", make_adapter(make_net()), Tables(), BASE, layout, dtype, {})
    with pytest.raises(AdapterError, match="no layers"):
        write_adapter(tmp_path / "a.safetensors", Adapter({}), Tables(), BASE, "kohya", "fp16", {})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = name_in(layout, tmp_path)
    write_adapter(path, make_adapter(make_net()), Tables(), BASE, layout, "fp32", {})
    before = {f.relative_to(path): f.read_bytes() for f in ([path] if path.is_file() else path.rglob("*.*"))}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFull):
        write_adapter(path, make_adapter(make_net()), Tables(), BASE, layout, "fp16", {})
    after = {f.relative_to(path): f.read_bytes() for f in ([path] if path.is_file() else path.rglob("*.*"))}
    assert after == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_path_under_a_file_is_one_clear_error(tmp_path: Path, layout: str) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(TunesmithError, match=r"notes is a file"):
        write_adapter(
            tmp_path / "notes" / "a.safetensors", make_adapter(make_net()), Tables(), BASE, layout, "fp16", {}
        )


def test_a_missing_file_and_a_lone_peft_tensor_file(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="does not exist"):
        read_adapter(tmp_path / "a.safetensors", Tables(), BASE)
    adapter = make_adapter(make_net())
    write_adapter(tmp_path / "peft", adapter, Tables(), BASE, "peft", "fp32", {})
    assert_same(adapter, read_adapter(tmp_path / "peft" / "adapter_model.safetensors", Tables(), BASE))
    (tmp_path / "peft" / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json beside it"):
        read_adapter(tmp_path / "peft" / "adapter_model.safetensors", Tables(), BASE)


def test_a_pickled_lora_is_read_through_the_limited_child(tmp_path: Path) -> None:
    torch.save({name: torch.ones(shape) for name, shape in GOOD.items()}, tmp_path / "a.pt")
    assert read_adapter(tmp_path / "a.pt", Tables(), BASE).rank_of(("body", "old.linear")) == 2
