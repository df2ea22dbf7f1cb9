"""Prompt sources: lines, files, templates with wildcards, captions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from attune.nodes.places import PlaceError, content_digest, inside, listed_files, listed_folders
from attune.nodes.prompts.captions import captions_digest, from_captions
from attune.nodes.prompts.files import from_file, read_prompts
from attune.nodes.prompts.grammar import fill, filled, parse_text, ways
from attune.nodes.prompts.lines import MOST_PROMPTS, MOST_SHOWN, Arrangement, PromptError, from_text
from attune.nodes.prompts.places import read_text
from attune.nodes.prompts.template import MOST_WRITTEN_OUT, Wildcards, from_template

PLAIN = Arrangement()


@pytest.fixture
def wildcards(tmp_path: Path) -> Wildcards:
    root = tmp_path / "wildcards"
    (root / "deep").mkdir(parents=True)
    (root / "colour.txt").write_text("# colours\n3::red\n\nblue\n", encoding="utf-8")
    (root / "deep" / "thing.txt").write_text("a __colour__ {cup|hat}\na stone\n", encoding="utf-8")
    return Wildcards(root)


def every(text: str, wildcards: Wildcards) -> list[str]:
    return list(from_template(text, wildcards, mode="all combinations", count=1000, seed=0).prompts)


# ---- lines ----


def test_lines_are_cleaned():
    text = "  a  cat \n\n# a note\n  # another\na dog\na cat\n"
    assert from_text(text, PLAIN).prompts == ("a cat", "a dog")
    assert from_text(text, Arrangement(remove_duplicates=False)).prompts == ("a cat", "a dog", "a cat")
    assert from_text(text, PLAIN).text == "a cat\na dog"


def test_arranging_shuffles_limits_and_repeats_in_that_order():
    text = "\n".join(f"prompt {number}" for number in range(20))
    shuffled = from_text(text, Arrangement(shuffle_seed=3)).prompts
    assert sorted(shuffled) == sorted(text.splitlines()) and list(shuffled) != text.splitlines()
    assert from_text(text, Arrangement(shuffle_seed=3)).prompts == shuffled
    assert from_text(text, Arrangement(shuffle_seed=4)).prompts != shuffled
    some = from_text(text, Arrangement(shuffle_seed=3, limit=2, repeat=3))
    assert some.prompts == (shuffled[0],) * 3 + (shuffled[1],) * 3
    assert some.note == "2 of 20 prompts, each 3 times"
    assert from_text("a\na\nb", PLAIN).note == "2 prompts, 1 double removed"


def test_what_a_node_shows_is_bounded():
    shown = from_text("\n".join(map(str, range(500))), PLAIN).shown().splitlines()
    assert shown[0] == "500 prompts" and shown[1] == "0"
    assert shown[-1] == "… and 400 more" and len(shown) == MOST_SHOWN + 2


@pytest.mark.parametrize(
    ("text", "arrangement", "words"),
    [
        ("# only a note\n", {}, "no prompts in the text"),
        ("a", {"repeat": 0}, "repeat must be at least 1, not 0"),
        ("a", {"limit": -1}, "limit must be at least 0, not -1"),
        ("a\nb", {"repeat": MOST_PROMPTS}, "Set a limit, or lower repeat"),
    ],
)
def test_lines_that_cannot_be_prompts(text: str, arrangement: dict, words: str):
    with pytest.raises(PromptError, match=words):
        from_text(text, Arrangement(**arrangement))


# ---- places ----


def test_names_stay_inside(tmp_path: Path):
    root = tmp_path / "input"
    (root / "set").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")
    assert inside(root, "set/a.txt", what="file") == (root / "set" / "a.txt").resolve()
    for name in (
        "../secret.txt",
        "set/../../secret.txt",
        str(tmp_path / "secret.txt"),
        "",
        ".",
        "..\\secret.txt",
        "a\0b",
        "\ud800",
        "a" * 300,
    ):
        with pytest.raises(PlaceError, match="is no file inside the folder 'input'"):
            inside(root, name, what="file")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    root = tmp_path / "input"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")
    try:
        (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    except OSError:
        return  # a system without links has nothing to follow
    with pytest.raises(PlaceError):
        inside(root, "link.txt", what="file")


def test_listing(tmp_path: Path):
    for name in (
        "b.txt",
        "a.CSV",
        ".hidden.txt",
        "picture.png",
        "one/two/c.json",
        "1/2/3/4/too_deep.txt",
        ".git/d.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert listed_files(tmp_path, {".txt", ".csv", ".json"}) == ["a.CSV", "b.txt", "one/two/c.json"]
    assert listed_folders(tmp_path) == ["1", "1/2", "1/2/3", "one", "one/two"]
    assert listed_files(tmp_path / "absent", {".txt"}) == []


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffa café\na b".encode() + b"\xe9d\n")
    with pytest.raises(PromptError, match=r"p\.txt, line 2: a letter is not UTF-8"):
        read_text(file, "p.txt")
    file.write_bytes("\ufeffa café".encode())
    assert read_text(file, "p.txt") == "a café"


def test_digest_follows_the_content(tmp_path: Path):
    file = tmp_path / "p.txt"
    file.write_text("a", encoding="utf-8")
    before = content_digest([file])
    file.write_text("b", encoding="utf-8")
    assert content_digest([file]) != before
    file.write_text("a", encoding="utf-8")
    assert content_digest([file]) == before != content_digest([tmp_path / "absent.txt"])


# ---- files ----


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("p.txt", "# note\na cat, red\n\na dog\n", ""),
        ("p.csv", 'number,prompt\n1,"a cat, red"\n\n2,a dog\n', ""),
        ("p.csv", 'number;Words\n1;a cat, red\n2;"a\ndog"\n', "words"),
        ("p.csv", '"a cat, red",x\na dog,y\n', "1"),
        ("p.csv", '"a cat, red"\na dog\n', ""),
        ("p.csv", "text\tn\na cat, red\t1\na dog\t2\n", ""),
        ("p.csv", 'Prompts\n"a cat, red"\na dog\n', ""),
        ("p.csv", "sep=;\r\nprompt;n\r\na cat, red;1\r\na dog;2\r\n", ""),
        ("p.csv", '"sep=|"\nprompt\na cat, red|\na dog\n', ""),
        ("p.txt", "a cat,\u2028red\r\na\x85dog\r\n", ""),
        ("p.jsonl", '{"prompt": "a cat,\u2028red"}\n{"prompt": "a dog"}\r\n', ""),
        ("p.jsonl", '{"caption": "a cat, red"}\n\n"a  dog"\n', ""),
        ("p.jsonl", '{"text": "no", "x": "a cat, red"}\n{"x": "a dog"}\n', "x"),
        ("p.json", '["a cat, red", "a dog", ""]', ""),
        ("p.json", '{"prompts": [{"prompt": "a cat, red"}, {"prompt": "a\\ndog"}]}', ""),
    ],
)
def test_files_of_all_kinds(tmp_path: Path, name: str, content: str, field: str):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_prompts(tmp_path / name, name, field)[0] == ["a cat, red", "a dog"]


def test_a_column_by_number_says_that_the_first_row_is_a_prompt(tmp_path: Path):
    (tmp_path / "p.csv").write_text("id,words\n1,a cat\n", encoding="utf-8")
    found = from_file(tmp_path / "p.csv", "p.csv", field="2", arrangement=PLAIN)
    assert found.prompts == ("words", "a cat")
    assert found.note == "2 prompts; the first row counts as a prompt"
    assert from_file(tmp_path / "p.csv", "p.csv", field="words", arrangement=PLAIN).note == "1 prompt"
    (tmp_path / "p.csv").write_text("id,prompt\n1,a cat\n", encoding="utf-8")
    assert from_file(tmp_path / "p.csv", "p.csv", field="2", arrangement=PLAIN).note == "1 prompt"


@pytest.mark.parametrize(
    ("name", "content", "field", "words"),
    [
        ("p.txt", "a", "prompt", r"p\.txt is a text file and has no field 'prompt'"),
        ("p.csv", "a,b\n1,2\n", "", r"p\.csv, line 1: no column is called .* Its columns are: a, b"),
        ("p.csv", "a,b\n1,2\n", "c", r"p\.csv, line 1: there is no column 'c'"),
        ("p.csv", "a,b\n1,2\n", "3", r"p\.csv, line 1: there is no column '3'"),
        ("p.csv", "n,prompt\n1,a\n2\n", "", r"p\.csv, line 3: there is no column 2, only 1"),
        ("p.csv", "prompt\na cat\na dog, flat\n", "", r"p\.csv, line 3: there are 2 columns, but 1 in the first row"),
        ("p.csv", "sep=;\nn;prompt\n1;a;b\n", "", r"p\.csv, line 3: there are 3 columns, but 2 in the first row"),
        ("p.csv", "a,b\n1,2\n", "9" * 5000, r"p\.csv, line 1: there is no column '999"),
        ("p.json", "[" * 100_000, "", r"p\.json: lists inside each other, too deep"),
        ("p.json", "[" + "9" * 5000 + "]", "", r"p\.json: a number with too many digits"),
        ("p.jsonl", '"a"\n' + "[" * 100_000, "", r"p\.jsonl, line 2: lists inside each other, too deep"),
        ("p.csv", 'prompt\n"a"b\n', "", r"p\.csv, line 2: not CSV"),
        ("p.jsonl", '{"text": "a"}\n{"text": \n', "", r"p\.jsonl, line 2: not JSON"),
        ("p.jsonl", '{"x": "a"}\n', "", r"p\.jsonl, line 1: there is none of the fields prompt, text, caption"),
        ("p.jsonl", '{"x": 3}\n', "x", r"p\.jsonl, line 1: the field 'x' is '3', which is no text"),
        ("p.jsonl", "3\n", "", r"p\.jsonl, line 1: '3' is neither"),
        ("p.json", '["a",\n\n]', "", r"p\.json, line 3: not JSON"),
        ("p.json", '{"a": "b"}', "", r"p\.json holds no list"),
        ("p.json", '["a", 4]', "", r"p\.json, entry 2"),
        ("p.doc", "a", "", r"p\.doc is none of the files"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str, field: str, words: str):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    with pytest.raises(PromptError, match=words):
        read_prompts(tmp_path / name, name, field)


def test_a_file_that_is_missing(tmp_path: Path):
    with pytest.raises(PromptError, match=r"set/p\.txt cannot be read"):
        read_prompts(tmp_path / "p.txt", "set/p.txt")


# ---- templates ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", ["a cat"]),
        ("a {red|blue} {cat|dog}", ["a red cat", "a red dog", "a blue cat", "a blue dog"]),
        ("a{| red} cat", ["a cat", "a red cat"]),
        ("{a|b {c|d}}", ["a", "b c", "b d"]),
        ("{2::a|0::b|0.5::c}", ["a", "c"]),
        ("{a|a|b}", ["a", "b"]),
        ("one\n# note\n{two|three}", ["one", "two", "three"]),
        (r"\{a\|b\} \_\_x\_\_ a|b \(c:1.2\)", [r"{a|b} __x__ a|b \(c:1.2\)"]),
        ("{.5::a|2 ::b|1.::c}", ["a", "b", "c"]),
        ("ratio 2::1", ["ratio 2::1"]),
        ("a\u2028b\x85{c|d}\re", ["a b c e", "a b d e"]),
        ("a _b_ c", ["a _b_ c"]),
        ("__colour__ x", ["red x", "blue x"]),
        ("__deep/thing__", ["a red cup", "a red hat", "a blue cup", "a blue hat", "a stone"]),
    ],
)
def test_all_combinations(wildcards: Wildcards, text: str, expected: list[str]):
    assert every(text, wildcards) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fine\na {red|blue", r"The template, line 2: the \{ at letter 3 is never closed"),
        ("a} b", r"The template, line 1: the \} at letter 2 closes nothing"),
        ("{0::a}", r"The template, line 1: the weights .* are all 0"),
        ("a __size__", r"line 1: there is no wildcard __size__\. There are: __colour__, __deep/thing__"),
        ("a __../secret__", "is no wildcard inside the folder 'wildcards'"),
        ("", "The template is empty"),
        ("{|}", "only makes empty prompts"),
        ("x {2$$a|b}", r"line 1: \{2\$\$…\} draws several alternatives"),
        ("x {1-2$$a|b}", r"line 1: \{1-2\$\$…\} draws several alternatives"),
        ("{a|-1::b}", "line 1: '-1' is no weight"),
        ("{1e5::a|b}", "line 1: '1e5' is no weight"),
        ("{" * 60 + "a" + "}" * 60, "more than 50 braces"),
    ],
)
def test_templates_with_a_mistake(wildcards: Wildcards, text: str, words: str):
    for mode in ("draw", "all combinations"):
        with pytest.raises((PromptError, PlaceError), match=words):
            from_template(text, wildcards, mode=mode, count=3, seed=0)


@pytest.mark.parametrize("count", [0, MOST_PROMPTS + 1])
def test_a_number_out_of_range_is_told_by_the_name_of_its_widget(wildcards: Wildcards, count: int):
    with pytest.raises(PromptError, match=rf"how_many must be from 1 to {MOST_PROMPTS}, not {count}"):
        from_template("{a|b}", wildcards, mode="draw", count=count, seed=0)


def test_wildcards_that_grow_without_end_are_refused_before_they_are_built(wildcards: Wildcards):
    """Each of 60 files uses the next one twice: 2^60 words, and 2^(2^60) ways."""
    for index in range(60):
        (wildcards.root / f"l{index}.txt").write_text(f"__l{index + 1}__ __l{index + 1}__", encoding="utf-8")
    for last in ("a\nb", "{|}"):
        (wildcards.root / "l60.txt").write_text(last, encoding="utf-8")
        with pytest.raises(PromptError, match="could become longer than 20000 letters"):
            from_template("__l0__", Wildcards(wildcards.root), mode="draw", count=1, seed=0)


class Comparing(int):
    """A number of ways that counts how often it is looked at."""

    looks = 0

    def __gt__(self, other: int) -> bool:
        Comparing.looks += 1
        return int(self) > other

    __lt__ = __gt__


def test_large_wildcards_are_found_by_bisection(wildcards: Wildcards):
    """4000 lines take 12 comparisons each at most, and not 2000; the numbering goes through all of them in order."""
    words = [f"word {number}" for number in range(4000)]
    (wildcards.root / "big.txt").write_text("\n".join(words), encoding="utf-8")
    choice = wildcards("big", "here")
    object.__setattr__(choice, "ends", tuple(map(Comparing, choice.ends)))
    Comparing.looks = 0
    assert [filled(choice, index)[0] for index in range(4000)] == words
    assert 0 < Comparing.looks <= 4000 * 13


def test_more_combinations_than_python_writes_down(wildcards: Wildcards):
    """4^8000 has 4817 digits, more than Python turns into text."""
    found = from_template("{a|b|c|}" * 8000, wildcards, mode="all combinations", count=2, seed=0)
    assert found.note == "The first 2 of 3·10^4816 combinations: raise how_many for more"


def test_wildcard_files_with_a_mistake(wildcards: Wildcards):
    for name, content in {"a": "x\n__b__", "b": "__a__", "broken": "fine\n{no", "empty": "# nothing"}.items():
        (wildcards.root / f"{name}.txt").write_text(content, encoding="utf-8")
    with pytest.raises(
        PromptError, match=r"wildcards/b\.txt, line 1: the wildcard never ends: __a__ uses __b__ uses __a__"
    ):
        every("__a__", wildcards)
    with pytest.raises(PromptError, match=r"wildcards/broken\.txt, line 2: the \{"):
        every("__broken__", wildcards)
    with pytest.raises(PromptError, match=r"wildcards/empty\.txt has no lines"):
        every("__empty__", wildcards)


def test_nothing_is_drawn_twice_while_there_is_another(wildcards: Wildcards):
    text = "{a|b|c} {1|2|3|4}"
    found = from_template(text, wildcards, mode="draw", count=12, seed=5)
    assert sorted(found.prompts) == sorted(every(text, wildcards))
    assert found.note == "12 of 12 possible prompts"
    more = from_template(text, wildcards, mode="draw", count=30, seed=5)
    assert more.prompts[:12] == found.prompts
    assert set(Counter(more.prompts).values()) == {2, 3}
    assert "of which 12 differ" in more.note
    assert from_template(text, wildcards, mode="draw", count=5, seed=5).prompts == found.prompts[:5]
    assert from_template(text, wildcards, mode="draw", count=12, seed=6).prompts != found.prompts


def test_large_templates_are_drawn_without_writing_them_out(wildcards: Wildcards):
    text = " ".join(["{a|b|c|d|e|f|g|h}"] * 12)
    found = from_template(text, wildcards, mode="draw", count=300, seed=1)
    assert len(set(found.prompts)) == 300
    assert found.note == "300 of 6.9·10^10 possible prompts"
    assert from_template(text, wildcards, mode="draw", count=200, seed=1).prompts == found.prompts[:200]
    first = from_template(text, wildcards, mode="all combinations", count=10, seed=0)
    assert len(first.prompts) == 10 and first.prompts[1] == " ".join(["a"] * 11 + ["b"])
    assert "The first 10 of 6.9·10^10 combinations" in first.note


def test_a_weight_that_allows_hardly_anything_else_repeats(wildcards: Wildcards):
    text = "{1000000000::a|b} " + " ".join(["{1000000000::a|b|c|d}"] * 9)
    choice = parse_text(text, "t", wildcards)
    assert choice.size > MOST_WRITTEN_OUT
    found = from_template(text, wildcards, mode="draw", count=3, seed=0)
    assert found.prompts == (" ".join(["a"] * 10),) * 3
    assert "of which 1 differ" in found.note


def test_weights_are_probabilities(wildcards: Wildcards):
    """{3::a|b} and colour.txt: P(a red) = 3/4 · 3/4. The first prompt drawn follows it: 2000 draws, 4 standard "
    "errors."""
    text = "{3::a|b} __colour__"
    pattern = parse_text(text, "t", wildcards)
    assert filled(pattern, 0) == ("a red", pytest.approx(9 / 16))
    assert sum(filled(pattern, index)[1] for index in range(pattern.size)) == pytest.approx(1)
    first = Counter(
        from_template(text, wildcards, mode="draw", count=1, seed=seed).prompts[0] for seed in range(2000)
    )  # fmt: skip
    for prompt, expected in {"a red": 9 / 16, "a blue": 3 / 16, "b red": 3 / 16, "b blue": 1 / 16}.items():
        assert first[prompt] / 2000 == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5)


