"""Sounds of `tunesmith generate`: made, the best chosen, finished, written with their credits or into a pack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.calling import Call, request_of, say_what, select_for
from tunesmith.cli.opening import Place, open_on
from tunesmith.cli.outputs import SOUND_ENDINGS, check_out, free, is_one_file, refuse_existing, slug, sound_ending
from tunesmith.cli.sound_flags import SoundWish
from tunesmith.cli.sound_window import with_window
from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.catalog.card import Card
    from tunesmith.cli.screen import Screen
    from tunesmith.cli.surroundings import Surroundings
    from tunesmith.engines.protocol import Media
    from tunesmith.exchange.selection import Selection
    from tunesmith.generation.session import Session
    from tunesmith.generation.sidecars import Origin
    from tunesmith.generation.sounds import Sound


_LONG_BYTES = 500_000_000


@dataclass(frozen=True)
class Output:
    """Where sounds go: --out (a folder, or a file of one of SOUND_ENDINGS), --count and --force."""

    out: Path
    count: int = 1
    force: bool = False


@dataclass(frozen=True)
class Take:
    """One generated sound, finished. `note` is what its credits tell about the choice."""

    media: Media
    sound: Sound
    note: Mapping[str, Any] | None = None

    @property
    def seed(self) -> int:
        """The seed it was made from."""
        return int(self.media.parameters["seed"])


@dataclass(frozen=True)
class Run:
    """A run of sounds, checked before anything is opened; `request` is the engine's own."""

    call: Call
    wish: SoundWish
    output: Output
    request: Any
    ending: str


def make_sounds(
    here: Surroundings, call: Call, wish: SoundWish, *, output: Output, place: Place, screen: Screen
) -> None:
    """Generate, choose, write; one line about everything that is not what was asked for."""
    run = _checked(call, wish, output, screen)
    selection = select_for(here, call)
    cards = cards_of(here, selection)
    request = with_window(
        run.request, call.request, engine=selection.engine, base=selection.base, cards=cards, screen=screen
    )
    run = replace(run, request=request)
    say_what(screen, selection)
    session, environment = open_on(selection, place)
    origin = replace(origin_of(here, selection, call, screen), environment=environment)
    written: list[Path] = []
    seeds: list[int] = []
    if output.count > 1:  # each is written at once: nothing waits for a choice
        for take in _takes(session, run, output.count, screen):
            path = free(output.out / f"{_stem(run, take.seed)}{run.ending}")
            written += _into_files(run, origin, [take], [path], screen)
            seeds.append(take.seed)
    else:
        takes = list(_takes(session, run, wish.drawn, screen))
        kept, others = _chosen(here, run, takes, cards, screen)
        seeds = [take.seed for take in (*kept, *others)]
        if wish.pack is not None:
            written = _into_pack(run, origin, kept, screen)
        else:
            targets = [*_targets(run), *(_beside(_first(run), take.seed) for take in others)]
            written = _into_files(run, origin, [*kept, *others], targets, screen)
    session.close()
    _conclude(run, selection, written, seeds, screen)


def _conclude(run: Run, selection: Selection, written: list[Path], seeds: list[int], screen: Screen) -> None:
    """The answer for a script, and what a person may do now."""
    pack = run.wish.pack
    if screen.as_json:
        from tunesmith.generation.sounds import sidecar_path

        beside = [pack.credits_file] if pack is not None else [sidecar_path(path) for path in written]
        found = {"files": written, "credits": beside, "base": selection.base.source, "checkpoints": selection.used}
        screen.document({**found, "seeds": seeds})
    if pack is None:
        screen.next_steps(f"tunesmith generate --replay {written[0]}", "its credits beside it say how it was made")


def cards_of(here: Surroundings, selection: Selection) -> dict[str, Card]:
    """The cards of those checkpoints that are in the catalog, by the name they are used under."""
    from tunesmith.catalog.shelf import Shelf

    shelf = Shelf(here.home)
    return {used.name: shelf.get(used.name) for used in selection.used if not Path(used.name).exists()}


