"""The LoRA catalogue on real files and a real store: scans, moves, crashes, promotions, trees, comparisons, merges."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attune.nodes.catalogue import Catalogue, CatalogueError, Entry, compare_entries, families, version_picture
from attune.nodes.catalogue import catalogue as catalogue_module
from attune.nodes.catalogue.families import TELLING, TITLES
from attune.nodes.catalogue.listing import change, comparison
from attune.nodes.catalogue.merging import Ingredient, merge_loras, read_ingredient
from attune.nodes.catalogue.picture import method_name, related
from attune.nodes.catalogue.scanning import TRASH, trashed_files
from attune.nodes.store import Store, StoreError
from attune.nodes.training.figures import figure
from attune.training.adapters import LoraMetadata, LoraParent, load_lora, save_lora, weights_id
from attune.training.interfaces import AttuneError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "loras" / "attune"


@pytest.fixture
def catalogue(tmp_path: Path, folder: Path) -> Iterator[Catalogue]:
    store = Store(tmp_path / "user" / "attune.sqlite3")
    yield Catalogue(store, folder)
    store.close()


def tensors(seed: int, rank: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for layer in ("attn2.to_q", "ff.net.2"):
        made[f"down_blocks.0.{layer}.lora_up.weight"] = torch.randn(6, rank, generator=generator)
        made[f"down_blocks.0.{layer}.lora_down.weight"] = torch.randn(rank, 5, generator=generator)
        made[f"down_blocks.0.{layer}.alpha"] = torch.tensor(float(rank))
    return made


def write(folder: Path, name: str, seed: int, *, parents: Sequence[LoraParent] = (), day: int = 1, **facts) -> str:
    """A LoRA file as training writes it; returns the identity of its weights."""
    run = facts.pop("run", name.rpartition("_")[0])
    values = {"method": "ddpo", "base_hash": "b" * 16, "metrics": {"reward": seed / 10}, "steps": 100} | facts
    metadata = LoraMetadata(title=run, run=run, parents=parents, date=f"2026-03-{day:02d}T10:00:00+00:00", **values)
    save_lora(folder / f"{name}.safetensors", tensors(seed), metadata=metadata)
    return weights_id(load_lora(folder / f"{name}.safetensors")[0])


def scanned(catalogue: Catalogue) -> dict[str, Entry]:
    catalogue.scan()
    return {entry.file: entry for entry in catalogue.entries()}


def one(catalogue: Catalogue, file: str) -> Entry:
    return scanned(catalogue)[f"{file}.safetensors"]


def kinds(catalogue: Catalogue, id: int) -> list[str]:
    return [kind for _, kind, _ in catalogue.history(id)]


def content(folder: Path) -> set[str]:
    """Hashes of everything below the folder: what must never get lost."""
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


# ---- scans ----


def test_every_file_enters_with_what_it_says(catalogue, folder):
    identity = write(folder, "warm_001", 1, reward="2 × A", reward_id="rw", data_hash="d", base_model="demo",
                     settings={"training": {"learning_rate": 0.1}})  # fmt: skip
    entry = one(catalogue, "warm_001")
    assert (entry.run, entry.version, entry.stopped, entry.method, entry.steps, entry.rank) == (
        "warm", 1, False, "ddpo", 100, 2)  # fmt: skip
    assert (entry.reward, entry.reward_id, entry.data_hash, entry.base_model) == ("2 × A", "rw", "d", "demo")
    assert entry.metrics == {"reward": 0.1} and entry.settings == {"training": {"learning_rate": 0.1}}
    assert entry.weights_id == identity and entry.status == "new" and entry.usable
    assert entry.content == hashlib.sha256((folder / entry.file).read_bytes()).hexdigest()
    assert entry.title == "warm 001"
    assert kinds(catalogue, entry.id) == ["added"]


def test_files_of_other_tools_and_of_older_versions_enter_too(catalogue, folder):
    """Neither says its run: it is read from the title, or from the file's name."""
    write(folder, "old_stopped_002", 1, run="")
    older = folder / "old_stopped_002.safetensors"
    kept, _ = load_lora(older)
    save_file(kept, older, metadata={"attune.method": "ddpo", "modelspec.title": "old run_stopped"})
    foreign = {"lora_unet_x.lora_A.weight": torch.ones(3, 4), "lora_unet_x.lora_B.weight": torch.ones(5, 3)}
    save_file(foreign, folder / "sub_style.safetensors", metadata={"ss_sd_model_name": "some", "ss_steps": "x"})
    (folder / "deeper").mkdir()
    save_file({key: value + 1 for key, value in foreign.items()}, folder / "deeper" / "plain_7.safetensors")
    found = scanned(catalogue)
    old, style, plain = (found[f"{name}.safetensors"] for name in ("old_stopped_002", "sub_style", "deeper/plain_7"))
    assert (old.run, old.version, old.stopped, old.title) == ("old run", 2, True, "old run 002, stopped")
    assert (style.run, style.version, style.method, style.base_model, style.rank) == ("sub_style", 0, "", "some", 3)
    assert (plain.run, plain.version, plain.steps) == ("plain", 7, 0)
    assert style.title == "sub_style"


