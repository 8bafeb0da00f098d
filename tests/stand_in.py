"""A small untrained model in the layout of the embedded Zero-1-to-3, and a picture to show it, for tests of all around it."""

import math
from pathlib import Path

from PIL import Image, ImageDraw
from tiny_models import seeded, small_vae, tiny_unet
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamtime.image_to_3d import EMBEDDED
from dreamtime.toybox import models
from dreamtime.toybox.train_zero123 import export


def write_stand_in(folder: Path) -> None:
    """The model below `folder`, where DREAMTIME_MODEL_DIR finds it by its name."""
    with seeded(3):
        seeing = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            projection_dim=models.WIDTH,
        )
        parts = nn.ModuleDict(
            {
                "unet": tiny_unet(in_channels=8, cross_attention_dim=models.WIDTH),
                "image_encoder": CLIPVisionModelWithProjection(seeing),
                "projection": nn.Linear(models.WIDTH + 4, models.WIDTH),
            }
        )
        export(small_vae(scaling_factor=1 / math.sqrt(2)), parts, folder / EMBEDDED)


def photograph(path: Path, side: int = 200) -> Path:
    """A red ball before a grey wall, as somebody might send it."""
    image = Image.new("RGB", (side, side), (200, 200, 205))
    ImageDraw.Draw(image).ellipse([side // 4, side // 4, 3 * side // 4, 3 * side // 4], fill=(200, 30, 30))
    image.save(path)
    return path
