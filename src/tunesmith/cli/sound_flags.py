"""The flags of `tunesmith generate` that only sounds have, and what they ask for."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.generation.minecraft import PackSound
    from tunesmith.generation.sounds import Finish

Function = TypeVar("Function", bound=Callable[..., Any])

POST = "post."
WAV_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
LOOP_SECONDS = 0.1
MOST_TAKES = 1000


@dataclass(frozen=True)
class Flag:
    """A flag: its spellings, whether it is a switch, what stands for its value in the help, and the help."""

    names: tuple[str, ...]
    help: str = ""
    metavar: str | None = None  # None: a switch
    hidden: bool = False


FLAGS: Mapping[str, Flag] = {
    "seconds": Flag(("--seconds", "--duration"), "sounds: length", "X"),
    "window_seconds": Flag(("--window-seconds",), "sounds: length that is denoised before cutting", "X"),
    "sampler": Flag(("--sampler",), "sounds: the sampler", "NAME"),
    "post": Flag(("--post",), "sounds: trim, filter, fade and normalise; post.KNOB=VALUE words change how"),
    "polish": Flag(("--polish",), "sounds: --post with noise reduction, compressor and limiter"),
    "loop": Flag(("--loop",), "sounds: a seamless loop"),
    "mono": Flag(("--mono",), "sounds: one channel"),
    "out_format": Flag(("--out-format",), "sounds: what to write; else what --out ends in", "wav|flac|mp3|ogg"),
    "out_sample_rate": Flag(("--out-sample-rate",), "sounds: resample to this", "HZ"),
    "wav_subtype": Flag(("--wav-subtype",), "sounds: how WAV and FLAC keep samples", "|".join(WAV_SUBTYPES)),
    "mp3_bitrate": Flag(("--mp3-bitrate",), "sounds: bit rate of an MP3", "192k"),
    "ogg_quality": Flag(("--ogg-quality",), "sounds: Vorbis quality, 0 to 10", "5"),
    "candidates": Flag(("--candidates",), "sounds: make this many, keep the best", "N"),
    "keep_candidates": Flag(("--keep-candidates",), "sounds: write the other candidates too"),
    "variations": Flag(("--variations",), "sounds: this many distinct takes, NAME_01, NAME_02 …", "N"),
    "replay": Flag(("--replay",), "sounds: make the sound of these credits again, byte for byte", "SIDECAR"),
    "minecraft": Flag(("--minecraft",), "sounds: into this resource pack instead of --out", "PACK"),
    "namespace": Flag(("--namespace",), "Minecraft: the pack's namespace", "NS"),
    "event": Flag(("--event",), "Minecraft: the sound event, such as entity.ghoul.scream", "ID"),
    "sound_path": Flag(("--sound-path",), "Minecraft: the file's path below sounds; else the event's", "PATH"),
    "subtitle": Flag(("--subtitle",), "Minecraft: the subtitle's words", "TEXT"),
    "variants": Flag(("--variants",), "Minecraft: this many takes the game chooses from", "N"),
    "weight": Flag(("--weight",), "Minecraft: how often it is chosen", "N"),
    "volume": Flag(("--volume",), "Minecraft: its volume", "X"),
    "pitch": Flag(("--pitch",), "Minecraft: its pitch", "X"),
    # Spellings of another tool. `checkpoint`, `base`, `negative` and so on have flags of their own.
    "stable_audio_steps": Flag(("--stable-audio-steps",), metavar="N", hidden=True),
    "stable_audio_guidance_scale": Flag(("--stable-audio-guidance-scale",), metavar="X", hidden=True),
    "stable_audio_sampler": Flag(("--stable-audio-sampler",), metavar="NAME", hidden=True),
    "stable_audio_negative_prompt": Flag(("--stable-audio-negative-prompt",), metavar="TEXT", hidden=True),
    "stable_audio_model": Flag(("--stable-audio-model",), metavar="BASE", hidden=True),
    "stable_audio_lora_path": Flag(("--stable-audio-lora-path",), metavar="FILE", hidden=True),
    "stable_audio_lora_scale": Flag(("--stable-audio-lora-scale",), metavar="X", hidden=True),
    "stable_audio_lora_trigger": Flag(("--stable-audio-lora-trigger",), metavar="WORD", hidden=True),
    "model_version": Flag(("--model-version",), metavar="NAME", hidden=True),
}
# Hidden spellings -> the parameter of `generate` that they set.
SPELLINGS: Mapping[str, str] = {
    "stable_audio_steps": "steps",
    "stable_audio_guidance_scale": "guidance",
    "stable_audio_sampler": "sampler",
    "stable_audio_negative_prompt": "negative",
    "stable_audio_model": "base",
}
REQUEST = ("seconds", "window_seconds", "sampler")
_PACK = ("namespace", "event", "sound_path", "subtitle", "variants", "weight", "volume", "pitch")
_CODING = ("out_format", "out_sample_rate", "wav_subtype", "mp3_bitrate", "ogg_quality")


def with_sound_flags(function: Function) -> Function:
    """Replace the `**sound` of a command by one flag for each of FLAGS."""
    signature = inspect.signature(function, eval_str=True)
    own = [entry for entry in signature.parameters.values() if entry.kind is not inspect.Parameter.VAR_KEYWORD]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(flag), annotation=_annotation(flag))
        for name, flag in FLAGS.items()
    ]
    # Typer reads the signature; assigning it is how `inspect` lets a function state another one.
    function.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    return function


def given_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of the flags was used."""
    return {name: value for name, value in values.items() if value not in (None, False)}


