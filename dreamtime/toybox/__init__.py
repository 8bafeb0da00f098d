"""The embedded default: a procedural world with ground truth, and a small diffusion model trained on it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded model, in the layout of a diffusers `StableDiffusionPipeline`."""
