"""`tunesmith starter build`: a starter from nothing, by the recipes of this package.

Everything lies under a work folder: the example data, the jobs with their states, the catalog. Run again after a stop
it goes on where it was.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.engines.index import engine_named
from tunesmith.engines.stable_diffusion.vocabulary import learn_tokenizer
from tunesmith.errors import RecipeError
from tunesmith.jobs.journal import read_events
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.figures import PROMPTS, UNSEEN_PICTURES, measure_image_starter
from tunesmith.starters.monsters import write_dataset
from tunesmith.starters.running import RECIPES, Done, RunJob, run_inline, run_recipe, shipped_recipe
from tunesmith.starters.textures import random_texture
from tunesmith.weights.atomic import write_json
from tunesmith.weights.starter import CARD

DATA_SEED = 0
WORLD_PICTURES, TEXTURES, TOKENS = 20_000, 12_000, 896
ARCHITECTURE = RECIPES / "image.json"


def build_starter(
    engine: str,
    work: Path,
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    run_job: RunJob = run_inline,
    share: float = 1.0,
) -> Path:
    """Build the starter of `engine` into the folder `out`, everything else under `work`; returns `out`.

    `share` shortens data and training alike, to try the machinery. Raises TunesmithError; what is done stays done.
    """
    if engine != "stable_diffusion":
        raise RecipeError(f"no starter is known for {engine!r}", expected="stable_diffusion")
    work, home = work.absolute(), work.absolute() / "home"
    say("1/4  example data and tokenizer")
    world, textures, tokenizer = _write_data(work / "data", share)
    common = {"base.architecture": ARCHITECTURE, "length.seed": DATA_SEED}
    say("2/4  the autoencoder")
    paths = {"data.paths": [world, textures], "base.parts": {"tokenizer": tokenizer}}
    begun = _stage("image_autoencoder", {**common, **paths}, home, run_job=run_job, share=share)
    sharpen = {"data.paths": [world, textures], "length.seed": DATA_SEED, "base.path": begun.weights}
    autoencoder = _stage("image_autoencoder_fine", sharpen, home, run_job=run_job, share=share)
    say("3/4  the denoiser and its text encoder")
    parts = {"base.parts": {"tokenizer": tokenizer, "autoencoder": autoencoder.weights}}
    denoiser = _stage("image_denoiser", {**common, "data.paths": [world], **parts}, home, run_job=run_job, share=share)
    say("4/4  the folder and its figures")
    opened = engine_named(engine)
    base = opened.open(BaseSection(path=str(denoiser.weights)))
    if out.exists():
        shutil.rmtree(out)
    opened.write_base(base, {}, out, "diffusers", "fp16")
    figures, pictures = measure_image_starter(
        out, prompts=max(2, round(PROMPTS * share)), unseen=max(8, round(UNSEEN_PICTURES * share))
    )
    for index, picture in enumerate(pictures):
        (work / "sheet").mkdir(exist_ok=True)
        picture.save(work / "sheet" / f"{index:03d}.png")
    write_json(out / CARD, _card(engine, out, [begun, autoencoder, denoiser], dataclasses.asdict(figures)))
    return out


def _stage(name: str, overrides: dict[str, Any], home: Path, *, run_job: RunJob, share: float) -> Done:
    return run_recipe(shipped_recipe(name, overrides, share=share), home, run_job=run_job, again=True)


def _write_data(folder: Path, share: float) -> tuple[Path, Path, Path]:
    """(monsters with captions, textures, tokenizer); what lies there complete is taken as it is."""
    world, textures, tokenizer = folder / "world", folder / "textures", folder / "tokenizer"
    done = folder / "complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pictures = write_dataset(world, max(8, round(WORLD_PICTURES * share)), DATA_SEED)
        textures.mkdir(parents=True)
        for index in range(max(4, round(TEXTURES * share))):
            picture = random_texture(random.Random(f"textures/{DATA_SEED}/{index}"))
            picture.save(textures / f"{index:05d}.png", compress_level=1)
        texts = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in pictures]
        learn_tokenizer(texts, tokenizer, tokens=TOKENS)
        done.touch()
    return world, textures, tokenizer


def _card(engine: str, folder: Path, stages: list[Done], figures: dict[str, Any]) -> dict[str, Any]:
    """What ships beside the weights: how they were made and how good they are."""
    made = [
        {
            "recipe": done.card.recipe,
            "steps": done.card.step,
            "seconds": round(sum(line["seconds"] for line in read_events(done.folder) if line["kind"] == "step")),
            "measures": dict(done.card.measures),
        }
        for done in stages
    ]
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {
        "engine": engine,
        "licence": "Apache-2.0",
        "data_seed": DATA_SEED,
        "weights_bytes": weights,
        "made_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "figures": figures,
        "stages": made,
    }
