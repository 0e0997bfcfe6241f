"""A dataset of sounds is prepared without the faults people met: nothing lost, doubled, untouched or unsaid."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tunesmith.data.item import Item
from tunesmith.data.order import split
from tunesmith.data.sound_intake import SoundWishes, safe_name
from tunesmith.data.sound_preparing import prepare_sounds
from tunesmith.data.source import dataset_hash, read_items
from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection

RATE = 8_000
COPY = SoundWishes(family="ghoul", copy_audio=True)
WAV = SoundWishes(family="ghoul", copy_audio=True, convert_to_wav=True, rate=RATE)
posix = pytest.mark.skipif(os.name == "nt", reason="names that Windows does not have")


def tone(path: Path, hz: float = 440.0, *, rate=RATE, channels=1, seconds=0.25, level=0.5, **options) -> Path:
    """A decaying tone, louder on the left; another pitch, another content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(rate * seconds)) / rate
    sound = level * np.sin(2 * np.pi * hz * t)
    soundfile.write(path, np.stack([sound / (at + 1) for at in range(channels)], axis=1), rate, **options)
    return path


def sidecar(path: Path, **fields: Any) -> Path:
    """S-NDB-UND's credits beside a sound."""
    said = {"engine": "stable_audio_open", "prompt": f"screech {path.stem}", "seed": 7, "created_utc": "2026-02-01"}
    beside = path.with_name(path.name + ".credits.json")
    beside.write_text(json.dumps(said | fields, indent=2), encoding="utf-8")
    return beside


def outputs(folder: Path, count: int = 3) -> Path:
    """`count` sounds with credits."""
    for at in range(count):
        sidecar(tone(folder / f"call{at}.wav", 300 + 50 * at))
    return folder


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def refusal(*words: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        prepare_sounds(*words, **options)
    return caught.value.message


def pitch(path: Path) -> float:
    """The strongest frequency in Hz, by an FFT of what soundfile reads."""
    samples, rate = soundfile.read(path, always_2d=True)
    spectrum = np.abs(np.fft.rfft(samples[:, 0] * np.hanning(len(samples)), 16 * len(samples)))
    return float(np.fft.rfftfreq(16 * len(samples), 1 / rate)[spectrum.argmax()])


# ---------------------------------------------------------------- what is written


def test_the_fields_people_know(tmp_path):
    source = sidecar(tone(tmp_path / "outputs/deep/growl.wav"), licence="CC0", analysis={"rms_dbfs": float("-inf")})
    out = tmp_path / "set"
    prepared = prepare_sounds([tmp_path / "outputs"], out, COPY)
    (line,) = lines_of(out)
    copied = out / "audio" / "ghoul__growl.wav"
    assert copied.read_bytes() == (tmp_path / "outputs/deep/growl.wav").read_bytes()
    assert line["file_name"] == "audio/ghoul__growl.wav"
    assert line["text"] == "screech growl"  # no trigger added
    assert (line["family"], line["engine"], line["seed"], line["created_utc"]) == (
        ("ghoul", "stable_audio_open", 7, "2026-02-01")
    )
    assert line["credits"] == json.loads(source.read_text()) | {"analysis": {"rms_dbfs": None}}  # JSON has no -Infinity
    assert line["seconds"] == 0.25
    assert line["sha256"] == hashlib.sha256(copied.read_bytes()).hexdigest()
    assert line["source"] == str((tmp_path / "outputs/deep/growl.wav").resolve())
    assert line["licence"] == "CC0"
    assert report_of(out) == prepared.report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "set"]


def test_engine_and_seed_may_be_missing(tmp_path):
    path = tone(tmp_path / "in/a.wav")
    path.with_name("a.wav.credits.json").write_text('{"prompt": "a hiss", "unknown": {"deep": [1, 2]}}')
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    (line,) = lines_of(tmp_path / "out")
    assert (line["engine"], line["seed"], line["created_utc"]) == (None, None, None)
    assert line["credits"]["unknown"] == {"deep": [1, 2]}


