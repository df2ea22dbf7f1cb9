"""Learning, in pure torch, peft and diffusers. Knows neither ComfyUI nor `nodes/`; see `interfaces.py`."""
