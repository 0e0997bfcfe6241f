from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.catalog.card import Card, from_json, to_json
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError


def finished(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "adapter_config.json").write_text("{}")
    return folder


def card(name: str = "qb_peter_lora", created: str = "2026-01-01T00:00:00Z", **fields: object) -> Card:
    return Card(**{"name": name, "engine": "toy", "created_utc": created, **fields})  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "home")


def test_put_takes_the_folder_over(shelf: Shelf, tmp_path: Path) -> None:
    source = finished(tmp_path / "work" / "out")
    kept = shelf.put(
        card(concepts={"peter": {"trigger": "qb_peter"}}, measures={"loss": 0.5}, credits=({"a": "b"},)), source
    )
    assert not source.exists()
    assert kept.id.startswith("qb-peter-lora-")
    assert kept.files == {
        "adapter_model.safetensors": hashlib.sha256(b"weights").hexdigest(),
        "text_encoder/adapter_config.json": hashlib.sha256(b"{}").hexdigest(),
    }
    assert shelf.get(kept.id) == kept
    assert shelf.list() == (kept,)
    assert (shelf.path(kept) / "adapter_model.safetensors").read_bytes() == b"weights"


def test_ids_never_collide(shelf: Shelf, tmp_path: Path) -> None:
    ids = {shelf.put(card(), finished(tmp_path / str(count))).id for count in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("name", ["../../etc", "", "Ünïcode Fuchs", "日本", "a" * 200, ".."])
def test_an_id_is_a_safe_folder_name(shelf: Shelf, tmp_path: Path, name: str) -> None:
    kept = shelf.put(card(name or "x"), finished(tmp_path / "out"))
    assert shelf.path(kept).parent == shelf.folder
    assert shelf.path(kept).is_dir()
    assert len(kept.id) < 100


def test_list_is_newest_first_and_a_repeated_name_means_the_newest(shelf: Shelf, tmp_path: Path) -> None:
    old = shelf.put(card(created="2026-01-01T00:00:00Z"), finished(tmp_path / "a"))
    new = shelf.put(card(created="2026-01-02T00:00:00Z"), finished(tmp_path / "b"))
    other = shelf.put(card("fox", created="2025-01-02T00:00:00Z", engine="other"), finished(tmp_path / "c"))
    assert [entry.id for entry in shelf.list()] == [new.id, old.id, other.id]
    assert shelf.list("other") == (other,)
    assert shelf.get("qb_peter_lora") == new
    assert shelf.get(old.id[:-1] if not new.id.startswith(old.id[:-1]) else old.id) == old
    with pytest.raises(CatalogError, match=r"2 ids begin with 'qb-peter'"):
        shelf.get("qb-peter")


def test_a_miss_names_the_nearest(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="checkpoints list"):
        shelf.get("anything")
    shelf.put(card(), finished(tmp_path / "a"))
    with pytest.raises(CatalogError, match=r"(?i)did you mean 'qb_peter_lora'"):
        shelf.get("qb_petr_lora")
    with pytest.raises(CatalogError, match="no checkpoint is called"):
        shelf.get("../../../etc/passwd")


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (card(files={"nowhere.safetensors": "00"}), "lacks nowhere.safetensors"),
        (card(id="UPPER"), "the id 'UPPER'"),
        (card(id="../up"), "the id"),
        (card(measures={"loss": float("nan")}), "measure loss"),
        (card(kind="model"), "kind is 'model'"),
        (card(step="3"), "step is '3'"),
    ],
)
def test_a_wrong_card_leaves_the_folder_where_it_is(shelf: Shelf, tmp_path: Path, made: Card, found: str) -> None:
    source = finished(tmp_path / "out")
    with pytest.raises(CatalogError) as caught:
        shelf.put(made, source)
    assert found in caught.value.found
    assert (source / "adapter_model.safetensors").exists()
    assert shelf.list() == ()


def test_an_empty_folder_and_a_used_id_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match="holds no files"):
        shelf.put(card(), tmp_path / "empty")
    kept = shelf.put(card(), finished(tmp_path / "a"))
    with pytest.raises(CatalogError, match="already"):
        shelf.put(replace(kept, files={}), finished(tmp_path / "b"))