def test_filling_is_a_numbering(wildcards: Wildcards):
    random = Random(0)
    for _ in range(30):
        text = "x" + "".join(
            "{" + "|".join(random.choice(["p", "q{r|s}", "__colour__", ""]) for _ in range(random.randint(1, 4))) + "}"
            for _ in range(random.randint(1, 3))
        )
        pattern = (parse_text(text, "t", wildcards),)
        filled = [fill(pattern, index) for index in range(ways(pattern))]
        assert sum(probability for _, probability in filled) == pytest.approx(1)
        assert {" ".join(one.split()) for one, _ in filled} == set(every(text, wildcards))


def test_the_files_a_template_depends_on(wildcards: Wildcards):
    names = lambda text: [file.relative_to(wildcards.root).as_posix() for file in wildcards.files(text)]  # noqa: E731
    assert names("no wildcard") == []
    assert names("__deep/thing__") == ["colour.txt", "deep/thing.txt"]
    assert names("__absent__ __colour__") == ["absent.txt", "colour.txt"]
    assert names(None) == ["colour.txt", "deep/thing.txt"]


def test_cancel_stops_long_drawing(wildcards: Wildcards):
    def cancel() -> None:
        raise InterruptedError

    for mode in ("draw", "all combinations"):
        for choices in (10, 3):
            with pytest.raises(InterruptedError):
                from_template(" ".join(["{a|b|c|d}"] * choices), wildcards, mode=mode, count=9, seed=0, on_step=cancel)


