"""A local language model that answers in JSON: it writes the contents of the fields, never the JSON itself.

The answer's skeleton is given, {"prompt": "…", "negative": "…"}: the model is fed everything outside of the strings and
asked only for what stands inside, token by token, the likeliest first, until it writes a quotation mark. Within a
string, tokens with line breaks, backslashes, control characters or special meaning are not offered. So every answer is
JSON of this form; what it says is checked by whoever asked (`refiner`). Ours.

What a person wrote reaches the model as a JSON string in the user's turn; marks by which models tell turns apart are
escaped in it (`data_text`), so that feedback cannot end its turn and speak as someone else.
"""

from __future__ import annotations

import inspect
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .checks import RefinementError
from .language_models import LanguageModel

# Of one field, at least: a prompt of 77 CLIP tokens is about as many of most language models. See `room_for`.
MOST_TOKENS = 160
# The question with everything in it; longer ones would be cut by small models without a word.
MOST_QUESTION_TOKENS = 6000
Message = Mapping[str, str]
# By these, templates without tokens of their own tell turns apart.
_PLAIN_MARKS = (
    "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "USER:", "ASSISTANT:", "SYSTEM:", "User:", "Human:",
    "Assistant:", "System:", "###",
)  # fmt: skip


class CannotAnswer(RefinementError):
    """The model gave no usable answer; says why."""


def data_text(model: LanguageModel | None, values: Mapping[str, Any]) -> str:
    """Values as JSON in which nothing is a mark of the model's conversation.

    <, > and halves of letters are escaped always, and so are the marks that some templates write as plain words;
    other marks where they are among the tokenizer's own.
    """
    text = json.dumps(values, ensure_ascii=False)
    own = [] if model is None else [str(token) for token in getattr(model.tokenizer, "added_tokens_encoder", {})]
    # A mark that is plain white space or a bracket of JSON must stay, and so must the backslashes of JSON.
    marks = [
        mark
        for mark in {*own, *_PLAIN_MARKS}
        if len(mark) > 1 and mark in text and mark.strip() and mark[0] != "\\" and not set(mark) <= set('{}[]":, ')
    ]
    ordered = sorted(map(re.escape, marks), key=len, reverse=True)
    pattern = "|".join([r"\\(?:u[0-9a-f]{4}|.)", "[<>\ud800-\udfff]", *ordered])
    return re.sub(pattern, lambda found: _escaped(found.group()), text)


def _escaped(text: str) -> str:
    """JSON's escape of the first letter, and the rest; what is an escape stays one."""
    if text[0] == "\\":
        return text
    units = text[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2)) + text[1:]


