"""Export Profile and Import Profile in the real host: a taste given away and taken in, and files that are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attune.nodes.preferences.embedding import PreferenceEmbedding
from attune.nodes.preferences.profile_file import SharedProfile, read_file, write_file
from attune.tests.host.choices import light_and_dark, put_choices
from attune.tests.host.graphs import finished, left_in, node, shown_error, with_changes
from attune.tests.hosting import HostServer

ENCODER = "set:of this test"


def taste(seed: int, encoder: str = ENCODER, **more: Any) -> PreferenceEmbedding:
    return PreferenceEmbedding(torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)), encoder, **more)


def give(host: HostServer, name: str, *embeddings: PreferenceEmbedding, **more: Any) -> str:
    """A file in the host's input folder, as somebody else would have sent it."""
    write_file(host.input_dir / "friends" / f"{name}_001.safetensors", SharedProfile(embeddings, **more))
    return f"friends/{name}_001.safetensors"


def graph(file: str, **export: Any) -> dict[str, Any]:
    """Imports a file, and exports it again."""
    widgets = {"file_name": "given on", "title": "", "include_prompts": False}
    return {
        "import": node("AttuneImportProfile", file=file, new_name=""),
        "export": node("AttuneExportProfile", preference=["import", 1], **(widgets | export)),
        "prompts": node("PreviewAny", source=["import", 3]),
        "file": node("PreviewAny", source=["export", 0]),
    }


def outcome(host: HostServer, graph: dict[str, Any]) -> dict[str, Any]:
    """What each node that ran showed."""
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    return {name: output["text"][0] for name, output in record["outputs"].items() if "text" in output}


def exported(host: HostServer) -> Path:
    return host.output_dir / "attune" / "profiles"


def kept(host: HostServer) -> str:
    """Everything that the store says."""
    with closing(sqlite3.connect(host.user_dir / "attune" / "attune.sqlite3")) as connection:
        return "\n".join(connection.iterdump())


def profiles(host: HostServer) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in host.get("/attune/preferences/profiles")["profiles"]}


def test_a_taste_goes_round(host: HostServer):
    own = taste(1, choices=4, text="likes Secret things")
    file = give(host, "warm", own, taste(2, "vlm:x"), title="Warm Lamp", prompts=("a cat\nasleep", "a rose"))
    shown = outcome(host, graph(file))
    assert shown["import"] == (
        f"Warm Lamp: a taste of 4 choices by 2 encoders, with 2 prompts. Encoder: {ENCODER}, vlm:x."
    )
    assert shown["prompts"] == "a cat asleep\na rose"
    assert shown["export"] == "Written: given on_001.safetensors, a taste of 4 choices, no prompts."
    assert shown["file"] == "attune/profiles/given on_001.safetensors [output]"
    (entry,) = [entry for name, entry in profiles(host).items() if name == "Warm Lamp"]
    assert (entry["choices"], entry["embeddings"], entry["revision"]) == (0, 2, 1)

    path = exported(host) / "given on_001.safetensors"
    content, found = path.read_bytes(), read_file(path)
    for secret in (b"Warm", b"Secret", b"a cat", entry["key"].encode()):
        assert secret not in content
    assert (found.title, found.prompts, len(found.embeddings)) == ("", (), 1)
    assert found.embeddings[0].identity == own.identity and found.embeddings[0].choices == 4

    before = kept(host)
    assert "import" not in outcome(host, graph(file)), "nothing has changed: nothing runs"
    again = with_changes(graph(file), "import", file=shown["file"], new_name="Received")
    assert outcome(host, again)["import"].startswith("Received: a taste of 4 choices, no prompts.")
    host.free()
    assert outcome(host, graph(file))["export"].startswith("The same as before: given on_001")
    assert [name for name in left_in(exported(host)) if name.startswith("given on")] == [path.name]
    assert kept(host) != before and set(profiles(host)) >= {"Warm Lamp", "Received"}
    before = kept(host)
    host.free()
    outcome(host, again)
    assert kept(host) == before, "the same file under the same name is one profile"

    host.post("/attune/preferences/delete", {"profile": profiles(host)["Received"]["key"]})
    assert "import" in outcome(host, again), "a profile that was deleted is imported anew"
    assert "Received" in profiles(host)


def test_an_imported_profile_is_listed_as_such(host: HostServer):
    outcome(host, graph(give(host, "listed", taste(3, choices=1), title="Listed")))
    found = outcome(host, {"profile": node("AttunePreferenceProfile", profile="Listed", new_name="")})
    assert found["profile"] == "Listed: 0 choices, a taste that was imported."
    info = host.get("/object_info/AttuneImportProfile")["AttuneImportProfile"]["input"]["required"]["file"]
    choices = info[1]["options"] if info[0] == "COMBO" else info[0]
    assert {"friends/listed_001.safetensors", "attune_tastes/warm_light.safetensors"} <= set(choices)
    made = graph("attune_tastes/warm_light.safetensors", file_name="shipped")
    told = outcome(host, with_changes(made, "import", new_name="shipped"))["import"]
    assert told.startswith("shipped: a taste of 8 choices, no prompts, called 'warm light' by its giver. Encoder: ")
    assert any(choice.startswith("attune/profiles/given on") and choice.endswith(" [output]") for choice in choices)


