"""A taste as a file: round trips, nothing of its owner in it, and what strangers may send, which changes nothing."""

from __future__ import annotations

import json
import os
import resource
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from attune.nodes.preferences import profile_file
from attune.nodes.preferences.choosing import words_of
from attune.nodes.preferences.embedding import PreferenceEmbedding, pack, unpack
from attune.nodes.preferences.pictures import PictureFolder, picture_of
from attune.nodes.preferences.profile_file import (
    HEADER,
    Place,
    SharedProfile,
    find,
    listed,
    newest_prompts,
    read_file,
    read_shared,
    write_file,
)
from attune.nodes.preferences.records import IMPORTED, Answer, Embedding, PreferenceError, Question
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.store import Store


def taste(seed: int = 0, encoder: str = "set:abc", tokens: int = 2, width: int = 5, **more: Any) -> PreferenceEmbedding:
    return PreferenceEmbedding(
        torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)), encoder, **more
    )  # fmt: skip


def huge(value: float) -> PreferenceEmbedding:
    return PreferenceEmbedding(torch.full((2, 5), value), "set:huge")


def whole() -> SharedProfile:
    """Everything that a file can hold."""
    embeddings = (taste(1, choices=4), taste(2, "vlm:é", tokens=3, text="Likes “warm” light.\n"))
    return SharedProfile(embeddings, "warm & soft – für alle", ("a cat", 'a "dog"\n\U0001f436'))


def packed(shared: SharedProfile) -> bytes:
    return save(*shared.contents())


def with_header(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The bytes with another safetensors header; what `change` returns (None = what it was given, changed)."""
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(header if changed is None else changed).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def with_words(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The bytes with another text of our own in the header."""

    def inner(header: dict[str, Any]) -> None:
        document = json.loads(header["__metadata__"][HEADER])
        changed = change(document)
        text = changed if isinstance(changed, str) else json.dumps(document)
        header["__metadata__"][HEADER] = text

    return with_header(content, inner)


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    folder = tmp_path / "user"
    return PreferenceStore(Store(folder / "attune.sqlite3"), PictureFolder(folder / "pictures"))


def contents_of(store: PreferenceStore) -> str:
    """Everything that the database says."""
    with store.store.reading() as connection:
        return "\n".join(connection.iterdump())


def choose_once(store: PreferenceStore, key: str, prompt: str = "a cat") -> None:
    made = [np.full((8, 8, 3), value, np.uint8) for value in (0, 255)]
    pictures = tuple(picture_of(image) for image in made)
    question = Question("pair", prompt, pictures)
    store.ask(key, [question], {picture.hash: image for picture, image in zip(pictures, made, strict=True)})
    store.decide(key, question.key, Answer("chosen", pictures[0].hash))


# ---- files ----


def test_what_is_written_comes_back(tmp_path: Path):
    path, new = write_file(tmp_path / "deep" / "taste_001.safetensors", whole())
    assert new and read_file(path).identity == whole().identity
    found = read_file(path)
    assert (found.title, found.prompts) == (whole().title, whole().prompts)
    for one, other in zip(found.embeddings, whole().embeddings, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert (one.encoder_id, one.choices, one.text, one.title) == (other.encoder_id, other.choices, other.text, "")
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half-written is left"
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == [HEADER], "any program reads it as a safetensors file"


def test_the_same_again_is_no_second_file(tmp_path: Path):
    first, _ = write_file(tmp_path / "taste_001.safetensors", whole())
    assert write_file(tmp_path / "taste_002.safetensors", whole()) == (first, False)
    other, new = write_file(tmp_path / "taste_002.safetensors", replace(whole(), title="another"))
    assert new and other.name == "taste_002.safetensors"
    first.write_bytes(b"damaged")
    other.unlink()
    assert write_file(tmp_path / "taste_002.safetensors", whole())[1], "what cannot be read is not the same"


def test_the_owners_name_and_title_are_not_in_it():
    named = taste(title="Annabella-Secret")
    content = packed(SharedProfile((named,)))
    assert b"Annabella" not in content
    assert read_shared(content).title == "" == read_shared(content).embeddings[0].title


def test_a_file_depends_on_nothing_but_the_taste():
    assert packed(whole()) == packed(whole())
    for other in (
        replace(whole(), title=""), replace(whole(), prompts=("a cat",)), replace(whole(), embeddings=(taste(1),)),
    ):  # fmt: skip
        assert other.identity != whole().identity


def test_prompts_are_the_newest_each_once_and_in_no_telling_order(monkeypatch: pytest.MonkeyPatch):
    assert newest_prompts(["b", "", "a", "b", "c"]) == ("a", "b", "c")
    monkeypatch.setattr(profile_file, "MOST_PROMPTS", 2)
    assert newest_prompts(["z", "b", "a"]) == ("b", "z")
    monkeypatch.setattr(profile_file, "PROMPT_ROOM", 6)
    assert newest_prompts(["zzz", "b", "a"]) == ("zzz",), "a long one is never cut"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SharedProfile(()), "1 to 8 embeddings, not 0"),
        (lambda: SharedProfile((taste(1), taste(2))), "two of the embeddings are of one encoder"),
        (lambda: replace(whole(), title="\ud800"), "half of a character"),
        (lambda: replace(whole(), title="x" * 61), "up to 60"),
        (lambda: replace(whole(), prompts=("",)), "1 to 20000 letters, not 0"),
        (lambda: replace(whole(), prompts=("x",) * 1001), "up to 1000 prompts"),
        (lambda: SharedProfile((taste(tokens=1024, width=16384),)), "too large"),
        (lambda: SharedProfile((taste(1), huge(-2e4))), r"numbers up to 2e\+04.*Blend Preferences"),
    ],
)
def test_what_cannot_be_given_away(make: Callable[[], Any], said: str):
    with pytest.raises(PreferenceError, match=f"(?i){said}"):
        make()


