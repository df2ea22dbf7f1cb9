"""The prompt in what somebody says: talk around it is taken off, and what is nothing but talk is refused. Ours.

Language models say "Sure! Here is the new prompt: …", put it into quotation marks or a code block, explain themselves
behind it, or decline. The rules are of English, as the instructions are. They look for talk about prompts, not for the
words alone ("here is a quiet street, oil painting" is a prompt), and what the person's own prompt or feedback begins
with is never taken for talk.
"""

from __future__ import annotations

import re

from .local_llm import CannotAnswer

_KIND = r"(?:(?:new|refined|updated|revised|modified|edited|final|improved|full|positive|image|rewritten|adjusted)\s+)"
_THING = r"(?:prompts?|versions?|answers?|outputs?|results?|responses?|json|descriptions?)"
_YES = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|great(?: choice| idea)?|got it|no problem|understood"
    r"|alright|yes|thank you|thanks)"
)
_I_HAVE = r"(?:i|we)(?:['’]ve| have| had)?(?: just| also)?"
_EDITED = r"(?:changed|replaced|removed|added|updated|made|edited|modified|rewritten|rewrote|revised|refined|kept)"

# "Sure, I can do that!" on a line of its own; "Sure!", and "Sure, …" before more talk.
_ASSENT = re.compile(rf"{_YES}\s*(?:!+|[.,:;](?=\s*(?:here\b|the\s+{_KIND}|below\b)))\s*", re.IGNORECASE)
_ASSENT_LINE = re.compile(rf"{_YES}\b[!.,:;][^\n]{{0,200}}[.:!]\s*\n\s*(?=\S)", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:as (?:requested|you asked|asked),? )?(?:(?:here you (?:go|are)|here it is|try this)(?:\s*[:!]\s*|\s*\n\s*)"
    r"|(?:(?:and\s+)?(?:here(?:['’]s| is| are)?|this is|below is|the following is|i (?:would )?suggest|i propose)\s+)"
    rf"(?:the |an? |your |my )?(?:[\w-]+ ){{0,5}}?(?:{_THING}|{_KIND}(?:one|text))\b[^\n:\"“]{{0,100}}?"
    r"(?::\s*|\s*\n\s*|(?=\s*[\"“])))",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"(?:(?:the|an?)\s+)?(?:{_KIND}{{0,3}}prompt|{_KIND}{{1,3}}{_THING}|answer|output|result|response)"
    r"(?:\s*[:=]\s*|\s+(?:is|would be|could be|becomes|reads)(?:\s*:\s*|\s+(?=[\"“])))"
    r"|(?:updated|revised|refined|edited|modified|rewritten)\s*:\s*",
    re.IGNORECASE,
)
_NEGATIVE_LABEL = re.compile(
    r"(?:\n[ \t]*negative|[,.;]?\s+negative[ _]prompt)(?:[ _]prompt)?[ \t]*:\s*(?P<negative>[^\n]*)", re.IGNORECASE
)
_BEHIND = (
    r"(?:i hope\b|hope (?:this|that|it)\b|(?:please )?let me know\b|feel free\b|is there anything\b|would you like\b"
    rf"|do you want\b|note(?: that\b|:)|explanation\b|changes?(?: made)?:|reason(?:ing)?:|{_I_HAVE} {_EDITED}\b"
    rf"|(?:this|the)(?: {_KIND.strip()})? ?(?:prompt|edit|version|change)s?\b|in this (?:prompt|version)\b)"
)
_BEHIND_LINE = re.compile(rf"\n[ \t]*[*_(]*{_BEHIND}.*", re.IGNORECASE | re.DOTALL)
_BEHIND_SENTENCE = re.compile(
    r"(?<=[.!?\"”])\s+(?:i hope (?:this|that|it)\b|hope (?:this|that|it)\b|(?:please )?let me know\b|feel free to\b).*",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = re.compile(r"```[\w-]*[ \t]*\n?(?P<inside>.*?)\n?[ \t]*```", re.DOTALL)
_TAGS = re.compile(r"<(?P<tag>prompt|answer|output|result)>(?P<inside>.*)</(?P=tag)>", re.IGNORECASE | re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "«": "»", "`": "`", "'": "'", "‘": "’", "„": "“"}
_THOUGHTS = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>", re.IGNORECASE | re.DOTALL)

_DECLINES = re.compile(
    r"(?:i['’]?m (?:really |very |so )?sorry\b|i am (?:really |very |so )?sorry\b|(?:we['’]re|we are) sorry\b"
    r"|sorry(?:[,.!]|\s+(?:but|i|for|about)\b)|my apologies\b|i (?:do )?apologi[sz]e\b|apologies\b|unfortunately[, ]"
    r"|(?:i|we) (?:can ?not|can['’]t|could not|couldn['’]t|won['’]t|will not|must (?:decline|refuse)|do(?:n['’]t| not) "
    r"(?:have|know|see|understand|think|feel|want to))\b|(?:i['’]m|i am) (?:unable|afraid"
    r"|not (?:able|sure|allowed|comfortable)|(?:just |only )?an? (?:ai|large|language|text))\b"
    r"|as an? (?:ai|large language|language model)\b"
    r"|it(?:['’]s| is) not (?:possible|appropriate|clear)\b|this request\b|your request\b"
    r"|es tut mir leid\b|tut mir leid\b|je suis désolée?\b|lo siento\b|desculpe\b|mi dispiace\b)",
    re.IGNORECASE,
)
_TALKS = re.compile(
    rf"(?:{_I_HAVE} {_EDITED} (?:the|your|it|this|that|all|some|an?)\b|i(?:['’]ll| will| would|['’]d) "
    r"(?:be|help|change|replace|make|edit|update|need|suggest|modify|add|remove|like)\b"
    r"|i (?:understand|suggest|recommend|can help)\b"
    r"|(?:could|can|would) you (?:please|clarify|provide|tell|give|share|specify|like)\b"
    r"|please (?:provide|give|tell|share|specify|clarify|let)\b"
    r"|(?:what|which|how)\b[^\n]{0,200}\b(?:you|me)\b[^\n]{0,200}\?|you (?:can|could|should|may|might|need)\b"
    r"|to (?:do|achieve|make|change|edit|modify|create|replace|remove|add)\b[^.\n]{0,100}, (?:you|we|i|simply|just)\b"
    r"|(?:okay|ok|alright|so|well|hmm),? (?:so |let['’]s |let me |i )"
    rf"|let(?:['’]s| me) {_KIND}?(?:see|think|help|try)\b"
    rf"|{_YES}[,.!]? (?:i|let|what|how)\b|how can i (?:help|assist)\b|(?:hello|hi)\b[!,.]? (?:how|i|what)\b"
    r"|here (?:is|are)\s+(?:the |an? |your |my )(?:[\w-]+ ){0,3}prompts?\b"
    rf"|the {_KIND}?prompt (?:is|was|has|should|does|would|can)\b)",
    re.IGNORECASE,
)
_SPEAKS_OF = re.compile(
    r"\bthe user(?:['’]s)?\s+(?:wants?|asked|asks|said|says|is asking|feedback|request|requested)\b"
    r"|\bbased on (?:the|your) feedback\b|\bthe (?:original|previous|updated) prompt\b|\bas an ai\b"
    r"|→|⇒|->|=>",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^[ \t]*(?:option\s+)?\d{1,2}[.):]\s+\S", re.IGNORECASE | re.MULTILINE)


def without_thoughts(text: str) -> str:
    """Text without what a model thought before it spoke."""
    return _THOUGHTS.sub("", text, count=1) if _THOUGHTS.match(text) else text


def spoken_prompt(text: str, own: str = "") -> tuple[str, str | None]:
    """(prompt, negative prompt or None) in what somebody says.

    Args:
        text: not empty.
        own: the person's prompt and feedback; what they say, too, is no talk.

    Raises:
        CannotAnswer: there is no prompt in it.
    """
    own = " ".join(own.lower().split())
    text, negative = _bare(text, own)
    if not text:
        raise CannotAnswer("the answer only speaks about a prompt")
    for pattern, wrong in ((_DECLINES, "the answer declines"), (_TALKS, "the answer speaks about a prompt")):
        if _found(pattern, text, own):
            raise CannotAnswer(f"{wrong}: {_begin(text)}")
    spoken = _SPEAKS_OF.search(text)
    if spoken and spoken.group().lower() not in own:
        raise CannotAnswer(f"the answer speaks about a prompt: {_begin(text)}")
    if len(_NUMBERED.findall(text)) > 1:
        raise CannotAnswer("the answer has several prompts")
    return text, negative


def _bare(text: str, own: str) -> tuple[str, str | None]:
    """Text without what stands around the prompt; the negative prompt of an answer with labels for both."""
    text = text.strip()
    blocks = _BLOCK.findall(text)
    if len(blocks) == 1:
        text = blocks[0]
    elif len(blocks) > 1 or "```" in text:
        raise CannotAnswer("the answer has several blocks of code, or one without an end")
    # Bold type and headings mean nothing in a prompt.
    text = re.sub(r"^#{1,6}\s+", "", re.sub(r"\*{2,}", "", text.strip())).strip()
    wrapped = _TAGS.fullmatch(text)
    text = wrapped["inside"].strip() if wrapped else text
    led = False
    for _ in range(4):
        before = text
        for pattern in (_ASSENT_LINE, _ASSENT, _LEAD, _LABEL):
            found = _found(pattern, text, own)
            text = text[found.end() :].strip() if found else text
        if text == before:
            break
        led = True
    negative = None
    labelled = _NEGATIVE_LABEL.search(f"\n{text}")
    if labelled:
        negative = _unquoted(labelled["negative"].strip())
        text = f"\n{text}"[: labelled.start()].strip()
    text = _BEHIND_SENTENCE.sub("", _BEHIND_LINE.sub("", text)).strip().removesuffix("\n---").strip()
    return _unquoted(_quoted_first(text, led)), negative


def _found(pattern: re.Pattern[str], text: str, own: str) -> re.Match[str] | None:
    """A match at the beginning, unless the person says the same."""
    found = pattern.match(text)
    return None if found and " ".join(found.group().lower().split()) in own else found


def _quoted_first(text: str, led: bool) -> str:
    """Of text that begins with a quotation and goes on with talk: the quotation.

    Args:
        led: whether talk led to the quotation, so that what is behind it is talk, too.
    """
    end = _QUOTES.get(text[:1])
    if end is None:
        return text
    close = text.find(end, 1)
    if close < 0 and text[0] not in "'`‘":
        raise CannotAnswer("the answer ends within a quotation")
    behind = text[close + 1 :]
    # An apostrophe is no end of a quotation.
    if close > 0 and end not in "'’" and (led or re.match(r"[.!]?\s*\n", behind)):
        return text[: close + 1]
    return text


def _unquoted(text: str) -> str:
    """Text without the quotation marks around all of it."""
    inside = text[1:-1]
    end = _QUOTES.get(text[:1])
    apostrophes = re.sub(r"(?<=\w)['’](?=\w)", "", inside)
    whole = len(text) > 1 and end is not None and text[-1] == end
    return inside.strip() if whole and text[0] not in apostrophes and end not in apostrophes else text


def _begin(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line[:40].rstrip()}{"…" if len(line) > 40 else ""}"'
