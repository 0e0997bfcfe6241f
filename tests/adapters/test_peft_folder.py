"""PEFT folders: peft itself loads ours, and we read what peft saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key

from small_net import SPOTS, Spot, Tables, make_adapter, make_net, picture
from tunesmith.adapters.adapter import Adapter
from tunesmith.adapters.attach import attach_adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.adapters.peft_folder import alpha_of
from tunesmith.errors import AdapterError

# Canonical names equal to the live ones, as in a denoiser of today.
LIVE = {"body": tuple(spot.live for spot in SPOTS), "words": ()}
LIVE_SPOTS = tuple(Spot("body", spot.live, spot.live, spot.kind) for spot in SPOTS)


def live_adapter(dora: bool) -> Adapter:
    """An adapter under live names."""
    names = {spot.canonical: spot.live for spot in SPOTS}
    return Adapter(
        {("body", names[name]): pair for (_, name), pair in make_adapter(make_net(), dora=dora).layers.items()}
    )


@pytest.mark.parametrize("dora", [False, True])
def test_stock_peft_loads_our_folder(tmp_path: Path, dora: bool) -> None:
    adapter = live_adapter(dora)
    write_adapter(tmp_path / "a", adapter, Tables(), LIVE, "peft", "fp32", {})
    ours = make_net()
    attach_adapter({"body": ours}, LIVE_SPOTS, adapter, "ours")
    theirs = PeftModel.from_pretrained(make_net(), tmp_path / "a").eval()
    torch.testing.assert_close(theirs(picture()), ours(picture()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dora", [False, True])
def test_we_read_what_stock_peft_saves(tmp_path: Path, dora: bool) -> None:
    config = LoraConfig(
        r=2, lora_alpha=5, target_modules=["conv", "point", "line"], use_dora=dora, init_lora_weights=False,
        rank_pattern={"point": 3}, alpha_pattern={r"^conv": 1},
    )  # fmt: skip
    theirs = get_peft_model(make_net(), config).eval()
    theirs.save_pretrained(tmp_path / "a")
    adapter = read_adapter(tmp_path / "a", Tables(), LIVE)
    assert {name: (pair.rank, pair.alpha) for (_, name), pair in adapter.layers.items()} == {
        "conv": (2, 1.0),
        "point": (3, 5.0),
        "line": (2, 5.0),
    }
    ours = make_net()
    attach_adapter({"body": ours}, LIVE_SPOTS, adapter, "ours")
    torch.testing.assert_close(theirs(picture()), ours(picture()), rtol=1e-6, atol=1e-6)


def test_several_components_have_a_folder_each(tmp_path: Path) -> None:
    base = {"body": tuple(spot.canonical for spot in SPOTS), "words": ("text.layer",)}
    adapter = make_adapter(make_net(), words=True)
    write_adapter(tmp_path / "a", adapter, Tables(), base, "peft", "fp32", {"note": "x"})
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["text_encoder", "unet"]
    back = read_adapter(tmp_path / "a", Tables(), base)
    assert set(back.layers) == set(adapter.layers)
    assert back.metadata["note"] == "x"


def test_one_name_in_two_components_is_told_apart_by_what_the_file_says(tmp_path: Path) -> None:
    both = {"body": ("shared",), "words": ("shared",)}
    pair = next(iter(make_adapter(make_net()).layers.values()))
    write_adapter(tmp_path / "a", Adapter({("words", "shared"): pair}), Tables(), both, "peft", "fp32", {})
    assert set(read_adapter(tmp_path / "a", Tables(), both).layers) == {("words", "shared")}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_rslora": True}, "use_rslora"),
        ({"bias": "all"}, "bias"),
        ({"use_dora": True}, "disagree on DoRA"),
        ({"lora_alpha": "x"}, "alpha of conv is 'x'"),
        ({"lora_alpha": 0}, "alpha of conv is 0"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "is an expression"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        (None, "not JSON"),
    ],
)
def test_configurations_we_would_get_wrong_are_refused(
    tmp_path: Path, change: dict[str, object] | None, says: str
) -> None:
    write_adapter(tmp_path / "a", live_adapter(False), Tables(), LIVE, "peft", "fp32", {})
    file = tmp_path / "a" / "adapter_config.json"
    config = {**json.loads(file.read_text()), "alpha_pattern": {}}
    file.write_text("{" if change is None else json.dumps({**config, **change}))
    with pytest.raises(AdapterError, match=says):
        read_adapter(tmp_path / "a", Tables(), LIVE)


@pytest.mark.parametrize("name", ["a.conv", "conv", "b.a.conv", "xconv", "a.linear", "conv.1"])
@pytest.mark.parametrize(
    "pattern", [{}, {"conv": 1}, {"^conv": 2}, {"a.conv": 3, "conv": 4}, {r"^a\.conv": 5, "conv": 6}]
)
def test_alphas_are_chosen_as_peft_chooses_them(name: str, pattern: dict[str, float]) -> None:
    assert alpha_of(name, pattern, 9) == pattern.get(get_pattern_key(list(pattern), name), 9)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no adapter_config\.json"):
        read_adapter(tmp_path, Tables(), LIVE)
    write_adapter(tmp_path / "a", live_adapter(False), Tables(), LIVE, "peft", "fp32", {})
    with pytest.raises(AdapterError, match=r"'conv' in .* names no layer"):
        read_adapter(tmp_path / "a", Tables(), {"body": ("other",)})
