"""One clause of feedback → edits, by the rules of a language."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .edit_describing import Describer, ing_form
from .edit_records import Edit
from .edit_words import Rule, alternatives

# What a thing should not be, in more words, is a sentence of another kind.
_MOST_UNWANTED = 4
_EMPTY = {"what": "", "to": "", "thing": "", "number": "", "place": "", "style": "", "amount": "", "verb": ""}


@dataclass(frozen=True)
class Clause:
    """What a clause asks for.

    Attributes:
        edits: with pronouns as they were said; none where nothing is to change.
        verb: what the next clause repeats if it has no verb of its own.
        topic: what "it" means from here on, where the edits do not say it.
        replaces: whether what it adds may stand for something that was just removed.
    """

    edits: tuple[Edit, ...]
    verb: str = ""
    topic: str = ""
    replaces: bool = False


class ClauseReader(Describer):
    """Reads clauses of one language about one prompt."""

    def read(self, clause: str, *, borrowed: bool = False) -> Clause | None:
        """None if no rule fits.

        Args:
            borrowed: the clause begins with the verb of the one before.
        """
        text, wished = self._plain(clause)
        if self.unreadable(clause) or self.unreadable(text):
            return None
        if not text:
            return Clause(()) if wished is None else None
        text = self._calm(text)
        for rule, pattern in self.language.patterns:
            match = pattern.fullmatch(text)
            if match is None:
                continue
            slots = _EMPTY | {name: found or "" for name, found in match.groupdict().items()}
            slots |= {name: getattr(rule, name) for name in ("what", "to") if getattr(rule, name)}
            verb = slots["verb"].strip()
            slots = {name: self.language.translated(found) for name, found in slots.items()}
            clause_found = getattr(self, f"_{rule.reading}")(slots, wished=bool(wished), rule=rule)
            if clause_found is None or (borrowed and not clause_found.edits):
                continue
            if self._misread(clause_found, slots["thing"]):
                continue
            edits = tuple(replace(edit, said=clause) for edit in clause_found.edits)
            return replace(clause_found, edits=edits, verb=verb, replaces=clause_found.replaces or bool(wished))
        found = self._wish(_EMPTY | {"what": self.language.translated(text)}, said=clause) if wished else None
        return None if found is None or self._misread(found) else found

    def unreadable(self, clause: str) -> bool:
        """Whether a clause is left unread, whatever a rule would make of it."""
        return self.language.unreadable_clause.fullmatch(clause.strip()) is not None

    def _misread(self, clause: Clause, thing: str = "") -> bool:
        """Whether an edit holds words of a sentence, which the prompt does not, or half of what is in quotes."""
        said = {words for edit in clause.edits for words in (edit.what, edit.to, edit.at, thing) if words}
        if any(words.count('"') % 2 for words in said):
            return True
        return any(self.language.holds_sentence(words) and not self.prompt.find(words) for words in said)

    def _calm(self, text: str) -> str:
        """Shouted words in lower case, where they are no abbreviations."""
        if text.isupper() and len(text) > 3:
            return text.lower()
        known = self.language.colours | set(self.language.styles) | set(self.language.sizes)
        return re.sub(r"\w+", lambda word: word[0].lower() if word[0].lower() in known else word[0], text)

    def _plain(self, clause: str) -> tuple[str, bool | None]:
        """The clause without polite words, and whether it is a wish; None if it was nothing but polite."""
        language, wished, text = self.language, False, clause.strip()
        for _ in range(8):
            before = text
            for patterns, wish in ((language.polite_before, False), (language.wishes_before, True)):
                for pattern in patterns:
                    shorter = re.sub(rf"^(?:{pattern})(?:\s+|$)", "", text, flags=re.IGNORECASE)
                    wished, text = wished or (wish and shorter != text), shorter
            for patterns, wish in ((language.wishes_after, True), (language.polite_after, False)):
                for pattern in patterns:
                    shorter = re.sub(rf"(?:^|[\s,]+)(?:{pattern})$", "", text, flags=re.IGNORECASE)
                    wished, text = wished or (wish and shorter != text), shorter
            text = text.strip(" ,:-\"'")
            if text == before:
                break
        return text, wished if text or wished else None

    def _steps(self, slots: dict[str, str]) -> float:
        return self.amount(slots["amount"] + " x")[0] if slots["amount"] else 1.0

    # ---- readings that are edits -------------------------------------------------------------------------------------

    def _add(self, slots: dict[str, str], **_: object) -> Clause | None:
        what, at = slots["what"], slots["thing"]
        if at and not self.names(at):
            return None
        if slots["to"]:
            return Clause((Edit("add", f"{slots['to']} {what}", at=at),))
        if at:
            return Clause((Edit("add", f"{self.language.with_word} {what}", at=at),))
        return Clause(tuple(Edit("add", self.without_some(thing)) for thing in self.things(what)))

    def _remove(self, slots: dict[str, str], **_: object) -> Clause | None:
        things = [self.bare(thing) for thing in self.things(slots["what"])]
        vague = self.language.vague - self.language.pronouns
        if any(thing.lower() in vague and not self.prompt.find(thing) for thing in things):
            return None
        if any(self.language.joins(thing) for thing in things if not self.prompt.find(thing)):
            return None
        return Clause(tuple(Edit("remove", thing) for thing in things)) if things else None

    def _negative(self, slots: dict[str, str], **_: object) -> Clause | None:
        return Clause(tuple(Edit("remove", thing, to="negative") for thing in re.split(r"\s*,\s*", slots["what"])))

    def _replace(self, slots: dict[str, str], **_: object) -> Clause | None:
        old, new = self.bare(slots["what"]), slots["to"]
        vague = self.language.vague - self.language.pronouns
        if self.is_pronoun(new) or old.lower() in vague or new.lower() in vague:
            return None
        number = self.numbered(new)
        if old.lower() in self.language.numbers or old.isdigit():
            return Clause((number,)) if number else None
        made = re.fullmatch(r"(?:make|have|let|get) (.+)", new, re.IGNORECASE)
        if made:
            split = self.thing_first(made[1])
            new = split[1] if split else made[1]
            if self.is_pronoun(new):
                return None
        first, _, rest = new.partition(" ")
        if old.split()[0].endswith("ing") and made and not first.endswith("ing"):
            new = f"{ing_form(first)} {rest}".strip()
        return Clause((Edit("replace", old, to=new),))

    def _more(self, slots: dict[str, str], *, rule: Rule, **_: object) -> Clause | None:
        operation = "more" if rule.reading == "more" else "less"
        steps, things = self._steps(slots), self.things(slots["what"])
        split = self.thing_first(slots["what"]) if len(things) == 1 and not self.prompt.find(things[0]) else None
        if split:
            return None
        at = slots["thing"] if self.names(slots["thing"]) else ""
        quality, _, thing = self.bare(slots["what"]).rpartition(" ")
        if quality and not at and len(things) == 1 and not self.prompt.find(things[0]) and self.names(thing):
            return Clause((Edit(operation, quality, at=thing, amount=steps),))
        return Clause(tuple(Edit(operation, self.bare(thing), at=at, amount=steps) for thing in things))

    _less = _more

    def _keep(self, slots: dict[str, str], **_: object) -> Clause | None:
        what = slots["what"]
        everything = re.match(rf"(?:{alternatives(self.language.whole)})\b", what, re.IGNORECASE)
        if everything or not self.bare(what):
            return Clause((Edit("keep", self.language.picture_word),))
        return Clause(tuple(Edit("keep", self.bare(thing)) for thing in self.things(what)), topic=self.bare(what))

    def _release(self, slots: dict[str, str], **_: object) -> Clause | None:
        if slots["what"] == self.language.rest_word:
            return Clause((Edit("keep", self.language.rest_word, amount=0),))
        if self.is_whole(slots["what"]):
            return Clause((Edit("keep", self.language.picture_word, amount=0),))
        things = self.things(slots["what"])
        always = self.language.aspects | {self.language.style_word, self.language.background_word}

        def known(thing: str) -> bool:
            words = [self.language.compared(word) for word in self.prompt.plain(thing)]
            return self.names(thing) or (len(words) == 1 and words[0] in always)

        if not all(map(known, things)):
            return None
        return Clause(tuple(Edit("keep", self.bare(thing), amount=0) for thing in things))

    def _style(self, slots: dict[str, str], **_: object) -> Clause | None:
        what = re.sub(r"^(?:more|an?|the|some|same)\s+", "", slots["what"] or slots["style"], flags=re.IGNORECASE)
        of_thing = re.fullmatch(r"(.+?) (?:in|with|as)(?: an?)? (.+)", what)
        if of_thing and self.names(of_thing[1]):
            what = of_thing[2]
        if not what or len(what.split()) > 6:
            return None
        return Clause((Edit("style", what, to=slots["to"]),))

    def _background(self, slots: dict[str, str], **_: object) -> Clause | None:
        return self._be(slots | {"thing": self.language.background_word})

    def _count(self, slots: dict[str, str], *, wished: bool = False, **_: object) -> Clause | None:
        edit = self.numbered(f"{slots['number']} {slots['what'] or 'of them'}".strip())
        if edit is None:
            return None
        known = edit.what == "" or self.prompt.find(edit.what)
        stated = wished or slots["verb"].strip() or edit.amount != 1
        return Clause((edit,)) if known or stated else None

    def _size(self, slots: dict[str, str], **_: object) -> Clause | None:
        if not self.names(slots["thing"]):
            return None
        return Clause((self.sized(slots["thing"], slots["what"], self._steps(slots)),))

    def _position(self, slots: dict[str, str], **_: object) -> Clause | None:
        key = self.place(slots["place"] or slots["what"])
        return Clause((Edit("position", slots["thing"], to=key),)) if key else None

    # ---- readings that become one ------------------------------------------------------------------------------------

    def _praise(self, slots: dict[str, str], **_: object) -> Clause | None:
        what = slots["what"]
        known = not what or self.names(what) or self.is_pronoun(what)
        return (
            Clause((), topic="" if self.is_pronoun(what) or self.is_whole(what) else self.bare(what)) if known else None
        )

    def _too(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, (_, what) = slots["thing"], self.amount(slots["what"])
        low = what.lower()
        if thing and not self.names(thing) and self.prompt.find(thing) is None:
            return None
        pronoun = self.is_pronoun(thing) or self.is_whole(thing) or not thing
        if low in self.language.sizes:
            return Clause((self.sized(thing or "it", what, -1.0),))
        if not pronoun and (low in self.language.strong or self.language.kind(thing.split()[-1])):
            return Clause((Edit("less", self.bare(thing)),))
        if low in self.language.vague | self.language.strong or len(low.split()) > 3:
            return None
        return Clause((Edit("less", self.bare(what), at="" if pronoun else self.bare(thing)),))

    def _enough(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, what = slots["thing"] or "it", slots["what"]
        low = what.lower()
        if low in self.language.vague or len(low.split()) > 3:
            return None
        if not self.names(thing) and self.prompt.find(thing) is None:
            known = thing.split()[0].lower() in self.language.determiners and len(thing.split()) <= _MOST_UNWANTED
            return Clause((Edit("more", f"{what} {self.bare(thing)}"),)) if known else None
        if low in self.language.sizes:
            return Clause((self.sized(thing, what, 1.0),))
        if low in self.language.strong:
            return None if self.is_pronoun(thing) else Clause((Edit("more", self.bare(thing)),))
        return Clause((Edit("more", self.bare(what), at=self._scene_or(thing, low)),))

    def _unlike(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, what = slots["thing"], slots["what"]
        if not thing and (self.language.kind(self.language.adjective(what)) or what.lower() in self.language.sizes):
            return Clause(())
        if not thing:
            thing, what = self.thing_first(what) or ("", "")
        if not what or (not self.names(thing) and self.prompt.find(thing) is None):
            return None
        what = re.sub(r"^(?:look )?(?:like |into |to )?(?:any )?", "", what, flags=re.IGNORECASE)
        low = self.amount(what)[1].lower()
        if self.language.adjective(low) or low.split()[0] in ("more", "less"):
            return Clause(())  # it stays as it is
        if low in self.language.vague or len(low.split()) > _MOST_UNWANTED:
            return None
        if low.split()[0] in self.language.connectors:
            return None
        alone = self.is_whole(thing) or self.language.joins(low) or low.split()[0] in self.language.articles
        at = "" if alone else self._scene_or(thing, low)
        return Clause((Edit("remove", self.bare(what), at=at),))

    def _part(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, part, what = slots["thing"], slots["to"], slots["what"]
        if not self.names(thing) or len(what.split()) > 3 or what.lower() in self.language.vague:
            return None
        if self.names(part):
            found = self.described(part, what)
            return Clause(tuple(found)) if found else None
        what = self.language.adjective(what) or what
        return Clause((Edit("add", f"{self.language.with_word} {what} {part}", at=self.bare(thing)),))

    def _do(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, said = slots["thing"], slots["what"]
        if not thing:
            thing, said = self.thing_first(said) or ("", "")
        verb, _, rest = said.partition(" ")
        if not self.names(thing) or not verb.isalpha() or verb.lower() in self.language.vague | {"be", "not"}:
            return None
        if rest.lower().startswith("be "):
            return None
        if verb.lower() in self.language.wearing and not rest:
            return None
        word = self.language.wearing.get(verb.lower(), ing_form(verb))
        at = "it" if self.is_whole(thing) else self.bare(thing)
        return Clause((Edit("add", f"{word} {rest}".strip(), at=at),))

    def _give(self, slots: dict[str, str], **_: object) -> Clause | None:
        split = self.thing_first(slots["what"])
        if split is None:
            return None
        return Clause((Edit("add", f"{self.language.with_word} {split[1]}", at=self.bare(split[0])),))

    def _put(self, slots: dict[str, str], **_: object) -> Clause | None:
        split = self.thing_first(slots["what"])
        if split:
            place = self.place(split[1])
            if not place and not self.language.joins(split[1]):
                return None
            return Clause((Edit("position", self.bare(split[0]), to=place or split[1]),))
        words = slots["what"].split()
        for cut in range(1, len(words) - 1):
            new, rest = " ".join(words[:cut]), " ".join(words[cut:])
            known = next((at for at in range(1, len(words) - cut) if self.names(" ".join(words[cut + at :]))), 0)
            if known and any(rest.lower().startswith(word + " ") for word in self.language.worn_on):
                at = self.bare(" ".join(words[cut + known :]))
                return Clause((Edit("add", f"{self.language.with_word} {new}", at=at),))
        return Clause((Edit("add", slots["what"]),)) if len(words) > 1 else None

    def _wish(self, slots: dict[str, str], *, said: str = "", **_: object) -> Clause | None:
        what = slots["what"]
        if self.is_pronoun(what) or what.lower() in self.language.vague:
            return None
        described = self._be({**slots, "what": what, "thing": ""}, said=said)
        if described:
            return replace(described, replaces=True)
        words = what.split()
        if len(words) > 12:
            return None
        head = self.prompt.find(words[-1])
        if self.prompt.find(what):
            return Clause((), replaces=True)
        if head and len(words) > 1 and self.prompt.is_head(head):
            return Clause((Edit("replace", words[-1], to=what, said=said),), replaces=True)
        return Clause(
            tuple(Edit("add", self.without_some(thing), said=said) for thing in self.things(what)), replaces=True
        )

    def _change(self, slots: dict[str, str], **_: object) -> Clause | None:
        thing, what = slots["thing"], slots["what"]
        old, new = self.language.kind(thing.split()[-1]), self.language.kind(what.split()[-1])
        if old is None or old is not new:
            described = self.described(thing, what, guess=False)
            if described:
                return Clause(tuple(described))
        if self.is_pronoun(thing) or self.is_whole(thing):
            return self._be(slots)
        return Clause((Edit("replace", self.bare(thing), to=what),))

    def _be(self, slots: dict[str, str], *, said: str = "", **_: object) -> Clause | None:
        thing, what, verb = slots["thing"], slots["what"], slots["verb"]
        if thing:
            if not self.names(thing) and self.prompt.find(thing) is None:
                return None
            found = self.described(thing, what)
        else:
            split = self.thing_first(what) or self.thing_last(what)
            if split is None and verb:
                guess = re.fullmatch(r"((?:the|his|her|its|their)\s+\w+)\s+(.+)", what, re.IGNORECASE)
                split = (guess[1], guess[2]) if guess else None
            looks = set(what.lower().split()) & self.language.looks
            if split is None and not looks and self.amount(what)[1].split()[0].lower() in self.language.articles:
                return None
            thing, what = split or ("it", what)
            # "one of them" is none that could be told from the others.
            if what.lower().split()[0] == "of" and set(what.lower().split()) & self.language.pronouns:
                return None
            # "her whole body" is no description of her.
            guess = split is not None and (bool(verb) or not self.is_pronoun(thing))
            known = split is not None and all(map(self.is_adjective, re.split(r"[\s,]+", what)))
            each = re.split(r"[\s,]+", what) if known else [what]
            found = [edit for one in each for edit in self.described(thing, one, guess=guess)]
        return Clause(tuple(replace(edit, said=said) for edit in found)) if found else None
