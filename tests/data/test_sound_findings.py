"""Each check hears what it is for, says what to do, and is silent on good sounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunesmith.data.audio import read_audio, write_audio
from tunesmith.data.findings import Finding, examine
from tunesmith.data.item import Item, MediaFile
from tunesmith.data.sound_findings import SOUND_CHECKS, examine_sounds
from tunesmith.data.source import hash_of_file

RATE = 16_000


class Facts:
    minimum_items = 1
    advised_items = (1, 100)


def voice(seed: int, *, seconds=1.0, level=0.4, rate=RATE) -> np.ndarray:
    """A call: a wandering tone with overtones and breath, float [1, samples]."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 200 * 2 ** np.interp(t, np.linspace(0, seconds, 6), draw.normal(0, 0.5, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 8)) + 0.2 * draw.standard_normal(len(t))
    sound *= np.minimum(t / 0.03, 1) * np.exp(-t / 0.5)
    return (level * sound / np.abs(sound).max())[None]


def item(path: Path, sound: np.ndarray, rate: int = RATE, **fields) -> Item:
    write_audio(path, sound, rate)
    facts = {"seconds": sound.shape[1] / rate, "rate": rate, "channels": len(sound)}
    media = {"audio": MediaFile(path, hash_of_file(path), facts)}
    return Item(key=path.name, media=media, text={"caption": f"a call {path.name}"}, group=path.name, **fields)


@pytest.fixture
def good(tmp_path) -> tuple[Item, ...]:
    return tuple(item(tmp_path / f"good{seed}.wav", voice(seed)) for seed in range(4))


def found(items, **options) -> dict[str, Finding]:
    findings = examine_sounds(items, **{"vocal": False, **options})
    assert all(finding.do or finding.severity == "note" for finding in findings)
    assert [finding.severity for finding in findings] == sorted(
        (finding.severity for finding in findings), key=["error", "warning", "note"].index
    )
    return {finding.code: finding for finding in findings}


def test_good_sounds_are_silent(good):
    assert found(good, rate=RATE, window_seconds=2.0) == {}


def loud_and_cut(path: Path) -> Item:
    return item(path, np.clip(voice(9) * 3, -1, 1))


# code: (one more sound, options, words of the message, severity)
CASES = {
    "silent": (lambda path: item(path, voice(9) * 1e-3), {}, "-60 dBFS throughout: new.wav", "warning"),
    "clipped": (loud_and_cut, {}, "new.wav (1 time)", "warning"),
    "dc_offset": (lambda path: item(path, voice(9) + 0.05), {}, "new.wav (+0.05", "warning"),
    "rate_low": (lambda path: item(path, voice(9, rate=8000), 8000), {"rate": RATE}, "(8000 Hz)", "warning"),
    "rate_high": (lambda path: item(path, voice(9, rate=48_000), 48_000), {"rate": RATE}, "to 16000 Hz", "note"),
    "rates_differ": (lambda path: item(path, voice(9, rate=8000), 8000), {}, "4 at 16000 Hz, 1 at 8000 Hz", "note"),
    "too_short": (lambda path: item(path, voice(9, seconds=0.05)), {}, "shorter than 0.1 s", "warning"),
    "too_long": (lambda path: item(path, voice(9, seconds=2)), {"window_seconds": 1.5}, "window of 1.5 s", "warning"),
    "loudness_outlier": (lambda path: item(path, voice(9) * 0.02), {}, "LU from the median", "warning"),
    "processed": (
        lambda path: item(path, voice(9), credits={"polish_profile": "creature"}), {}, "polish_profile", "warning"
    ),
    "vocal_length": (lambda path: item(path, voice(9, seconds=3)), {"vocal": True}, "longer than 2.5 s", "note"),
    "vocal_count": (lambda path: item(path, voice(9)), {"vocal": True}, "5 clips; 50 to 200", "note"),
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_check(tmp_path, good, code):
    make, options, words, severity = CASES[code]
    findings = found((*good, make(tmp_path / "new.wav")), **options)
    assert words in findings[code].message
    assert findings[code].severity == severity
    if code not in ("rates_differ", "vocal_count"):
        assert findings[code].items == ("new.wav",)
    assert set(findings) <= {code, "vocal_count"}


@pytest.mark.parametrize("kind", ["missing", "truncated", "not finite", "no sound"])
def test_unreadable(tmp_path, good, kind):
    path = tmp_path / "new.wav"
    one = item(path, voice(9))
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-100], "no sound": b"text"}.get(kind, data))
    if kind == "missing":
        path.unlink()
    if kind == "not finite":
        write_audio(path, np.ones((1, 100)), RATE, subtype="FLOAT")
        path.write_bytes(path.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    finding = found((*good, one))["unreadable"]
    assert (finding.severity, finding.items) == ("error", ("new.wav",))
    assert "1 of 5 sounds" in finding.message
    assert "new.wav" in finding.message


COPIES = {
    "quieter": (lambda sound: sound * 0.3, ".wav"),
    "MP3": (lambda sound: sound, ".mp3"),
    "OGG, cut": (lambda sound: sound[:, 800:], ".ogg"),
    "stereo, later": (lambda sound: np.pad(np.repeat(sound, 2, axis=0), ((0, 0), (2000, 500))), ".flac"),
    "upside down": (lambda sound: -sound, ".wav"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_near_duplicates(tmp_path, good, kind):
    change, end = COPIES[kind]
    copy = item(tmp_path / f"copy{end}", change(voice(2)))
    finding = found((*good, copy))["near_duplicate"]
    assert finding.items == ("good2.wav", f"copy{end}")


def test_many_copies_are_one_finding(tmp_path, good):
    copies = [item(tmp_path / f"copy{at}.wav", voice(0) * (0.9 - 0.1 * at)) for at in range(3)]
    finding = found((*good, *copies))["near_duplicate"]
    assert finding.items == ("good0.wav", "copy0.wav", "copy1.wav", "copy2.wav")


def test_equal_files_are_left_to_examine(tmp_path, good):
    twin = item(tmp_path / "twin.wav", voice(1))
    assert "near_duplicate" not in found((*good, twin))

    codes = {finding.code for finding in examine((*good, twin), Facts())}
    assert codes == {"duplicate"}


def test_captions_are_left_to_examine(good):
    bare = Item(**{**vars(good[0]), "text": {"caption": ""}})
    assert {finding.code for finding in examine((*good, bare), Facts())} == {"caption_empty", "duplicate"}
    assert found((*good, bare)) == {}


def test_short_for_the_window(good):
    assert "in a window of 47 s" in found(good, window_seconds=47.0)["too_short"].message


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"post": {"denoise": {"strength": 0.25}}}, "denoise"),
        ({"post": ["trim", "multiband", "fade"]}, "multiband"),
        ({"sfx_preset": "heavy compression"}, "heavy compression"),
        ({"chain": {"compressor": {"ratio": 4}, "denoise": 0.0}}, "compressor"),
        ({"pro_preset": None, "polish_profile": "x" * 500}, "polish_profile"),
    ],
)
def test_credits_beside_the_file(tmp_path, good, said, words):
    new = item(tmp_path / "new.wav", voice(9))
    (tmp_path / "new.wav.credits.json").write_text(json.dumps(said), encoding="utf-8")
    finding = found((*good, new))["processed"]
    assert finding.items == ("new.wav",)
    assert f"({words})" in finding.message


