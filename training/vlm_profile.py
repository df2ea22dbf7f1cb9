"""A person's taste in the states of a vision-language model that writes about it.

The model is shown pairs of pictures of which one was preferred, and writes what it sees, how the two differ, and at
last a profile of the person. While it reads its own last word, its layers hold what it made of the person:

    u_l = h_l / ‖h_l‖₂,   l = 0 … L          u ∈ R^{(L+1) × D}

| symbol | here                                                                                                   |
| ------ | ------------------------------------------------------------------------------------------------------ |
| h_0    | embedding of the last written token [D]                                                                |
| h_l    | output of layer l at that token's place; the last one after the final norm, as `transformers` gives it |
| L, D   | layers and width of the language model: the same for every text, however long it is                    |

References:
    The recipe (pairs and captions, what is asked for, greedy decoding, the last generated token at all layers, four
    pairs): PPD, "Personalized Preference Fine-tuning of Diffusion Models" (2025).

Differences from the paper:
    - The wording is ours, and any model that `transformers` knows will do; the paper has LLaVA-OneVision-7B.
    - The state is read while the model reads the last token; `generate`'s own list of states ends one place before.
    - Each token is brought to length 1: the first principal component of the raw states follows how much was written.
    - Pictures are seen at 512 pixels at most and in one piece, where the processor lets us say so.

The states are taken out of the model's own decoding, which goes on for one step more than is used. To run the whole
text through the model again would cost the longest part of the work a second time, would hold all layers' states of all
places at once, and needs for every architecture something else beside the token numbers (token types, places in three
dimensions, masks of pictures), which only its own decoding knows how to carry on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from .characters import whole_characters
from .interfaces import AttuneError
from .libraries import quiet_transformers
from .memory import ran_out
from .vlm_base import Precision, VlmBase, load_base, read_config, text_config
from .vlm_reward import Picture, to_picture

# Stands in `encoder_id`. Raise it whenever a change here, of the wording too, gives other embeddings.
VERSION = 1
LEAST_PAIRS, MOST_PAIRS, USUAL_PAIRS = 2, 5, 4
USUAL_TOKENS = 1024
LONGEST_SIDE = 512
HEADING = "User Profile"
_INTRODUCTION = (
    "You will be shown {count} pairs of pictures. The two pictures of a pair were made for the same caption, and the "
    "same person said of each pair which picture they prefer. Find out what this person likes."
)
_PAIR = "\n\nPair {number} of {count}.\nCaption: "
_LABELS = ("Picture {number}A, preferred:", "Picture {number}B, dispreferred:")
_TASK = (
    "\n\nJudge all pictures by their style, visual quality and aesthetics. First describe both pictures of each pair. "
    "Then explain how the preferred picture differs from the dispreferred one. At last write, under the heading "
    f'"{HEADING}", what this person likes and dislikes in pictures.'
)
_NO_CAPTION = "not known"
# Processors' ways to cut one picture into many. Eight pictures at hundreds of tokens each are enough to read.
_PIECES = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan")
_MARKS = ("image_token", "boi_token", "start_image_token")

Tell = Callable[[int, int], None]


def _nothing(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class SeenPair:
    """Two pictures of one caption; "" = not known."""

    caption: str
    preferred: Picture
    other: Picture


@dataclass(frozen=True)
class Description:
    """What came of it.

    Attributes:
        tokens: float32 [layers + 1, width] on the CPU, each of length 1.
        text: everything that was written.
        written: tokens of the text.
        complete: whether the model came to its end; False: it was cut off at `max_new_tokens`.
    """

    tokens: torch.Tensor = field(repr=False)
    text: str
    written: int
    complete: bool

    @property
    def profile(self) -> str:
        """What stands under the heading; the whole text where the model wrote none."""
        return profile_of(self.text)


def profile_of(text: str) -> str:
    """What stands under the last heading "User Profile", without the heading; all of a text that has none."""
    parts = re.split(rf"[#*_\s\"]*{HEADING}[*_\s\":.]*", text, flags=re.IGNORECASE)
    return (parts[-1] if len(parts) > 1 else "").strip() or text.strip()


def encoder_id(digest: str, precision: Precision) -> str:
    """What a user adapter must have been trained with to read the embeddings.

    Args:
        digest: of the model folder, see `vlm_base.folder_digest`.
    """
    return f"vlm:{digest[:16]}:v{VERSION}:{precision}"


def embedding_shape(folder: Path) -> tuple[int, int]:
    """(layers + 1, width) of the embeddings of a model folder, by its configuration alone.

    Raises:
        RewardError: no model folder, or of no known model.
    """
    return _shape(read_config(folder))


def _shape(config: Any) -> tuple[int, int]:
    text = text_config(config)
    return int(text.num_hidden_layers) + 1, int(text.hidden_size)


class VlmProfiler:
    """See the module.

    Args:
        base: loaded with its language head; this object changes how it decodes.
        device: where it is.

    Raises:
        AttuneError: a model without a language head, without a chat template, or one that translates (encoder-decoder).
    """

    def __init__(self, base: VlmBase, *, device: torch.device | str = "cpu") -> None:
        if base.model is None:
            raise AttuneError(f"{base.name} was loaded without its language head, so it cannot write.")
        self.base, self.device = base, torch.device(device)
        self.model: nn.Module = base.model
        config = self.model.config
        if getattr(config, "is_encoder_decoder", False):
            raise AttuneError(
                f"{base.name} reads and writes with two networks (encoder-decoder), so that no layer has seen all. "
                "Choose a model such as Qwen2.5-VL, LLaVA-OneVision or SmolVLM."
            )
        processor = base.processor
        if not (getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)):
            raise AttuneError(
                f"{base.name} has no chat template, so it cannot be asked for anything: it is a base model, or a file "
                "is missing. Put the model's chat_template.jinja (or chat_template.json) beside config.json, or choose "
                "an instruction-tuned model."
            )
        self.shape = _shape(config)
        self._ends = self._end_tokens()

    @property
    def encoder_id(self) -> str:
        return encoder_id(self.base.digest, self.base.precision)

    def describe(
        self, pairs: Sequence[SeenPair], *, max_new_tokens: int = USUAL_TOKENS, on_token: Tell = _nothing
    ) -> Description:
        """Have the model write about the pairs. The same pairs always give the same.

        Args:
            pairs: 2 … 5 of them, in the order in which they are shown.
            max_new_tokens: where the text is cut off, at least 1.
            on_token: called with the tokens written so far and the most there can be, and before every layer while the
                pictures are read; what it raises ends the work (Cancel).

        Raises:
            AttuneError: too few or many pairs, a picture that is none, the model cannot read several pictures in their
                places, the text is too long for it, memory runs out, or it gives no usable states.
        """
        if not LEAST_PAIRS <= len(pairs) <= MOST_PAIRS:
            raise AttuneError(f"A profile is written from {LEAST_PAIRS} to {MOST_PAIRS} pairs, not {len(pairs)}.")
        if max_new_tokens < 1:
            raise AttuneError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
        with torch.inference_mode(False), torch.no_grad():
            inputs = self.encode(pairs)
            self._check_length(inputs["input_ids"].shape[1], max_new_tokens, len(pairs))
            written, states = self._generate(inputs, max_new_tokens, on_token)
        tokens = self._normalised(states)
        complete = bool(written) and written[-1] in self._ends
        text = self.base.processor.tokenizer.decode(written, skip_special_tokens=True).strip()
        return Description(tokens, text, len(written), complete)

    # ---- what the model is shown ----

    def text(self, captions: Sequence[str]) -> str:
        """What the model is told, around the marks of the pictures.

        Raises:
            AttuneError: the model's chat template does not leave several pictures in their places.
        """
        marks = self._marks()
        parts = list(_parts([_clean(caption, marks) for caption in captions]))
        labels = [part.rsplit("\n", 1)[-1] for part in parts[:-1:2]]
        structured = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        # Some templates put all pictures first, whatever the order; a mark inside of the text stays where it is.
        written = [
            [{"type": "text", "text": "".join(mark if part is None else part for part in parts)}] for mark in marks
        ]
        problem = ""
        for content in (structured, *written):
            try:
                found = self.base.processor.apply_chat_template(
                    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
                )
            except Exception as error:  # templates are small programs, each with its own refusals
                problem = problem or f" ({type(error).__name__}: {error})"
                continue
            if any(_in_place(found, mark, labels) for mark in marks):
                return found
        raise AttuneError(
            f"The chat template of {self.base.name} does not keep {2 * len(captions)} pictures at their places in a "
            f"text{problem}. Choose a model that reads several pictures at once, such as Qwen2.5-VL, LLaVA-OneVision "
            "or SmolVLM, with the template that belongs to it."
        )

    def encode(self, pairs: Sequence[SeenPair]) -> dict[str, torch.Tensor]:
        """The model's inputs, on its device.

        Raises:
            AttuneError: see `describe`.
        """
        images = [_small(to_picture(image)) for pair in pairs for image in (pair.preferred, pair.other)]
        text = self.text([pair.caption for pair in pairs])
        processor = self.base.processor
        start = getattr(processor.tokenizer, "bos_token", None)
        # A template that begins the text itself would begin it twice.
        options = {"add_special_tokens": False} if start and text.startswith(start) else {}
        options |= {name: False for name in _PIECES if hasattr(processor.image_processor, name)}
        try:
            # One list per text: some processors take a flat list for the pictures of one text.
            found = processor(text=[text], images=[images], return_tensors="pt", **options)
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
            raise AttuneError(
                f"The processor of {self.base.name} refuses {len(images)} pictures in one text ({error}). Choose a "
                "model that reads several pictures at once, such as Qwen2.5-VL, LLaVA-OneVision or SmolVLM."
            ) from error
        return {
            name: value.to(self.device, self.base.dtype if value.is_floating_point() else None)
            for name, value in dict(found).items()
            if isinstance(value, torch.Tensor)
        }

    def _marks(self) -> list[str]:
        """What stands for a picture in the model's texts."""
        found = [getattr(self.base.processor, name, None) for name in _MARKS]
        return list(dict.fromkeys([*(str(mark) for mark in found if mark), "<image>"]))

    def _check_length(self, prompt: int, new: int, pairs: int) -> None:
        most = getattr(text_config(self.model.config), "max_position_embeddings", None)
        if most and prompt + new > most:
            raise AttuneError(
                f"{self.base.name} can read {most} tokens; {pairs} pairs are {prompt}, and {new} more may be written. "
                "Lower max_new_tokens, use fewer pairs, or choose a model with a longer context."
            )

    # ---- what it writes ----

    def _end_tokens(self) -> frozenset[int]:
        """Tokens that end a text."""
        own = getattr(self.model, "generation_config", None)
        found = (getattr(own, "eos_token_id", None), self.base.processor.tokenizer.eos_token_id)
        return frozenset(
            int(token)
            for value in found
            if value is not None
            for token in (value if isinstance(value, list | tuple) else [value])
        )

    def _generate(
        self, inputs: dict[str, torch.Tensor], most: int, tell: Tell
    ) -> tuple[list[int], tuple[torch.Tensor, ...]]:
        """Tokens of the text, and the states [D] of all layers at the last of them."""
        import transformers

        prompt, ends, written = inputs["input_ids"].shape[1], self._ends, 0

        class OneStepMore(transformers.StoppingCriteria):
            """Ends when the last token but one was the last of the text: the model has read it then."""

            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **others: Any) -> torch.Tensor:
                nonlocal written
                written = input_ids.shape[1] - prompt - 1
                tell(written, most)
                done = written >= 1 and (written >= most or int(input_ids[0, -2]) in ends)
                return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)

        # In place of the model's own, which may ask for chance, several beams, or a penalty on repeated words.
        pad = self.base.processor.tokenizer.pad_token_id
        self.model.generation_config = transformers.GenerationConfig(pad_token_id=pad)
        ending = transformers.StoppingCriteriaList([OneStepMore()])
        with (
            self._explained(prompt), quiet_transformers(transformers), self._states() as states,
            self._before_layers(lambda: tell(written, most)),
        ):  # fmt: skip
            found = self.model.generate(
                **inputs, do_sample=False, num_beams=1, use_cache=True, max_new_tokens=most + 1,
                stopping_criteria=ending,
            )  # fmt: skip
        return found[0, prompt:-1].tolist(), tuple(states)

    @contextmanager
    def _explained(self, prompt: int) -> Iterator[None]:
        """What the library raises, in words."""
        try:
            yield
        except Exception as error:
            if ran_out(error):
                raise AttuneError(
                    f"Memory ran out while {self.base.name} read {prompt} tokens. Use fewer pairs, another precision "
                    "(nf4 is the smallest), a smaller model, or the CPU."
                ) from error
            if isinstance(error, (TypeError, ValueError, IndexError, KeyError)):
                raise AttuneError(
                    f"{self.base.name} cannot write about several pictures ({type(error).__name__}: {error}). Choose "
                    "another model, or update transformers."
                ) from error
            raise

    @contextmanager
    def _states(self) -> Iterator[list[torch.Tensor]]:
        """What every layer holds at the last place of the newest forward pass; nothing older is kept."""
        states: list[torch.Tensor] = []
        passes = 0

        def ask(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            nonlocal passes
            passes += 1
            # The first pass reads all pictures, and its states are never the ones.
            return arguments, keywords | ({"output_hidden_states": True} if passes > 1 else {})

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            states[:] = [state[0, -1] for state in getattr(output, "hidden_states", None) or ()]

        hooks = [self.model.register_forward_pre_hook(ask, with_kwargs=True), self.model.register_forward_hook(keep)]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _before_layers(self, call: Callable[[], None]) -> Iterator[None]:
        """So that Cancel is heard while the pictures are read, which takes longer than many tokens."""
        layers = {layer for holder in self.model.modules() if isinstance(holder, nn.ModuleList) for layer in holder}
        hooks = [layer.register_forward_pre_hook(lambda *_: call()) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _normalised(self, states: tuple[torch.Tensor, ...]) -> torch.Tensor:
        found = [tuple(state.shape) for state in states]
        layers, width = self.shape
        if found != [(width,)] * layers:
            raise AttuneError(
                f"{self.base.name} gives the states of {len(found)} layers in the shapes {sorted(set(found))}, not of "
                f"{layers} of {width} numbers each. Choose another model, or update transformers."
            )
        tokens = torch.stack([state.to("cpu", torch.float32) for state in states])
        lengths = tokens.norm(dim=1, keepdim=True)
        if not lengths.isfinite().all() or not lengths.all():
            raise AttuneError(
                f"{self.base.name} gives states that are zero or not finite at {self.base.precision}. Choose bf16 or "
                "fp32 as its precision."
            )
        return tokens / lengths


def _clean(caption: str, marks: Sequence[str]) -> str:
    """In one line, and without what would announce a picture that is not there."""
    for mark in marks:
        caption = caption.replace(mark, " ")
    return " ".join(whole_characters(caption).split()) or _NO_CAPTION


def _parts(captions: Sequence[str]) -> Iterator[str | None]:
    """The wording; None = a picture. Texts and pictures take turns, and a text stands at both ends."""
    count, before = len(captions), _INTRODUCTION.format(count=len(captions))
    for number, caption in enumerate(captions, 1):
        before += f"{_PAIR.format(number=number, count=count)}{caption}\n"
        for label in _LABELS:
            yield before + label.format(number=number)
            yield None
            before = "\n"
    yield _TASK


def _in_place(text: str, mark: str, labels: Sequence[str]) -> bool:
    """Whether every mark follows its own label, and there are no others. A caption may hold the words of a label."""
    *pieces, _ = text.split(mark)
    if len(pieces) != len(labels):
        return False
    return all(own in piece and max(labels, key=piece.rfind) == own for piece, own in zip(pieces, labels, strict=True))


def _small(picture: Image.Image) -> Image.Image:
    """The picture, no side longer than LONGEST_SIDE."""
    small = picture.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return small


def load_profiler(
    folder: Path, *, precision: Precision = "fp32", device: torch.device | str = "cpu"
) -> VlmProfiler:  # fmt: skip
    """
    Raises:
        AttuneError: as `vlm_base.load_base` and `VlmProfiler`.
    """
    return VlmProfiler(load_base(folder, precision=precision, device=device, head=True), device=device)
