"""Nodes that give prompts: from lines of text, a file, a template with wildcards, or a folder's captions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..host.examples import PROMPTS, STYLE, WILDCARDS, offer_pictures
from ..host.schema import AttuneNode
from ..places import PlaceError, content_digest, inside, listed_files, listed_folders, missing
from .captions import captions_digest, from_captions
from .files import READERS, from_file
from .lines import MOST_PROMPTS, Arrangement, PromptList, from_text
from .template import MODES, WILDCARD_FOLDER, Wildcards, from_template

CATEGORY = "Attune/prompts"
SEED_LIMIT = 2**53 - 1  # larger ones do not survive a web page's numbers
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Arrangement)}


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def stop_on_cancel() -> None:
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


class PromptSource(AttuneNode):
    """What all of these nodes have in common: the widgets that arrange the prompts, and the outputs."""

    @classmethod
    def source(cls, *, node_id: str, arranged: bool = True, inputs: list[Any], **words: Any) -> io.Schema:
        """The schema of a source: its own inputs, then the common ones."""
        return cls.schema(
            node_id=node_id,
            category=CATEGORY,
            is_output_node=True,
            inputs=[*inputs, *(cls.arrangement() if arranged else [])],
            outputs=[
                cls.output(io.String, id="prompts", display_name="prompts",
                           tooltip="All prompts, one per line: for the prompts box of Compare A/B, A/B Test, the "
                           "objectives and Score Images."),
                cls.output(io.String, id="single_prompts", display_name="single_prompts", is_output_list=True,
                           tooltip="The prompts one by one: what is connected here runs once for each of them."),
                cls.output(io.Int, id="count", display_name="count", tooltip="How many prompts there are."),
            ],
            **words,
        )  # fmt: skip

    @classmethod
    def arrangement(cls) -> list[Any]:
        return [
            cls.input(io.Boolean, "remove_duplicates", default=DEFAULTS["remove_duplicates"],
                      tooltip="Keep the first of equal prompts. Off = keep all, so that a prompt that stands there "
                      "twice counts twice."),
            cls.input(io.Int, "shuffle_seed", default=DEFAULTS["shuffle_seed"], min=0, max=SEED_LIMIT,
                      tooltip="Every number is an order of its own, always the same for the same number. 0 = as "
                      "written."),
            cls.input(io.Int, "limit", default=DEFAULTS["limit"], min=0, max=MOST_PROMPTS,
                      tooltip="How many different prompts go on, the first of the order above. Raising it lets more "
                      "pass. 0 = all."),
            cls.input(io.Int, "repeat", default=DEFAULTS["repeat"], min=1, max=1000,
                      tooltip="How many times each prompt stands in a row. Raise it where every prompt has several "
                      "pictures, as Score Images wants one line per picture. 1 = once."),
        ]  # fmt: skip

    @classmethod
    def result(cls, found: PromptList) -> io.NodeOutput:
        return io.NodeOutput(
            found.text, list(found.prompts), len(found.prompts), ui={"attune_prompts": [found.shown()]}
        )


class PromptLines(PromptSource):
    """Prompts written down."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.source(
            node_id="AttunePromptLines",
            display_name="Prompt Lines",
            description="A list of prompts, one per line, for every node that takes several prompts.",
            search_aliases=["prompt list", "batch prompts", "multiline prompts", "text lines"],
            inputs=[
                cls.input(
                    io.String,
                    "text",
                    multiline=True,
                    default="",
                    placeholder="one prompt per line\n# a line like this is left out",
                    tooltip="One prompt per line. Blank lines and lines that begin with # do not count.",
                )
            ],
        )

    @classmethod
    def execute(cls, text: str, **arrangement: Any) -> io.NodeOutput:
        return cls.result(from_text(text, Arrangement(**arrangement)))


