"""What `run.py` stands on: setting up, and driving the host. Standard library only."""