def test_the_largest_number_that_can_be_given_away_can_be_taken():
    shared = SharedProfile((huge(profile_file.LARGEST_NUMBER),))
    assert read_shared(packed(shared)).identity == shared.identity


# ---- places ----


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    """As the host has them."""
    (tmp_path / "input" / "friends").mkdir(parents=True)
    (tmp_path / "output" / "attune" / "profiles").mkdir(parents=True)
    for name in ("input/b.safetensors", "input/friends/a.SafeTensors", "output/attune/profiles/mine_001.safetensors"):
        (tmp_path / name).write_bytes(packed(whole()))
    for name in ("input/.hidden.safetensors", "input/picture.png", "output/other.safetensors", "secret.safetensors"):
        (tmp_path / name).write_bytes(b"")
    return [Place(tmp_path / "input"), Place(tmp_path / "output", "attune/profiles", " [output]")]


def test_files_are_offered_from_both_folders(places: list[Place]):
    names = listed(places)
    assert names == ["b.safetensors", "friends/a.SafeTensors", "attune/profiles/mine_001.safetensors [output]"]
    for name in names:
        assert read_file(find(places, name)).title == whole().title
    assert listed([Place(places[0].root / "not there")]) == []


@pytest.mark.needs_system("posix", "links can be made by anybody")
def test_no_link_leads_out(places: list[Place], tmp_path: Path):
    (tmp_path / "input" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (tmp_path / "input" / "folder").symlink_to(tmp_path)
    (tmp_path / "input" / "circle.safetensors").symlink_to("circle.safetensors")
    assert not [name for name in listed(places) if "folder" in name]
    for name in ("link.safetensors", "folder/secret.safetensors", "circle.safetensors"):
        with pytest.raises(PreferenceError, match="no file"):
            find(places, name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../secret.safetensors", "friends/../../secret.safetensors", "..\\secret.safetensors", "b",
        "picture.png", "other.safetensors [output]", "attune/profiles/../../other.safetensors [output]", "friends",
        "b.safetensors [output]", "b.safetensors\0", "\ud800.safetensors", "x" * 5000 + ".safetensors", " [output]",
        "C:\\b.safetensors", "b.safetensors [temp]",
    ],
)  # fmt: skip
def test_a_name_never_leads_out(places: list[Place], tmp_path: Path, name: str):
    for asked in (name, str(tmp_path / "secret.safetensors")):
        with pytest.raises(PreferenceError, match="no file") as caught:
            find(places, asked)
        str(caught.value).encode()