class PromptsFromFile(PromptSource):
    """Prompts out of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = listed_files(input_folder(), READERS)
        return cls.source(
            node_id="AttunePromptsFromFile",
            display_name="Prompts from File",
            description="Reads prompts from a text file, a table (CSV) or JSON in ComfyUI's input folder.",
            search_aliases=["csv prompts", "load prompts", "json prompts", "prompt file", "spreadsheet"],
            inputs=[
                cls.input(
                    io.Combo,
                    "file",
                    options=files,
                    # The example; other examples are no prompts.
                    default=next((file for file in files if file.startswith(f"{PROMPTS}/")), None),
                    tooltip="A .txt, .csv, .jsonl or .json in ComfyUI's input folder or a folder in it. Press R in the "
                    "browser to list new files. The node runs again when the file has changed.",
                ),
                cls.input(
                    io.String,
                    "field",
                    default="",
                    tooltip="The column of a table (its heading, or its number counted from 1), or the field of JSON "
                    "objects. Empty = the one called prompt, text or caption. Text files have none. With a number, the "
                    "first row counts as a prompt unless one of its headings is such a name.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return missing(input_folder(), file, what="file") or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **widgets: Any) -> str:
        try:
            return content_digest([inside(input_folder(), file, what="file")]) if file else ""
        except PlaceError:
            return ""

    @classmethod
    def execute(cls, file: str, field: str, **arrangement: Any) -> io.NodeOutput:
        path = inside(input_folder(), file, what="file")
        return cls.result(from_file(path, file, field=field, arrangement=Arrangement(**arrangement)))


class PromptTemplate(PromptSource):
    """Prompts drawn from alternatives."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.source(
            node_id="AttunePromptTemplate",
            display_name="Prompt Template",
            description="Makes many prompts from one: alternatives in braces, wildcards from files, weights.",
            search_aliases=["wildcards", "dynamic prompts", "random prompts", "combinatorial", "alternatives"],
            arranged=False,
            inputs=[
                cls.input(
                    io.String,
                    "template",
                    multiline=True,
                    default="a {red|green|blue} cat, {3d|flat} style",
                    placeholder="a {2::red|green} __animal__",
                    tooltip="{red|green}: one of them. {2::red|green}: red twice as often. __animal__: a line of the "
                    f"file input/{WILDCARD_FOLDER}/animal.txt. All of these may stand inside each other. Several lines "
                    "are several templates.",
                ),
                cls.input(
                    io.Combo,
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="draw: so many prompts by chance, none twice as long as there is another one. all "
                    "combinations: every one once, in order.",
                ),
                cls.input(
                    io.Int,
                    "how_many",
                    default=8,
                    min=1,
                    max=MOST_PROMPTS,
                    tooltip="How many prompts are drawn. Raising it keeps those that were drawn and adds others. With "
                    "all combinations: the most that are made.",
                ),
                cls.input(
                    io.Int,
                    "draw_seed",
                    default=0,
                    min=0,
                    max=SEED_LIMIT,
                    tooltip="The same seed draws the same prompts, another one others. Of no effect with all "
                    "combinations.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, template: str | None = None, **widgets: Any) -> str:
        return content_digest(Wildcards(input_folder() / WILDCARD_FOLDER).files(template))

    @classmethod
    def execute(cls, template: str, mode: str, how_many: int, draw_seed: int) -> io.NodeOutput:
        wildcards = Wildcards(input_folder() / WILDCARD_FOLDER)
        found = from_template(
            template, wildcards, mode=mode, count=how_many, seed=draw_seed, on_step=stop_on_cancel
        )  # fmt: skip
        return cls.result(found)


class PromptsFromCaptions(PromptSource):
    """Prompts out of a folder of pictures with captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.source(
            node_id="AttunePromptsFromCaptions",
            display_name="Prompts from Captions",
            description="Uses the captions of a folder of pictures as prompts: all of them, or some by chance.",
            search_aliases=["dataset captions", "metadata.jsonl", "caption files", "training set prompts"],
            inputs=[
                cls.input(
                    io.Combo,
                    "folder",
                    options=listed_folders(input_folder()),
                    tooltip="A folder in ComfyUI's input folder: a .txt beside each picture, or one metadata.jsonl for "
                    "all. Press R in the browser to list new folders. The node runs again when a caption has changed.",
                ),
                cls.input(
                    io.String,
                    "trigger",
                    default="",
                    tooltip="Words put before every caption, as in Supervised Objective: what calls the style of a "
                    "trained LoRA. Empty = none.",
                ),
                cls.input(
                    io.String,
                    "field",
                    default="",
                    advanced=True,
                    tooltip="The field of metadata.jsonl that holds the caption. Empty = the one called prompt, text "
                    "or caption. Text files have none.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return missing(input_folder(), folder, what="folder") or True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **widgets: Any) -> str:
        try:
            return captions_digest(inside(input_folder(), folder, what="folder")) if folder else ""
        except PlaceError:
            return ""

    @classmethod
    def execute(cls, folder: str, trigger: str, field: str, **arrangement: Any) -> io.NodeOutput:
        found = from_captions(
            inside(input_folder(), folder, what="folder"), folder, trigger=trigger, field=field,
            arrangement=Arrangement(**arrangement),
        )  # fmt: skip
        return cls.result(found)


for examples in (STYLE, PROMPTS, WILDCARDS):
    offer_pictures(examples)

NODES: list[type[io.ComfyNode]] = [PromptLines, PromptsFromFile, PromptTemplate, PromptsFromCaptions]
