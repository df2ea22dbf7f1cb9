"""Feedback in words → edits.

A sentence is cut at commas and words such as "and"; then the cut is chosen by which most pieces are understood: alone,
with the verb of the piece before ("make the hat red and the coat blue"), or joined again ("add a cat and a dog"). Each
piece is tried with the rules of its language, in their order. Pronouns are resolved at the end, in reading order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from .edit_clauses import Clause, ClauseReader
from .edit_records import Edit, Reading
from .edit_words import EditLanguage, languages
from .prompt_parts import Prompt

# Longer feedback is no comment on a picture; what lies beyond is returned as unread. A clause's cost is a power of its
# length, since rules have several open places.
LONGEST_FEEDBACK = 4000
LONGEST_CLAUSE = 300
MOST_PIECES = 24
_UNREAD, _JOINED, _BORROWED = 100, 2, 1
_SENTENCE = re.compile(r"[.!?…。！？]+(?=\s|$|[^\w\s])|[\n;]+|\s[–—-]+\s|[!?]+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "\u00a0": " "})
# What no comment holds: control characters, and marks by which language models tell turns apart.
_MARKS = re.compile(r"<\|[^|<>]*\|>|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What ends a clause without meaning anything; a bracket of the prompt's own, or a "-3", is none.
_EDGES = re.compile(r"^(?:[\s,.:;!?…•*~=_/|\\)\]}>\"']|[-–—](?!\d))+|[\s,.:;!?…*~=_/|\\–—-]+$")
_SIGN = r"(?:[^\w\s\x00-\x7f“”‘’„«»–—…•·°]+)"
_ENDING_SIGNS = re.compile(rf"(?:\s*{_SIGN})+$")
_STARTING_SIGNS = re.compile(rf"^(?:{_SIGN}\s*)+")
_SMILEY = re.compile(r"(?:^|(?<=\s))[:;]-?[()DPp/|]+(?=\s|$)")
_LIST_END = re.compile(r"(?:the )?(?:\d+|first|second|third|fourth|last)(?: one| pictures?)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Plan:
    cost: int
    clauses: tuple[Clause | str, ...]


def read_feedback(feedback: str, prompt: str) -> Reading:
    """What feedback asks for.

    Args:
        feedback: what a person wrote, any text.
        prompt: what it is about; decides which words name a thing.

    Every registered language reads it; for each sentence the one that understands most of it is taken, of equals the
    one registered first.
    """
    edits: list[Edit] = []
    unread: list[str] = []
    used: dict[str, int] = {}
    tables = languages()
    readers = [ClauseReader(table, Prompt.parse(prompt, table)) for table in tables]
    clauses: list[Clause] = []
    for sentence in _sentences(feedback[:LONGEST_FEEDBACK]):
        plans = [_plan(sentence, reader) for reader in readers]
        best = min(range(len(plans)), key=lambda index: plans[index].cost)
        used[tables[best].name] = used.get(tables[best].name, 0) + 1
        for clause in plans[best].clauses:
            if isinstance(clause, str):
                unread.append(clause)
            else:
                clauses.append(clause)
    if feedback[LONGEST_FEEDBACK:].strip():
        unread.append(feedback[LONGEST_FEEDBACK:].strip())
    edits = _resolved(clauses, readers[0])
    return Reading(tuple(edits), tuple(unread), max(used, key=lambda name: used[name]) if used else tables[0].name)


def _sentences(feedback: str) -> list[str]:
    text = _SMILEY.sub(" ", _MARKS.sub("\n", feedback.translate(_QUOTES)))
    found = []
    for sentence in _SENTENCE.split(text):
        clean = " ".join(sentence.split())
        # Signs alone count only where there is nothing else, so that a comment of emoji is not taken as understood.
        if clean and (re.search(r"\w", clean) or not re.search(r"\w", text)):
            found.append(clean)
    return found


def _pieces(sentence: str, language: EditLanguage) -> list[tuple[str, str]]:
    """(piece, what stood between it and the next)."""
    cut = re.compile(rf"(\s*,\s*(?:{language.clause_breaks})?\s*|\s*(?:{language.clause_breaks})\s*)", re.IGNORECASE)
    parts = cut.split(sentence)
    pieces: list[tuple[str, str]] = []
    for piece, between in zip(parts[::2], [*parts[1::2], ""], strict=True):
        pair = (pieces[-1][0].split()[-1:] if pieces else []) + piece.split()[:1]
        numbered = pieces and _LIST_END.fullmatch(piece) and _LIST_END.fullmatch(pieces[-1][0].split()[-1])
        joined = not pieces or pieces[-1][1].strip(" ,").lower() in {"", *language.joiners}
        colours = len(pair) == 2 and all(word.lower() in language.colours for word in pair)
        if joined and (numbered or colours):
            # "black and white" is one description, "mix 1 and 3" one choice.
            piece = "".join([*pieces.pop(), piece])
        if piece.strip():
            pieces.append((piece, between))
    return pieces


def _plan(sentence: str, reader: ClauseReader) -> _Plan:
    """The best way to cut a sentence."""
    for short, full in reader.language.contractions.items():
        sentence = re.sub(short, full, sentence, flags=re.IGNORECASE)
    pieces = _pieces(sentence, reader.language)
    if len(pieces) > MOST_PIECES:
        return _Plan(_UNREAD * len(pieces), (sentence,))

    def joined(start: int, stop: int) -> str:
        text = "".join(piece + between for piece, between in pieces[start : stop - 1]) + pieces[stop - 1][0]
        return text.strip()

    # What is to stay unread does not become part of something that can be read.
    unreadable = [reader.unreadable(_trimmed(piece, reader.language)) for piece, _ in pieces]

    @cache
    def best(start: int, verb: str, removed: bool) -> _Plan:
        if start == len(pieces):
            return _Plan(0, ())
        rest = best(start + 1, "", False)
        text = joined(start, start + 1)
        found = _Plan(_UNREAD + rest.cost, (text, *rest.clauses))
        for stop in range(start + 1, len(pieces) + 1):
            if unreadable[stop - 1]:
                break
            text = _trimmed(joined(start, stop), reader.language)
            if len(text) > LONGEST_CLAUSE:
                break
            if not text:
                continue
            joins = _JOINED * (stop - start - 1)
            clause = reader.read(text)
            # "no cat, a dog": with an article it is what is wanted instead.
            for lent in (verb, reader.language.wish_verb if removed else ""):
                wanted = removed and lent == verb and text.split()[0].lower() in reader.language.articles - {"the"}
                if clause is None and lent and text and not wanted:
                    clause, joins = reader.read(f"{lent} {text}", borrowed=True), joins + _BORROWED
            if clause is None:
                continue
            removes = any(edit.operation == "remove" and not edit.to for edit in clause.edits)
            rest = best(stop, clause.verb or verb, removes)
            cost = joins + rest.cost
            if cost < found.cost:
                found = _Plan(cost, (clause, *rest.clauses))
        return found

    return _together(best(0, "", False))


def _trimmed(text: str, language: EditLanguage) -> str:
    """A clause without the signs at its ends, except where a sign is what is spoken of: "add a 🐶"."""
    text = _EDGES.sub("", text)
    start = _STARTING_SIGNS.match(text)
    if start:
        following = text[start.end() :].split()[:1]
        if following and following[0].lower() not in {"instead", "rather", *language.connectors}:
            text = text[start.end() :]
    end = _ENDING_SIGNS.search(text)
    if end and end.start():
        before = [word.lower() for word in text[: end.start()].split()]
        described = before and before[-1] in language.colours | set(language.sizes)
        while before and before[-1] in language.colours | set(language.sizes):
            before.pop()
        named = language.articles if described else language.names_next | language.articles | set(language.numbers)
        if not before or before[-1] not in named:
            text = _EDGES.sub("", text[: end.start()])
    return text


def _together(plan: _Plan) -> _Plan:
    """Neighbouring unread pieces as one text."""
    clauses: list[Clause | str] = []
    for clause in plan.clauses:
        if isinstance(clause, str) and clauses and isinstance(clauses[-1], str):
            clauses[-1] = f"{clauses[-1]}, {clause}"
        else:
            clauses.append(clause)
    return _Plan(plan.cost, tuple(clauses))


def _resolved(clauses: Sequence[Clause], reader: ClauseReader) -> list[Edit]:
    """The edits of all clauses, with things in place of pronouns, and what replaces as such."""
    edits: list[Edit] = []
    topic = ""
    gone = -1  # the position of an edit that removes, when the clause before did nothing else
    for place, clause in enumerate(clauses):
        beside = _beside(clauses, place, reader)
        new = [_with_topic(_of_background(edit, beside, reader), topic, reader) for edit in clause.edits]
        if gone >= 0 and clause.replaces and len(new) == 1 and new[0].operation == "add" and not new[0].at:
            old = edits[gone]
            new[0] = replace(
                new[0], operation="replace", what=old.what, to=new[0].what, said=f"{old.said}, {new[0].said}"
            )
            del edits[gone]
        # "I don't like the hat, remove it" asks for one thing.
        done = {edit.what for edit in edits[-1:] if edit.operation == "remove"}
        new = [edit for edit in new if edit.operation != "remove" or edit.what not in done]
        edits += new
        gone = len(edits) - 1 if len(new) == 1 and new[0].operation == "remove" else -1
        named = (clause.topic, *(_thing(edit, reader.language) for edit in reversed(new)))
        # What was only a colour or a place is no thing that "it" could mean.
        topic = next((thing for thing in named if thing and not _only_describes(thing, reader)), topic)
    # What is to stay is known before anything changes, wherever in the feedback it was said.
    keeps = _kept([edit for edit in edits if edit.operation == "keep"], reader.language)
    return keeps + [edit for edit in edits if edit.operation != "keep"]


def _kept(edits: Sequence[Edit], language: EditLanguage) -> list[Edit]:
    """What is kept and let go in one feedback.

    "Keep the hat, everything else may change" lets go of all that was kept before. What lets go of all comes first, so
    that it does not take back what the same feedback keeps, and holds what else is let go.
    """
    rest, whole = language.rest_word, language.picture_word
    if any(edit.amount for edit in edits):
        edits = [replace(edit, what=whole) if edit.what == rest and not edit.amount else edit for edit in edits]
    all_free = [edit for edit in edits if edit.what == whole and not edit.amount]
    others = [edit for edit in edits if edit not in all_free and (edit.amount or not all_free)]
    return all_free + others


def _only_describes(words: str, reader: ClauseReader) -> bool:
    return reader.is_adjective(words) or reader.language.connects(words.lower().split())


def _thing(edit: Edit, language: EditLanguage) -> str:
    """What "it" means after an edit; nothing where all was kept or let go."""
    if edit.operation == "keep" and edit.what in (language.rest_word, language.picture_word):
        return ""
    if edit.at:
        return edit.at
    if edit.operation in ("style", "background", "more", "less"):
        return ""
    return edit.to if edit.operation == "replace" else edit.what


def _refuses_colours(edits: Sequence[Edit], reader: ClauseReader) -> bool:
    return bool(edits) and all(
        edit.operation in ("remove", "less") and edit.what.lower() in reader.language.colours for edit in edits
    )


def _beside(clauses: Sequence[Clause], place: int, reader: ClauseReader) -> Sequence[Edit]:
    """What is said beside a refused colour: before it, or, where nothing is, after it; other refusals do not count."""
    for others in (reversed(clauses[:place]), clauses[place + 1 :]):
        for other in others:
            if not _refuses_colours(other.edits, reader):
                return other.edits
    return ()


def _of_background(edit: Edit, beside: Sequence[Edit], reader: ClauseReader) -> Edit:
    """ "not red, the background should be blue": a refused colour without a thing is of the background beside it."""
    colours = reader.language.colours
    coloured = any(other.operation == "background" and set(other.what.lower().split()) & colours for other in beside)
    implied = reader.is_pronoun(edit.at) and not any(map(reader.is_pronoun, edit.said.split()))
    if coloured and implied and _refuses_colours([edit], reader):
        return replace(edit, at=reader.language.background_word)
    return edit


def _with_topic(edit: Edit, topic: str, reader: ClauseReader) -> Edit:
    found = {}
    for name in ("what", "at"):
        if reader.is_pronoun(getattr(edit, name)):
            found[name] = topic
    if "at" in found and not topic and edit.operation in ("add", "remove", "more", "less"):
        found["at"] = reader.subject
    if "what" in found and not topic and edit.operation == "replace":
        found["what"] = reader.subject
    return replace(edit, **found)
