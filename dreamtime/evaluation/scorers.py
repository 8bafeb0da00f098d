"""CLIP checkpoints as judges: pictures and captions to unit vectors in one space."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import logging as transformers_logging

from dreamtime.evaluation import SCORERS
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import check_within_reach, on_this_disk
from dreamtime.toybox import SCORER

log = logging.getLogger(__name__)

BATCH = 64


@dataclass(frozen=True)
class Scorer:
    """A frozen CLIP and how it wants its pictures."""

    name: str
    model: CLIPModel
    tokenizer: CLIPTokenizer
    mean: Float[Tensor, " 3"]
    deviation: Float[Tensor, " 3"]

    @cached_property
    def fingerprint(self) -> str:
        """Twelve digits that change with the weights: what it once said is only valid under the same."""
        digest = hashlib.sha256()
        for value in self.model.state_dict().values():
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]

    @torch.no_grad()
    def images(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B D"]:
        """Unit vectors of square pictures, brought to the model's size first."""
        side = self.model.config.vision_config.image_size
        features = [torch.zeros(0, self.model.config.projection_dim)]
        for part in images.split(BATCH) if len(images) else ():
            x = part.permute(0, 3, 1, 2).to(self.model.device)
            if x.shape[-1] != side:
                x = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
            x = (x - self.mean[:, None, None].to(x)) / self.deviation[:, None, None].to(x)
            pooled = self.model.vision_model(pixel_values=x).pooler_output
            features.append(F.normalize(self.model.visual_projection(pooled), dim=-1).float().cpu())
        return torch.cat(features)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "P D"]:
        """Unit vectors of texts, cut to the model's length."""
        features = []
        for start in range(0, len(texts), 4 * BATCH):
            tokens = self.tokenizer(
                list(texts[start : start + 4 * BATCH]),
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            pooled = self.model.text_model(**tokens).pooler_output
            features.append(F.normalize(self.model.text_projection(pooled), dim=-1).float().cpu())
        return torch.cat(features)


@contextmanager
def one_sentence(source: str) -> Iterator[None]:
    """Turn what transformers raises into `ModelUnavailable`; the details go to the log."""
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        log.info("loading %s failed", source, exc_info=True)
        raise ModelUnavailable(
            source, f"could not be loaded ({type(error).__name__}): expected a CLIP model in safetensors, here or within reach"
        ) from error


def load_scorer(name: str = "toybox", device: str = "cpu") -> Scorer:
    """The judge of that name, folder or Hub id; raises `ModelUnavailable`."""
    source = SCORERS.get(name, name)
    if source == str(SCORER) and not (SCORER / "config.json").is_file():
        raise ModelUnavailable(source, "is empty: train the scorer with `python -m dreamtime.toybox.scorer --work FOLDER`")
    check_within_reach(source)
    place = str(on_this_disk(source) or source)
    with one_sentence(source):
        model, lacking = CLIPModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
        if lacking["missing_keys"]:
            raise ValueError(f"{len(lacking['missing_keys'])} weights are missing")
        tokenizer = CLIPTokenizer.from_pretrained(place)
        pictures, _ = ImageProcessingMixin.get_image_processor_dict(place)
    mean, deviation = (torch.tensor(pictures[key]) for key in ("image_mean", "image_std"))
    return Scorer(name, model.to(device).eval().requires_grad_(False), tokenizer, mean, deviation)