def test_our_own_sidecars(tmp_path):
    path = tone(tmp_path / "in/a.wav")
    post = {"order": ["trim", "fade"], "trim": {"trim_dbfs": -40}}
    licence = {"base": "CC0-1.0", "items": ["CC-BY-4.0", "CC0-1.0"]}
    sidecar(path, engine="stable_audio", family="ghoul", licence=licence, post=post, versions={"torch": "2.13"})
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    (line,) = lines_of(tmp_path / "out")
    assert (line["credits"]["post"], line["credits"]["licence"]) == (post, licence)
    assert line["licence"] == "CC0-1.0; CC-BY-4.0"
    assert prepared.report["licences"] == {"CC0-1.0; CC-BY-4.0": 1}
    (item,) = read_items([tmp_path / "out"], DataSection(), media=("audio",)).items
    assert item.credits["licence"] == line["licence"]  # a card keeps it as text


def test_folders_with_captions(tmp_path):
    for name, end, text in (("a", ".txt", "a bark"), ("b", ".caption", "a howl"), ("c", ".TXT", "\ufeffa purr\r\n")):
        tone(tmp_path / f"in/{name}.flac", ord(name) * 5)
        (tmp_path / f"in/{name}{end}").write_text(text, encoding="utf-8")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    assert {line["file_name"]: line["text"] for line in lines_of(tmp_path / "out")} == {
        "audio/ghoul__a.flac": "a bark",
        "audio/ghoul__b.flac": "a howl",
        "audio/ghoul__c.flac": "a purr",
    }
    assert [line["credits"] for line in lines_of(tmp_path / "out")] == [{}, {}, {}]


def test_a_caption_helps_where_the_prompt_is_empty(tmp_path):
    sidecar(tone(tmp_path / "in/a.wav"), prompt="")
    (tmp_path / "in/a.txt").write_text("written by hand")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    assert lines_of(tmp_path / "out")[0]["text"] == "written by hand"


def test_without_copying_the_lines_name_the_originals(tmp_path):
    source = outputs(tmp_path / "in", 1)
    prepare_sounds([source], tmp_path / "out", SoundWishes(family="ghoul"))
    (line,) = lines_of(tmp_path / "out")
    assert line["file_name"] == (source / "call0.wav").resolve().as_posix()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metadata.jsonl", "report.json"]


def test_equal_sounds_give_equal_folders(tmp_path):
    outputs(tmp_path / "in")
    for name in ("one", "two"):
        prepare_sounds([tmp_path / "in"], tmp_path / name, WAV)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_nothing_is_written_to_the_input(tmp_path):
    source = outputs(tmp_path / "in")
    before = {path: path.stat().st_mtime_ns for path in [source, *source.iterdir()]}
    prepare_sounds([source], tmp_path / "out", WAV)
    assert {path: path.stat().st_mtime_ns for path in [source, *source.iterdir()]} == before


# ---------------------------------------------------------------- the faults, by name


def test_a_missing_folder_is_an_error_with_near_names(tmp_path):
    outputs(tmp_path / "outputs")
    said = refusal([tmp_path / "outputs", tmp_path / "output"], tmp_path / "out", COPY)
    assert "output does not exist" in said
    assert f"id you mean {tmp_path / 'outputs'}" in said
    assert not (tmp_path / "out").exists()


def test_two_sources_of_one_stem_overwrite_nothing(tmp_path):
    for at, folder in enumerate(("a", "b", "c")):
        sidecar(tone(tmp_path / "in" / folder / "growl.wav", 300 + 100 * at), prompt=f"growl {folder}")
    sidecar(tone(tmp_path / "in/c/Growl.flac", 900), prompt="growl of another case")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", WAV)
    lines = lines_of(tmp_path / "out")
    assert len({line["file_name"].lower() for line in lines}) == 4
    pitches = {line["text"]: pitch(tmp_path / "out" / line["file_name"]) for line in lines}
    wanted = {"growl a": 300, "growl b": 400, "growl c": 500, "growl of another case": 900}
    assert pitches == pytest.approx(wanted, abs=3)
    assert "audio/ghoul__growl.wav" in {line["file_name"].lower() for line in lines}