def origin_of(here: Surroundings, selection: Selection, call: Call, screen: Screen) -> Origin:
    """Where the sounds of a run come from, every file by its SHA-256; all but the environment."""
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.generation.sidecars import Origin, base_record, checkpoint_record
    from tunesmith.weights.hashes import HashCache

    hashes, shelf, cards = HashCache(here.home / "cache" / "hashes.json"), Shelf(here.home), cards_of(here, selection)

    def sha256(path: Path) -> str:
        size = path.stat().st_size
        # Progress comes only where the hash is not known yet: said once a file.
        told = iter([f"hashing {path}, once, for the credits"] if size > _LONG_BYTES else [])
        return hashes.get(path, lambda done: screen.say(*(line for line in told)))

    records = []
    for used in selection.used:
        card = cards.get(used.name)
        path = shelf.path(card) if card is not None else Path(used.name)
        terms = card.licences if card is not None else ()
        records.append(checkpoint_record(used.name, path, used.weight, sha256, terms))
    base = base_record(selection.base, sha256)
    hashes.save()
    items = sorted({term for card in cards.values() for term in card.licences})
    return Origin(
        engine=call.engine.facts.name,
        base=base,
        checkpoints=tuple(records),
        licences={"base": call.engine.facts.licence, "items": items},
        prompt=call.prompt,
        family=call.family,
        trigger=call.trigger,
    )


def watched(session: Session, request: Any, screen: Screen) -> Iterator[Media]:
    """The media of one request; a bar meanwhile, where someone looks on."""
    from tunesmith.engines.protocol import Media

    events = session.generate(request)
    if not screen.console.is_terminal:
        yield from (event for event in events if isinstance(event, Media))
        return
    from rich.progress import Progress as Bar

    made = []
    with Bar(console=screen.console, transient=True) as bar:
        task = bar.add_task(f"seed {request.seed}", total=None)
        for event in events:
            if isinstance(event, Media):
                made.append(event)
            else:
                bar.update(task, completed=event.done, total=event.total)
    yield from made


def now_utc() -> str:
    """ISO 8601, as credits and cards have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def say_written(screen: Screen, path: Path, sound: Sound, *, keeps_peaks: bool = False) -> None:
    """One line about a file, and a warning where it had to be clipped."""
    loudest = float(abs(sound.samples).max())
    if loudest > 1.0 and not keeps_peaks:
        screen.warn(f"{path} is clipped: the sound reaches {loudest:.2f} times full scale; --post brings it down")
    channels = {1: "mono", 2: "stereo"}.get(len(sound.samples), f"{len(sound.samples)} channels")
    screen.say(f"wrote {path} ({sound.seconds:.2f} s, {sound.rate} Hz, {channels}), its credits beside it")


def _checked(call: Call, wish: SoundWish, output: Output, screen: Screen) -> Run:
    """Refuse what can be refused before anything is opened."""
    request = dict(call.request)
    if "count" in request:
        raise RecipeError("count is given as a setting", do=f"say --count {request['count']}")
    _spell_sampler(call, request, screen)
    made = request_of(call.engine.facts.request, request)
    if output.count > 1 and (wish.drawn > 1 or wish.pack is not None):
        raise RecipeError("--count goes with neither candidates nor variations nor a pack", do="leave it out")
    if wish.pack is not None:
        from tunesmith.generation.minecraft import check_pack

        ending = ".ogg"
        check_out(wish.pack.pack, (), 1, flag="--minecraft")
        check_pack(wish.pack)
    else:
        ending = sound_ending(output.out, wish.out_format)
        check_out(output.out, SOUND_ENDINGS, output.count)
    run = Run(call, wish, output, made, ending)
    if wish.pack is None and is_one_file(output.out, SOUND_ENDINGS):
        seeds = [made.seed + index for index in range(wish.drawn)]
        others = [_beside(output.out, seed) for seed in seeds] if wish.keeps_candidates and wish.drawn > 1 else []
        refuse_existing([*_targets(run), *others], force=output.force)
    wish.finish.check(Path(f"sound{ending}"))
    if wish.finish.loop_seconds is not None and ending == ".mp3":
        screen.warn("MP3 adds silence at both ends: the loop will have a gap; WAV, FLAC and OGG have none")
    return run


def _spell_sampler(call: Call, request: dict[str, str], screen: Screen) -> None:
    """Another tool's name of a sampler becomes ours: its own one would be given wrong times by this base."""
    from tunesmith.engines.stable_audio.facts import FACTS, SAMPLER_NAMES

    name = request.get("sampler")
    if name in SAMPLER_NAMES and call.engine.facts.name == FACTS.name:
        request["sampler"] = SAMPLER_NAMES[name]
        screen.say(f"sampler {name} is {request['sampler']} on this base")