def test_prompts_go_along_only_when_they_are_asked_for(host: HostServer):
    put_choices(host, "Annabella", light_and_dark(3, seed=4))
    made = graph(
        give(host, "words", taste(5, text="likes light"), title="words"), file_name="with/words", title="For all"
    )
    made["profile"] = node("AttunePreferenceProfile", profile="Annabella", new_name="")
    made["export"]["inputs"]["profile"] = ["profile", 0]
    outcome(host, made)
    content = (exported(host) / "with_words_001.safetensors").read_bytes()
    assert b"thing number" not in content and b"likes light" not in content
    shown = outcome(host, with_changes(made, "export", include_prompts=True))
    assert shown["export"] == "Written: with_words_002.safetensors, a taste, with 3 prompts."
    found = read_file(exported(host) / "with_words_002.safetensors")
    assert found.prompts == tuple(f"thing number {number}" for number in range(3))
    assert (found.title, found.embeddings[0].text) == ("For all", "likes light")
    assert b"Annabella" not in (exported(host) / "with_words_002.safetensors").read_bytes()


def test_nobodys_taste_is_not_written_and_stops_nothing(host: HostServer):
    empty = PreferenceEmbedding(torch.zeros(4, 8), ENCODER)
    shown = outcome(host, graph(give(host, "nobody", empty), file_name="nobody"))
    assert shown["export"].startswith("Nothing to export yet") and shown.get("file", "") == ""
    assert not [name for name in left_in(exported(host)) if "nobody" in name]


def test_what_cannot_be_exported_is_said(host: HostServer):
    made = graph(give(host, "withheld", taste(6), title="withheld"), file_name="withheld")
    made["blend"] = node(
        "AttuneBlendPreferences", preference_1=["import", 1], weight_1=0.5, preference_2=["import", 1], weight_2=0.5,
        blend="each acts by itself",
    )  # fmt: skip
    for changes, said in (
        ({"preference": ["blend", 0]}, "2 tastes side by side, and a file holds one"),
        ({"second_preference": ["import", 1]}, "Two of the embeddings are of one encoder"),
        ({"file_name": "///"}, "cannot be a file name"),
        ({"title": "x" * 61}, "up to 60 are allowed"),
    ):
        name, words = shown_error(host, with_changes(made, "export", **changes))
        assert name == "export" and said in words
    assert not [name for name in left_in(exported(host)) if "withheld" in name]
    blended = with_changes(with_changes(made, "export", preference=["blend", 0]), "blend", blend="one taste in between")
    assert outcome(host, blended)["export"].startswith("Written: withheld_001")
    found = read_file(exported(host) / "withheld_001.safetensors").embeddings[0]
    assert torch.allclose(found.tokens, taste(6).tokens, atol=1e-6), "half of it and half of it is it"


def test_hostile_and_foreign_files_change_nothing(host: HostServer):
    put_choices(host, "mine", light_and_dark(2, seed=7))
    good = give(host, "good", taste(8), title="good")
    content = (host.input_dir / good).read_bytes()
    folder = host.input_dir / "friends"
    (folder / "cut.safetensors").write_bytes(content[:-3])
    (folder / "flipped.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "random.safetensors").write_bytes(bytes(range(256)) * 40)
    save_file({"weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    before = kept(host)
    for file, name, said in (
        ("friends/cut.safetensors", "", "cut off"),
        ("friends/flipped.safetensors", "", "damaged"),
        ("friends/random.safetensors", "", "no safetensors file"),
        ("friends/model.safetensors", "", "holds no taste"),
        ("../user/attune/attune.sqlite3", "", "no file"),
        ("../secret.safetensors", "", "no file"),
        ("not there.safetensors", "", "no file"),
        (good, "mine", "holds choices (2)"),
        (good, "x" * 61, "up to 60 are allowed"),
        (good, "0" * 32, "looks like a profile's key"),
    ):
        failed, words = shown_error(host, with_changes(graph(file), "import", new_name=name))
        assert failed == "import" and said in words, words
        assert kept(host) == before, file


@pytest.mark.needs_system("posix", "links can be made by anybody")
def test_a_link_out_of_the_folder_is_no_file(host: HostServer, tmp_path: Path):
    write_file(tmp_path / "outside_001.safetensors", SharedProfile((taste(9),)))
    (host.input_dir / "link.safetensors").symlink_to(tmp_path / "outside_001.safetensors")
    before = kept(host)
    assert "no file" in shown_error(host, graph("link.safetensors"))[1]
    assert kept(host) == before
