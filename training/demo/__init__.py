"""The demo model: its data, its recipes, and its key layouts."""
