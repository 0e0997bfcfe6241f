"""CLIP's byte-pair tokenizer: ours from shipped merges, or a base folder's own files. No torch.

Source of the rules: OpenAI CLIP's simple_tokenizer (bytes first, then the same with `</w>`, then the merges, then
two specials). A prompt is tokenised once, cut into chunks of 75, and every chunk gets its own start and end.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
CHUNK = 75
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@cache
def _shipped_merges() -> tuple[str, ...]:
    data = files(__package__).joinpath("data", "clip_merges.txt.gz").read_bytes()
    return tuple(gzip.decompress(data).decode("utf-8").splitlines())


def byte_characters() -> list[str]:
    """A printable character for each of the 256 bytes, in CLIP's order: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


@cache
def shipped_vocabulary() -> dict[str, int]:
    """Token -> id: 49,408 tokens, the specials last. Treat as read-only."""
    characters = byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += [merge.replace(" ", "", 1) for merge in _shipped_merges()]
    return {token: index for index, token in enumerate([*tokens, START, END])}


def text_normalizer() -> Any:
    """Lower case, single spaces, composed characters."""
    from tokenizers import Regex, normalizers

    return normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])


def pre_tokenizer() -> Any:
    """Words, single digits and runs of signs, as bytes."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=END,
        )
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = text_normalizer(), pre_tokenizer()
    return tokenizer


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines) if right]


@cache
def open_tokenizer(folder: Path | None = None) -> Tokenizer:
    """The tokenizer in `folder` (vocab.json and merges.txt), or the shipped one. Cached; treat as read-only."""
    if folder is None:
        return _assemble(shipped_vocabulary(), _pairs(list(_shipped_merges())))
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary_file.is_file() and (folder / "tokenizer.json").is_file():
        return _read_whole(folder / "tokenizer.json")
    try:
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the tokenizer in {folder} cannot be read: {error}",
            expected="vocab.json and merges.txt",
            do="restore the files or use the base as a single file",
        ) from error
    return _assemble(vocabulary, _pairs([line for line in lines if not line.startswith("#version")]))


def _read_whole(file: Path) -> Tokenizer:
    """A tokenizer.json, the one file newer transformers write. Its reader raises bare Exception, so check first."""
    try:
        text = file.read_text(encoding="utf-8")
        model = json.loads(text)["model"]
        vocabulary, merges = model["vocab"], model["merges"]
        pairs = _pairs([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is not a tokenizer: {error}", expected="a byte-pair tokenizer.json") from error
    return _assemble(vocabulary, pairs)


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` holds its own tokenizer files."""
    return (folder / "vocab.json").is_file() or (folder / "tokenizer.json").is_file()


@cache
def is_shipped(folder: Path) -> bool:
    """Whether the tokenizer in `folder` knows the very tokens of the shipped one."""
    return open_tokenizer(folder).get_vocab() == shipped_vocabulary()


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of `text` without start and end."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _special(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise WeightsError(f"the base's tokenizer has no token {name}", expected="a CLIP tokenizer")
    return int(found)


def chunked_ids(tokenizer: Tokenizer, text: str, tokens: int) -> list[list[int]]:
    """Ids [chunks][77] of `text` cut to `tokens` (75, 150 or 225), each chunk with its start, end and padding.

    Padding is the end token, as SD 1.x was trained. There are always tokens / 75 chunks.
    """
    start, end = (_special(tokenizer, name) for name in (START, END))
    ids = token_ids(tokenizer, text)[:tokens]
    chunks = []
    for first in range(0, tokens, CHUNK):
        piece = ids[first : first + CHUNK]
        chunks.append([start, *piece, *[end] * (CHUNK + 1 - len(piece))])
    return chunks


def write_tokenizer(folder: Path, source: Path | None = None) -> None:
    """The tokenizer as a diffusers folder keeps it: vocab.json, merges.txt and two small JSON files.

    `source` is the base's own tokenizer folder, copied as it is; None writes the shipped one.
    """
    if source is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            if entry.is_file():
                (folder / entry.name).write_bytes(entry.read_bytes())
        return
    write_tokenizer_files(folder, shipped_vocabulary(), list(_shipped_merges()))


def write_tokenizer_files(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    """Write the four files that CLIPTokenizer reads; `merges` are pairs with a space between."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    specials = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n", encoding="utf-8")
    settings = {**specials, "do_lower_case": True, "model_max_length": CHUNK + 2, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
