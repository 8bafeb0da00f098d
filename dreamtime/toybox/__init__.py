"""The embedded default: a procedural world with ground truth, and a small diffusion model trained on it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded model, in the layout of a diffusers `StableDiffusionPipeline`."""

SCORER = Path(__file__).parent / "scorer"
"""Folder of the small CLIP that judges pictures of the toybox, in the layout of a transformers `CLIPModel`."""

ZERO123 = Path(__file__).parent / "zero123"
"""Folder of the small model that imagines an object's other sides, in the layout of Zero-1-to-3's diffusers conversions."""