def test_a_crash_before_the_rename_leaves_no_checkpoint(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(source: Path, final: Path) -> None:
        raise KeyboardInterrupt

    source = finished(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.catalog.shelf.replace_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            shelf.put(card(), source)
    assert shelf.list() == ()
    assert shelf.damaged() == ()
    assert shelf.put(card(), source).files.keys() == {
        "adapter_model.safetensors",
        "text_encoder/adapter_config.json",
    }


def test_a_folder_from_another_disk_is_copied(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = finished(tmp_path / "out")
    true_stat = Path.stat

    class Elsewhere:
        """A stat result of another device."""

        st_dev = -1
        st_mode = true_stat(source).st_mode

    def stat(path: Path, **options: bool) -> object:
        return Elsewhere() if path == source else true_stat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        kept = shelf.put(card(), source)
    assert shelf.list() == (kept,)
    assert not source.exists()
    assert not list(shelf.folder.glob(".incoming*"))


def test_activate_and_delete(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.put(card(), finished(tmp_path / "a"))
    child = shelf.put(card("child", parent=first.id), finished(tmp_path / "b"))
    assert shelf.active("toy") is None
    shelf.activate(child.name)
    assert shelf.active("toy") == child
    with pytest.raises(CatalogError, match="active"):
        shelf.delete(child.id)
    with pytest.raises(CatalogError, match=f"parent of {child.id}"):
        shelf.delete(first.id)
    assert shelf.deactivate("toy") == child
    assert shelf.active("toy") is None
    shelf.activate(first.id)
    assert shelf.delete(first.id, force=True) == first
    assert shelf.active("toy") is None
    assert shelf.list() == (child,)
    assert not list(shelf.folder.glob(".deleted*"))
    with pytest.raises(CatalogError):
        shelf.get(first.id)


def test_a_name_that_several_have_deletes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    for name in "ab":
        shelf.put(card(), finished(tmp_path / name))
    with pytest.raises(CatalogError, match="2 checkpoints are called"):
        shelf.delete("qb_peter_lora")
    assert len(shelf.list()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "id": 3, "name": "x", "engine": "toy"}',
        "[" * 10_000,
    ],
)
def test_a_damaged_card_is_reported_and_hides_only_itself(shelf: Shelf, tmp_path: Path, text: str) -> None:
    bad = shelf.put(card("bad"), finished(tmp_path / "a"))
    good = shelf.put(card("good"), finished(tmp_path / "b"))
    shelf.activate(good.id)
    (shelf.path(bad) / "meta.json").write_text(text)
    assert shelf.list() == (good,)
    (problem,) = shelf.damaged()
    assert problem.folder == shelf.path(bad)
    assert "meta.json" in problem.reason
    with pytest.raises(CatalogError, match=r"meta\.json"):
        shelf.get(bad.id)
    (shelf.path(bad) / "meta.json").unlink()
    assert shelf.list() == (good,)


def test_a_card_in_another_folder_is_damaged(shelf: Shelf, tmp_path: Path) -> None:
    kept = shelf.put(card(), finished(tmp_path / "a"))
    shelf.path(kept).rename(shelf.folder / "renamed")
    assert shelf.list() == ()
    assert "renamed" in shelf.damaged()[0].reason


def test_fields_of_a_later_version_are_ignored() -> None:
    document = {**to_json(card(id="x")), "shiny": 1}
    assert from_json(json.loads(json.dumps(document)), "x") == card(id="x")


def test_a_damaged_active_file_is_named(shelf: Shelf, tmp_path: Path) -> None:
    kept = shelf.put(card(), finished(tmp_path / "a"))
    shelf.activate(kept.id)
    (shelf.folder / "active.json").write_text("{")
    with pytest.raises(CatalogError, match=r"active\.json"):
        shelf.active("toy")
    (shelf.folder / "active.json").write_text("[]")
    with pytest.raises(CatalogError, match=r"active\.json"):
        shelf.active("toy")
    (shelf.folder / "active.json").write_text('{"toy": "../x", "other": 3}')
    assert shelf.active("toy") is None


PUT_FIVE = """
import sys
from pathlib import Path
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
home, work = map(Path, sys.argv[1:])
for count in range(5):
    (work / str(count)).mkdir(parents=True)
    (work / str(count) / "adapter_model.safetensors").write_bytes(b"weights")
    print(Shelf(home).put(Card(name="x", engine="toy"), work / str(count)).id)
"""


def test_two_processes_at_once(shelf: Shelf, tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", PUT_FIVE, str(shelf.home), str(tmp_path / name)] for name in "ab"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    ids = [line for process in running for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in running] == [0, 0]
    assert len(set(ids)) == 10
    assert {entry.id for entry in shelf.list()} == set(ids)


def test_a_base_that_others_stand_on_is_kept(shelf: Shelf, tmp_path: Path) -> None:
    base = shelf.put(card("world", kind="weights"), finished(tmp_path / "a"))
    file = shelf.path(base) / "model.safetensors"
    on_it = shelf.put(card("one", base={"path": str(file)}), finished(tmp_path / "b"))
    by_part = shelf.put(card("two", base={"parts": {"autoencoder": str(file)}}), finished(tmp_path / "c"))
    with pytest.raises(CatalogError, match=f"is the base of .*{on_it.id}"):
        shelf.delete(base.id)
    shelf.delete(on_it.id)
    with pytest.raises(CatalogError, match=by_part.id):
        shelf.delete(base.id)
    shelf.delete(by_part.id)
    assert shelf.delete(base.id) == base


def test_only_a_whole_name_deletes(shelf: Shelf, tmp_path: Path) -> None:
    kept = shelf.put(card(), finished(tmp_path / "a"))
    with pytest.raises(CatalogError, match="only the beginning of"):
        shelf.delete(kept.id[:-2])
    assert shelf.list() == (kept,)
