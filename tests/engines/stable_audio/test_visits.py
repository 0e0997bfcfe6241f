"""What one visit of a sound is: windows, offsets, seconds, silence, dropped conditions; and tokenizers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile
import torch

from contract_cases import CASES
from tunesmith.data.audio import read_audio_header
from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.open import open_base
from tunesmith.engines.stable_audio.sample import frames_of
from tunesmith.engines.stable_audio.tokenizer import learn_tokenizer, open_tokenizer, token_ids
from tunesmith.errors import RecipeError, WeightsError
from tunesmith.numeric.rng import ItemRng

CPU = torch.device("cpu")
RATE, HOP = 1000, 8


def item_of(path: Path, samples: numpy.ndarray, rate: int = RATE) -> Item:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return Item("k", {"audio": MediaFile(path, "h", read_audio_header(path))}, {"caption": "a growl"}, "g")


def encoded_of(tiny: Any, item: Item, **settings: Any) -> tuple[Any, dict[str, Any]]:
    case = CASES["stable_audio"]
    recipe = case.recipe(tiny.folder)
    recipe = dataclasses.replace(recipe, settings=engine.facts.section(**{"window_seconds": 0.5, **settings}))
    base = open_base(recipe.base)
    found = {}
    for want in engine.wants(item, recipe):
        encoder = engine.open_encoder(base, recipe, want.encoder, CPU)
        source = want.text if want.text is not None else item.media[want.role]
        found[want.label] = engine.encode(encoder, source, want.variant)
    return recipe, found


def drawn(recipe: Any, item: Item, encoded: dict[str, Any], position: int) -> dict[str, torch.Tensor]:
    return dict(engine.draw(item, encoded.__getitem__, recipe, ItemRng(0, position)).tensors)


def test_a_short_sound_is_padded_before_it_is_encoded(tiny: Any, tmp_path: Path) -> None:
    """The window's silence is the autoencoder's silence, not zeros in latent space."""
    samples = numpy.sin(numpy.arange(130) / 5)[None].astype("float32") * 0.5
    item = item_of(tmp_path / "a.wav", samples)
    recipe, encoded = encoded_of(tiny, item, latents="mean", polarity_flip=False)
    assert encoded["audio"]["mean"].shape == (8, math.ceil(500 / HOP))
    padded = torch.zeros(1, 2, 504)
    padded[0, :, :130] = torch.from_numpy(samples)
    with torch.no_grad():
        wanted = tiny.pipeline.vae.encode(padded).latent_dist
    torch.testing.assert_close(encoded["audio"]["mean"], wanted.mean[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoded["audio"]["std"], wanted.std[0], rtol=1e-5, atol=1e-5)
    visit = drawn(recipe, item, encoded, 0)
    assert visit["seconds"].tolist() == [0.0, 1.0]  # whole seconds, as the base was trained
    exact, _ = encoded_of(tiny, item, whole_seconds=False)
    assert drawn(exact, item, {**encoded, "audio.flip": encoded["audio"]}, 0)["seconds"][1] == pytest.approx(0.13)


@pytest.mark.parametrize(("window", "seconds"), [(0.5, 0.5), (0.1, 0.1), (None, 1.024)])
def test_what_is_trained_at_is_the_window_of_a_visit(
    tiny: Any, tmp_path: Path, window: float | None, seconds: float
) -> None:
    item = item_of(tmp_path / "a.wav", numpy.ones((1, 2000), dtype="float32") * 0.5)
    recipe, encoded = encoded_of(tiny, item, window_seconds=window)
    base = open_base(recipe.base)
    assert engine.trained_at(base, recipe) == {"window_seconds": pytest.approx(seconds)}
    request = engine.facts.request(seconds=seconds, **engine.trained_at(base, recipe))
    assert drawn(recipe, item, encoded, 0)["latents"].shape[1] == frames_of(base, request)
    crops = dataclasses.replace(recipe, method=dataclasses.replace(recipe.method, stage="autoencoder"))
    assert engine.trained_at(base, crops) == {"window_seconds": pytest.approx(1.024)}


def test_crops_know_where_they_are(tiny: Any, tmp_path: Path) -> None:
    """A clip of four windows: starts vary, seconds are floored starts and the whole length rounded up."""
    samples = numpy.random.default_rng(1).normal(size=(2, 9300)).astype("float32") * 0.1
    item = item_of(tmp_path / "a.wav", samples)
    recipe, encoded = encoded_of(tiny, item, window_seconds=1.0, latents="mean", polarity_flip=False)
    whole = encoded["audio"]["mean"]
    assert whole.shape[1] == math.ceil(9300 / HOP)
    starts = set()
    for position in range(30):
        visit = drawn(recipe, item, encoded, position)
        latents = visit["latents"]
        matches = [at for at in range(whole.shape[1] - 124) if torch.equal(whole[:, at : at + 125], latents)]
        assert len(matches) == 1
        assert visit["seconds"].tolist() == [math.floor(matches[0] * HOP / RATE), 10.0]
        starts.add(matches[0])
    assert len(starts) > 20


def test_silent_crops_are_drawn_again(tiny: Any, tmp_path: Path) -> None:
    samples = numpy.zeros((1, 8000), dtype="float32")
    samples[0, 6000:] = 0.3
    item = item_of(tmp_path / "a.wav", samples)
    recipe, encoded = encoded_of(tiny, item, polarity_flip=False)
    loud = sum(float(drawn(recipe, item, encoded, position)["seconds"][0]) >= 5 for position in range(40))
    assert loud >= 34  # without drawing again a quarter would be


def test_polarity_turns_half_of_the_visits(tiny: Any, tmp_path: Path) -> None:
    item = item_of(tmp_path / "a.wav", numpy.sin(numpy.arange(400) / 7)[None].astype("float32"))
    recipe, encoded = encoded_of(tiny, item, latents="mean")
    turned = [
        torch.equal(drawn(recipe, item, encoded, at)["latents"], encoded["audio.flip"]["mean"]) for at in range(80)
    ]
    assert 25 < sum(turned) < 55
    assert not torch.equal(encoded["audio"]["mean"], encoded["audio.flip"]["mean"])


def test_conditions_are_dropped_as_often_as_asked(tiny: Any, tmp_path: Path) -> None:
    item = item_of(tmp_path / "a.wav", numpy.ones((1, 100), dtype="float32") * 0.1)
    recipe, encoded = encoded_of(tiny, item, condition_dropout=0.25)
    kept = [float(drawn(recipe, item, encoded, at)["keep"]) for at in range(200)]
    assert 30 < kept.count(0.0) < 70


def test_long_sounds_in_tiles_are_the_same(tiny: Any, tmp_path: Path) -> None:
    samples = numpy.random.default_rng(2).normal(size=(2, 23_000)).astype("float32") * 0.1
    item = item_of(tmp_path / "a.wav", samples)
    _, encoded = encoded_of(tiny, item, polarity_flip=False)
    with torch.no_grad():
        wanted = tiny.pipeline.vae.encode(torch.from_numpy(samples)[None]).latent_dist.mean[0]
    torch.testing.assert_close(encoded["audio"]["mean"], wanted, rtol=1e-4, atol=1e-4)


def test_a_short_request_costs_a_short_window(tiny: Any) -> None:
    base = tiny.open()
    request = engine.facts.request
    assert frames_of(base, request(seconds=0.1)) == 13
    assert frames_of(base, request(seconds=0.1, window_seconds=1.0)) == 125
    assert frames_of(base, request(seconds=1.0, window_seconds=500.0)) == 128
    with pytest.raises(RecipeError, match=r"its window 0\.5"):
        frames_of(base, request(seconds=1.0, window_seconds=0.5))
    with pytest.raises(RecipeError, match=r"at most 1\.02"):
        frames_of(base, request(seconds=3.0))


def test_a_window_longer_than_the_base(tiny: Any, tmp_path: Path) -> None:
    item = item_of(tmp_path / "a.wav", numpy.ones((1, 100), dtype="float32") * 0.1)
    with pytest.raises(RecipeError, match="the window is 9 seconds"):
        encoded_of(tiny, item, window_seconds=9.0)


def test_tokens_are_those_of_transformers(tiny: Any) -> None:
    tokenizer = open_tokenizer(tiny.folder / "tokenizer", 12)
    for text in ("", "a creature growl, ghoul", "a " * 30, "ÄÖ unknown"):
        theirs = tiny.pipeline.tokenizer(text, padding="max_length", max_length=12, truncation=True)
        ids, own = token_ids(tokenizer, text)
        assert ids == theirs.input_ids
        assert own == sum(theirs.attention_mask)


def test_a_learnt_tokenizer_knows_every_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = [f"{size} creature {kind}, {tone}" for size in ("tiny", "huge") for kind in ("growl", "chirp")
             for tone in ("angry", "calm")]  # fmt: skip
    for folder in ("one", "two"):
        learn_tokenizer(texts, tmp_path / folder, tokens=420, max_tokens=24)
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert first == second
    tokenizer = open_tokenizer(tmp_path / "one", 24)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "one"))
    assert tokenizer.get_vocab_size() <= 420
    for text in (texts[0], "zorbli grölt 龍"):
        ids, own = token_ids(tokenizer, text)
        assert ids[:own] == theirs(text).input_ids
        assert 2 not in ids[:own], "unknown"
    assert token_ids(tokenizer, texts[0])[1] <= 8


def test_a_base_without_tokenizer_says_so() -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer.*base\.parts\.tokenizer"):
        open_tokenizer(None, 12)
