"""What the nodes of this family share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "Attune/preferences"
ProfileWire = io.Custom("ATTUNE_PROFILE")