def test_overlapping_inputs_give_each_file_once(tmp_path):
    outputs(tmp_path / "in/sub")
    folders = [tmp_path / "in/sub", tmp_path / "in", tmp_path / "in" / ".." / "in"]
    prepared = prepare_sounds(folders, tmp_path / "out", COPY)
    assert len(lines_of(tmp_path / "out")) == 3
    assert prepared.skipped == ()
    assert "reached twice" in " ".join(prepared.notes)


def test_identical_contents_are_kept_once_and_it_is_said_which(tmp_path):
    first = tone(tmp_path / "in/a.wav")
    sidecar(first, prompt="")  # of no use, so the next one is kept
    for name in ("b", "c"):
        (tmp_path / f"in/{name}.wav").write_bytes(first.read_bytes())
        sidecar(tmp_path / f"in/{name}.wav", prompt=f"text {name}")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    assert [line["text"] for line in lines_of(tmp_path / "out")] == ["text b"]
    skipped = report_of(tmp_path / "out")["skipped"]
    assert [Path(one["file"]).name for one in skipped["same_content"]] == ["c.wav"]
    assert str(tmp_path / "in/b.wav") in skipped["same_content"][0]["reason"]


def test_a_wav_of_another_rate_is_converted_and_stereo_kept(tmp_path):
    sidecar(tone(tmp_path / "in/a.wav", 440, rate=48_000, channels=2))
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", SoundWishes("ghoul", True, True))
    made = tmp_path / "out/audio/ghoul__a.wav"
    info = soundfile.info(made)
    assert (info.samplerate, info.channels, info.format, info.subtype) == (44_100, 2, "WAV", "PCM_16")
    assert info.frames == round(0.25 * 44_100)
    assert pitch(made) == pytest.approx(440, abs=1)
    left, right = soundfile.read(made)[0].T
    assert np.abs(left - 2 * right).max() < 2e-4
    assert prepared.report["converted"] == 1


def test_everything_that_is_no_pcm_wav_is_converted(tmp_path):
    kinds = {
        "flac": {},
        "ogg": {},
        "mp3": {},
        "aiff": {},
        "float.wav": {"subtype": "FLOAT"},
        "ulaw.wav": {"subtype": "ULAW"},
    }
    for at, (end, options) in enumerate(kinds.items()):
        sidecar(tone(tmp_path / f"in/{end.replace('.', '_')}.{end.split('.')[-1]}", 300 + 40 * at, **options))
    sidecar(tone(tmp_path / "in/pcm.wav", 700, subtype="PCM_24"))
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", WAV)
    for line in lines_of(tmp_path / "out"):
        info = soundfile.info(tmp_path / "out" / line["file_name"])
        assert (info.format, info.samplerate) == ("WAV", RATE)
        assert info.subtype in ("PCM_16", "PCM_24")
    assert prepared.report["converted"] == 6
    assert soundfile.info(tmp_path / "out/audio/ghoul__float_wav.wav").subtype == "PCM_24"
    same = (tmp_path / "in/pcm.wav").read_bytes()
    assert (tmp_path / "out/audio/ghoul__pcm.wav").read_bytes() == same  # already as wanted


def test_converting_implies_copying_and_says_so(tmp_path):
    outputs(tmp_path / "in", 1)
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", SoundWishes("ghoul", convert_to_wav=True, rate=RATE))
    assert lines_of(tmp_path / "out")[0]["file_name"] == "audio/ghoul__call0.wav"
    assert "were copied" in " ".join(prepared.notes)


def test_no_backslash_in_file_names(tmp_path):
    outputs(tmp_path / "in", 1)
    if os.name != "nt":
        sidecar(tone(tmp_path / "in/a\\b.wav", 600))
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    for line in lines_of(tmp_path / "out"):
        assert "\\" not in line["file_name"]
        assert (tmp_path / "out" / line["file_name"]).is_file()


