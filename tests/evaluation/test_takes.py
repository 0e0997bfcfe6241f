"""Choosing among takes: faults, likeness to a family, and what the training clips are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tunesmith.catalog.card import Card
from tunesmith.evaluation.takes import MOST_CLIPS, embeddings_of, family_clips, family_embeddings, faults, rank_takes

RATE = 16_000


def noise(seed: int, low_hz: float, high_hz: float, seconds: float = 0.4) -> np.ndarray:
    """Noise between two frequencies, 0.3 at its peak, swelling and dying away."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    sound = np.fft.irfft(np.where((hertz >= low_hz) & (hertz <= high_hz), spectrum, 0), count)
    sound *= np.sin(np.pi * np.arange(count) / count) ** 4
    return (0.3 * sound / np.abs(sound).max())[None].astype(np.float32)


def high(seed: int) -> tuple[np.ndarray, int]:
    return noise(seed, 3000, 6000), RATE


def low(seed: int) -> tuple[np.ndarray, int]:
    return noise(seed, 100, 400), RATE


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (noise(0, 200, 2000), ()),
        (np.zeros((1, RATE), dtype=np.float32), ("silent",)),
        (noise(0, 200, 2000) * 1e-4, ("silent",)),
        (noise(0, 200, 2000) * 20, ("clipped",)),
        (noise(0, 200, 2000)[:, : RATE // 5], ("breaks_off",)),
        (np.full((2, 900), 1.0, dtype=np.float32), ("clipped",)),
    ],
)
def test_faults(samples: np.ndarray, found: tuple[str, ...]) -> None:
    assert faults(samples, RATE) == found


def test_a_loop_does_not_break_off() -> None:
    assert faults(noise(0, 200, 2000)[:, : RATE // 5], RATE, is_loop=True) == ()


def test_without_faults_the_family_decides() -> None:
    family = embeddings_of([high(seed) for seed in range(20, 28)])
    ranking = rank_takes([low(1), high(2), low(3)], family)
    assert ranking.order[0] == 1
    assert ranking.against == "family"
    assert ranking.scores[0]["distance"] < min(score["distance"] for score in ranking.scores[1:])


def test_a_fault_outweighs_likeness() -> None:
    family = embeddings_of([high(seed) for seed in range(20, 28)])
    clipped, silent = (high(2)[0] * 30, RATE), (np.zeros((1, RATE), dtype=np.float32), RATE)
    ranking = rank_takes([silent, clipped, low(1)], family)
    assert ranking.order == (2, 1, 0)
    assert [score["faults"] for score in ranking.scores] == [[], ["clipped"], ["silent"]]


def test_without_a_family_the_most_usual_take_is_first() -> None:
    ranking = rank_takes([low(1), high(2), high(3), high(4)])
    assert ranking.against == "takes"
    assert ranking.order[0] != 0
    assert sorted(ranking.order) == [0, 1, 2, 3]
    distances = {index: score["distance"] for index, score in zip(ranking.order, ranking.scores, strict=True)}
    assert max(distances, key=lambda index: distances[index]) == 0


def test_a_twin_of_what_is_kept_comes_after_another_of_the_kind() -> None:
    family = embeddings_of([high(seed) for seed in range(20, 28)])
    twin = high(2)
    ranking = rank_takes([twin, twin, high(3)], family)
    assert {0, 1} != set(ranking.order[:2])


def test_one_take_is_ranked_too() -> None:
    ranking = rank_takes([low(1)])
    assert (ranking.order, ranking.scores[0]["nearest_take"]) == ((0,), None)


def card(folder: Path, **changes: object) -> Card:
    recipe = {
        "engine": {"name": "stable_audio"},
        "data": {"paths": [str(folder)]},
        "base": {"path": "base"},
        "length": {"steps": 1},
        "output": {"name": "ghoul"},
    }
    return Card(**{"name": "ghoul", "engine": "stable_audio", "id": "ghoul-1", "recipe": recipe, **changes})


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        soundfile.write(folder / f"{index:03d}.wav", noise(index, 100, 900)[0], RATE)
        (folder / f"{index:03d}.txt").write_text("growl")


def test_the_training_clips_of_a_card(tmp_path: Path, home: Path) -> None:
    fill(tmp_path / "clips", 3)
    clips, reason = family_clips(card(tmp_path / "clips"), home)
    assert [path.name for path in clips] == ["000.wav", "001.wav", "002.wav"]
    assert reason == ""
    assert family_embeddings(clips).shape == (3, 80)


def test_of_many_clips_some_are_taken_evenly(tmp_path: Path, home: Path) -> None:
    fill(tmp_path / "clips", MOST_CLIPS + 16)
    clips, _ = family_clips(card(tmp_path / "clips"), home)
    assert len(set(clips)) == MOST_CLIPS
    assert clips[0].name == "000.wav"
    assert int(clips[-1].stem) >= MOST_CLIPS + 13


def test_clips_of_one_family_among_several(tmp_path: Path, home: Path) -> None:
    for name in ("ghoul", "wyrm"):
        fill(tmp_path / "all" / name, 2)
    both = {"ghoul": "ghoul", "wyrm": "wyrm"}
    recipe = {**card(tmp_path / "all").recipe, "output": {"name": "two", "concepts": both}}
    clips, _ = family_clips(card(tmp_path / "all", recipe=recipe), home, concept="Wyrm")
    assert {path.parent.name for path in clips} == {"wyrm"}


@pytest.mark.parametrize("changes", [{"origin": "imported"}, {"recipe": {}}])
def test_a_card_that_does_not_know(tmp_path: Path, home: Path, changes: dict[str, object]) -> None:
    clips, reason = family_clips(card(tmp_path, **changes), home)
    assert clips == ()
    assert "does not know its training clips" in reason


def test_clips_that_are_gone(tmp_path: Path, home: Path) -> None:
    clips, reason = family_clips(card(tmp_path / "gone"), home)
    assert clips == ()
    assert "cannot be read" in reason
