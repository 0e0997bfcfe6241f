"""CLIP's tokenizer against transformers and known ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.engines.stable_diffusion.tokenizer import (
    END,
    START,
    chunked_ids,
    has_tokenizer,
    open_tokenizer,
    shipped_vocabulary,
    token_ids,
    write_tokenizer,
)
from tunesmith.errors import WeightsError

TEXTS = (
    "a photo of a cat",
    "qb_peter, masterpiece, (best quality:1.2)",
    "naïve café — 日本語 😀, it's I'll we've",
    "  tabs\tand\nnewlines   collapse ",
    "UPPER lower 1234567890 ...!!!",
    "E\u0301 combines",
    "",
    "x" * 300,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> object:
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(str(folder))


def test_known_ids() -> None:
    assert token_ids(open_tokenizer(), "a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert len(shipped_vocabulary()) == 49408
    assert (shipped_vocabulary()[START], shipped_vocabulary()[END]) == (49406, 49407)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(text: str, reference: object) -> None:
    expected = reference(text, padding="max_length", max_length=77, truncation=True).input_ids  # type: ignore[operator]
    assert chunked_ids(open_tokenizer(), text, 75) == [expected]


def test_the_written_pack_has_the_published_sizes(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert (tmp_path / "vocab.json").stat().st_size == 961_143
    assert (tmp_path / "merges.txt").stat().st_size == 524_619


@pytest.mark.parametrize("tokens", [75, 150, 225])
def test_long_captions_are_cut_into_chunks(tokens: int) -> None:
    text = " ".join(f"word{index}" for index in range(200))
    ids = token_ids(open_tokenizer(), text)
    chunks = chunked_ids(open_tokenizer(), text, tokens)
    assert [len(chunk) for chunk in chunks] == [77] * (tokens // 75)
    assert all((chunk[0], chunk[-1]) == (49406, 49407) for chunk in chunks)
    assert [token for chunk in chunks for token in chunk[1:-1]] == ids[:tokens]


def test_short_captions_are_padded_with_ends() -> None:
    first, second, third = chunked_ids(open_tokenizer(), "a cat", 225)
    assert first == [49406, 320, 2368, *[49407] * 74]
    assert second == third == [49406, *[49407] * 76]


@pytest.mark.parametrize("form", ["two files", "one file"])
def test_a_folders_own_tokenizer_wins(tmp_path: Path, form: str, reference: object) -> None:
    write_tokenizer(tmp_path / "plain")
    if form == "one file":
        reference.save_pretrained(str(tmp_path / "own"))  # type: ignore[attr-defined]
        file = tmp_path / "own" / "tokenizer.json"
        document = json.loads(file.read_text())
        vocabulary = document["model"]["vocab"]
        vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
        file.write_text(json.dumps(document))
        (tmp_path / "own" / "vocab.json").unlink(missing_ok=True)
    else:
        write_tokenizer(tmp_path / "own", tmp_path / "plain")
        file = tmp_path / "own" / "vocab.json"
        vocabulary = json.loads(file.read_text())
        vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
        file.write_text(json.dumps(vocabulary))
    assert has_tokenizer(tmp_path / "own")
    own, shipped = open_tokenizer(tmp_path / "own"), open_tokenizer()
    assert token_ids(own, "a cat") == token_ids(shipped, "a dog")
    assert token_ids(own, "a house on a hill") == token_ids(shipped, "a house on a hill")


@pytest.mark.parametrize("content", ["{", "{}", '{"model": 3}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        open_tokenizer(tmp_path)


def test_missing_merges_are_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"merges\.txt"):
        open_tokenizer(tmp_path)
