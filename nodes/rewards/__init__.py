"""Scorers: what a picture is worth, as one number, from a network or from pixel statistics.

`load_reward` reads a reward model file, `StatisticReward` needs none, `CachedReward` never scores the same picture
twice, `score_table` ranks pictures, `bar_chart` draws the ranking. Nothing here knows the host; its nodes do.
"""

from __future__ import annotations

from .cache import CachedReward
from .chart import bar_chart
from .load import load_reward
from .scoring import ScoreTable, score_table
from .statistics import StatisticReward

__all__ = ["CachedReward", "ScoreTable", "StatisticReward", "bar_chart", "load_reward", "score_table"]
