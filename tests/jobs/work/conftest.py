from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from job_cases import SoundWorld, World, write_sound_world, write_world
from tunesmith.engines.index import engine_named
from tunesmith.engines.stable_audio.facts import FACTS, GenerationRequest


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def sound_world(tmp_path_factory: pytest.TempPathFactory) -> SoundWorld:
    return write_sound_world(tmp_path_factory.mktemp("sound_world"))


@dataclass(frozen=True)
class Hasty(GenerationRequest):
    """The same request, done in two steps where nobody says how many."""

    steps: int = 2


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """Sounds are drawn in two steps instead of a hundred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine_named("stable_audio")), "facts", replace(FACTS, request=Hasty))
        yield