def test_the_limit_counts_what_is_kept(tmp_path):
    outputs(tmp_path / "in", 5)
    (tmp_path / "in/call0.wav").unlink()
    sidecar(tmp_path / "in/call1.wav", prompt=" ")
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", SoundWishes("ghoul", True, limit=2))
    assert [line["text"] for line in lines_of(tmp_path / "out")] == ["screech call2", "screech call3"]
    assert "1 more were not looked at" in " ".join(prepared.notes)
    assert {one.why for one in prepared.skipped} == {"no_sound", "no_text"}


def test_not_one_usable_sound_is_an_error(tmp_path):
    sidecar(tone(tmp_path / "in/quiet.wav", level=0.0))
    sidecar(tone(tmp_path / "in/mute.wav"), prompt="")
    said = refusal([tmp_path / "in"], tmp_path / "new/out", COPY)
    for word in ("nothing under", "1 left out, silent: quiet.wav", "mute.wav (its prompt is empty)"):
        assert word in said
    (tmp_path / "empty").mkdir()
    assert "empty holds no sounds" in refusal([tmp_path / "empty"], tmp_path / "new/out", COPY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in"]


def test_the_report_says_length_split_hash_and_skips(tmp_path):
    outputs(tmp_path / "in", 12)
    tone(tmp_path / "in/bare.wav", 5_000)
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    report, lines = report_of(tmp_path / "out"), lines_of(tmp_path / "out")
    assert (report["kept"], report["seconds"], report["without_licence"]) == (12, 3.0, 12)
    assert report["split"] == {
        "train": sum(line["split"] == "train" for line in lines),
        "held_out": sum(line["split"] == "held_out" for line in lines),
    }
    assert report["split"]["held_out"] >= 1
    assert report["skipped"]["no_text"][0]["file"] == str(tmp_path / "in/bare.wav")
    said = "\n".join(prepared.sentences)
    assert "12 sounds of 'ghoul', 3.0 seconds in all" in said
    assert "bare.wav (neither bare.wav.credits.json nor bare.txt is beside it)" in said


# ---------------------------------------------------------------- what cannot be used


def spoil_zip(path: Path) -> None:
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y" * 5000)


def spoil_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def beside(text: str | bytes):
    def spoil(path: Path) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        path.with_name(path.name + ".credits.json").write_bytes(data)

    return spoil


def spoil_nan(path: Path) -> None:
    soundfile.write(path, np.full(900, np.nan), RATE, subtype="FLOAT")


SPOILT = [
    (Path.unlink, "no_sound", "no bad.wav is beside it"),
    (lambda path: path.write_bytes(b"no sound at all"), "unreadable", "is no sound we read"),
    (lambda path: path.write_bytes(b""), "unreadable", "is no sound we read"),
    (spoil_zip, "unreadable", "is no sound we read"),
    (spoil_cut, "unreadable", "truncated"),
    (spoil_nan, "unreadable", "NaN"),
    (lambda path: tone(path, level=0.0), "silent", "-60 dBFS"),
    (lambda path: tone(path, level=0.0009, subtype="FLOAT"), "silent", "-60 dBFS"),
    (beside("not json"), "bad_credits", "is not JSON"),
    (beside('["prompt"]'), "bad_credits", "is no JSON object"),
    (beside('"' + "x" * (1 << 20) + '"'), "bad_credits", "over 1 MiB"),
    (beside("[" * 100_000), "bad_credits", "is not JSON"),
    (beside('{"a":' * 300 + "1" + "}" * 300), "bad_credits", "nested more than"),
    (beside('{"prompt": "x", "a": ' + "9" * 6000 + "}"), "bad_credits", "is not JSON"),
    (beside(b'{"prompt": "caf\xe9"}'), "bad_credits", "is not UTF-8"),
    (beside('{"prompt": "x"}'.encode("utf-16")), "bad_credits", "UTF-16"),
    (beside('{"prompt": "\\ud800"}'), "bad_credits", "half a character"),
    (beside('{"prompt": ""}'), "no_text", "its prompt is empty"),
    (beside('{"prompt": "  \\n"}'), "no_text", "its prompt is empty"),
    (beside('{"prompt": ["a"]}'), "no_text", "its prompt is no text"),
    (beside('{"engine": "synth"}'), "no_text", "hold no prompt"),
]


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize(("spoil", "why", "words"), SPOILT)
def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path, spoil, why, words, copied):
    outputs(tmp_path / "in", 1)
    sidecar(tone(tmp_path / "in/bad.wav", 700))
    spoil(tmp_path / "in/bad.wav")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", SoundWishes("ghoul", copied))
    assert [line["text"] for line in lines_of(tmp_path / "out")] == ["screech call0"]
    skipped = report_of(tmp_path / "out")["skipped"]
    assert list(skipped) == [why]
    assert words in skipped[why][0]["reason"]
    assert "bad.wav" in skipped[why][0]["file"]


