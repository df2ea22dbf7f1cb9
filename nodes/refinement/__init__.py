"""Refinement in rounds: what a session keeps, and how each round follows from the last."""
