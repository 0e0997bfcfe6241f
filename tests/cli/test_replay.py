"""`replay` hands its words on and its verdict back."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunesmith.exchange.replay as exchange_replay


@pytest.mark.parametrize("verdict", [0, 1])
def test_words_go_in_and_the_verdict_comes_out(tunesmith, monkeypatch, verdict: int) -> None:
    heard = []

    def main(words: list[str]) -> int:
        heard.extend(words)
        return verdict

    monkeypatch.setattr(exchange_replay, "main", main)
    ran = tunesmith(
        "replay", "run.safetensors", "base", "--settings", "--network_dim 4", "--epoch-batches", 7, "--json"
    )
    assert ran.code == verdict
    assert heard == [
        "run.safetensors", "base", "--settings=--network_dim 4", "--device=cpu", "--epoch-batches=7", "--json",
    ]  # fmt: skip


def test_a_run_that_is_not_there_is_one_line(tunesmith, tmp_path: Path) -> None:
    ran = tunesmith("replay", tmp_path / "run.safetensors", tmp_path / "base.safetensors")
    assert ran.code == 2
    assert "run.safetensors" in ran.error
