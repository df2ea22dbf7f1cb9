"""Sampling one-step generators, whoever made them: the right noise level, the right kind of steps, no guidance.

`presets` is a table of what is known of the public ones, in pure torch; the nodes give it to the host's own sampler.
"""