def first_for_sounds(given: Mapping[str, Any], words: Sequence[str]) -> str:
    """The first flag or word that only sounds have; "" where there is none."""
    flag = next((FLAGS[name].names[0] for name in given), "")
    return flag or next((word.partition("=")[0] for word in words if word.startswith(POST)), "")


@dataclass(frozen=True)
class SoundWish:
    """What to do with the sounds of a run beside making them."""

    finish: Finish
    out_format: str | None = None
    candidates: int = 1
    keeps_candidates: bool = False
    variations: int | None = None
    pack: PackSound | None = None

    @property
    def kept(self) -> int:
        """How many are chosen."""
        return self.variations or 1

    @property
    def drawn(self) -> int:
        """How many are made to choose from."""
        return max(self.candidates, self.kept)


def sound_wish(given: Mapping[str, Any], words: Sequence[str]) -> SoundWish:
    """The flags and `post.KNOB=VALUE` words as one wish. Raises RecipeError for the first that cannot be."""
    from tunesmith.generation.minecraft import FINISH
    from tunesmith.generation.sounds import Finish

    pack = _pack(given)
    wrong = next((FLAGS[name].names[0] for name in (*_CODING, "mono") if name in given), "")
    if pack is not None and wrong:
        raise RecipeError(
            f"{wrong} and --minecraft are both given", do="packs hold mono Vorbis at 44100 Hz: leave it out"
        )
    usual = FINISH if pack is not None else None
    subtype = given.get("wav_subtype")
    if subtype is not None and str(subtype).upper() not in WAV_SUBTYPES:
        raise RecipeError(f"--wav-subtype is {subtype!r}", expected=f"one of {', '.join(WAV_SUBTYPES)}")
    finish = Finish(
        post=_post(given, words),
        loop_seconds=LOOP_SECONDS if "loop" in given else None,
        mono=usual.mono if usual else "mono" in given,
        rate=usual.rate if usual else _number(given, "out_sample_rate", int),
        subtype=str(subtype).upper() if subtype is not None else None,
        bitrate_kbps=_bitrate(given),
        quality=usual.quality if usual else _number(given, "ogg_quality", float),
    )
    return SoundWish(
        finish,
        out_format=_format(given),
        candidates=_count(given, "candidates") or 1,
        keeps_candidates="keep_candidates" in given,
        variations=_count(given, "variants" if pack is not None else "variations"),
        pack=pack,
    )


