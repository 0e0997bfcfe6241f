"""What the Stable Audio engine can do, and its knobs. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.engines.protocol import EngineFacts, Stage
from tunesmith.engines.stable_audio.architecture import NAMED
from tunesmith.recipe.knobs import knob

LONGEST_SECONDS = 512.0
SAMPLERS = ("dpmpp_2m_sde", "dpmpp_2m", "dpmpp_3m_sde", "heun", "euler", "euler_a")
SAMPLER_NAMES = {"auto": "dpmpp_2m_sde", "dpmpp": "dpmpp_2m", "ddim": "euler"}


@dataclass(frozen=True)
class StableAudioKnobs:
    """Knobs of the engine, section `engine` of a recipe."""

    window_seconds: float | None = knob(
        None, above=0, high=LONGEST_SECONDS, unit="seconds", help="length trained on; None: the base's own window"
    )
    crop: str = knob(
        "random",
        choices=("random", "start"),
        help="what is taken of clips longer than the window: anywhere, or the start",
    )
    whole_seconds: bool = knob(
        True, help="tell start and length in whole seconds, rounded as the base was trained; off for short clips"
    )
    polarity_flip: bool = knob(True, help="turn half of the visits upside down")
    condition_dropout: float = knob(
        0.1, low=0, high=1, help="share of visits without text and seconds, so that guidance works"
    )
    latents: str = knob("redraw", choices=("redraw", "mean"), help="latents drawn anew each visit, or their mean")
    timesteps: str = knob(
        "uniform", choices=("uniform", "logit_normal"), help="how noise levels are drawn over the schedule"
    )
    quiet_dbfs: float = knob(-60.0, low=-120, high=0, unit="dBFS", help="crops that peak lower are drawn again")
    kl_weight: float = knob(1e-4, low=0, high=10, help="stage autoencoder: weight of the pull of latents to N(0, 1)")
    scale_weight: float = knob(
        0.05, low=0, high=10, help="stage autoencoder: weight of the pull of each clip's latents to unit size"
    )
    waveform_weight: float = knob(0.1, low=0, high=100, help="stage autoencoder: weight of the samples' own distance")


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate."""

    prompt: str = knob("", help="what to hear")
    negative: str | None = knob(None, help="what to keep out; None: no condition at all, as in training")
    seed: int = knob(0, low=0, high=2**63 - 1, help="same seed, same sound; sound i of a batch uses seed + i")
    seconds: float = knob(3.0, above=0, high=LONGEST_SECONDS, unit="seconds", help="length")
    steps: int = knob(100, low=1, high=1000, unit="steps", help="denoising steps")
    guidance: float = knob(7.0, low=0, high=100, help="how strongly the prompt is followed; 1 or less: no guidance")
    sampler: str = knob("dpmpp_2m_sde", choices=SAMPLERS, help="the sampler")
    window_seconds: float | None = knob(
        None,
        above=0,
        high=LONGEST_SECONDS,
        unit="seconds",
        help="length that is denoised before cutting; None: the seconds asked. Bases saw only their full window",
    )
    count: int = knob(1, low=1, high=64, help="how many sounds")


PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}

FACTS = EngineFacts(
    name="stable_audio",
    title="Stable Audio Open (sound effects)",
    media=("audio",),
    optional_media=(),
    text=("caption",),
    stages=(
        Stage("denoiser", ("denoiser", "projection", "text_encoder"), ("denoiser",), adapted=("denoiser",)),
        Stage("autoencoder", ("autoencoder",), ("autoencoder",), methods=("full", "scratch")),
    ),
    section=StableAudioKnobs,
    request=GenerationRequest,
    base_layouts=("diffusers", "original"),
    minimum_items=1,
    advised_items=(50, 200),
    licence="Stability AI Community License",
    architectures=NAMED,
    presets=PRESETS,
)