# ---- hostile files ----


def tensor(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: with_header(content, lambda header: header["embedding_0"].update(changes))


def words(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: with_words(content, lambda document: document.update(changes))


def head(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: with_words(content, lambda document: document["embeddings"][0].update(changes))


def numbers(value: float) -> Callable[[bytes], bytes]:
    """A file that is right in every way, but for a number in the table."""

    def made(content: bytes) -> bytes:
        shared = whole()
        shared.embeddings[0].tokens[1, 1] = value
        return packed(shared)

    return made


def titled(title: str) -> Callable[[bytes], bytes]:
    """A file that is right in every way, but for its title."""

    def made(content: bytes) -> bytes:
        shared = whole()
        object.__setattr__(shared, "title", title)
        return packed(shared)

    return made


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "no safetensors file"),
    "short": (lambda content: content[:7], "no safetensors file"),
    "random": (lambda content: np.random.default_rng(0).bytes(5000), "no safetensors file"),
    "a zip": (lambda content: b"PK\3\4" + content, "no safetensors file"),
    "cut off": (lambda content: content[:-1], "cut off"),
    "longer": (lambda content: content + b"\0\0\0\0", "holds more than"),
    "too large": (lambda content: content + bytes(profile_file.LARGEST_FILE), "more than 64 MB"),
    "huge header": (lambda content: b"\xff" * 8 + content[8:], "header is too long"),
    "long header": (
        lambda content: struct.pack("<Q", 5 * 2**20) + b" " * (5 * 2**20 + 9), "header is too long",
    ),
    "header no text": (lambda content: with_header(content, lambda header: b'{"\xff": 1}'), "no text"),
    "header no object": (lambda content: with_header(content, lambda header: b"[1]"), "no JSON object"),
    "deep": (lambda content: with_header(content, lambda header: b'{"a":' * 100_000), "nested too deeply|not JSON"),
    "deep inside": (lambda content: with_words(content, lambda document: "[" * 100_000), "nested too deeply|not JSON"),
    "long number": (lambda content: with_words(content, lambda document: '{"format":' + "9" * 9999 + "}"), "not JSON"),
    "NaN": (lambda content: with_words(content, lambda document: '{"format":NaN}'), "NaN is no number"),
    "twice": (
        lambda content: with_header(content, lambda header: json.dumps(header)[:-1].encode() + b',"embedding_0":1}'),
        "stands there twice",
    ),
    "twice inside": (
        lambda content: with_words(content, lambda document: json.dumps(document)[:-1] + ',"title":"other"}'),
        "stands there twice",
    ),
    "no metadata": (
        lambda content: with_header(content, lambda header: header.pop("__metadata__") and header),
        "holds no taste",
    ),
    "more metadata": (
        lambda content: with_header(content, lambda header: header["__metadata__"].update(a="b")),
        "more than a taste",
    ),
    "another table": (
        lambda content: with_header(content, lambda header: header.update(x=header["embedding_0"])),
        "its tables are not",
    ),
    "no table": (
        lambda content: with_header(content, lambda header: header.pop("embedding_0") and header),
        "its tables are not",
    ),
    "half precision": (tensor(dtype="F16"), "32-bit"),
    "a dtype that is none": (tensor(dtype=["F32"]), "32-bit"),
    "a vector": (tensor(shape=[10]), "no usable size"),
    "no shape": (tensor(shape={}), "no usable size"),
    "huge shape": (tensor(shape=[2**31, 2**31]), "not as long"),
    "negative shape": (tensor(shape=[-2, -5]), "no usable size"),
    "boolean shape": (tensor(shape=[True, 10]), "no usable size"),
    "float shape": (tensor(shape=[2.0, 5]), "no usable size"),
    "zero shape": (tensor(shape=[0, 5], data_offsets=[0, 0]), "no usable size"),
    "huge offsets": (tensor(shape=[2**20, 2**20], data_offsets=[0, 2**42]), "overlap|gaps"),
    "negative offsets": (tensor(data_offsets=[-40, 0]), "no usable size"),
    "overlap": (tensor(data_offsets=[4, 44]), "overlap"),
    "more in a table": (tensor(stride=[1]), "not described"),
    "another shape": (tensor(shape=[5, 2]), "damaged"),
    "NaN in a table": (numbers(float("nan")), "NaN or infinite"),
    "infinite": (numbers(float("-inf")), "NaN or infinite"),
    "a huge number": (numbers(-3e38), r"this file cannot be imported.*3e\+38.*below 10,000"),
    "a large number": (numbers(10_001), "this file cannot be imported.*below 10,000"),
    "format 0": (words(format=0), "how it is written"),
    "format true": (words(format=True), "how it is written"),
    "newer": (words(format=2), "newer version"),
    "a name": (words(name="Ann"), "not hold what it should"),
    "title no text": (words(title=5), "title"),
    "long title": (words(title="x" * 61), "title"),
    "half a title": (words(title="\ud800"), "half of a character"),
    "a title with lines": (words(title="a\nb"), "damaged"),
    "a title turned around": (titled("a\u202eb"), "damaged"),
    "a title that nobody sees": (titled("\u200b"), "no name"),
    "prompts no list": (words(prompts="a cat"), "prompts"),
    "half a prompt": (words(prompts=["\udfff"]), "half of a character"),
    "many prompts": (words(prompts=["x"] * 1001), "1000 prompts"),
    "long prompt": (words(prompts=["x" * 20_001]), "letters"),
    "no embeddings": (words(embeddings=[]), "1 to 8 embeddings"),
    "embeddings no list": (words(embeddings={}), "1 to 8 embeddings"),
    "an embedding no object": (words(embeddings=[1, 2]), "not what it should"),
    "other numbers": (words(digest="0" * 64), "damaged"),
    "digest no text": (words(digest=None), "embeddings"),
    "no encoder": (head(encoder_id=""), "encoder_id is no name"),
    "an encoder with lines": (head(encoder_id="a\nb"), "encoder_id is no name"),
    "half an encoder": (head(encoder_id="a\ud800"), "encoder_id is no name|half"),
    "one encoder twice": (head(encoder_id="vlm:é"), "one encoder"),
    "choices no number": (head(choices=1.5), "choices is no number"),
    "negative choices": (head(choices=-1), "choices is no number"),
    "more choices": (head(choices=5), "damaged"),
    "half a text": (head(text="\ud83d"), "half of a character"),
    "more of an embedding": (head(owner="Ann"), "not what it should"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_words(kind: str):
    change, said = HOSTILE[kind]
    with pytest.raises(PreferenceError, match=f"(?i){said}") as caught:
        read_shared(change(packed(whole())))
    str(caught.value).encode()
    assert len(str(caught.value)) < 400


@pytest.mark.needs_system("posix", "its memory can be asked for")
def test_a_large_hostile_file_needs_no_more_memory_than_itself():
    content = packed(whole())
    files = [HOSTILE[kind][0](content) for kind in ("huge shape", "huge offsets", "deep", "deep inside", "long header")]
    nested = b'{"a":[' + b"{}," * (2**20) + b"{}]}"
    files.append(with_header(content, lambda header: nested))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        for file in files:
            with pytest.raises(PreferenceError):
                read_shared(file)
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 2**10


# ---- into the store ----


def test_an_import_is_a_profile_without_choices(store: PreferenceStore):
    profile = store.adopt("  From  Ann ", whole().embeddings)
    assert (profile.name, profile.revision) == ("From Ann", 1) and store.profile(profile.key) == profile
    summary = store.summary(profile.key)
    assert (summary.chosen, summary.waiting, summary.imported) == (0, 0, 2)
    for embedding in whole().embeddings:
        kept = store.imported(profile.key, embedding.encoder_id)
        assert kept.revision == profile.revision and store.embedding(profile.key, embedding.encoder_id) is None
        found = unpack(kept.content, title="x")
        assert found.identity == embedding.identity and found.choices == embedding.choices
        assert found.text == embedding.text


def test_the_same_again_changes_nothing(store: PreferenceStore):
    profile = store.adopt("Ann", whole().embeddings)
    before = contents_of(store)
    assert store.adopt("ANN", whole().embeddings[::-1]) == profile
    assert contents_of(store) == before


def test_a_profile_that_holds_something_is_never_touched(store: PreferenceStore):
    mine = store.create("mine")
    choose_once(store, mine.key)
    store.adopt("theirs", [taste(1)])
    undone = store.adopt("judged", [taste(1)])
    choose_once(store, undone.key)
    before = contents_of(store)
    for name, embeddings, said in (
        ("mine", [taste(1)], "holds choices"),
        ("theirs", [taste(2)], "another taste"),
        ("theirs", [taste(1, choices=3)], "another taste"),
        ("theirs", [taste(1), taste(1, "vlm")], "another taste"),
        ("judged", [taste(2)], "another taste"),
        ("", [taste(1)], "no name"),
        ("x" * 61, [taste(1)], "up to 60"),
    ):
        with pytest.raises(PreferenceError, match=said):
            store.adopt(name, embeddings)
        assert contents_of(store) == before, name
    with store.store.writing() as connection:
        connection.execute("UPDATE embeddings SET content = ?", (b"nobody can read this",))
    with pytest.raises(PreferenceError, match="another taste"):
        store.adopt("theirs", [taste(1)])


def test_choices_stand_beside_an_import_and_replace_nothing_of_it(store: PreferenceStore):
    """A host imports at every start: it goes on after the first choice as before."""
    profile = store.adopt("Ann", whole().embeddings)
    choose_once(store, profile.key)
    own = taste(9)
    store.put_embedding(profile.key, Embedding(own.encoder_id, 2, pack(own)))
    before = contents_of(store)
    assert store.adopt("Ann", whole().embeddings) == store.profile(profile.key)
    assert contents_of(store) == before
    kept = store.imported(profile.key, own.encoder_id)
    assert unpack(kept.content).identity == whole().embeddings[0].identity
    summary = store.summary(profile.key)
    assert (summary.embeddings, summary.imported) == (3, 2)
    with pytest.raises(PreferenceError, match="kept for a taste from a file"):
        store.put_embedding(profile.key, Embedding(own.encoder_id + IMPORTED, 2, pack(own)))
    assert contents_of(store) == before


def test_what_choices_said_before_they_were_taken_back_is_no_import(store: PreferenceStore):
    profile = store.create("Ann")
    store.put_embedding(profile.key, Embedding("set:abc", 0, pack(taste(3))))
    assert "imported" not in words_of(store.summary(profile.key))
    store.adopt("Ann", [taste(1)])
    assert words_of(store.summary(profile.key)) == "Ann: 0 choices, a taste that was imported."
    choose_once(store, profile.key)
    assert "imported" not in words_of(store.summary(profile.key))


def test_an_empty_profile_takes_a_taste_and_says_so_by_its_revision(store: PreferenceStore):
    empty = store.create("my taste")
    filled = store.adopt("my taste", [taste(1)])
    assert filled.key == empty.key and filled.revision == empty.revision + 1


def test_all_of_an_import_or_nothing(store: PreferenceStore, monkeypatch: pytest.MonkeyPatch):
    """The second embedding fails on its way: the first is not kept, nor the profile."""
    store.create("other")
    before = contents_of(store)
    with pytest.raises(AttributeError):
        store.adopt("Ann", [taste(1), None])
    assert contents_of(store) == before


def test_nothing_of_a_deleted_import_is_left(store: PreferenceStore):
    embedding = taste(1, "set:" + "annabella" * 5, tokens=64, width=64, text="likes Annabella-Secret things")
    profile = store.adopt("Annabella", [embedding])
    other = store.adopt("Bob", [taste(2)])
    numbers = embedding.tokens.numpy()[10:12].tobytes()
    needles = [b"Annabella-Secret", b"annabellaannabella", numbers, profile.key.encode()]

    def files(needle: bytes) -> list[str]:
        folder = store.store.path.parent
        return [file.name for file in folder.rglob("*") if file.is_file() and needle in file.read_bytes()]

    assert all(files(needle) for needle in needles), "it is there to be deleted"
    assert store.delete(profile.key) == ""
    assert {needle: files(needle) for needle in needles if files(needle)} == {}
    assert store.imported(other.key, "set:abc") is not None


# ---- fuzz ----


TOKENS = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-1", b"1e999", b"null", b"true", b"NaN", b"\\ud800", b"\\u0000",
    b"99999999999999999999", b"F16", b"embedding_0", b"__metadata__", b"\xff", b" ",
]  # fmt: skip


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: a bit flipped, the rest cut off, bytes put in, taken out, doubled, or a word of JSON instead."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(data) + 1)), int(rng.integers(6))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1 and rng.random() < 0.2:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 12))]
        elif kind == 4:
            data[at : at + int(rng.integers(0, 4))] = TOKENS[int(rng.integers(len(TOKENS)))]
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 64))]
    return bytes(data)


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Of the whole file; of its header alone, with the length that then fits; of what the header says of the taste."""
    rng = np.random.default_rng(seed)
    (size,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + size], content[8 + size :]
    for number in range(count):
        if number % 3 == 0:
            yield mutated(content, rng)
            continue
        if number % 3 == 1:
            changed = mutated(header, rng)
        else:
            entries = json.loads(header)
            words = mutated(entries["__metadata__"][HEADER].encode(), rng).decode(errors="surrogateescape")
            entries["__metadata__"][HEADER] = words
            changed = json.dumps(entries).encode()
        yield struct.pack("<Q", len(changed)) + changed + data


def test_thousands_of_damaged_files_change_nothing(store: PreferenceStore, tmp_path: Path):
    """Each either imports as it was written, or is refused with everything in the store as before."""
    content, expected = packed(whole()), whole().identity
    store.adopt("imported", whole().embeddings)
    choose_once(store, store.create("mine").key)
    before = contents_of(store)
    reasons: set[str] = set()
    passed = 0
    for number, damaged in enumerate([content, *mutations(content, 6000, seed=5)]):
        try:
            shared = read_shared(damaged)
            assert shared.identity == expected
            store.adopt("imported", shared.embeddings)
            passed += 1
        except PreferenceError as error:
            words = str(error)
            words.encode()
            assert len(words) < 500
            reasons.add(words.split("(")[0])
        if number % 50 == 0:
            assert contents_of(store) == before
    assert contents_of(store) == before
    assert passed > 3 and len(reasons) > 15, "they come as far as they can"
    with store.store.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_damaged_headers_with_a_fitting_length_are_told_apart():
    """Random edits of our own words, put back into a sound file: what gets through is what was written."""
    content, rng = packed(whole()), np.random.default_rng(3)
    (size,) = struct.unpack_from("<Q", content)
    inner = json.loads(content[8 : 8 + size])["__metadata__"][HEADER]
    values = [None, True, -1, 0, 1, 2, 1e308, "", "x", "\ud800", [], {}, [[]], "0" * 64, 2**63]
    for _ in range(3000):
        document = json.loads(inner)
        target: Any = document if rng.random() < 0.5 else document["embeddings"][int(rng.integers(2))]
        names = [*target, "extra"]
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.3:
            target.pop(name, None)
        else:
            target[name] = values[int(rng.integers(len(values)))]
        try:
            shared = read_shared(with_words(content, lambda _, document=document: json.dumps(document)))
            assert shared.identity == whole().identity
        except PreferenceError as error:
            str(error).encode()


def test_where_files_are_read_from_disk_links_and_folders_are_no_trap(tmp_path: Path):
    with pytest.raises(PreferenceError, match="cannot be read"):
        read_file(tmp_path)
    with pytest.raises(PreferenceError, match="cannot be read"):
        read_file(tmp_path / "none.safetensors")
    large = tmp_path / "large.safetensors"
    with open(large, "wb") as file:
        os.truncate(file.fileno(), 2**36)
    with pytest.raises(PreferenceError, match="more than 64 MB"):
        read_file(large)
