"""One door to every kind of prior: the model's own files say which pipeline it was made for, hence which module reads it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import find
from dreamtime.priors.options import PLAIN, Options
from dreamtime.prompts import Embed
from dreamtime.types import Cameras, Condition, DiffusionPrior

Look = Callable[[Float[Tensor, "H W 3"], Cameras], Condition]
"""A picture of an object before white, and the camera that took it, to what other cameras are to see."""

log = logging.getLogger(__name__)


def layout_of(source: str | Path) -> ModuleType:
    """The module that reads a model: each has the first three functions below. Raises `ModelUnavailable`."""
    checkpoint = find(source, (), weights=False)
    if checkpoint.reads == "image":
        from dreamtime.priors import zero123

        return zero123
    if checkpoint.pipeline == "StableDiffusionPipeline":
        from dreamtime.priors import stable_diffusion

        return stable_diffusion
    if checkpoint.pipeline == "IFPipeline":
        from dreamtime.priors import deepfloyd

        return deepfloyd
    if checkpoint.pipeline == "StableDiffusionXLPipeline":
        from dreamtime.priors import stable_diffusion_xl

        return stable_diffusion_xl
    if checkpoint.pipeline == "StableDiffusion3Pipeline":
        from dreamtime.priors import rectified_flow

        return rectified_flow
    raise ModelUnavailable(
        checkpoint.place,
        f"is a {checkpoint.pipeline}, which is none of Stable Diffusion 1, 2, XL or 3, DeepFloyd IF and Zero123",
    )


def load_alphas_cumprod(source: str | Path) -> Float[Tensor, " T"]:
    """The noise levels abar of a model, float64, without its weights. Raises `ModelUnavailable`."""
    return layout_of(source).load_alphas_cumprod(source)


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> DiffusionPrior:
    """The denoiser of a model. Raises `ModelUnavailable`."""
    return layout_of(source).load_prior(source, device, dtype, options)


def load_text_encoder(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> Embed:
    """What reads prompts for that denoiser; to be let go before it is loaded. Raises `ModelUnavailable`."""
    return layout_of(source).load_text_encoder(source, device, dtype, options)


def load_image_encoder(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> Look:
    """What looks at a picture for that denoiser; to be let go before it is loaded. Raises `ModelUnavailable`."""
    from dreamtime.priors import zero123

    return zero123.load_image_encoder(source, device, dtype, options)


class Remembered:
    """Embeddings of texts, made in one go whenever some are new, by an encoder that is loaded for that and let go at once."""

    def __init__(self, load: Callable[[], Embed], texts: Sequence[str] = ()) -> None:
        self.load = load
        self.known: dict[str, Float[Tensor, "L D"]] = {}
        self(list(texts))

    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        if new := sorted(set(prompts) - self.known.keys()):
            log.info("embedding %d texts", len(new))
            self.known |= dict(zip(new, self.load()(new), strict=True))
            torch.cuda.empty_cache()
        return torch.stack([self.known[prompt] for prompt in prompts])