@posix
@pytest.mark.parametrize("end", [".wav", ".wav.credits.json", ".txt"])
def test_links_that_lead_out_of_the_folders(tmp_path, end):
    """A sidecar or caption that is a link would bring any readable file into the dataset."""
    outputs(tmp_path / "in", 1)
    tone(tmp_path / "in/bad.wav", 700)
    (tmp_path / "in/bad.txt").write_text("text")
    secret = sidecar(tone(tmp_path / "elsewhere/secret.wav", 900))
    target = {".wav": tmp_path / "elsewhere/secret.wav", ".wav.credits.json": secret, ".txt": secret}[end]
    (tmp_path / f"in/bad{end}").unlink(missing_ok=True)
    (tmp_path / f"in/bad{end}").symlink_to(target)
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    assert len(lines_of(tmp_path / "out")) == 1
    (one,) = report_of(tmp_path / "out")["skipped"]["outside"]
    assert "leads out" in one["reason"]
    both = [tmp_path / "in", tmp_path / "elsewhere"]  # given as well, it leads nowhere else
    assert "outside" not in prepare_sounds(both, tmp_path / "two", COPY).report["skipped"]


@posix
def test_links_in_a_circle(tmp_path):
    outputs(tmp_path / "in/a", 1), outputs(tmp_path / "in/b", 1)
    (tmp_path / "in/a/to_b").symlink_to(tmp_path / "in/b")
    (tmp_path / "in/b/to_a").symlink_to(tmp_path / "in/a")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY)
    assert len(lines_of(tmp_path / "out")) == 1  # the two hold equal sounds


def test_hidden_files_are_left_alone(tmp_path):
    outputs(tmp_path / "in", 1)
    (tmp_path / "in/._call0.wav").write_bytes(b"AppleDouble")
    (tmp_path / "in/._call0.wav.credits.json").write_bytes(b"AppleDouble")
    assert prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY).skipped == ()


def test_a_sound_with_a_strange_ending_has_to_be_converted(tmp_path):
    path = tone(tmp_path / "in/a.wav").rename(tmp_path / "in/a.sound")
    sidecar(path)
    assert "convert it to WAV" in refusal([tmp_path / "in"], tmp_path / "out", COPY)
    prepare_sounds([tmp_path / "in"], tmp_path / "out", WAV)
    assert lines_of(tmp_path / "out")[0]["file_name"] == "audio/ghoul__a.wav"


def test_beyond_full_scale_is_turned_down_not_clipped(tmp_path):
    sidecar(tone(tmp_path / "in/loud.wav", level=2.0, subtype="FLOAT"))
    prepared = prepare_sounds([tmp_path / "in"], tmp_path / "out", WAV)
    made, _ = soundfile.read(tmp_path / "out/audio/ghoul__loud.wav")
    source, _ = soundfile.read(tmp_path / "in/loud.wav")
    assert np.abs(made - source / np.abs(source).max()).max() < 2**-22
    assert "loud.wav (6.0 dB)" in " ".join(prepared.notes)