def test_damaged_metadata_does_not_keep_a_lora_out(catalogue, folder):
    folder.mkdir(parents=True)
    made = {"a.lora_up.weight": torch.ones(2, 1), "a.lora_down.weight": torch.ones(1, 2)}
    bad = {"attune.metrics": "{not json", "attune.parents": '[{"name": 3}]', "attune.settings": "[1]",
           "modelspec.date": "yesterday"}  # fmt: skip
    save_file(made, folder / "odd.safetensors", metadata=bad)
    entry = one(catalogue, "odd")
    assert (entry.metrics, entry.settings, entry.parents) == ({}, {}, ())
    assert entry.created == int((folder / "odd.safetensors").stat().st_mtime)


def test_what_is_no_lora_is_named_once_read_and_left_alone(catalogue, folder, monkeypatch):
    folder.mkdir(parents=True)
    (folder / "broken.safetensors").write_bytes(b"nothing" * 10)
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    assert scanned(catalogue) == {}
    assert [text.split(" ")[0] for text in catalogue.problems] == ["broken.safetensors", "model.safetensors"]
    monkeypatch.setattr(
        "attune.nodes.catalogue.scanning.read_facts", lambda path, name: pytest.fail(f"{path} is read again")
    )
    catalogue.scan()
    assert len(catalogue.problems) == 2


def test_nothing_is_read_or_written_where_nothing_has_changed(catalogue, folder, monkeypatch):
    write(folder, "warm_001", 1)
    write(folder, "warm_002", 2)
    catalogue.trash([one(catalogue, "warm_002").id])
    catalogue.scan()
    revision = catalogue.revision()
    monkeypatch.setattr(
        "attune.nodes.catalogue.scanning.read_facts", lambda path, name: pytest.fail(f"{path} is read again")
    )
    monkeypatch.setattr(catalogue.store, "writing", lambda: pytest.fail("the store is written"))
    catalogue.scan()
    assert catalogue.revision() == revision


def test_a_renamed_file_keeps_tags_note_and_status(catalogue, folder):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    catalogue.set_tags(entry.id, ["good"])
    catalogue.set_note(entry.id, "blue")
    catalogue.promote(entry.id)
    (folder / "mine").mkdir()
    (folder / "warm_001.safetensors").rename(folder / "mine" / "favourite.safetensors")
    found = scanned(catalogue)
    assert found.keys() == {"mine/favourite.safetensors"}
    after = found["mine/favourite.safetensors"]
    assert (after.id, after.tags, after.note, after.status) == (entry.id, ("good",), "blue", "promoted")
    assert kinds(catalogue, entry.id)[-1] == "renamed"


def test_two_files_that_swapped_their_names_are_told_apart(catalogue, folder):
    write(folder, "a_001", 1)
    write(folder, "b_001", 2)
    before = {file: entry.id for file, entry in scanned(catalogue).items()}
    for old, new in (("a_001", "c"), ("b_001", "a_001"), ("c", "b_001")):
        (folder / f"{old}.safetensors").rename(folder / f"{new}.safetensors")
    after = {file: entry.id for file, entry in scanned(catalogue).items()}
    assert after == {"a_001.safetensors": before["b_001.safetensors"], "b_001.safetensors": before["a_001.safetensors"]}


def test_a_deleted_file_is_missing_and_found_again(catalogue, folder):
    write(folder, "warm_001", 1)
    entry, data = one(catalogue, "warm_001"), (folder / "warm_001.safetensors").read_bytes()
    (folder / "warm_001.safetensors").unlink()
    assert one(catalogue, "warm_001").missing
    with pytest.raises(CatalogueError, match="is missing, so it cannot be promoted"):
        catalogue.promote(entry.id)
    with pytest.raises(CatalogueError, match="not there any more"):
        catalogue.trash([entry.id])
    (folder / "warm_001.safetensors").write_bytes(data)
    assert one(catalogue, "warm_001").usable
    assert kinds(catalogue, entry.id) == ["added", "missing", "found"]


def test_an_overwritten_file_is_another_lora(catalogue, folder):
    write(folder, "warm_001", 1)
    old = one(catalogue, "warm_001")
    catalogue.set_note(old.id, "the first")
    write(folder, "warm_001", 2)
    catalogue.scan()
    first, second = catalogue.entries()
    assert (first.id, first.missing, first.note) == (old.id, True, "the first")
    assert (second.missing, second.note, second.metrics) == (False, "", {"reward": 0.2})


