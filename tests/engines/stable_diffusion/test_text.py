"""Text states against transformers: clip_skip, and chunks joined as trainers join them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunesmith.engines.stable_diffusion.text import join_chunks, text_states


def test_states_are_those_of_diffusers(tiny: Any) -> None:
    """(Its own clip_skip fails on transformers 5.6 and later, which dropped the module it asks for.)"""
    ids = torch.tensor([[49406, 320, 2368, *[49407] * 74]])
    with torch.no_grad():
        theirs, _ = tiny.pipeline.encode_prompt("a cat", torch.device("cpu"), 1, False)
        assert torch.equal(text_states(tiny.pipeline.text_encoder, ids, 1), theirs)


def test_clip_skip_takes_an_earlier_layer(tiny: Any) -> None:
    encoder, ids = tiny.pipeline.text_encoder, torch.tensor([[49406, *range(75), 49407]])
    with torch.no_grad():
        hidden = encoder(input_ids=ids, output_hidden_states=True).hidden_states
        expected = torch.nn.functional.layer_norm(
            hidden[1], (32,), encoder.final_layer_norm.weight, encoder.final_layer_norm.bias
        )
        torch.testing.assert_close(text_states(encoder, ids, 2), expected, rtol=0, atol=1e-6)
        assert not torch.equal(text_states(encoder, ids, 1), text_states(encoder, ids, 2))


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_chunks_are_encoded_apart_and_joined(tiny: Any, chunks: int) -> None:
    encoder = tiny.pipeline.text_encoder
    ids = torch.randint(0, 49406, (2, chunks, 77), generator=torch.Generator().manual_seed(1))
    ids[:, :, 0], ids[:, :, -1] = 49406, 49407
    with torch.no_grad():
        states = text_states(encoder, ids, 1)
        rows = []
        for row in ids:
            apart = [encoder(input_ids=chunk[None]).last_hidden_state[0] for chunk in row]
            middle = [state for piece in apart for state in piece[1:76]]
            rows.append(torch.stack([apart[0][0], *middle, apart[-1][76]]))
    assert states.shape == (2, 75 * chunks + 2, 32)
    torch.testing.assert_close(states, torch.stack(rows), rtol=1e-5, atol=1e-6)


def test_join_keeps_the_first_start_and_the_last_end() -> None:
    numbered = torch.arange(3 * 77).reshape(1, 3, 77, 1).float()
    joined = join_chunks(numbered).flatten().tolist()
    assert joined == [0, *range(1, 76), *range(78, 153), *range(155, 230), 230]