def test_credits_of_another_family_are_mentioned(tmp_path):
    sidecar(tone(tmp_path / "in/a.wav"), family="wolf")
    assert "1 'wolf'" in " ".join(prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY).notes)


@posix
def test_odd_names(tmp_path):
    names = ["x" * 200 + ".wav", 'a:b?"*.wav', "ends with dots...wav", "é\n.wav"]
    for at, name in enumerate(names):
        sidecar(tone(tmp_path / "in" / name, 300 + 50 * at), prompt=f"number {at}")
    prepare_sounds([tmp_path / "in"], tmp_path / "out", SoundWishes("the ghoul/king", True))
    lines = lines_of(tmp_path / "out")
    assert len(lines) == len(names)
    for line in lines:
        assert (tmp_path / "out" / line["file_name"]).is_file()
        assert line["file_name"].startswith("audio/the ghoul_king__")
        assert not set(line["file_name"].removeprefix("audio/")) & set('\\/:*?"<>|\n')
        assert line["family"] == "the ghoul/king"
    assert len(read_items([tmp_path / "out"], DataSection(), media=("audio",)).items) == len(names)


@posix
def test_names_that_are_not_utf8(tmp_path):
    outputs(tmp_path / "in", 1)
    for name in (b"caf\xe9.wav", b"alone\xe9.wav"):
        path = Path(os.fsdecode(bytes(tmp_path / "in") + b"/" + name))
        path.write_bytes((tmp_path / "in/call0.wav").read_bytes())
    sidecar(Path(os.fsdecode(bytes(tmp_path / "in") + b"/caf\xe9.wav")), prompt="x")
    for at, wishes in enumerate((COPY, WAV, SoundWishes("ghoul"))):
        prepared = prepare_sounds([tmp_path / "in"], tmp_path / str(at), wishes)
        skipped = report_of(tmp_path / str(at))["skipped"]
        assert "not UTF-8" in skipped["unreadable"][0]["reason"]
        assert skipped["no_text"][0]["file"].endswith("alone?.wav")
        assert "\n".join(prepared.sentences).encode()


def test_safe_names():
    assert safe_name("..", 10) == safe_name("", 10) == "sound"
    assert safe_name("e\u0301" * 20, 9) == "éééé"  # composed, and cut between letters


# ---------------------------------------------------------------- where it goes


def test_an_earlier_preparation_is_replaced_only_when_asked(tmp_path):
    prepare_sounds([outputs(tmp_path / "in", 2)], tmp_path / "out", COPY)
    before = (tmp_path / "out/metadata.jsonl").read_bytes()
    outputs(tmp_path / "in", 3)
    assert "--force" in refusal([tmp_path / "in"], tmp_path / "out", COPY)
    assert (tmp_path / "out/metadata.jsonl").read_bytes() == before
    prepare_sounds([tmp_path / "in"], tmp_path / "out", COPY, force=True)
    assert len(lines_of(tmp_path / "out")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_replacement_that_fails_leaves_the_old_one(tmp_path):
    prepare_sounds([outputs(tmp_path / "in", 2)], tmp_path / "out", COPY)
    (tmp_path / "bad").mkdir()
    refusal([tmp_path / "bad"], tmp_path / "out", COPY, force=True)
    assert len(lines_of(tmp_path / "out")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "in", "out"]


@pytest.mark.parametrize("stray", ["notes.txt", "audio/mine.wav", "sub/x"])
def test_force_deletes_nothing_it_did_not_make(tmp_path, stray):
    prepare_sounds([outputs(tmp_path / "in", 1)], tmp_path / "out", COPY)
    (tmp_path / "out" / stray).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / stray).write_text("mine")
    said = refusal([tmp_path / "in"], tmp_path / "out", COPY, force=True)
    assert stray.partition("/")[0] in said
    assert (tmp_path / "out" / stray).read_text() == "mine"


