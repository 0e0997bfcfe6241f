"""Adapters described from their headers, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from small_net import BASE, Tables, make_adapter, make_net
from tunesmith.adapters.describe import describe_adapter
from tunesmith.adapters.files import write_adapter
from tunesmith.errors import AdapterError


@pytest.mark.parametrize(("layout", "tensors"), [("kohya", 15), ("diffusers", 10), ("peft", 10)])
def test_counts_ranks_and_layout(tmp_path: Path, layout: str, tensors: int) -> None:
    adapter = make_adapter(make_net(), words=True)
    path = tmp_path / ("a" if layout == "peft" else "a.safetensors")
    write_adapter(path, adapter, Tables(), BASE, layout, "fp16", {"ss_seed": "3"})
    found = describe_adapter(path)
    assert found["layout"] == layout
    assert (found["modules"], found["tensors"]) == (5, tensors)
    assert found["ranks"] == {2: 1, 3: 2, 4: 1, 5: 1}
    assert found["dtypes"] == ["F16"]
    assert found["metadata"]["ss_seed"] == "3"
    assert found["parameters"] == adapter.parameters + (5 if layout == "kohya" else 0)


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"model\.weight"):
        describe_adapter(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="no tensors"):
        describe_adapter(tmp_path)


def test_no_torch_is_needed() -> None:
    code = "import sys; sys.modules['torch'] = None; import tunesmith.adapters.describe"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
