"""A CLIP of random weights in the layout of the embedded scorer, small enough for a test."""

from pathlib import Path

from dreamtime.toybox.models import build_tokenizer
from dreamtime.toybox.scorer import build_model, export
from dreamtime.toybox.training import seeded_initialisation


def write_tiny_scorer(folder: Path, seed: int = 0) -> Path:
    """The folder, with a model that answers at random but always the same."""
    with seeded_initialisation(seed):
        export(build_model(build_tokenizer(), width=64).eval(), folder)
    return folder
