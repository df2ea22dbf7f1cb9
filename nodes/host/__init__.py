"""The only place, besides each family's nodes.py, that knows ComfyUI's internals."""
