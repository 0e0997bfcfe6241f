"""Folders become items: layouts, identity, and every way a folder can be wrong."""

from __future__ import annotations

import json
import time
import wave
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tunesmith.data.source import as_prior, dataset_hash, hash_of_file, item_key, read_items
from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection


def names(reading):
    return [item.media["image"].path.name for item in reading.items]


def refusal(path: Path, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        read_items([path], DataSection(**options))
    assert "\n" not in caught.value.message
    return caught.value


# ---------------------------------------------------------------- flat


def test_flat_folder_in_natural_order_with_sidecars(tmp_path, picture):
    for number in (10, 2, 1):
        picture(f"d/p{number}.png", caption=f"picture {number}\n")
    reading = read_items([tmp_path / "d"], DataSection())
    assert names(reading) == ["p1.png", "p2.png", "p10.png"]
    assert [item.text["caption"] for item in reading.items] == ["picture 1", "picture 2", "picture 10"]
    assert all((item.repeats, item.weight, item.prior, item.concept) == (1, 1.0, False, "") for item in reading.items)
    assert "1 repeat" in reading.notes[0]


def test_facts_and_hashes_are_of_the_file(tmp_path, picture):
    path = picture("d/a.png", size=(12, 7))
    (item,) = read_items([tmp_path / "d"], DataSection()).items
    assert item.media["image"].facts == {"width": 12, "height": 7, "has_alpha": False, "format": "PNG"}
    assert item.media["image"].sha256 == hash_of_file(path)


def test_hash_file_is_asked_for_every_picture(tmp_path, picture):
    picture("d/a.png"), picture("d/b.png")
    asked = []

    def hash_file(path):
        asked.append(path.name)
        return f"{path.name}-hash"

    reading = read_items([tmp_path / "d"], DataSection(), hash_file=hash_file)
    assert asked == ["a.png", "b.png"]
    assert [item.media["image"].sha256 for item in reading.items] == ["a.png-hash", "b.png-hash"]


def test_extensions_in_any_case(tmp_path, picture):
    picture("d/a.JPG"), picture("d/b.Png")
    (tmp_path / "d/a.TXT").write_text("first")
    (tmp_path / "d/b.Caption").write_text("second")
    reading = read_items([tmp_path / "d"], DataSection())
    assert [item.text["caption"] for item in reading.items] == ["first", "second"]


@pytest.mark.parametrize(("order", "wanted"), [((".txt", ".caption"), "t"), ((".caption", ".txt"), "c")])
def test_the_section_orders_sidecars(tmp_path, picture, order, wanted):
    picture("d/a.png", caption="t")
    (tmp_path / "d/a.caption").write_text("c")
    reading = read_items([tmp_path / "d"], DataSection(caption_extensions=order))
    assert reading.items[0].text["caption"] == wanted
    assert any("several caption files" in note for note in reading.notes)


def test_what_is_left_out_is_said(tmp_path, picture):
    picture("d/a.png"), picture("d/b.gif"), picture("d/more/c.png")
    (tmp_path / "d/.hidden.png").write_bytes(b"")
    reading = read_items([tmp_path / "d"], DataSection())
    assert names(reading) == ["a.png"]
    assert any(".gif" in note for note in reading.notes)
    assert any("more" in note and "left out" in note for note in reading.notes)


def test_captions_missing_and_empty_are_noted_apart(tmp_path, picture):
    picture("d/a.png"), picture("d/b.png", caption=" \n"), picture("d/c.png", caption="c")
    reading = read_items([tmp_path / "d"], DataSection())
    assert [item.text["caption"] for item in reading.items] == ["", "", "c"]
    assert "1 item without a caption file: a.png" in reading.notes
    assert "1 item with an empty caption: b.png" in reading.notes


def test_default_caption_fills_in_concept_and_trigger(tmp_path, picture):
    picture("d/a.png")
    section = DataSection(default_caption="a photo of {trigger}, {concept} {other}")
    reading = read_items([tmp_path / "d"], section, concepts={"peter": "qb_peter"})
    assert reading.items[0].text["caption"] == "a photo of qb_peter, peter {other}"
    assert reading.items[0].concept == "peter"


def test_progress_counts_every_item(tmp_path, picture):
    picture("d/a.png"), picture("d/b.png")
    said = []
    read_items([tmp_path / "d"], DataSection(), on_progress=lambda done, total: said.append((done, total)))
    assert said == [(1, 2), (2, 2)]


# ---------------------------------------------------------------- repeats


@pytest.fixture
def friends(tmp_path, picture) -> Path:
    picture("friends/30_peter/a.png", caption="peter")
    picture("friends/10_ruby_character/b.png")
    picture("friends/extra/c.png")
    (tmp_path / "friends/notes").mkdir()
    return tmp_path / "friends"


def test_numbered_folders_given_by_their_parent(friends):
    reading = read_items([friends], DataSection())
    found = {item.media["image"].path.name: (item.concept, item.repeats) for item in reading.items}
    assert found == {"a.png": ("peter", 30), "b.png": ("ruby_character", 10), "c.png": ("extra", 1)}
    assert any("extra: no number before the name, so 1 repeat" in note for note in reading.notes)
    assert any("notes holds no items" in note for note in reading.notes)


def test_numbered_folder_given_itself(friends):
    (item,) = read_items([friends / "30_peter"], DataSection()).items
    assert (item.concept, item.repeats) == ("peter", 30)


def test_text_after_the_number_is_the_caption_where_there_is_none(friends):
    (item,) = read_items([friends / "10_ruby_character"], DataSection()).items
    assert item.text["caption"] == "ruby_character"


@pytest.mark.parametrize("folder", ["5_peter", "5_qb_peter"])
def test_a_folder_means_a_concept_by_name_or_trigger(tmp_path, picture, folder):
    picture(f"{folder}/a.png")
    (item,) = read_items([tmp_path / folder], DataSection(), concepts={"peter": "qb_peter", "zoe": "zz"}).items
    assert (item.concept, item.repeats) == ("peter", 5)


def test_plain_folder_under_layout_repeats_is_one_repeat(tmp_path, picture):
    picture("peter/a.png")
    reading = read_items([tmp_path / "peter"], DataSection(layout="repeats"))
    assert (reading.items[0].concept, reading.items[0].repeats) == ("peter", 1)
    assert "no number" in reading.notes[0]


@pytest.mark.parametrize("name", ["0_x", "1000000_x"])
def test_impossible_repeats(tmp_path, picture, name):
    picture(f"{name}/a.png")
    assert "repeats" in refusal(tmp_path / name).found


# ---------------------------------------------------------------- metadata.jsonl


def write_lines(folder: Path, *records) -> None:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_metadata_gives_everything(tmp_path, picture):
    picture("d/a.png"), picture("d/sub/b.png"), picture("d/m.png"), picture("d/c.png", caption="from the sidecar")
    write_lines(
        tmp_path / "d",
        {"file_name": "sub/b.png", "text": "b", "concept": "qb", "group": "g", "weight": 0.5, "repeats": 3, "odd": 1},
        "",
        {"file_name": "a.png", "text": "", "credits": {"author": "me", "licence": "CC0"}, "mask": "m.png"},
        {"file_name": "c.png"},
    )
    reading = read_items([tmp_path / "d"], DataSection(), concepts={"peter": "qb", "zoe": "zz"})
    first, second, third = reading.items
    assert (first.text["caption"], first.concept, first.group) == ("b", "peter", "g")
    assert (first.weight, first.repeats) == (0.5, 3)
    assert second.credits == {"author": "me", "licence": "CC0"}
    assert second.media["mask"].path.name == "m.png"
    assert second.text["caption"] == ""
    assert third.text["caption"] == "from the sidecar"
    assert any("'odd' (first in line 1) is not used" in note for note in reading.notes)
    assert any("1 not named in metadata.jsonl" in note for note in reading.notes)  # m.png


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{not json", "not JSON"),
        ("[1]", "no JSON object"),
        ('{"text": "x"}', "no file_name"),
        ('{"file_name": "../a.png"}', "leads out"),
        ('{"file_name": "/etc/passwd"}', "leads out"),
        ('{"file_name": "..\\\\a.png"}', "leads out"),
        ('{"file_name": "a.png", "weight": NaN}', "weight"),
        ('{"file_name": "a.png", "weight": "1"}', "weight"),
        ('{"file_name": "a.png", "weight": -1}', "weight"),
        ('{"file_name": "a.png", "weight": 1e999}', "weight"),
        ('{"file_name": "a.png", "repeats": 1.5}', "repeats"),
        ('{"file_name": "a.png", "text": 3}', "text"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "half a character"),
        ('{"file_name": "a.png", "text": "x\\u0000y"}', "NUL"),
        ('{"file_name": "missing.png"}', "does not exist"),
        ('{"file_name": "metadata.jsonl"}', "is no image by its name"),
        ('{"file_name": "ok.png"}', "stands in line 1"),
        ('{"file_name": "a.png", "credits": 7}', "credits"),
        ("[" * 100_000, "not JSON"),
        ('{"file_name": "a.png", "weight": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_number(tmp_path, picture, line, what):
    picture("d/a.png"), picture("d/ok.png")
    write_lines(tmp_path / "d", {"file_name": "ok.png"}, line)
    found = refusal(tmp_path / "d").found
    assert "line 2" in found
    assert what in found


def test_prepared_folders_are_given_by_their_parent(tmp_path, picture):
    """Each says what its items are; one with a number in front counts as it always did."""
    for family in ("ghoul", "wisp"):
        picture(f"d/{family}/files/a.png", size=(8, 9 if family == "wisp" else 8))
        write_lines(tmp_path / "d" / family, {"file_name": "files/a.png", "text": f"a {family}"})
    picture("d/3_imp/b.png", size=(7, 7), caption="an imp")
    write_lines(tmp_path / "d" / "3_imp", {"file_name": "b.png", "text": "not read"})
    reading = read_items([tmp_path / "d"], DataSection(), concepts={"ghoul": "gh", "wisp": "ws"})
    found = [(item.text["caption"], item.concept, item.repeats) for item in reading.items]
    assert found == [("an imp", "imp", 3), ("a ghoul", "ghoul", 1), ("a wisp", "wisp", 1)]
    assert f"{tmp_path / 'd' / 'wisp'}: items and captions from metadata.jsonl" in reading.notes
    (alone,) = read_items([tmp_path / "d" / "wisp"], DataSection(), concepts={"ghoul": "gh", "wisp": "ws"}).items
    assert alone.concept == "wisp"
    picture("d/c.png", size=(6, 6))
    (tmp_path / "d/3_imp/metadata.jsonl").unlink(), (tmp_path / "d/3_imp").rename(tmp_path / "imp")
    with_own = read_items([tmp_path / "d"], DataSection())
    assert names(with_own) == ["c.png"]
    assert any("wisp holds some more and was left out: give it as a path" in note for note in with_own.notes)


def test_metadata_asked_for_but_absent(tmp_path, picture):
    picture("d/a.png")
    assert "metadata.jsonl" in refusal(tmp_path / "d", layout="metadata").found


def test_empty_metadata(tmp_path, picture):
    picture("d/a.png")
    (tmp_path / "d/metadata.jsonl").write_text("\n\n")
    assert "is empty" in refusal(tmp_path / "d").found


# ---------------------------------------------------------------- masks and control pictures


def test_mask_and_control_beside_the_picture(tmp_path, picture):
    picture("d/a.jpg", size=(16, 8)), picture("d/a.mask.png", size=(8, 4)), picture("d/a.control.PNG", size=(16, 8))
    (item,) = read_items([tmp_path / "d"], DataSection(), media=("image", "control")).items
    assert sorted(item.media) == ["control", "image", "mask"]


def test_required_role_missing(tmp_path, picture):
    picture("d/a.png")
    with pytest.raises(DataError, match="has no control picture"):
        read_items([tmp_path / "d"], DataSection(), media=("image", "control"))


def test_mask_of_other_proportions(tmp_path, picture):
    picture("d/a.png", size=(16, 8)), picture("d/a.mask.png", size=(8, 8))
    assert "8x8" in refusal(tmp_path / "d").found


def test_role_without_a_reader(tmp_path):
    for media in (("chart",), ("audio", "mask"), ("image", "audio"), ()):
        with pytest.raises(DataError, match="cannot be read from folders"):
            read_items([tmp_path], DataSection(), media=media)


def test_sounds_are_items_too(tmp_path, picture):
    picture("2_cat/cover.png")
    for name, level in (("a", 1), ("b", 2)):
        with wave.open(str(tmp_path / f"2_cat/{name}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes([level, 0]) * 4000)
        (tmp_path / f"2_cat/{name}.txt").write_text(f"a {name} meow")
    reading = read_items([tmp_path / "2_cat"], DataSection(), media=("audio",))
    assert [item.text["caption"] for item in reading.items] == ["a a meow", "a b meow"]
    facts = {"seconds": 0.5, "rate": 8000, "channels": 1, "format": "WAV", "subtype": "PCM_16"}
    assert reading.items[0].media["audio"].facts == facts
    assert (reading.items[0].group, reading.items[0].repeats) == (reading.items[0].media["audio"].sha256, 2)
    assert any(".png" in note for note in reading.notes)


# ---------------------------------------------------------------- identity


def test_key_is_of_content_not_of_place(tmp_path, picture):
    picture("one/a.png", caption="x", colour=(1, 2, 3)), picture("two/b.png", caption="x", colour=(1, 2, 3))
    one, two = (read_items([tmp_path / name], DataSection()).items[0] for name in ("one", "two"))
    assert one.key == two.key
    assert dataset_hash([one]) == dataset_hash([two])


def test_editing_a_caption_changes_the_key_but_not_the_group(tmp_path, picture):
    picture("d/a.png", caption="x")
    before = read_items([tmp_path / "d"], DataSection()).items[0]
    (tmp_path / "d/a.txt").write_text("y")
    after = read_items([tmp_path / "d"], DataSection()).items[0]
    assert before.key != after.key
    assert before.group == after.group


def test_item_key_tells_roles_apart():
    assert item_key({"image": "h", "mask": "i"}, {}) != item_key({"image": "i", "mask": "h"}, {})
    assert item_key({"image": "h"}, {"caption": "h"}) != item_key({"image": "h"}, {"tags": "h"})


def test_dataset_hash_ignores_order_but_not_repeats(tmp_path, picture):
    picture("d/a.png"), picture("d/b.png")
    items = read_items([tmp_path / "d"], DataSection()).items
    assert dataset_hash(items) == dataset_hash(items[::-1])
    assert dataset_hash(items) != dataset_hash([replace(items[0], repeats=2), items[1]])


def test_as_prior(tmp_path, picture):
    picture("4_d/a.png")
    (item,) = as_prior(read_items([tmp_path / "4_d"], DataSection()).items, 0.25)
    assert (item.prior, item.repeats, item.weight) == (True, 1, 0.25)


# ---------------------------------------------------------------- what a user gets wrong, one clear line each


def test_no_path_at_all():
    with pytest.raises(DataError, match=r"data\.paths"):
        read_items([], DataSection())


def test_empty_folder(tmp_path):
    (tmp_path / "d").mkdir()
    assert refusal(tmp_path / "d").found.endswith("is empty")


def test_folder_of_other_files(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.gif").write_bytes(b"GIF89a")
    assert "only .gif" in refusal(tmp_path / "d").found


def test_missing_folder_names_near_ones(tmp_path):
    (tmp_path / "friends").mkdir()
    assert "friends" in refusal(tmp_path / "freinds").do
    assert str(tmp_path / "friends") in refusal(tmp_path / "freinds" / "peter").do


def test_a_file_instead_of_a_folder(tmp_path, picture):
    error = refusal(picture("d/a.png"))
    assert "is a file" in error.found
    assert str(tmp_path / "d") in error.do


def test_one_level_too_high(tmp_path, picture):
    picture("top/middle/leaf/a.png")
    error = refusal(tmp_path / "top")
    assert "too high" in error.found
    assert str(tmp_path / "top/middle") in error.do


def test_one_level_too_deep(tmp_path, picture):
    picture("d/a.png")
    (tmp_path / "d/empty").mkdir()
    error = refusal(tmp_path / "d/empty")
    assert "too deep" in error.found
    assert str(tmp_path / "d") in error.do


def test_flat_asked_for_but_pictures_are_below(tmp_path, picture):
    picture("d/10_x/a.png")
    assert "10_x" in refusal(tmp_path / "d", layout="flat").do


@pytest.mark.parametrize("other", ["a.jpg", "a.PNG", "A.png"])
def test_one_name_twice(tmp_path, picture, other):
    picture("d/a.png"), picture(f"d/{other}")
    assert "same name" in refusal(tmp_path / "d").found


def test_one_folder_given_twice(tmp_path, picture):
    picture("d/a.png")
    with pytest.raises(DataError, match="read already"):
        read_items([tmp_path / "d", tmp_path / "d"], DataSection())


def test_links_in_circles_and_into_nothing(tmp_path, picture):
    picture("d/10_x/a.png")
    (tmp_path / "d/loop").symlink_to(tmp_path / "d")
    (tmp_path / "d/10_x/self.png").symlink_to(tmp_path / "d/10_x/self.png")
    (tmp_path / "d/10_x/gone.png").symlink_to(tmp_path / "nowhere.png")
    reading = read_items([tmp_path / "d"], DataSection())
    assert names(reading) == ["a.png"]
    assert any("self.png" in note and "gone.png" in note for note in reading.notes)


def test_several_bad_pictures_in_one_line(tmp_path, picture):
    picture("d/good.png")
    for number in range(6):
        (tmp_path / f"d/bad{number}.png").write_bytes(b"<svg/>")
    error = refusal(tmp_path / "d")
    assert "6 items cannot be used" in error.found
    assert "2 more" in error.found


def test_non_utf8_caption_names_file_and_byte(tmp_path, picture):
    picture("d/a.png")
    (tmp_path / "d/a.txt").write_bytes("na\u00efve".encode("latin-1"))
    found = refusal(tmp_path / "d").found
    assert "a.txt" in found
    assert "position 2" in found


def test_nothing_is_written(tmp_path, picture):
    picture("d/a.png", caption="x")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    read_items([tmp_path / "d"], DataSection())
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


@pytest.mark.long
def test_ten_thousand_pictures_within_a_minute(tmp_path, record_property):
    folder = tmp_path / "d"
    folder.mkdir()
    for number in range(10_000):
        image = Image.new("RGB", (64, 64), (number % 256, number // 256, 7))
        image.save(folder / f"{number}.png", compress_level=0)
        (folder / f"{number}.txt").write_text(f"picture {number}")
    start = time.perf_counter()
    reading = read_items([folder], DataSection())
    seconds = time.perf_counter() - start
    record_property("scan_seconds", seconds)
    print(f"10,000 pictures scanned in {seconds:.1f} s")  # noqa: T201
    assert len(reading.items) == 10_000
    assert reading.items[9_999].text["caption"] == "picture 9999"
    assert seconds < 60
