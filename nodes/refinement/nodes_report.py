"""Session Report: a session's rounds, figures and audit, as a picture, a page and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...training.checkpoint import whole_file
from ..host.folders import safe_name
from ..host.progress import Progress
from ..host.schema import AttuneNode
from .checks import RefinementError
from .kpis import CAP
from .nodes_common import CATEGORY, draft_of, session_input
from .nodes_routes import sessions

ONE, ALL = "this session", "all sessions"


class AttuneSessionReport(AttuneNode):
    """How it came to be."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneSessionReport",
            display_name="Session Report",
            category=CATEGORY,
            description="The way of a session: pictures, words, choices and weights of every round, how soon it was "
            "accepted, whether further rounds pay, and whether anything on record was changed afterwards.",
            search_aliases=["timeline", "history", "kpi", "audit", "statistics", "rounds", "a/b test", "krippendorff"],
            is_output_node=True,
            inputs=[
                session_input(cls),
                cls.input(
                    io.Combo,
                    "figures",
                    options=[ONE, ALL],
                    default=ONE,
                    tooltip="Of this session alone, or also of all sessions on this computer together of which a round "
                    "was answered: acceptance, rounds, agreement of raters, and the arms of every A/B test.",
                ),
                cls.input(
                    io.String,
                    "judge",
                    default="",
                    placeholder="name of a reward (empty = the one that weighs most)",
                    tooltip="By which reward the gain of every round is told, by its name in Dynamic Weights. Empty = "
                    "chosen by itself.",
                ),
                cls.input(
                    io.Int,
                    "most_rounds",
                    default=CAP,
                    min=1,
                    max=1000,
                    tooltip="After how many rounds without acceptance the report says that a person should take over. "
                    "Raising it gives the loop longer.",
                ),
                cls.input(
                    io.String,
                    "filename_prefix",
                    default="attune/session",
                    placeholder="empty = write no files",
                    tooltip="Where in the output folder the page (.html) and the data (.json) are written, anew at "
                    "every run. Empty = no files.",
                ),
            ],
            outputs=[
                cls.output(io.Image, id="timeline", display_name="timeline", tooltip="The rounds as one picture."),
                cls.output(io.String, id="html_file", display_name="html_file", tooltip="The page, for any browser; it "
                           "needs no other file."),
                cls.output(io.String, id="data", display_name="json", tooltip="All of it as JSON."),
                cls.output(io.String, id="report", display_name="report", tooltip="The main figures in words."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        # Ratings, names and what was kept since do not move the session's revision.
        return " ".join(f"{found.key} {found.changes}" for found in sessions().summaries())

    @classmethod
    def execute(
        cls, session: Any, figures: str = ONE, judge: str = "", most_rounds: int = CAP, filename_prefix: str = ""
    ) -> io.NodeOutput:
        from .report import report_of
        from .report_html import report_html
        from .report_picture import report_picture

        store, state = sessions(), draft_of(session).state
        found = report_of(
            store, state.key, judge=judge.strip(), cap=most_rounds, everything=figures == ALL, progress=Progress()
        )
        pictures = store.files(state.key).pictures.get
        text = json.dumps(found, ensure_ascii=False, indent=1)
        page = ""
        if filename_prefix.strip():
            page = _written(filename_prefix.strip(), report_html(found, pictures), text)
        told = _words(found)
        # The page asks for the rest: it stays up to date with the session.
        shown = [{"key": state.key, "html": page}]
        return io.NodeOutput(
            report_picture(found, pictures), page, text, told, ui={"text": [told], "attune_timeline": shown}
        )  # fmt: skip


def _written(prefix: str, page: str, text: str) -> str:
    """Write both files; the page's path in the output folder.

    Raises:
        RefinementError: the prefix leaves the output folder, or a file cannot be written.
    """
    output = Path(folder_paths.get_output_directory())
    try:
        folder, name, number, *_ = folder_paths.get_save_image_path(prefix, str(output))
    except Exception as error:  # the host raises no type of its own
        raise RefinementError(
            f"The report cannot be saved as {prefix!r}: that is outside of the output folder. Choose another "
            "filename_prefix."
        ) from error
    name = safe_name(name or "session", room=len("_00000.html"))
    while (Path(folder) / f"{name}_{number:05}.html").exists():
        number += 1
    file = Path(folder) / f"{name}_{number:05}.html"
    try:
        for path, content in ((file.with_suffix(".json"), text), (file, page)):
            with whole_file(path) as partial:
                partial.write_text(content, encoding="utf-8", newline="")
    except OSError as error:
        raise RefinementError(
            f"{file} cannot be written: {error.strerror or error}. Free space on that disk or choose another "
            "filename_prefix."
        ) from error
    return file.relative_to(output).as_posix()


def _words(found: dict[str, Any]) -> str:
    kpis = found["kpis"]
    lines = [f"{found['session']['name']}: {kpis['rounds']} rounds, {kpis['regenerations']} times other pictures."]
    if kpis["rounds_to_accept"]:
        lines.append(f"Accepted after {kpis['rounds_to_accept']} rounds.")
    if kpis["advice"] != "go on":
        lines.append(kpis["reason"])
    if found["fairness"]["warns"]:
        lines.append(found["fairness"]["words"])
    audit = found["audit"]
    lines.append("Audit: as it was written." if audit["sound"] else f"Audit: {'; '.join(audit['problems'][:3])}")
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [AttuneSessionReport]
