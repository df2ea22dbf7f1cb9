"""What the nodes of a refinement say of where a session stands."""

from __future__ import annotations

from .records import SessionState


def session_text(state: SessionState, prompt: str = "") -> str:
    """Where a session stands, in a few lines.

    Args:
        prompt: the wish in the node; said where it does not count any more.
    """
    if state.replay is not None:
        return f"{state.name}: round {state.replay.number} is made again as it was."
    lines = [f"{state.name}: round {state.number}" + (f", other pictures ({state.attempt})" if state.attempt else "")]
    accepted = state.accepted_in
    if accepted is not None:
        lines[0] = f"{state.name}: accepted in round {accepted.number}. Another run makes round {state.number}."
    said = state.feedback.comment.strip() if state.feedback else ""
    if said:
        lines.append(f"You said: {said}")
    if state.path and prompt.strip() and prompt != state.prompt:
        lines.append(
            f"The wish in the box is not used: this session began with “{state.prompt.strip()}”. Say what to change in "
            "Commit Round, or begin a new session by new_name."
        )
    return "\n".join(lines)
