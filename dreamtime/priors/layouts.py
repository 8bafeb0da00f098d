"""What kinds of models there are, by the diffusers pipeline they were made for, and what each can and cannot do.

The one table that says so: choices are checked against it before a run, and every loader asks it once more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dreamtime.diffusion import alphas_cumprod_from_betas, alphas_cumprod_from_flow
from dreamtime.priors.folders import Checkpoint, ModelUnavailable
from dreamtime.priors.options import Options


@dataclass(frozen=True)
class Layout:
    """A kind of model: which module of `dreamtime.priors` reads it, what it is told, and what can be done to it."""

    module: str
    reads: Literal["text", "image"] = "text"
    learns: bool = False  # `lora` can make VSD's second predictor of its UNet
    adapts: bool = True  # it takes LoRA adapters
    new_words: bool = False  # it takes textual inversions
    slices: bool = True  # its attention can be sliced
    usual_alphas_cumprod: Callable[[], Float[Tensor, " T"]] = lambda: alphas_cumprod_from_betas("scaled_linear")
    """abar of the published models of this kind, for when the model's own files are not at hand."""


def squared_cosine() -> Float[Tensor, " T"]:
    """DeepFloyd IF's abar."""
    return alphas_cumprod_from_betas("squaredcos_cap_v2")


def shifted_flow(shift: float = 3.0, T: int = 1000) -> Float[Tensor, " T"]:
    """abar of a flow whose times s = i / T are shifted to shift s / (1 + (shift - 1) s); Stable Diffusion 3 has shift 3."""
    s = torch.arange(1, T + 1, dtype=torch.float64) / T
    return alphas_cumprod_from_flow(shift * s / (1 + (shift - 1) * s))


TOLD_A_PICTURE = "Zero1to3StableDiffusionPipeline"
"""The key of all that are told a picture: their conversions name their pipelines as they please."""

LAYOUTS: dict[str, Layout] = {
    "StableDiffusionPipeline": Layout("stable_diffusion", learns=True, new_words=True),
    "StableDiffusionXLPipeline": Layout("stable_diffusion_xl"),
    "StableDiffusion3Pipeline": Layout("rectified_flow", adapts=False, slices=False, usual_alphas_cumprod=shifted_flow),
    "IFPipeline": Layout("deepfloyd", learns=True, usual_alphas_cumprod=squared_cosine),
    TOLD_A_PICTURE: Layout("zero123", reads="image", adapts=False),
}


def layout_of(checkpoint: Checkpoint) -> Layout:
    """The kind of a model; raises `ModelUnavailable` for one that nothing here reads."""
    if checkpoint.reads == "image":
        return LAYOUTS[TOLD_A_PICTURE]
    if checkpoint.pipeline not in LAYOUTS:
        raise ModelUnavailable(
            checkpoint.place,
            f"is a {checkpoint.pipeline}, which is none of Stable Diffusion 1, 2, XL or 3, DeepFloyd IF and Zero123",
        )
    return LAYOUTS[checkpoint.pipeline]


def check_options(what: str, layout: Layout, options: Options) -> None:
    """Raise `ModelUnavailable` on what is asked of a model and its kind cannot do."""
    if options.lora and not layout.adapts:
        raise ModelUnavailable(options.lora, f"is a LoRA, which {what!r} cannot take: LoRAs are for UNets that are told a text")
    if options.embedding and not layout.new_words:
        raise ModelUnavailable(
            options.embedding,
            f"is a textual inversion, which {what!r} cannot take: those are for Stable Diffusion 1 and 2",
        )
    if options.attention != "fused" and not layout.slices:
        raise ModelUnavailable(what, f"is a transformer, whose attention cannot be {options.attention}: choose 'fused'")


def checked_layout(checkpoint: Checkpoint, pipeline: str, options: Options) -> Checkpoint:
    """The checkpoint, if it was made for that pipeline and can do what is asked; raises `ModelUnavailable`."""
    if checkpoint.pipeline != pipeline:
        raise ModelUnavailable(checkpoint.place, f"is a {checkpoint.pipeline}, expected a {pipeline}")
    check_options(checkpoint.place, LAYOUTS[pipeline], options)
    return checkpoint