def _takes(session: Session, run: Run, count: int, screen: Screen) -> Iterator[Take]:
    """As many takes, with seeds counting up."""
    from tunesmith.generation.sounds import finish_sound

    for index in range(count):
        for media in watched(session, replace(run.request, seed=run.request.seed + index), screen):
            yield Take(media, finish_sound(media, run.wish.finish))


def _chosen(
    here: Surroundings, run: Run, takes: list[Take], cards: Mapping[str, Card], screen: Screen
) -> tuple[list[Take], list[Take]]:
    """(The takes to keep, best first, the others), each with its place and everyone's scores."""
    if run.wish.drawn == 1:
        return takes, []
    from tunesmith.evaluation.takes import family_clips, family_embeddings, rank_takes

    clips: tuple[Path, ...] = ()
    for card in cards.values():
        clips, reason = family_clips(card, here.home, concept=run.call.family)
        if reason:
            screen.say(f"{reason}: takes are compared with each other only")
        if clips:
            break
    ranking = rank_takes(
        [(take.sound.samples, take.sound.rate) for take in takes],
        family_embeddings(clips) if clips else None,
        are_loops=run.wish.finish.loop_seconds is not None,
    )
    ordered = [takes[index] for index in ranking.order]
    scores = [{"seed": take.seed, **score} for take, score in zip(ordered, ranking.scores, strict=True)]
    drawn = {"drawn": len(takes), "first_seed": run.request.seed, "compared_with": ranking.against}
    noted = [
        replace(take, note={**drawn, "place": place, "scores": scores}) for place, take in enumerate(ordered, start=1)
    ]
    for take, score in zip(noted[: run.wish.kept], scores, strict=False):
        wrong = " and ".join(name.replace("_", " ") for name in score["faults"])
        screen.say(f"kept seed {take.seed} of {len(takes)} takes" + (f" (its fault: {wrong})" if wrong else ""))
    return noted[: run.wish.kept], noted[run.wish.kept :] if run.wish.keeps_candidates else []


def _into_files(run: Run, origin: Origin, takes: Sequence[Take], targets: Sequence[Path], screen: Screen) -> list[Path]:
    """Write every take to its file; returns the files."""
    from tunesmith.generation.sounds import write_sound

    for take, path in zip(takes, targets, strict=True):
        write_sound(take.sound, path, finish=run.wish.finish, sidecar=_sidecar(origin, take))
        say_written(screen, path, take.sound, keeps_peaks=run.wish.finish.subtype == "FLOAT")
    return list(targets)


def _into_pack(run: Run, origin: Origin, kept: Sequence[Take], screen: Screen) -> list[Path]:
    """Write the takes as variants of one event; returns the files."""
    from tunesmith.generation.minecraft import export_sounds
    from tunesmith.generation.sounds import told_of

    pack = run.wish.pack
    assert pack is not None
    sidecars = [{**_sidecar(origin, take), **told_of(take.sound, run.wish.finish)} for take in kept]
    files = export_sounds(pack, [take.sound for take in kept], sidecars)
    for file in files:
        screen.say(f"wrote {file}")
    screen.say(f"{pack.namespace}:{pack.event} is in {pack.sounds_file}, the credits in {pack.credits_file}")
    return list(files)


def _sidecar(origin: Origin, take: Take) -> dict[str, Any]:
    from tunesmith.generation.sidecars import sidecar_of

    told = sidecar_of(origin, take.media, created_utc=now_utc())
    return {**told, "best_of_n": dict(take.note)} if take.note is not None else told


def _targets(run: Run) -> list[Path]:
    """The files of what is kept: one, or NAME_01 and so on."""
    first = _first(run)
    if run.wish.variations is None:
        return [first]
    return [first.with_stem(f"{first.stem}_{index:02d}") for index in range(1, run.wish.variations + 1)]


def _first(run: Run) -> Path:
    """--out where it is a file, else a name in it that nothing has."""
    if is_one_file(run.output.out, SOUND_ENDINGS):
        return run.output.out
    path = run.output.out / f"{_stem(run, run.request.seed)}{run.ending}"
    number = 2
    wanted = path
    while any(run.output.out.glob(f"{wanted.stem}_*{run.ending}")) or wanted.exists():
        wanted, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return wanted


def _beside(path: Path, seed: int) -> Path:
    """Where a candidate goes that was not chosen."""
    return path.with_stem(f"{path.stem}_candidate_{seed}")


def _stem(run: Run, seed: int) -> str:
    return f"{slug(str(run.request.prompt), 'sound')}-{seed}"