def test_a_touched_or_copied_file_changes_nothing_of_the_original(catalogue, folder):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    os.utime(folder / "warm_001.safetensors", (5, 5))
    assert one(catalogue, "warm_001").id == entry.id
    assert kinds(catalogue, entry.id) == ["added"]
    (folder / "copy.safetensors").write_bytes((folder / "warm_001.safetensors").read_bytes())
    found = scanned(catalogue)
    assert found["warm_001.safetensors"].id == entry.id and len(found) == 2


def test_a_missing_folder_is_an_empty_catalogue(catalogue):
    assert scanned(catalogue) == {}
    assert catalogue.choices() == ["the newest LoRA"] and catalogue.revision() == 0


def test_scans_of_many_threads_make_one_entry_per_file(catalogue, folder):
    for number in range(5):
        write(folder, f"warm_{number:03d}", number + 1)
    others = [Catalogue(Store(catalogue.store.path), folder) for _ in range(3)]
    threads = [threading.Thread(target=each.scan) for each in [catalogue, catalogue, *others]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(catalogue.entries()) == 5
    assert all(not entry.missing for entry in catalogue.entries())
    for other in others:
        other.store.close()


# ---- tags, notes, search ----


def test_tags_and_notes_are_kept_and_put_down(catalogue, folder, tmp_path):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    catalogue.set_tags(entry.id, [" soft  light ", "good", "good", ""])
    catalogue.set_note(entry.id, "for the poster")
    again = Catalogue(Store(catalogue.store.path), folder).entry(entry.id)
    assert (again.tags, again.note) == (("good", "soft light"), "for the poster")
    assert catalogue.history(entry.id)[1][1:] == ("tags", {"before": [], "after": ["good", "soft light"]})
    revision = catalogue.revision()
    catalogue.set_tags(entry.id, ["soft light", "good"])
    assert catalogue.revision() == revision
    for bad in (["x" * 41], [str(number) for number in range(21)]):
        with pytest.raises(CatalogueError, match="up to 20 tags of up to 40"):
            catalogue.set_tags(entry.id, bad)
    with pytest.raises(CatalogueError, match="takes up to 2000 letters; this one has 2001"):
        catalogue.set_note(entry.id, "x" * 2001)
    with pytest.raises(CatalogueError, match="no LoRA number 99"):
        catalogue.set_note(99, "x")
    assert catalogue.entry(entry.id).tags == ("good", "soft light")


def test_search_finds_every_word_anywhere(catalogue, folder):
    write(folder, "warm_001", 1, reward="PickScore")
    write(folder, "cold_001", 2, method="dag-db")
    warm, cold = one(catalogue, "warm_001"), one(catalogue, "cold_001")
    catalogue.set_tags(cold.id, ["Winter"])
    catalogue.set_note(warm.id, "Summer light")
    assert [entry.id for entry in catalogue.search("pickscore LIGHT")] == [warm.id]
    assert [entry.id for entry in catalogue.search("winter dag db")] == [cold.id]
    assert [entry.id for entry in catalogue.search(tags=["Winter"])] == [cold.id]
    assert [entry.id for entry in catalogue.search(method="ddpo")] == [warm.id]
    assert catalogue.search("winter light") == []
    catalogue.trash([cold.id])
    assert catalogue.search("winter") == []


def test_what_was_done_cannot_be_changed(catalogue, folder):
    write(folder, "warm_001", 1)
    one(catalogue, "warm_001")
    for statement in ("UPDATE lora_events SET kind = 'x'", "DELETE FROM lora_events"):
        with pytest.raises(sqlite3.IntegrityError, match="never changed"), catalogue.store.writing() as connection:
            connection.execute(statement)


# ---- promoting and rolling back ----


def three(catalogue: Catalogue, folder: Path) -> list[int]:
    for number in (1, 2, 3):
        write(folder, f"warm_{number:03d}", number, day=number)
    return [entry.id for entry in scanned(catalogue).values()]


def test_one_version_of_a_run_counts_and_can_be_taken_back(catalogue, folder):
    first, second, third = three(catalogue, folder)
    write(folder, "other_001", 9)
    other = one(catalogue, "other_001").id
    for id in (other, first, second, third):
        catalogue.promote(id)
    assert [catalogue.entry(id).status for id in (first, second, third)] == ["retired", "retired", "promoted"]
    assert catalogue.find("warm (promoted)").id == third
    assert catalogue.roll_back_targets() == {"warm": second}
    assert catalogue.roll_back("warm").id == second
    assert catalogue.find("warm (promoted)").id == second
    assert catalogue.roll_back("warm").id == first
    assert [catalogue.entry(id).status for id in (first, second, third, other)] == [
        "promoted", "retired", "retired", "promoted"]  # fmt: skip
    with pytest.raises(CatalogueError, match="No version of 'warm' was promoted before this one"):
        catalogue.roll_back("warm")
    catalogue.promote(third)
    assert catalogue.roll_back("warm").id == first


def test_rolling_back_passes_over_what_is_gone(catalogue, folder):
    first, second, third = three(catalogue, folder)
    for id in (first, second, third):
        catalogue.promote(id)
    catalogue.trash([second])
    assert catalogue.roll_back("warm").id == first
    with pytest.raises(CatalogueError, match="Nothing was changed"):
        catalogue.roll_back("warm")
    catalogue.restore([second])
    assert catalogue.find("warm (promoted)").id == first


def test_rolling_back_from_a_trashed_version_promotes_the_one_before(catalogue, folder):
    first, second, _ = three(catalogue, folder)
    catalogue.promote(first)
    catalogue.promote(second)
    catalogue.trash([second])
    with pytest.raises(CatalogueError, match=r"No version of the run 'warm' is promoted.*'warm \(newest\)'"):
        catalogue.find("warm (promoted)")
    assert catalogue.roll_back("warm").id == first
    catalogue.restore([second])
    assert [catalogue.entry(id).status for id in (first, second)] == ["promoted", "retired"]


def test_names_stand_for_versions(catalogue, folder):
    three(catalogue, folder)
    write(folder, "warm_stopped_001", 7, day=9, run="warm")
    catalogue.scan()
    assert catalogue.find("warm (newest)").file == "warm_003.safetensors", "one that was stopped comes last"
    assert catalogue.find("attune/warm_002.safetensors").version == 2
    assert catalogue.find("attune\\warm_002.safetensors").version == 2
    assert catalogue.find("warm_002.safetensors").version == 2
    catalogue.promote(catalogue.find("warm_001.safetensors").id)
    assert catalogue.find("the newest LoRA").version == 3
    assert catalogue.roll_back_targets() == {}
    write(folder, "fresh_001", 8)
    assert catalogue.choices() == [
        "the newest LoRA", "warm (promoted)", "warm (newest)", "fresh (newest)", "attune/warm_stopped_001.safetensors",
        "attune/warm_003.safetensors", "attune/warm_002.safetensors", "attune/warm_001.safetensors",
        "attune/fresh_001.safetensors",
    ]  # fmt: skip
    for wrong in ("cold (newest)", "cold_001.safetensors", "../warm_001.safetensors"):
        with pytest.raises(CatalogueError, match=r"There is: warm\."):
            catalogue.find(wrong)


# ---- trash ----


def test_trash_and_back(catalogue, folder):
    write(folder, "warm_001", 1)
    entry, before = one(catalogue, "warm_001"), content(folder)
    catalogue.promote(entry.id)
    assert catalogue.trash([entry.id, entry.id]) == [entry.id]
    assert content(folder) == before
    assert not list(folder.rglob("*.safetensors")), "no ending that a loader knows"
    assert catalogue.entry(entry.id).status == "trashed" and len(catalogue.choices()) == 1
    catalogue.scan()
    assert catalogue.restore([entry.id, entry.id]) == [entry.id]
    assert (folder / "warm_001.safetensors").is_file() and content(folder) == before
    catalogue.scan()
    assert (catalogue.entry(entry.id).status, catalogue.entry(entry.id).missing) == ("promoted", False)
    assert kinds(catalogue, entry.id) == ["added", "promoted", "trashed", "restored"]


def test_a_restored_file_never_overwrites_what_has_taken_its_name(catalogue, folder):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    catalogue.trash([entry.id])
    write(folder, "warm_001", 2)
    catalogue.scan()
    before = content(folder)
    catalogue.restore([entry.id])
    assert catalogue.entry(entry.id).file == "warm_001 (2).safetensors"
    assert content(folder) == before
    assert len(scanned(catalogue)) == 2


def test_copies_of_one_content_lie_in_the_trash_side_by_side(catalogue, folder, tmp_path):
    write(folder, "warm_001", 1)
    for place in ("x", "y"):
        (folder / place).mkdir()
        (folder / place / "warm_001.safetensors").write_bytes((folder / "warm_001.safetensors").read_bytes())
    ids = sorted(entry.id for entry in scanned(catalogue).values())
    catalogue.trash(ids)
    assert len(trashed_files(folder)) == len(ids) == 3
    fresh = Catalogue(Store(tmp_path / "other.sqlite3"), folder)
    fresh.scan()
    assert len(fresh.entries()) == 3 and all(entry.in_trash for entry in fresh.entries())
    catalogue.scan()
    assert catalogue.erase(ids[:1]) == 1
    catalogue.scan()
    assert catalogue.restore(ids[1:]) == ids[1:]
    assert len(list(folder.rglob("*.safetensors"))) == 2
    assert len(scanned(catalogue)) == 2 and not any(entry.missing for entry in catalogue.entries())


def test_a_move_never_overwrites(catalogue, folder, monkeypatch):
    write(folder, "warm_001", 1)
    write(folder, "warm_002", 2)
    first, before = one(catalogue, "warm_001"), content(folder)
    monkeypatch.setattr(catalogue_module, "free_name", lambda *_: "../warm_002.safetensors")
    with pytest.raises(CatalogueError, match=r"there is a warm_002\.safetensors already"):
        catalogue.trash([first.id])
    assert content(folder) == before


def test_only_the_trash_is_emptied_and_only_when_told(catalogue, folder):
    first, second, third = three(catalogue, folder)
    catalogue.trash([first, second])
    with pytest.raises(CatalogueError, match="warm 003 is not in the trash"):
        catalogue.erase([first, third])
    assert len(trashed_files(folder)) == 2
    assert catalogue.erase([first]) == 1
    assert len(trashed_files(folder)) == 1
    assert {entry.id for entry in catalogue.entries()} == {second, third}
    assert catalogue.entry(first).status == "erased", "what is known of it stays"
    catalogue.scan()
    assert catalogue.restore([second]) == [second]


def test_a_store_that_cannot_be_written_leaves_the_file_where_it_was(catalogue, folder, monkeypatch):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")

    def refuse(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(catalogue_module, "note_event", refuse)
    with pytest.raises(StoreError, match="disk is full"):
        catalogue.trash([entry.id])
    assert (folder / "warm_001.safetensors").is_file() and not trashed_files(folder)
    assert catalogue.entry(entry.id).status == "new"


KILLED = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("runner", {runner!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.map_package()
from attune.nodes.catalogue import Catalogue
from attune.nodes.store import Store
catalogue = Catalogue(Store(Path(sys.argv[1])), Path(sys.argv[2]))
move = os.replace
def dying(source, target):
    if sys.argv[5] == "after":
        move(source, target)
    os._exit(9)
os.replace = dying
getattr(catalogue, sys.argv[3])([int(sys.argv[4])])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("action", ["trash", "restore"])
def test_a_kill_around_the_move_loses_nothing(catalogue, folder, action, moment):
    """Killed with the file moved and the record not yet written: the next scan sees where the file is."""
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    catalogue.set_note(entry.id, "keep me")
    if action == "restore":
        catalogue.trash([entry.id])
    before = content(folder)
    catalogue.store.close()
    code = KILLED.format(runner=str(ROOT / "scripts" / "module.py"))
    arguments = [str(catalogue.store.path), str(folder), action, str(entry.id), moment]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 9
    assert content(folder) == before
    catalogue.scan()
    after = catalogue.entry(entry.id)
    moved = moment == "after"
    assert after.in_trash == (moved == (action == "trash"))
    assert (after.missing, after.note, len(catalogue.entries())) == (False, "keep me", 1)
    (catalogue.restore if after.in_trash else catalogue.trash)([entry.id])
    assert content(folder) == before


def test_a_trash_without_a_record_is_taken_in(catalogue, folder, tmp_path):
    """The store was deleted, or the folder came from another machine."""
    write(folder, "warm_001", 1)
    catalogue.trash([one(catalogue, "warm_001").id])
    fresh = Catalogue(Store(tmp_path / "other.sqlite3"), folder)
    (entry,) = scanned(fresh).values()
    assert (entry.status, entry.run, entry.version, entry.file) == ("trashed", "warm", 1, "warm_001.safetensors")
    fresh.restore([entry.id])
    assert (folder / "warm_001.safetensors").is_file()


def test_a_file_deleted_from_the_trash_by_hand_cannot_be_restored(catalogue, folder):
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    catalogue.trash([entry.id])
    for file in (folder / TRASH).iterdir():
        file.unlink()
    catalogue.scan()
    with pytest.raises(CatalogueError, match="not in the trash any more"):
        catalogue.restore([entry.id])


def test_no_path_leaves_the_folder(catalogue, folder, tmp_path):
    """Whatever a damaged record says."""
    write(folder, "warm_001", 1)
    entry = one(catalogue, "warm_001")
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"mine")
    with catalogue.store.writing() as connection:
        connection.execute("UPDATE loras SET file = '../../../outside.safetensors'")
    with pytest.raises(CatalogueError, match="outside the LoRA folder"):
        catalogue.trash([entry.id])
    assert outside.read_bytes() == b"mine"


def test_a_link_out_of_the_folder_is_not_listed(catalogue, folder, tmp_path):
    write(folder, "warm_001", 1)
    write(tmp_path, "outside_001", 2)
    try:
        (folder / "link_001.safetensors").symlink_to(tmp_path / "outside_001.safetensors")
        (folder / "inner_001.safetensors").symlink_to(folder / "warm_001.safetensors")
    except OSError:
        pytest.skip("no links can be made here")
    assert scanned(catalogue).keys() == {"warm_001.safetensors", "inner_001.safetensors"}
    assert "attune/link_001.safetensors" not in catalogue.choices()


# ---- what is gone, and what the page sends ----


def test_only_what_is_missing_can_be_forgotten(catalogue, folder):
    parent = write(folder, "warm_001", 1)
    write(folder, "fine_001", 2, parents=[LoraParent(parent, "warm 001", 1.0)])
    gone, kept = one(catalogue, "warm_001").id, one(catalogue, "fine_001").id
    with pytest.raises(CatalogueError, match=r"The file of warm 001 is there.*trash instead"):
        change(catalogue, "forget", {"ids": [gone]})
    (folder / "warm_001.safetensors").unlink()
    left = change(catalogue, "forget", {"ids": [gone]})
    assert [lora["id"] for lora in left["loras"]] == [kept]
    assert catalogue.entry(kept).parents[0].name == "warm 001", "descendants still know it"
    write(folder, "warm_001", 1)
    assert one(catalogue, "warm_001").id != gone


def test_a_promoted_version_that_was_deleted_is_named_with_a_way_back(catalogue, folder):
    first, second, _ = three(catalogue, folder)
    catalogue.promote(first)
    catalogue.promote(second)
    (folder / "warm_002.safetensors").unlink()
    catalogue.scan()
    with pytest.raises(CatalogueError, match=r"warm 002, the promoted version.*was deleted.*roll back to warm 001"):
        catalogue.find("warm (promoted)")
    catalogue.roll_back("warm")
    assert catalogue.find("warm (promoted)").id == first


@pytest.mark.parametrize(
    ("action", "body", "told"),
    [
        ("promote", {"id": 2**63}, "number of a LoRA"),
        ("promote", {"id": -1}, "number of a LoRA"),
        ("trash", {"ids": [10**30]}, "number of a LoRA"),
        ("tag", {"id": 1, "tags": ["\ud800"]}, "half of a character"),
        ("note", {"id": 1, "note": "\udc00"}, "half of a character"),
        ("rollback", {"run": "\ud800"}, "half of a character"),
    ],
)
def test_what_the_store_cannot_hold_is_refused(catalogue, folder, action, body, told):
    write(folder, "warm_001", 1)
    catalogue.scan()
    with pytest.raises(CatalogueError, match=told):
        change(catalogue, action, body)
    with pytest.raises(CatalogueError, match="number of a LoRA"):
        comparison(catalogue, {"a": "1", "b": "9" * 30})


# ---- tree, comparison, picture ----


def test_figures_are_called_as_in_the_report():
    assert {name: figure(name).title for name in TELLING} == TITLES


def test_every_method_has_the_name_that_people_write():
    assert [method_name(name) for name in ("draft", "ReFL", "dag-kl", "diffusion_dpo", "supervised", "")] == [
        "DRaFT", "ReFL", "DAG-KL", "Diffusion-DPO", "Supervised", "other tool"]  # fmt: skip


def test_the_tree_follows_parents_also_after_a_rename(catalogue, folder):
    """warm → fine (trained on warm 002) → soup (merged from fine and cold)."""
    write(folder, "warm_001", 1, day=1)
    warm = write(folder, "warm_002", 2, day=2)
    cold = write(folder, "cold_001", 3, day=3)
    fine = write(folder, "fine_001", 4, day=4, parents=[LoraParent(warm, "attune/warm_002.safetensors", 0.8)])
    write(
        folder, "soup_001", 5, day=5, method="merge", parents=[LoraParent(fine, "x", 0.6), LoraParent(cold, "y", 0.4)]
    )
    write(folder, "lost_001", 6, day=6, parents=[LoraParent("f" * 16, "attune/gone.safetensors", 1.0)])
    catalogue.scan()
    (folder / "warm_002.safetensors").rename(folder / "renamed.safetensors")
    catalogue.scan()
    entries = catalogue.entries()
    tree = families(entries)
    assert [(family.run, family.depth) for family in tree] == [
        ("lost", 0), ("cold", 0), ("warm", 0), ("fine", 1), ("soup", 2)]  # fmt: skip
    assert [entry.version for entry in tree[2].versions] == [2, 1]
    by_run = {entry.run: entry for entry in entries if entry.run in ("fine", "soup", "lost")}
    assert [(p.name, p.strength) for p in by_run["fine"].parents] == [("warm 002", 0.8)]
    assert [(p.name, p.strength) for p in by_run["soup"].parents] == [("fine 001", 0.6), ("cold 001", 0.4)]
    assert [(p.id, p.name) for p in by_run["lost"].parents] == [(None, "attune/gone.safetensors")]
    assert {family.run for family in related(entries, by_run["fine"])} == {"warm", "fine", "soup", "cold"}


@pytest.mark.parametrize("days", [(1, 2), (2, 1)])
def test_a_merge_stands_below_all_its_parents(catalogue, folder, days):
    parents = [
        LoraParent(write(folder, f"{name}_001", day, day=day), f"{name} 001", 0.5)
        for name, day in zip(("warm", "dim"), days, strict=True)
    ]
    write(folder, "soup_001", 9, day=3, parents=parents)
    tree = families(list(scanned(catalogue).values()))
    assert [family.depth for family in tree] == [0, 0, 1] and tree[-1].run == "soup"


def test_runs_that_came_from_each_other_still_have_a_place(catalogue, folder):
    a = write(folder, "a_001", 1)
    b = write(folder, "b_001", 2, parents=[LoraParent(a)])
    write(folder, "a_002", 3, parents=[LoraParent(b)])
    catalogue.scan()
    assert sorted(family.run for family in families(catalogue.entries())) == ["a", "b"]


def test_compare_says_what_differs(catalogue, folder):
    write(
        folder, "a_001", 1, metrics={"reward": 0.25, "loss": 1.0}, settings={"training": {"learning_rate": 0.1, "x": 1}}
    )
    changed = {"training": {"learning_rate": 0.2, "x": 1}, "lora": {"targets": ["a", "b"], "on": True}}
    write(folder, "b_001", 2, metrics={"reward": 0.5}, method="refl", settings=changed)
    found = compare_entries(catalogue, one(catalogue, "a_001").id, one(catalogue, "b_001").id)
    assert json.loads(json.dumps(found)) == found
    assert found["metrics"] == [
        {"name": "reward", "a": 0.25, "b": 0.5, "change": 0.25},
        {"name": "loss", "a": 1.0, "b": None, "change": None},
    ]
    assert found["settings"] == [
        {"name": "method", "a": "ddpo", "b": "refl"},
        {"name": "training: learning rate", "a": "0.1", "b": "0.2"},
        {"name": "lora: targets", "a": "", "b": "a, b"},
        {"name": "lora: on", "a": "", "b": "yes"},
    ]
    assert [entry["group"] for entry in found["distances"]] == ["all", "cross-attention", "feed-forward"]
    assert 0.5 < found["distances"][0]["relative"] < 2 and abs(found["distances"][0]["cosine"]) < 0.9
    (folder / "b_001.safetensors").unlink()
    catalogue.scan()
    found = compare_entries(catalogue, found["a"], found["b"])
    assert found["distances"] == [] and "b 001 is not there any more" in found["problem"]


def test_the_picture_shows_whatever_the_catalogue_holds(catalogue, folder):
    identity = write(folder, "warm_001", 1)
    write(
        folder,
        "a very long name of a run that goes on and on and on_001",
        2,
        parents=[LoraParent(identity)],
        metrics={},
    )
    for number in range(2, 30):
        write(folder, f"warm_{number:03d}", number, metrics={"held_out_reward": number / 30, "reward": 0.1})
    catalogue.scan()
    entries = catalogue.entries()
    small = version_picture(entries[:1], entries[0])
    large = version_picture(entries, entries[0])
    assert small.width == large.width == 900
    assert small.height < large.height < 1400


# ---- merging ----


def soup(catalogue: Catalogue, folder: Path, parts: list[Ingredient], name: str = "soup", rank: int = 0):
    steps: list[tuple[int, int]] = []

    def new_path(name: str) -> Path:
        number = 1
        while (path := folder / f"{name}_{number:03d}.safetensors").exists():
            number += 1
        return path

    result = merge_loras(parts, name=name, rank=rank, catalogue=catalogue, new_path=new_path, version="9.9",
                         on_layer=lambda done, total: steps.append((done, total)))  # fmt: skip
    assert steps == [(0, 2), (1, 2), (2, 2)]
    return result


def parts_of(folder: Path, *weights: float, names: Sequence[str] = ("a_001", "b_001")) -> list[Ingredient]:
    return [
        read_ingredient(folder / f"{name}.safetensors", name, weight)
        for name, weight in zip(names, weights, strict=True)
    ]


def test_a_merged_file_says_where_it_came_from(catalogue, folder):
    a, b = write(folder, "a_001", 1, base_model="demo"), write(folder, "b_001", 2, base_model="demo")
    result = soup(catalogue, folder, parts_of(folder, 0.7, 0.3))
    entry = one(catalogue, "soup_001")
    assert (entry.run, entry.version, entry.method, entry.base_model, entry.base_hash, entry.rank) == (
        "soup", 1, "merge", "demo", "b" * 16, 4)  # fmt: skip
    assert [(p.weights_id, p.name, p.strength) for p in entry.parents] == [(a, "a 001", 0.7), (b, "b 001", 0.3)]
    assert result.report["relative_error"] == 0.0 and result.report["warning"] == ""
    stored, metadata = load_lora(result.path)
    assert stored.keys() == result.tensors.keys()
    assert metadata["attune.version"] == "9.9"
    key = "lora_unet_down_blocks_0_ff_net_2"
    expected = sum(
        weight * part[f"{key}.lora_up.weight"] @ part[f"{key}.lora_down.weight"]
        for weight, part in (
            (w, load_lora(folder / f"{n}.safetensors")[0]) for n, w in (("a_001", 0.7), ("b_001", 0.3))
        )
    )
    torch.testing.assert_close(stored[f"{key}.lora_up.weight"] @ stored[f"{key}.lora_down.weight"], expected)


def test_the_same_merge_is_not_written_twice(catalogue, folder):
    write(folder, "a_001", 1)
    write(folder, "b_001", 2)
    first = soup(catalogue, folder, parts_of(folder, 0.5, 0.5))
    assert soup(catalogue, folder, parts_of(folder, 0.5, 0.5)).path == first.path
    assert soup(catalogue, folder, parts_of(folder, 0.5, 0.6)).path.name == "soup_002.safetensors"
    assert soup(catalogue, folder, parts_of(folder, 0.5, 0.5), name="other").path.name == "other_001.safetensors"


def test_a_lower_rank_reports_what_it_loses(catalogue, folder):
    write(folder, "a_001", 1)
    write(folder, "b_001", 2)
    result = soup(catalogue, folder, parts_of(folder, 0.5, 0.5), rank=1)
    assert (result.report["rank"], result.report["exact_rank"]) == (1, 4)
    assert 0.1 < result.report["relative_error"] < 1
    assert "rank 1 of 4, relative error" in result.words
    assert one(catalogue, "soup_001").metrics == {"relative_error": result.report["relative_error"]}


def test_loras_from_wires_are_known_by_their_weights_and_other_bases_warned_of(catalogue, folder):
    write(folder, "a_001", 1)
    write(folder, "b_001", 2, base_hash="c" * 16)
    wired = Ingredient("LoRA 2", 0.5, load_lora(folder / "b_001.safetensors")[0], {})
    result = soup(catalogue, folder, [*parts_of(folder, 0.5, names=["a_001"]), wired])
    entry = one(catalogue, "soup_001")
    assert [parent.name for parent in entry.parents] == ["a 001", "b 001"]
    assert entry.base_hash == ""
    assert "different base models" in result.words


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"base_hash": "", "base_model": "sdX"}, {"base_hash": "", "base_model": "sdY"}, r"seem to be .*\(sdX, sdY\)"),
        ({"architecture": "one/lora"}, {"architecture": "two/lora"}, r"different architectures \(one, two\)"),
        ({}, {"base_hash": ""}, "Base model unknown: b_001. If it is not the others'"),
        ({"base_model": "sdX"}, {"base_hash": "", "base_model": "sdY"}, r"seem to be .*\(sdX, sdY\)"),
        ({}, {"base_hash": "", "base_model": "sdY"}, "Base model unknown: b_001"),
        ({"base_hash": ""}, {"base_hash": ""}, "Base model unknown: a_001, b_001"),
        ({"base_model": "sdX"}, {"base_model": "renamed"}, "^$"),
        ({"base_hash": "", "base_model": "sdX"}, {"base_model": "sdX"}, "^$"),
    ],
)
def test_a_merge_of_other_or_unknown_bases_is_warned_of(catalogue, folder, first, second, told):
    write(folder, "a_001", 1, **first)
    write(folder, "b_001", 2, **second)
    assert re.search(told, soup(catalogue, folder, parts_of(folder, 0.5, 0.5)).report["warning"])


def test_one_lora_is_nothing_to_merge(catalogue, folder):
    write(folder, "a_001", 1)
    with pytest.raises(CatalogueError, match="There is 1 LoRA to merge"):
        soup(catalogue, folder, parts_of(folder, 0.5, names=["a_001"]))
    with pytest.raises(AttuneError, match="does not exist"):
        read_ingredient(folder / "none.safetensors", "none", 1.0)
