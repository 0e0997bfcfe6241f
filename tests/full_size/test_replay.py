"""The recorded run of sd-scripts on the full-size SD 1.5 that a formula fills: minutes and about 5 GB of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.exchange.replay import replay

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
LOSS_TOLERANCE = 1e-5  # fp32 kernels add in another order on another machine; one step wrong shows at 1e-3
WEIGHT_TOLERANCE = 1e-3  # six AdamW steps magnify the rounding of gradients near zero


@pytest.mark.long
def test_six_steps_of_sd_scripts_on_the_full_size_base(full_size_base: Path) -> None:
    result = replay(FIXTURES / "sd15_lora_run.safetensors", full_size_base)
    assert len(result.losses) == 6
    assert result.notes == ()
    assert result.rates[0] == pytest.approx({"denoiser": 1e-3, "text_encoder": 5e-4})
    assert len(result.weights) == 264
    differences = [abs(a - b) for a, b in zip(result.losses, result.recorded_losses, strict=True) if b is not None]
    assert max(differences) <= LOSS_TOLERANCE, differences
    assert result.weights_total is not None
    assert result.weights_total <= WEIGHT_TOLERANCE
    assert max(result.weights.values()) <= WEIGHT_TOLERANCE, max(result.weights.items(), key=lambda pair: pair[1])
