"""One door to every kind of prior: the model's own files say which pipeline it was made for, hence which module reads it."""

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from dreamtime.priors.folders import check_decodes
from dreamtime.priors.hub import find
from dreamtime.priors.layouts import layout_of
from dreamtime.priors.options import PLAIN, Options
from dreamtime.prompts import Embed
from dreamtime.types import Cameras, Condition, DiffusionPrior

Look = Callable[[Float[Tensor, "H W 3"], Cameras], Condition]
"""A picture of an object before white, and the camera that took it, to what other cameras are to see."""

log = logging.getLogger(__name__)


def module_of(source: str | Path, options: Options = PLAIN) -> ModuleType:
    """The module that reads a model: each has the first three functions below.

    Raises `ModelUnavailable`, also for one that could not do what is asked: before any of its weights is fetched.
    """
    checkpoint = find(source, (), weights=False)
    if options.decodes:
        check_decodes(checkpoint)
    return import_module(f"dreamtime.priors.{layout_of(checkpoint).module}")


def load_alphas_cumprod(source: str | Path) -> Float[Tensor, " T"]:
    """The noise levels abar of a model, float64, without its weights. Raises `ModelUnavailable`."""
    return module_of(source).load_alphas_cumprod(source)


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> DiffusionPrior:
    """The denoiser of a model. Raises `ModelUnavailable`."""
    return module_of(source, options).load_prior(source, device, dtype, options)


def load_text_encoder(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> Embed:
    """What reads prompts for that denoiser; to be let go before it is loaded. Raises `ModelUnavailable`."""
    return module_of(source, options).load_text_encoder(source, device, dtype, options)


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
