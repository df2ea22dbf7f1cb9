"""How well the pictures of a session's rounds show their prompts, by a reward that looks at both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..host.sampling import progress_bar
from .ambiguity import FEWEST, THRESHOLD, Usual, ambiguity, usual_of
from .checks import RefinementError
from .chosen import pictures_of
from .draft import Judge
from .nodes_routes import sessions
from .records import Round, SessionState
from .scoring import score_round

# Rounds whose pictures say what is usual; older ones are of another wish.
_MOST_ROUNDS = 8


@dataclass(frozen=True)
class Shown:
    """What a reward says of the last round; `unlike` is None where nothing is usual yet."""

    unlike: float | None
    text: str


def shown_less(state: SessionState, reward: Any) -> Shown | None:
    """How much less than usual the last round's pictures show their prompt; None before the first round.

    Raises:
        RefinementError: the reward does not look at the prompt, or pictures are lost.
        RewardError: it cannot score them.
    """
    if not getattr(reward, "uses_prompt", False):
        raise RefinementError(
            f"{reward.name} does not look at the prompt, so it cannot say whether pictures show it. Connect a CLIP "
            "kind, ImageReward or a vision-language model to reward, or nothing."
        )
    last = state.last
    if last is None or not last.prompt.strip():
        return None
    calibration = getattr(reward, "calibration", None)
    earlier = [past for past in state.path[:-1] if past.prompt.strip()][-_MOST_ROUNDS:] if calibration is None else []
    bar = progress_bar(sum(len(past.pictures) for past in [*earlier, last]))

    def scores(past: Round) -> list[float]:
        if not past.pictures:
            return []
        pictures = pictures_of(sessions(), state, past, range(len(past.pictures)))
        found = score_round([Judge(reward.name, "", reward)], pictures, past.prompt, (), bar)
        return [score for one in found for score in one.values()]

    own = scores(last)
    before = [score for past in earlier for score in scores(past)]
    usual = usual_of(before, "in the rounds before") if calibration is None else _calibrated(calibration)
    if not own:
        return Shown(None, f"{reward.name} has no score of the last pictures.")
    if usual is None:
        return Shown(
            None,
            f"{reward.name} cannot say yet how well the last pictures show the prompt: calibrate it, or go on until "
            f"there are {FEWEST} earlier pictures ({len(before)} so far).",
        )
    unlike = ambiguity(own, usual, higher_is_better=reward.higher_is_better)
    side = "worse" if unlike >= 0 else "better"
    clearly = ", so that it is asked what matters" if unlike > THRESHOLD else ""
    return Shown(
        unlike,
        f"The last pictures show their prompt {abs(unlike):.1f} deviations {side} than {usual.of} "
        f"({reward.name}){clearly}.",
    )


def _calibrated(calibration: Any) -> Usual:
    return Usual(calibration.mean, calibration.deviation, f"in the calibration {calibration.name}")