def _pack(given: Mapping[str, Any]) -> PackSound | None:
    """Where in a Minecraft pack the sounds go. Raises RecipeError for a pack without ids and ids without a pack."""
    if "minecraft" not in given:
        stray = next((name for name in _PACK if name in given), None)
        if stray is not None:
            raise RecipeError(f"{FLAGS[stray].names[0]} is given without --minecraft", do="name the pack's folder")
        return None
    missing = next((name for name in ("namespace", "event") if name not in given), None)
    if missing is not None:
        raise RecipeError(f"--minecraft is given without {FLAGS[missing].names[0]}", do="name it")
    if "variations" in given:
        raise RecipeError("--variations and --minecraft are both given", do="say --variants")
    from tunesmith.generation.minecraft import pack_sound

    settings = {name: _number(given, name, float) for name in ("weight", "volume", "pitch")}
    return pack_sound(
        Path(given["minecraft"]),
        namespace=given["namespace"],
        event=given["event"],
        path=given.get("sound_path"),
        subtitle=given.get("subtitle"),
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _post(given: Mapping[str, Any], words: Sequence[str]) -> Any:
    """PostSettings, or None without --post, --polish and words of it."""
    chosen = dict(word.removeprefix(POST).partition("=")[::2] for word in words if word.startswith(POST))
    if not chosen and "post" not in given and "polish" not in given:
        return None
    from tunesmith.generation.sound.settings import PostSettings, check_knob, polished
    from tunesmith.recipe.document import Node, plain_scalar
    from tunesmith.recipe.values import unwrap, value_of

    values = {}
    for name, text in chosen.items():
        knob = check_knob(name)
        value: Any = plain_scalar(text)
        if typing.get_origin(unwrap(knob.type)[0]) is tuple:
            value = [Node(part.strip(), f"{POST}{name}") for part in text.strip("[] ").split(",") if part.strip()]
        values[name] = value_of(knob, Node(value, "the command line", text, loose=True))
    settings = PostSettings(**values)
    return polished(settings, given=tuple(values)) if "polish" in given else settings


def _format(given: Mapping[str, Any]) -> str | None:
    known = ("wav", "flac", "mp3", "ogg")
    name = given.get("out_format")
    if name is not None and name.lower() not in known:
        raise RecipeError(f"--out-format is {name!r}", expected=f"one of {', '.join(known)}")
    return name.lower() if name is not None else None


def _bitrate(given: Mapping[str, Any]) -> int | None:
    """192k, 192 or 192kbps as kbit/s."""
    text = given.get("mp3_bitrate")
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,4})\s*(k|kb|kbps|kbit/s)?", text.strip().lower())
    if found is None:
        raise RecipeError(f"--mp3-bitrate is {text!r}", expected="kbit/s, such as 192k")
    return int(found[1])


def _count(given: Mapping[str, Any], name: str) -> int | None:
    count: int | None = _number(given, name, int)
    if count is not None and not 1 <= count <= MOST_TAKES:
        raise RecipeError(f"{FLAGS[name].names[0]} is {count}", expected=f"1 to {MOST_TAKES}")
    return count


def _number(given: Mapping[str, Any], name: str, kind: Callable[[str], Any]) -> Any:
    """The flag's number, or None where it is not given."""
    if name not in given:
        return None
    try:
        value = kind(given[name])
    except ValueError:
        value = None
    if value is None or not math.isfinite(value):
        words = "a whole number" if kind is int else "a number"
        raise RecipeError(f"{FLAGS[name].names[0]} is {given[name]!r}", expected=words)
    return value


def _annotation(flag: Flag) -> Any:
    option = typer.Option(*flag.names, help=flag.help, metavar=flag.metavar, hidden=flag.hidden, show_default=False)
    return Annotated[bool if flag.metavar is None else str | None, option]


def _default(flag: Flag) -> Any:
    return False if flag.metavar is None else None