def test_a_folder_of_something_else_and_a_file(tmp_path):
    source = outputs(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for force in (False, True):
        assert "thesis.doc" in refusal([source], tmp_path / "out", COPY, force=force)
        assert "is a file" in refusal([source], tmp_path / "file", COPY, force=force)


def test_out_and_inputs_may_not_lie_in_one_another(tmp_path, monkeypatch):
    source = outputs(tmp_path / "in", 1)
    assert "is read from" in refusal([source], source, COPY)
    assert "lies in" in refusal([source], source / "out", COPY)
    assert "lies in" in refusal([source], source / "deep" / ".." / "out", COPY)
    prepare_sounds([source], tmp_path / "out", COPY)
    assert "lies in" in refusal([tmp_path / "out/audio"], tmp_path / "out", COPY, force=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "the folder you are in" in refusal([source], Path(), COPY)
    assert sorted(path.name for path in source.iterdir()) == ["call0.wav", "call0.wav.credits.json"]


@posix
def test_out_inside_an_input_by_a_link(tmp_path):
    source = outputs(tmp_path / "in", 1)
    (tmp_path / "link").symlink_to(source)
    assert "lies in" in refusal([source], tmp_path / "link" / "out", COPY)
    assert "lies in" in refusal([tmp_path / "link"], source / "out", COPY)


@pytest.mark.parametrize("force", [False, True])
def test_two_runs_at_once(tmp_path, force):
    """The second is told, whether it comes while the first works or finds its place taken at the end."""
    source = outputs(tmp_path / "in", 2)
    if force:
        prepare_sounds([source], tmp_path / "out", SoundWishes("old", True))
    told = []

    def meanwhile(done: int, total: int) -> None:
        told.append(refusal([source], tmp_path / "out", SoundWishes("second", True), force=force))

    prepare_sounds([source], tmp_path / "out", COPY, force=force, on_progress=meanwhile)
    assert len(told) == 2
    assert all("another process is writing" in said for said in told)
    assert {line["family"] for line in lines_of(tmp_path / "out")} == {"ghoul"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_midway_leaves_no_half(tmp_path):
    source = outputs(tmp_path / "in", 3)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tunesmith.data.sound_preparing import SoundWishes, prepare_sounds\n"
        "def kill(done, total):\n"
        "    if done == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare_sounds([Path(sys.argv[1])], Path(sys.argv[2]), SoundWishes('ghoul', True), on_progress=kill)\n"
    )
    words = [sys.executable, "-c", code, str(source), str(tmp_path / "out")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    prepare_sounds([source], tmp_path / "out", COPY)
    assert len(lines_of(tmp_path / "out")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (SoundWishes(""), "family"),
        (SoundWishes(" ghoul"), "family"),
        (SoundWishes("g" * 101), "family"),
        (SoundWishes("ghoul", limit=0), "at least 1"),
        (SoundWishes("ghoul", rate=10), "10 Hz"),
    ],
)
def test_wishes_that_make_no_sense(tmp_path, wishes, words):
    assert words in refusal([outputs(tmp_path / "in", 1)], tmp_path / "out", wishes)


# ---------------------------------------------------------------- read back, and split


@pytest.mark.parametrize("copied", [True, False])
def test_our_reader_reads_it(tmp_path, copied):
    source = outputs(tmp_path / "in", 6)
    sidecar(source / "call0.wav", licence="CC0", post={"order": ["trim"], "denoise": {"denoise_amount": 0.25}})
    prepare_sounds([source], tmp_path / "out", SoundWishes("ghoul", copied))
    reading = read_items([tmp_path / "out"], DataSection(), media=("audio",))
    lines = lines_of(tmp_path / "out")
    for item, line in zip(reading.items, lines, strict=True):
        assert item.text["caption"] == line["text"]
        assert item.concept == "ghoul"
        assert item.group == line["group"]
        assert item.media["audio"].sha256 == line["sha256"]
        assert item.held_out == (line["split"] == "held_out")
        assert item.credits == {key: value for key, value in line["credits"].items() if value is not None}
    assert reading.items[0].credits["licence"] == "CC0"
    assert not [note for note in reading.notes if "not used" in note]
    by_name = read_items([tmp_path / "out"], DataSection(), media=("audio",), concepts={"g": "ghoul"})
    assert {item.concept for item in by_name.items} == {"g"}


def test_the_split_is_that_of_the_groups(tmp_path):
    source = outputs(tmp_path / "in", 20)
    for at in range(20):  # the same take in another format: never on the other side
        tone(source / f"call{at}.flac", 300 + 50 * at)
        sidecar(source / f"call{at}.flac")
    prepare_sounds([source], tmp_path / "out", SoundWishes("ghoul", True, holdout_fraction=0.2, seed=5))
    lines = lines_of(tmp_path / "out")
    groups = {hashlib.sha256((source / f"call{at}.flac").read_bytes()).hexdigest() for at in range(20)}
    assert {line["group"] for line in lines} == groups
    _, expected = split([Item(group, {}, {}, group) for group in groups], 0.2, 5)
    assert {line["group"] for line in lines if line["split"] == "held_out"} == {item.group for item in expected}
    items = read_items([tmp_path / "out"], DataSection(), media=("audio",)).items
    for seed, fraction in ((5, 0.2), (6, 0.2), (0, 0.9)):  # the dataset's own word holds
        training, held_out = split(items, fraction, seed)
        assert {item.group for item in held_out} == {item.group for item in expected}
        assert len(training) + len(held_out) == 40
    assert split(items, 0.0, 5) == (items, ())
    assert dataset_hash(items) != dataset_hash([replace(item, held_out=not item.held_out) for item in items])


def test_an_original_that_changed_is_refused(tmp_path):
    source = outputs(tmp_path / "in", 2)
    prepare_sounds([source], tmp_path / "out", SoundWishes("ghoul"))
    tone(source / "call1.wav", 2_000)
    with pytest.raises(DataError, match=r"call1\.wav is not the file that metadata\.jsonl line 2"):
        read_items([tmp_path / "out"], DataSection(), media=("audio",))


@pytest.mark.parametrize("extra", [{}, {"sha256": "0" * 64}, {"sha256": "x"}, {"sha256": 7}])
def test_a_foreign_line_cannot_name_files_elsewhere(tmp_path, extra):
    """Only who knows a file's hash may name it by an absolute path."""
    path = tone(tmp_path / "private/a.wav")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/metadata.jsonl").write_text(json.dumps({"file_name": path.as_posix(), "text": "x", **extra}))
    with pytest.raises(DataError, match=r"leads out|is not the file"):
        read_items([tmp_path / "set"], DataSection(), media=("audio",))


def test_folders_that_s_ndb_und_copied_are_read(tmp_path):
    """Backslashes from Windows, nested credits with NaN, a seed that is null."""
    tone(tmp_path / "set/audio/ghoul__a.wav")
    credits_text = (
        '{"engine": "stable_audio_open", "analysis": {"rms_dbfs": -Infinity}, "best_of_n": NaN, "sources": [{"id": 1}]}'
    )
    line = f'"text": "a hiss", "family": "ghoul", "engine": null, "seed": null, "credits": {credits_text}'
    (tmp_path / "set/metadata.jsonl").write_text('{"file_name": "audio\\\\ghoul__a.wav", ' + line + "}\n")
    (item,) = read_items([tmp_path / "set"], DataSection(), media=("audio",)).items
    assert (item.text["caption"], item.concept) == ("a hiss", "ghoul")
    assert item.credits == {"engine": "stable_audio_open", "sources": [{"id": 1}]}


def test_a_split_we_do_not_know_is_noted(tmp_path):
    tone(tmp_path / "set/a.wav")
    (tmp_path / "set/metadata.jsonl").write_text('{"file_name": "a.wav", "text": "x", "split": "validation"}')
    reading = read_items([tmp_path / "set"], DataSection(), media=("audio",))
    assert reading.items[0].held_out is None
    assert any("'split'" in note for note in reading.notes)