def room_for(model: LanguageModel, *texts: str) -> int:
    """Tokens of a field that may become twice as long as the longest of these texts."""
    longest = max(len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    return max(MOST_TOKENS, 2 * longest + 64)


def question_ids(model: LanguageModel, messages: Sequence[Message], most_tokens: int = MOST_TOKENS) -> list[int]:
    """The tokens of a conversation, ready for the answer, by the model's chat template where it has one.

    Args:
        most_tokens: of one field of the answer, for which room is left.

    Raises:
        CannotAnswer: it is longer than the model can read, or the template cannot be used.
    """
    tokenizer = model.tokenizer
    if getattr(tokenizer, "chat_template", None):
        try:
            text = _by_template(tokenizer, messages)
        except Exception as error:  # templates are programs, and fail in as many ways
            raise CannotAnswer(f"the chat template of {model.name} cannot be used ({error})") from error
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
        ids = tokenizer("\n\n".join([*turns, "Assistant: "]))["input_ids"]
        end = tokenizer.eos_token_id
        ids = ids[:-1] if ids and ids[-1] == end else ids
    limit = getattr(model.model.config, "max_position_embeddings", None) or MOST_QUESTION_TOKENS
    if len(ids) > min(limit - 3 * most_tokens, MOST_QUESTION_TOKENS):
        raise CannotAnswer(
            f"prompt, feedback and history are {len(ids)} tokens, more than {model.name} is given to read"
        )
    return list(ids)


def _by_template(tokenizer: Any, messages: Sequence[Message]) -> str:
    options = {"add_generation_prompt": True, "tokenize": False}
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except Exception:  # templates are programs, and some refuse a system's turn
        first, second, *rest = messages
        joined = {"role": second["role"], "content": f"{first['content']}\n\n{second['content']}"}
        return tokenizer.apply_chat_template([joined, *rest], **options)


@torch.no_grad()
def answer_json(
    model: LanguageModel,
    messages: Sequence[Message],
    fields: Sequence[str],
    *,
    on_token: Callable[[int, int], None] = lambda done, total: None,
    most_tokens: int = MOST_TOKENS,
) -> str:
    """A JSON object with the given fields, all strings.

    Args:
        messages: {"role", "content"} in order, the last one the user's.
        fields: their names, in the order in which they are written.
        on_token: called before each token with how many there are and how many there can be; whatever it raises ends
            the work (Cancel).
        most_tokens: of one field.

    Raises:
        CannotAnswer: the question is too long, the model's template or numbers cannot be used, or a field does not
            end within its tokens.
    """
    writer = _Writer(model, question_ids(model, messages, most_tokens), on_token, most_tokens * len(fields))
    values = {}
    for index, name in enumerate(fields):
        writer.read(("{" if index == 0 else '", ') + json.dumps(name) + ': "')
        values[name] = writer.string(most_tokens)
    return json.dumps(values, ensure_ascii=False)


class _Writer:
    """A conversation with its cache: text is read, or a string is written."""

    def __init__(self, model: LanguageModel, ids: list[int], on_token: Callable[[int, int], None], total: int) -> None:
        self.model, self.on_token, self.total, self.done = model, on_token, total, 0
        self.cache: Any = None
        self.ids: list[int] = []
        # The logits of a long question would fill the memory; only the last ones are needed.
        known = inspect.signature(model.model.forward).parameters
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        # Older versions of transformers call it past_key_values.
        self.cached = "cache" if "cache" in known else "past_key_values"
        self.logits = torch.zeros(0)
        texts = token_texts(model)
        special = set(model.tokenizer.all_special_ids)
        self.end = {model.tokenizer.eos_token_id} - {None}
        usable = [bool(text) and index not in special and not _unfit(text) for index, text in enumerate(texts)]
        self.allowed = torch.tensor(usable)
        self.allowed[list(self.end)] = True
        self._feed(ids)

    def read(self, text: str) -> None:
        """Have the model see text as if it had written it."""
        self._feed(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def string(self, most_tokens: int) -> str:
        """The likeliest contents of a JSON string that has just been opened.

        Raises:
            CannotAnswer: it does not end, or the model's numbers are none.
        """
        texts, ids, tail = self.model.texts, [], ""
        for _ in range(most_tokens):
            self.on_token(self.done, self.total)
            self.done += 1
            token = int(self._likeliest())
            if token in self.end:
                break
            if '"' in texts[token]:
                # The quotation mark may stand behind letters or before the comma, in one token.
                tail = texts[token].split('"')[0]
                break
            ids.append(token)
            self._feed([token])
        else:
            raise CannotAnswer(f"{self.model.name} did not come to an end within {most_tokens} tokens")
        return (self.model.tokenizer.decode(ids, skip_special_tokens=True) + tail).strip()

    def _likeliest(self) -> torch.Tensor:
        logits = self.logits[: len(self.allowed)]
        likely = logits.masked_fill(~self.allowed[: len(logits)].to(logits.device), -torch.inf)
        token = likely.argmax()
        # Without a finite number the place of the largest says nothing, and may be of a token that is not offered.
        if not torch.isfinite(likely[token]):
            raise CannotAnswer(f"{self.model.name} computes no finite numbers; it may be damaged")
        return token

    def _feed(self, ids: Sequence[int]) -> None:
        self.ids += ids
        # Models without a cache read everything again.
        batch = torch.tensor([self.ids if self.cache is None else list(ids)], device=self.model.device)
        options = self.options | {self.cached: self.cache}
        found = self.model.model(input_ids=batch, use_cache=True, **options)
        self.cache, self.logits = getattr(found, self.cached, None), found.logits[0, -1].float()


def token_texts(model: LanguageModel) -> list[str]:
    """What each token says, by its number; made once per model."""
    if not model.texts:
        size = len(model.tokenizer)
        model.texts = model.tokenizer.batch_decode([[index] for index in range(size)], skip_special_tokens=False)
    return model.texts


def _unfit(text: str) -> bool:
    """Whether a token cannot stand inside of a JSON string of plain words, or behind its end."""
    inside, quote, behind = text.partition('"')
    if "\\" in text or any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") for letter in inside):
        return True
    return bool(quote) and any(letter not in ',} \n]:"' for letter in behind)
