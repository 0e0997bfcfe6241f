"""What the Stable Diffusion engine can do, and its knobs. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.engines.protocol import EngineFacts, Stage
from tunesmith.engines.stable_diffusion.architecture import NAMED
from tunesmith.errors import RecipeError
from tunesmith.recipe.knobs import knob

TOKEN_LIMITS = (75, 150, 225)
SCHEDULERS = ("dpmpp_2m", "ddim", "euler", "euler_a", "unipc", "pndm")


@dataclass(frozen=True)
class StableDiffusionKnobs:
    """Knobs of the engine, section `engine` of a recipe."""

    resolution: int = knob(512, low=16, high=4096, unit="pixels", help="side of the square pictures are fitted to")
    width: int | None = knob(None, low=16, high=4096, unit="pixels", help="width; None: the resolution")
    height: int | None = knob(None, low=16, high=4096, unit="pixels", help="height; None: the resolution")
    buckets: bool = knob(False, help="keep proportions: sort pictures into sizes of about equal area")
    bucket_low: int = knob(256, low=16, high=4096, unit="pixels", help="shortest side of a bucket")
    bucket_high: int = knob(1024, low=16, high=4096, unit="pixels", help="longest side of a bucket")
    bucket_step: int = knob(64, low=8, high=512, unit="pixels", help="bucket sides are multiples of this")
    bucket_no_upscale: bool = knob(False, help="never enlarge a picture; its bucket is its own size, rounded down")
    flip: bool = knob(False, help="mirror half of the visits")
    background: str = knob("white", help="colour behind transparent pixels: a name or #rrggbb")
    mask: str = knob("none", choices=("none", "alpha", "file"), help="weight the loss by the picture's alpha or mask")
    mask_floor: float = knob(0.0, low=0, high=1, help="weight where the mask is black")
    latents: str = knob(
        "redraw", choices=("redraw", "frozen", "mean"), help="latents drawn anew each visit, drawn once, or their mean"
    )
    tokens: int = knob(75, low=75, high=225, help="longest caption in tokens: 75, 150 or 225")
    clip_skip: int = knob(1, low=1, high=12, help="text states taken from this layer, counted from the last")
    prediction: str = knob(
        "auto", choices=("auto", "epsilon", "velocity"), help="what the denoiser predicts; auto: what the base says"
    )
    min_snr_gamma: float | None = knob(None, above=0, high=100, help="weight steps by min(SNR, this) / SNR; None: off")
    noise_offset: float = knob(0.0, low=0, high=1, help="strength of a noise constant over each channel")
    kl_weight: float = knob(1e-4, low=0, high=10, help="stage autoencoder: weight of the pull of latents to N(0, 1)")
    scale_weight: float = knob(
        0.05, low=0, high=10, help="stage autoencoder: weight of the pull of each picture's latents to unit size"
    )
    edge_weight: float = knob(0.5, low=0, high=10, help="stage autoencoder: weight of the loss on edges")
    reconstruction: str = knob("l1", choices=("l1", "l2"), help="stage autoencoder: distance between pictures")

    def __post_init__(self) -> None:
        if self.tokens not in TOKEN_LIMITS:
            raise RecipeError(f"engine.tokens is {self.tokens}", expected="75, 150 or 225")
        if self.buckets and self.bucket_low > self.bucket_high:
            raise RecipeError(
                f"engine.bucket_low is {self.bucket_low}", expected=f"at most bucket_high, {self.bucket_high}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) pictures are fitted to when there are no buckets."""
        return self.width or self.resolution, self.height or self.resolution


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate."""

    prompt: str = knob("", help="what to draw")
    negative: str = knob("", help="what to keep out")
    seed: int = knob(0, low=0, high=2**63 - 1, help="same seed, same picture; picture i of a batch uses seed + i")
    steps: int = knob(25, low=1, high=1000, unit="steps", help="denoising steps")
    guidance: float = knob(7.5, low=0, high=100, help="how strongly the prompt is followed; 1 or less: no guidance")
    scheduler: str = knob("dpmpp_2m", choices=SCHEDULERS, help="the sampler")
    width: int | None = knob(None, low=16, high=4096, unit="pixels", help="width; None: the base's own size")
    height: int | None = knob(None, low=16, high=4096, unit="pixels", help="height; None: the base's own size")
    count: int = knob(1, low=1, high=64, help="how many pictures")
    clip_skip: int = knob(1, low=1, high=12, help="text states taken from this layer, counted from the last")
    prediction: str = knob(
        "auto", choices=("auto", "epsilon", "velocity"), help="what the denoiser predicts; auto: what the base says"
    )


PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}

FACTS = EngineFacts(
    name="stable_diffusion",
    title="Stable Diffusion 1.x (pictures)",
    media=("image",),
    optional_media=("mask",),
    text=("caption",),
    stages=(
        Stage("denoiser", ("denoiser", "text_encoder"), ("denoiser",)),
        Stage("autoencoder", ("autoencoder",), ("autoencoder",), methods=("full", "scratch")),
    ),
    section=StableDiffusionKnobs,
    request=GenerationRequest,
    base_layouts=("single_file", "diffusers"),
    minimum_items=1,
    advised_items=(15, 40),
    licence="CreativeML Open RAIL-M",
    architectures=NAMED,
    presets=PRESETS,
)