@pytest.mark.parametrize(
    "text",
    [
        '{"polish": false, "denoise_amount": 0, "compressor": {"enabled": false, "ratio": 4}}',
        '{"post": ["trim", "fade"], "polish_profile": null, "noise_reduction": "off"}',
        '{"prompt": "a compressed growl", "flac_compression_level": 5}',
        '{"base": {"files": {"denoiser/config.json": "0f"}}, "checkpoints": [{"path": {"compressor": "1e"}}]}',
        '["polish"]',
        "{broken",
        "[" * 100_000,
        "",
    ],
)
def test_credits_that_say_nothing_of_it(tmp_path, good, text):
    (tmp_path / "good0.wav.credits.json").write_text(text)
    assert found(good) == {}


def test_prior_items_and_pictures_are_not_heard(tmp_path, good):
    prior = item(tmp_path / "new.wav", voice(9) * 1e-3, prior=True)
    picture = Item(key="p", media={"image": MediaFile(tmp_path / "p.png", "h")}, text={}, group="p")
    assert found((*good, prior, picture)) == {}


def test_counts_are_by_concept(tmp_path):
    quick = {tmp_path / f"{at}.wav": voice(at, seconds=0.7, rate=4000) for at in range(61)}
    items = [Item(key=str(path), media={"audio": MediaFile(path, path.name)}, text={}, group=path.name,
                  concept="ghoul" if at < 51 else "bat") for at, path in enumerate(quick)]  # fmt: skip
    finding = found(items, vocal=True, read=lambda path, *, seconds: (quick[path], 4000))["vocal_count"]
    assert finding.items == ("bat",)
    assert "10 clips of 'bat'" in finding.message


def test_each_file_is_read_once_and_long_ones_in_part(good):
    calls = []

    def read(path, *, seconds):
        calls.append((path.name, seconds))
        return read_audio(path, seconds=seconds)

    found(good, read=read, rate=RATE, window_seconds=1.0)
    assert calls == [(one.media["audio"].path.name, 120.0) for one in good]


def test_every_check_is_tested():
    # `rates` gives three codes; `unreadable` and `near_duplicates` have tests of their own.
    assert len(SOUND_CHECKS) == len(CASES) - 2 + 2


def test_no_sounds():
    assert examine_sounds([]) == ()