# ---- captions ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.jpg", "c.webp"):
        (folder / name).write_bytes(b"not looked at")
    (folder / "a.txt").write_text("a cat\n on a mat", encoding="utf-8")
    (folder / "b.txt").write_text("a dog", encoding="utf-8")
    (folder / "notes.txt").write_text("of no picture", encoding="utf-8")
    return folder


def test_captions_beside_pictures(folder: Path):
    found = from_captions(folder, "pictures", trigger="inkstyle", field="", arrangement=PLAIN)
    assert found.prompts == ("inkstyle, a cat on a mat", "inkstyle, a dog")
    assert found.note == "2 prompts; 1 picture without a caption"


@pytest.mark.parametrize("ending", [".txt", ".TXT", ".Txt"])
def test_captions_in_whatever_case_are_read_and_their_changes_noticed(folder: Path, ending: str):
    (folder / "a.txt").rename(folder / f"a{ending}")
    assert from_captions(folder, "pictures", trigger="", field="", arrangement=PLAIN).prompts[0] == "a cat on a mat"
    before = captions_digest(folder)
    assert captions_digest(folder) == before
    (folder / f"a{ending}").write_text("a fox", encoding="utf-8")
    assert captions_digest(folder) != before


def test_captions_of_a_metadata_file(folder: Path):
    rows = [
        {"file_name": "c.webp", "text": "a fox"},
        {"file_name": "a.jpg", "text": "a cat"},
        {"file_name": "b.png", "text": ""},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = from_captions(folder, "pictures", trigger="", field="", arrangement=PLAIN)
    assert found.prompts == ("a fox", "a cat")
    assert found.note == "2 prompts; 1 picture without a caption"
    (folder / "metadata.jsonl").write_text('{"text": "a\u2028fox"}\r\n{"text": "a\x85cat"}', encoding="utf-8")
    assert from_captions(folder, "pictures", trigger="", field="", arrangement=PLAIN).prompts == ("a fox", "a cat")
    (folder / "metadata.jsonl").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(PromptError, match=r"metadata\.jsonl, line 1: lists inside each other, too deep"):
        from_captions(folder, "pictures", trigger="", field="", arrangement=PLAIN)


def test_captions_that_cannot_be_read(folder: Path, tmp_path: Path):
    def read(target: Path, field: str = "") -> None:
        from_captions(target, target.name, trigger="x", field=field, arrangement=PLAIN)

    with pytest.raises(PromptError, match="There is no folder 'absent'"):
        read(tmp_path / "absent")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.png").write_bytes(b"")
    with pytest.raises(PromptError, match="No picture in 'bare' has a caption"):
        read(tmp_path / "bare")
    (folder / "metadata.jsonl").write_text('{"text": "a"}\n{"file_name": "b.png"}\n', encoding="utf-8")
    with pytest.raises(PromptError, match=r"pictures/metadata\.jsonl, line 2: there is none of the fields"):
        read(folder)
    with pytest.raises(PromptError, match=r"pictures/metadata\.jsonl, line 1: there is no field 'x'"):
        read(folder, "x")
    (folder / "metadata.jsonl").write_text('{"text": "a"}\n{"text"\n', encoding="utf-8")
    with pytest.raises(PromptError, match=r"pictures/metadata\.jsonl, line 2: not JSON"):
        read(folder)
    (folder / "metadata.jsonl").unlink()
    (folder / "b.txt").write_bytes(b"ok\n\xff")
    with pytest.raises(PromptError, match=r"pictures/b\.txt, line 2"):
        read(folder)
