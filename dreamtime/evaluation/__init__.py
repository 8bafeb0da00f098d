"""The ruler: results against the truth that the toybox knows, and in the eyes of a CLIP."""

from dreamtime.toybox import SCORER

SCORERS: dict[str, str] = {
    "toybox": str(SCORER),
    "clip-b32": "openai/clip-vit-base-patch32",
    "clip-b16": "openai/clip-vit-base-patch16",
    "clip-l14": "openai/clip-vit-large-patch14",
}
"""The judges by name; any folder or Hub id of a transformers `CLIPModel` will do."""
TARGETS = (0.5, 0.6, 0.7)
"""The IoUs whose first step is told."""
