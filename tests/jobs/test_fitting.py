from __future__ import annotations

from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Machine
from tunesmith.jobs.fitting import fit_presets

MACHINE = Machine("cpu", 24 << 30, 2, True, {"fp32": 5e10, "bf16": 2e11}, {"fp32": 5e10, "bf16": 2e11})


def test_every_preset_is_forecast_on_the_full_size_base() -> None:
    fits = {fit.preset: fit for fit in fit_presets("stable_diffusion", MACHINE, limit_bytes=6 << 30)}
    assert set(fits) == set(engine_named("stable_diffusion").facts.presets)
    assert fits["character"].fits
    assert not fits["concepts"].fits
    assert fits["concepts"].peak_bytes > fits["character"].peak_bytes > 2 << 30
    for fit in fits.values():
        assert fit.minutes is not None
        assert 0 < fit.minutes[0] < fit.minutes[1]
