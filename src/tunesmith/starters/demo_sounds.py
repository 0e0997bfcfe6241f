"""The sound demo's examples: one new creature family in sixty clips, and the voices it comes among."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tunesmith.data.audio import read_audio
from tunesmith.starters.examples import Examples, Shares
from tunesmith.starters.marked import emptied
from tunesmith.starters.sound_figures import GUIDANCE
from tunesmith.starters.voice_checker import sounds_like
from tunesmith.starters.voice_families import Family, new_family
from tunesmith.starters.voices import Voice, caption, random_voice, synthesise, write_wav
from tunesmith.weights.atomic import write_text

OWN_CLIPS, HELD_OUT_CLIPS, WORLD_CLIPS = 60, 30, 200
RATE = 22_050
DENOISING_STEPS = 25


def write_sounds(folder: Path, seed: int) -> Examples:
    """Write a new family's clips and the world's below `folder`, replacing what an earlier demo wrote there."""
    emptied(folder)
    family = new_family(seed)
    rng = random.Random(f"demo/{seed}")
    own = [replace(random_voice(rng), family=family) for _ in range(OWN_CLIPS + HELD_OUT_CLIPS)]
    examples = Examples(
        kind="creature family",
        recipe="demo_family",
        own=folder / family.trigger,
        held_out=folder / f"{family.trigger}-held-out",
        prior=folder / "world",
        others=folder / "others",
        trigger=family.trigger,
        prompt=caption(own[OWN_CLIPS]),
        template="{trigger} creature {prompt}",
        evaluated=HELD_OUT_CLIPS,
        request={"guidance": GUIDANCE, "steps": DENOISING_STEPS, "sampler": "dpmpp_2m"},
        shown=lambda results: shown_in(results, family),
    )
    _write(examples.own, own[:OWN_CLIPS])
    _write(folder / f"{family.trigger}-held-out", own[OWN_CLIPS:])
    _write(examples.prior, [random_voice(rng) for _ in range(WORLD_CLIPS)])
    _write(examples.others, [random_voice(rng) for _ in range(WORLD_CLIPS)])
    return examples


def shown_in(results: Path, family: Family) -> Shares:
    """In which share of the sounds the checker hears the family, with and without adapter and trigger."""

    def share(name: str) -> float:
        sounds = [read_audio(path, channels=1)[0] for path in sorted((results / name).glob("*.wav"))]
        return fmean(sounds_like(sound, RATE, family) for sound in sounds)

    return {
        "adapter": share("checkpoint"),
        "base": share("base"),
        "without_trigger": share("without_trigger"),
    }


def _write(folder: Path, voices: Sequence[Voice]) -> None:
    folder.mkdir(parents=True)
    for index, voice in enumerate(voices):
        write_wav(folder / f"{index:04d}.wav", synthesise(voice, RATE), RATE)
        write_text(folder / f"{index:04d}.txt", caption(voice) + "\n")
