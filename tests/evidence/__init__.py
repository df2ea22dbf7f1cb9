"""Claims, one script each: `python run.py evidence NAME`."""
