"""`tunesmith generate` with sounds: the command lines people have, the same bytes again, each mistake in a line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tiny_audio import write_folder
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf

RATE = 8_000  # post-processing takes no less
WINDOW_SECONDS = 2.0
CREDITS = ".credits.json"
FAST = ("--steps", 2, "--precision", "fp32")


@pytest.fixture(scope="module")
def made_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base, told to be at 8 kHz with a window of two seconds."""
    folder = write_folder(tmp_path_factory.mktemp("bases") / "tiny")
    edit(folder / "vae" / "config.json", sampling_rate=RATE)
    edit(folder / "transformer" / "config.json", sample_size=round(WINDOW_SECONDS * RATE / 8))
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def base(made_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base, in a project of its own that is the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return made_base


def write_lora(path: Path, seed: int = 0, *, blocks: int = 2) -> Path:
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for block in range(blocks):
        for name in ("to_q", "to_v"):
            stem = f"transformer.transformer_blocks.{block}.attn1.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn((2, 64), generator=draw)
            tensors[f"{stem}.lora_B.weight"] = torch.randn((64, 2), generator=draw)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def write_family(lora_path: str = "lora/ghoul.safetensors") -> Path:
    """The project's file of creature families, with what S-NDB-UND's own guide has in it."""
    Path("configs").mkdir()
    ghoul = {"lora_path": lora_path, "trigger": "ghoul", "scale": 0.8, "negative_prompt": "music, singing"}
    Path("configs/creature_families.json").write_text(json.dumps({"ghoul": ghoul}))
    return write_lora(Path("lora/ghoul.safetensors"))


def told(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(f"{path}.credits.json").read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def as_starter(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(base, tmp_path / "starters" / "stable_audio")
    monkeypatch.setattr("tunesmith.weights.starter.FOLDER", tmp_path / "starters")


def test_the_command_of_the_guide(tunesmith, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word as it is documented, with a base where one ships; two steps are all that is added."""
    as_starter(base, tmp_path, monkeypatch)
    lora = write_family()
    ran = tunesmith(
        "generate", "--engine", "stable_audio_open", "--creature-family", "ghoul", "--prompt", "creature screech",
        "--seconds", "1.6", "--seed", "123", "--post", "--out", "outputs\\ghoul_screech.wav", *FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "outputs\\ghoul_screech.wav is read as outputs/ghoul_screech.wav" in ran.out
    assert "no base is named: starter" in ran.out
    samples, rate = soundfile.read("outputs/ghoul_screech.wav", always_2d=True)
    assert (rate, samples.shape[1]) == (RATE, 2)
    assert 1.0 < len(samples) / rate <= 1.6
    assert 20 * np.log10(np.sqrt(np.mean(samples**2))) == pytest.approx(-18, abs=0.1)
    found = told("outputs/ghoul_screech.wav")
    wanted = {
        "engine": "stable_audio",
        "prompt": "creature screech",
        "expanded_prompt": "creature screech, ghoul",
        "family": "ghoul",
        "seed": 123,
        "requested_seconds": 1.6,
        "stable_audio_negative_prompt": "music, singing",
        "stable_audio_lora_scale": 0.8,
        "stable_audio_lora_trigger": "ghoul",
        "stable_audio_steps": 2,
        "model": "starter",
        "device": "cpu",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert found["checkpoints"][0]["files"] == {"ghoul.safetensors": sha256(lora)}
    assert found["licence"]["base"] == "Stability AI Community License"
    assert found["file"]["sha256"] == sha256("outputs/ghoul_screech.wav")
    assert found["environment"]["precision"] == "fp32"
    bare = tunesmith(
        "generate", "--engine", "stable_audio_open", "--prompt", "creature screech, ghoul", "--no-adapter",
        "--negative", "music, singing", "--seconds", 1.6, "--seed", 123, "--post", "--out", "bare.wav", *FAST,
    )  # fmt: skip
    assert bare.code == 0, bare.err
    assert sha256("bare.wav") != sha256("outputs/ghoul_screech.wav")  # the LoRA is heard


def test_flags_win_over_the_family_field_by_field(tunesmith, base: Path) -> None:
    write_family()
    words = ("generate", "--base", base, "--family", "GHOUL", "--prompt", "ghoulish", "--seconds", 0.1, *FAST)
    ran = tunesmith(
        *words, "--out", "a.wav", "--stable-audio-lora-scale", 0.3, "--stable-audio-lora-trigger", "wyrm",
        "--stable-audio-negative-prompt", "",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = told("a.wav")
    assert found["expanded_prompt"] == "ghoulish, wyrm"
    assert (found["stable_audio_lora_scale"], found["stable_audio_negative_prompt"]) == (0.3, "")
    other = write_lora(Path("other.safetensors"), 5)
    ran = tunesmith(*words, "--out", "b.wav", "--checkpoint", other)
    assert ran.code == 0, ran.err
    found = told("b.wav")
    assert found["expanded_prompt"] == "ghoulish, ghoul"
    assert found["stable_audio_lora_scale"] == 0.8
    assert found["checkpoints"][0]["files"] == {"other.safetensors": sha256(other)}


def test_a_model_version_lies_over_a_family(tunesmith, base: Path) -> None:
    write_family()
    version = {"ghoul_v2": {"lora_path": "lora/two.safetensors", "scale": 0.5}}
    Path("configs/model_versions.json").write_text(json.dumps(version))
    two = write_lora(Path("lora/two.safetensors"), 9)
    ran = tunesmith(
        "generate", "--base", base, "--creature-family", "ghoul", "--model-version", "ghoul_v2", "--prompt", "roar",
        "--seconds", 0.1, "--out", "a.wav", *FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = told("a.wav")
    assert (found["expanded_prompt"], found["stable_audio_lora_scale"]) == ("roar, ghoul", 0.5)
    assert found["checkpoints"][0]["files"] == {"two.safetensors": sha256(two)}


def test_the_other_tools_spellings(tunesmith, base: Path) -> None:
    lora = write_lora(Path("lora/ghoul.safetensors"))
    common = ("--prompt", "roar", "--seed", 4, "--precision", "fp32")
    theirs = tunesmith(
        "generate", "--engine", "stable_audio_open", "--stable-audio-model", base, "--stable-audio-steps", 2,
        "--stable-audio-guidance-scale", 3, "--stable-audio-sampler", "ddim", "--stable-audio-negative-prompt", "music",
        "--stable-audio-lora-path", "lora\\ghoul.safetensors", "--stable-audio-lora-scale", 0.5,
        "--stable-audio-lora-trigger", "ghoul", "--duration", 0.1, "--out", "theirs.wav", *common,
    )  # fmt: skip
    assert theirs.code == 0, theirs.err
    assert "sampler ddim is euler on this base" in theirs.out
    ours = tunesmith(
        "generate", "--base", base, "--steps", 2, "--guidance", 3, "--sampler", "euler", "--negative", "music",
        "--checkpoint", f"{lora}:0.5", "--seconds", 0.1, "--out", "ours.wav", *common[:1], "roar, ghoul", *common[2:],
    )  # fmt: skip
    assert ours.code == 0, ours.err
    assert sha256("ours.wav") == sha256("theirs.wav")


@pytest.mark.parametrize(
    "words",
    [
        ("a.wav", "--post", "post.reverb=cave", "post.texture=rasp", "--wav-subtype", "FLOAT"),
        ("a.ogg", "--out-sample-rate", 44_100, "--mono", "--loop", "--ogg-quality", 7),
        ("a.mp3", "--out-sample-rate", 16_000, "--mp3-bitrate", "96k", "--polish"),
    ],
    ids=["wav", "ogg", "mp3"],
)
def test_a_replay_has_the_same_bytes(tunesmith, base: Path, words: tuple[object, ...]) -> None:
    lora = write_lora(Path("ghoul.safetensors"))
    asked = ("--base", base, "--checkpoint", f"{lora}:0.7", "--prompt", "growl", "--seed", 2**40, "--seconds", 0.4)
    ran = tunesmith("generate", *asked, "--out", *words, *FAST)
    assert ran.code == 0, ran.err
    name = str(words[0])
    again = tunesmith("generate", "--replay", f"{name}.credits.json")
    assert again.code == 0, again.err
    assert f"the same bytes as {name}" in again.out
    copy = Path(name).with_stem("a-2")
    assert copy.read_bytes() == Path(name).read_bytes()
    assert told(copy)["replay_of"] == name
    assert told(copy)["file"]["sha256"] == told(name)["file"]["sha256"]


def test_a_replay_notices_what_is_not_the_same(tunesmith, base: Path, made_base: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(base, tmp_path / "own"))
    lora = write_lora(Path("ghoul.safetensors"))
    words = ("--base", own, "--checkpoint", lora, "--prompt", "x", "--seconds", 0.1, "--out", "a.wav")
    assert tunesmith("generate", *words, *FAST).code == 0
    before = sorted(Path().iterdir())
    write_lora(lora, seed=1)
    ran = tunesmith("generate", "--replay", "a.wav", "--out", "b.wav")
    assert ran.code == 2
    assert "ghoul.safetensors is not the checkpoint a.wav was made with" in ran.error
    lora.rename(tmp_path / "moved.safetensors")
    ran = tunesmith("generate", "--replay", "a.wav", "--out", "b.wav")
    assert "ghoul.safetensors, which is not there" in ran.error
    write_lora(tmp_path / "moved.safetensors")
    ran = tunesmith("generate", "--replay", "a.wav", "--out", "b.wav", "--checkpoint", tmp_path / "moved.safetensors")
    assert ran.code == 0, ran.err
    write_lora(lora)
    weights = own / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    ran = tunesmith("generate", "--replay", "a.wav", "--out", "c.wav")
    assert ran.code == 2
    assert "is not the one a.wav was made with: autoencoder/diffusion_pytorch_model.safetensors" in ran.error
    ran = tunesmith("generate", "--replay", "a.wav", "--out", "c.wav", "--base", made_base)
    assert ran.code == 0, ran.err
    assert set(Path().iterdir()) - set(before) == {Path(f"{name}.wav{end}") for name in "bc" for end in ("", CREDITS)}


def test_the_best_of_several_with_its_lora(tunesmith, base: Path) -> None:
    lora = write_lora(Path("ghoul.safetensors"))
    words = ("--base", base, "--checkpoint", lora, "--prompt", "x", "--seconds", 0.3, "--seed", 10, "--post")
    ran = tunesmith("generate", *words, "--candidates", 3, "--keep-candidates", "--out", "best.wav", "--json", *FAST)
    assert ran.code == 0, ran.err
    best = told("best.wav")
    assert best["best_of_n"]["drawn"] == 3
    assert best["best_of_n"]["compared_with"] == "takes"
    seeds = [score["seed"] for score in best["best_of_n"]["scores"]]
    assert sorted(seeds) == [10, 11, 12]
    assert (best["seed"], best["best_of_n"]["place"]) == (seeds[0], 1)
    others = [f"best_candidate_{seed}.wav" for seed in seeds[1:]]
    assert [Path(path).name for path in ran.document["files"]] == ["best.wav", *others]
    assert ran.document["seeds"] == seeds
    alone = tunesmith("generate", *words, "--seed", best["seed"], "--out", "alone.wav", *FAST)
    assert alone.code == 0, alone.err
    assert sha256("alone.wav") == sha256("best.wav")  # so the LoRA was on in every take


def test_variations_are_distinct_and_each_has_its_credits(tunesmith, base: Path) -> None:
    words = (
        "--base",
        base,
        "--engine",
        "stable_audio",
        "--prompt",
        "x",
        "--seconds",
        0.2,
        "--no-adapter",
        "--post",
        *FAST,
    )
    ran = tunesmith("generate", *words, "--variations", 2, "--candidates", 3, "--out", "step.flac")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path().glob("*.flac")) == ["step_01.flac", "step_02.flac"]
    first, second = told("step_01.flac"), told("step_02.flac")
    assert first["file"]["sha256"] != second["file"]["sha256"]
    assert [first["best_of_n"]["place"], second["best_of_n"]["place"]] == [1, 2]
    again = tunesmith("generate", *words, "--variations", 2, "--out", "step.flac")
    assert again.code == 2
    assert "step_01.flac is there already" in again.error
    folder = tunesmith("generate", *words, "--count", 2, "--seed", 7, "--out", "many", "--out-format", "ogg")
    assert folder.code == 0, folder.err
    assert sorted(path.name for path in Path("many").glob("*.ogg")) == ["x-7.ogg", "x-8.ogg"]


def trained_card(home: Path, base: Path, clips: Path, id: str = "ghoul-3", window_seconds: float = 0.5) -> Card:  # noqa: A002
    """A checkpoint that was trained here, as its card remembers it."""
    from tunesmith.adapters.files import read_adapter, write_adapter
    from tunesmith.engines.index import engine_named
    from tunesmith.recipe.schema import BaseSection

    engine = engine_named("stable_audio")
    opened = engine.open(BaseSection(path=str(base)))
    adapter = read_adapter(write_lora(home / "raw.safetensors"), engine.layouts, opened)
    write_adapter(home / "made", adapter, engine.layouts, opened, "peft", "fp32", {})
    recipe = {
        "engine": {"name": "stable_audio", "window_seconds": window_seconds},
        "data": {"paths": [str(clips)]},
        "base": {"path": str(base)},
        "length": {"steps": 3},
        "output": {"name": "ghoul", "concepts": {"ghoul": "ghoul"}},
    }
    card = Card(
        name="ghoul",
        engine="stable_audio",
        id=id,
        base={"path": str(base)},
        recipe=recipe,
        trained_at={"window_seconds": window_seconds},
        licences=("CC-BY-4.0",),
    )
    return Shelf(home).put(card, home / "made")


def test_a_trained_checkpoint_brings_window_base_and_family(tunesmith, base: Path, home: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).standard_normal(RATE // 2) * np.hanning(RATE // 2) * 0.1
        soundfile.write(clips / f"{index}.wav", noise, RATE)
        (clips / f"{index}.txt").write_text("ghoul")
    trained_card(home, base, clips)
    assert tunesmith("concepts", "add", "ghoul", "--checkpoint", "ghoul-3", "--engine", "stable_audio").code == 0
    words = ("generate", "--creature-family", "ghoul", "--prompt", "roar", *FAST)
    ran = tunesmith(*words, "--seconds", 0.3, "--candidates", 2, "--out", "a.wav")
    assert ran.code == 0, ran.err
    assert "window 0.5 s, which the checkpoint was trained at" in ran.out
    found = told("a.wav")
    assert (found["window_seconds"], found["requested_seconds"]) == (0.5, 0.3)
    assert found["best_of_n"]["compared_with"] == "family"
    assert found["licence"]["items"] == ["CC-BY-4.0"]
    assert found["checkpoints"][0]["name"] == "ghoul-3"
    assert set(found["checkpoints"][0]["files"]) == {"adapter_model.safetensors", "adapter_config.json"}
    longer = tunesmith(*words, "--seconds", 0.8, "--out", "b.wav")
    assert "warning: the checkpoint was trained at 0.5 s; 0.8 s are more than it has seen" in longer.err
    assert "window_seconds" not in told("b.wav")
    wider = tunesmith(*words, "--seconds", 0.8, "--window-seconds", 1, "--out", "d.wav")
    assert "0.8 s are more than it has seen" in wider.err
    assert told("d.wav")["window_seconds"] == 1
    chosen = tunesmith(*words, "--seconds", 0.3, "--window-seconds", 0.4, "--out", "c.wav")
    assert "which the checkpoint was trained at" not in chosen.out
    assert told("c.wav")["window_seconds"] == 0.4
    assert tunesmith("generate", "--replay", "a.wav").code == 0


def test_without_a_length_sounds_are_as_long_as_the_window_allows(tunesmith, base: Path, home: Path) -> None:
    """The usual three seconds are more than this base has, and more than the checkpoint has heard."""
    trained_card(home, base, home)
    trained_card(home, base, home, "other-1", 1.5)
    words = ("generate", "--prompt", "x", *FAST)
    ran = tunesmith(*words, "--checkpoint", "ghoul-3", "--out", "lora.wav")
    assert ran.code == 0, ran.err
    assert (told("lora.wav")["requested_seconds"], told("lora.wav")["window_seconds"]) == (0.5, 0.5)
    ran = tunesmith(*words, "--engine", "stable_audio", "--base", base, "--no-adapter", "--out", "bare.wav")
    assert ran.code == 0, ran.err
    assert told("bare.wav")["requested_seconds"] == WINDOW_SECONDS
    assert soundfile.info("bare.wav").duration == WINDOW_SECONDS
    ran = tunesmith(*words, "--checkpoint", "other-1", "--checkpoint", "ghoul-3", "--out", "both.wav")
    assert ran.code == 0, ran.err
    assert "different windows (other-1 at 1.5 s, ghoul-3 at 0.5 s); the first one's is used" in ran.out
    assert (told("both.wav")["requested_seconds"], told("both.wav")["window_seconds"]) == (1.5, 1.5)


def test_a_loop_says_where_it_loops(tunesmith, base: Path) -> None:
    ran = tunesmith(
        "generate", "--base", base, "--no-adapter", "--prompt", "x", "--seconds", 0.5, "--loop", "--out", "a.mp3",
        "--out-sample-rate", 8000, *FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    loop = told("a.mp3")["loop"]
    assert (loop["start_sample"], loop["end_sample"]) == (0, 4000 - 800)
    assert "warning: MP3 adds silence" in ran.err


def test_into_a_minecraft_pack(tunesmith, base: Path) -> None:
    words = ("generate", "--base", base, "--no-adapter", "--prompt", "x", "--seconds", 0.2, *FAST)
    ids = ("--minecraft", "my\\pack", "--namespace", "Ghouls", "--event", "Entity.Ghoul.Scream")
    ran = tunesmith(*words, *ids, "--subtitle", "Ghoul screams", "--variants", 2, "--weight", 3, "--json")
    assert ran.code == 0, ran.err
    pack = Path("my/pack")
    files = [pack / "assets/ghouls/sounds/entity/ghoul" / f"scream_{index}.ogg" for index in (1, 2)]
    assert [Path(path) for path in ran.document["files"]] == files
    for file in files:
        with soundfile.SoundFile(file) as sound:
            assert (sound.samplerate, sound.channels, sound.subtype) == (44_100, 1, "VORBIS")
    event = json.loads((pack / "assets/ghouls/sounds.json").read_text())["entity.ghoul.scream"]
    assert [(entry["name"], entry["weight"]) for entry in event["sounds"]] == [
        ("ghouls:entity/ghoul/scream_1", 3),
        ("ghouls:entity/ghoul/scream_2", 3),
    ]
    entry = json.loads((pack / "tunesmith_credits.json").read_text())["sounds"][
        "assets/ghouls/sounds/entity/ghoul/scream_1.ogg"
    ]
    assert (entry["prompt"], entry["best_of_n"]["place"]) == ("x", 1)
    assert (entry["finish"]["rate"], entry["analysis"]["sample_rate"]) == (44_100, 44_100)
    assert entry["file"]["sha256"] == sha256(files[0])
    (pack / "assets/ghouls/sounds.json").write_text("{")
    broken = tunesmith(*words, *ids)
    assert broken.code == 2
    assert "sounds.json is broken" in broken.error


SOUND = ("--engine", "stable_audio", "--prompt", "x", "--no-adapter", "--out", "x.wav")
MISTAKES = [
    (("--seconds", 0), "request.seconds is 0"),
    (("--seconds", -1), "request.seconds is -1"),
    (("--seconds", 600), "request.seconds is 600"),
    (("--seconds", "long"), "a finite number"),
    (("--seconds", 3), "at most 2.00, the base's window"),
    (("--seconds", 1, "--window-seconds", 0.5), "its window 0.5"),
    (("--sampler", "deis"), "one of dpmpp_2m_sde, dpmpp_2m, dpmpp_3m_sde, heun, euler, euler_a"),
    (("--sampler", "euler", "--stable-audio-sampler", "heun"), "--sampler are both given"),
    (("--base", "b", "--stable-audio-model", "c"), "--base are both given"),
    (("--width", 64), "--width is for pictures, and stable_audio makes sounds"),
    (("--scheduler", "ddim"), "--scheduler is for pictures"),
    (("post.denois=1",), "did you mean 'denoise'"),
    (("post.denoise=2",), "post.denoise is 2"),
    (("colour=red",), "no 'colour'"),
    (("count=2",), "--count 2"),
    (("--out-format", "aac"), "--out-format is 'aac'"),
    (("--out-format", "ogg"), "--out ends in .wav and --out-format is ogg"),
    (("--mp3-bitrate", "loud"), "--mp3-bitrate is 'loud'"),
    (("--mp3-bitrate", "192k", "--out-sample-rate", 44100), "no bit rate"),
    (("--ogg-quality", 5), "no quality"),
    (("--wav-subtype", "PCM_8"), "--wav-subtype is 'PCM_8'"),
    (("--out-sample-rate", "fast"), "--out-sample-rate is 'fast'"),
    (("--candidates", 0), "--candidates is 0"),
    (("--count", 2), "--count is 2"),
    (("--event", "x"), "--event is given without --minecraft"),
    (("--minecraft", "p", "--namespace", "n"), "without --event"),
    (("--minecraft", "p", "--namespace", "..", "--event", "e"), "namespace is '..'"),
    (("--minecraft", "p", "--namespace", "n", "--event", "e", "--sound-path", "../../x"), "sound path is '../../x'"),
    (("--minecraft", "p", "--namespace", "n", "--event", "e"), "--out and --minecraft"),
    (("--stable-audio-lora-scale", 0.5), "not one LoRA without a weight"),
    (("--creature-family", "ghol"), "did you mean 'ghoul'"),
    (("--out", "x.aac"), "names no format we write"),
    (("--out", "C:\\sounds\\x.wav"), "is a path of a Windows machine"),
    (("--out", "file/x.wav"), "file is a file"),
    (("--replay", "x.wav"), "given with --replay"),
]


@pytest.mark.parametrize(
    ("words", "said"), MISTAKES, ids=lambda value: " ".join(map(str, value))[:50] if isinstance(value, tuple) else ""
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tunesmith, base: Path, words: tuple[object, ...], said: str
) -> None:
    write_family()
    Path("file").write_text("mine")
    named = () if "--stable-audio-model" in words else ("--base", base)
    before = sorted(Path().rglob("*"))
    ran = tunesmith("generate", *SOUND, *named, *words, "--steps", 2)
    assert ran.code == 2, ran.out
    assert said.casefold() in ran.error.casefold()
    assert sorted(Path().rglob("*")) == before


def test_flags_of_sounds_mean_nothing_to_a_picture_engine(tunesmith, base: Path) -> None:
    for words in (("--seconds", 2), ("--post",), ("post.denoise=1",), ("--loop",), ("--stable-audio-steps", 3)):
        ran = tunesmith("generate", "--engine", "test_pictures", "--base", base, *words)
        assert ran.code == 2
        assert f"{words[0]}".partition("=")[0] in ran.error
        assert "is for sounds, and test_pictures makes pictures" in ran.error
    ran = tunesmith("generate", "--engine", "test_pictures", "--base", base, "--out", "x.wav")
    assert "--out x.wav is for sounds" in ran.error


def test_a_lora_of_another_base_is_refused(tunesmith, base: Path) -> None:
    lora = write_lora(Path("big.safetensors"), blocks=3)
    ran = tunesmith("generate", *SOUND[:4], "--base", base, "--checkpoint", lora, "--out", "x.wav")
    assert ran.code == 2
    assert "2 of 6 layers in big.safetensors are not in this base" in ran.error
    assert not Path("x.wav").exists()


def test_a_model_that_gives_nan_is_told_and_nothing_written(tunesmith, base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("decoder") and name.endswith("bias"))
    tensors[name][0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    ran = tunesmith("generate", *SOUND, "--base", broken, "--seconds", 0.2, *FAST)
    assert ran.code == 3
    assert "the sound of seed 0 has NaN or Inf" in ran.error
    assert list(Path().iterdir()) == []


def test_without_a_base_anywhere_it_says_what_to_do(tunesmith, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.weights.starter.FOLDER", Path("nowhere"))
    ran = tunesmith("generate", *SOUND)
    assert ran.code == 2
    assert "no base is named, and stabilityai/stable-audio-open-1.0 is not on this machine" in ran.error
    assert "--base" in ran.error


def test_credits_that_cannot_be_replayed(tunesmith, base: Path) -> None:
    ran = tunesmith("generate", "--replay", "missing.wav")
    assert (ran.code, "missing.wav.credits.json cannot be read" in ran.error) == (2, True)
    Path("theirs.wav.credits.json").write_text('{"engine": "stable_audio_open", "prompt": "growl"}')
    ran = tunesmith("generate", "--replay", "theirs.wav")
    assert "Expected the credits of a sound that tunesmith made" in ran.error
    for words in (("--prompt", "x"), ("--post",), ("steps=3",), ("--engine", "stable_audio")):
        ran = tunesmith("generate", "--replay", "theirs.wav", *words)
        assert f"{words[0]} is given with --replay" in ran.error


def test_nothing_is_written_over_unless_forced(tunesmith, base: Path) -> None:
    words = ("generate", *SOUND, "--base", base, "--seconds", 0.1, *FAST)
    Path("x.wav").write_text("mine")
    ran = tunesmith(*words)
    assert ran.code == 2
    assert "x.wav is there already" in ran.error
    assert Path("x.wav").read_text() == "mine"
    assert tunesmith(*words, "--force").code == 0
    assert soundfile.info("x.wav").duration == pytest.approx(0.1)


def test_sounds_of_any_engine(tunesmith, base: Path) -> None:
    """One with other knobs goes the same way."""
    from tunesmith_test_engines.tokens import write_tokens_base

    tokens = write_tokens_base(Path("tokens.safetensors"))
    words = ("--base", tokens, "--prompt", "hum", "tokens=40", "--out-sample-rate", 8000, "--out", "a.wav")
    ran = tunesmith("generate", "--engine", "test_tokens", *words)
    assert ran.code == 0, ran.err
    assert told("a.wav")["engine"] == "test_tokens"


def test_a_clipped_sound_is_said(tunesmith, base: Path) -> None:
    """The tiny base reaches five times full scale; only a float WAV holds that."""
    words = ("generate", *SOUND[:-1], "a.wav", "--base", base, "--seconds", 0.1, *FAST)
    assert "a.wav is clipped" in tunesmith(*words).err
    assert "clipped" not in tunesmith(*words, "--force", "--wav-subtype", "FLOAT").err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is meant")
def test_a_replay_on_a_machine_without_that_device(tunesmith, base: Path) -> None:
    """It says what to do, and on the CPU that other bytes came out, with an exit code of its own."""
    words = ("generate", *SOUND[:-1], "a.wav", "--base", base, "--seconds", 0.1, "--post", *FAST)
    assert tunesmith(*words).code == 0
    document = told("a.wav")
    document["environment"]["device"] = "cuda"
    document["file"]["sha256"] = "0" * 64
    Path("a.wav.credits.json").write_text(json.dumps(document))
    ran = tunesmith("generate", "--replay", "a.wav")
    assert ran.code == 2
    assert "a.wav: device is cuda, but" in ran.error
    ran = tunesmith("generate", "--replay", "a.wav", "--device", "cpu", "--out", "b.wav", "--json")
    assert (ran.code, ran.document["same"]) == (1, False)
    assert ran.document["notes"] == ["not bit-exact: device was cuda and is cpu"]
    assert "warning: b.wav has other bytes than a.wav had" in ran.err
