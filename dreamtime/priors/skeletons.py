"""Priors whose parameters have shapes and no values: to count them, to size them, to fill them with chance.

They live on torch's meta device, where building a model of billions of parameters takes a second and no memory.
"""

import json
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, T5EncoderModel

from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.priors.architectures import PUBLISHED, Configuration
from dreamtime.priors.deepfloyd import DeepFloydPrior
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import find
from dreamtime.priors.rectified_flow import RectifiedFlowPrior
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.priors.stable_diffusion_xl import StableDiffusionXLPrior
from dreamtime.priors.zero123 import Zero123Prior

DIFFUSERS = {"unet": UNet2DConditionModel, "transformer": SD3Transformer2DModel, "vae": AutoencoderKL}
TRANSFORMERS = {
    kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, T5EncoderModel)
}
PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder")


def configuration_of(source: str) -> Configuration:
    """What a model consists of: as published if it is one we know, else from its own files. Raises `ModelUnavailable`."""
    if source in PUBLISHED:
        return PUBLISHED[source]
    checkpoint = find(source, PARTS, weights=False)
    read = {
        part: json.loads((checkpoint.configuration / part / "config.json").read_text(encoding="utf-8"))
        for part in PARTS
        if checkpoint.has(part)
    }
    return {"_class_name": checkpoint.pipeline, **read}


def reads_pictures(configuration: Configuration) -> bool:
    """Whether it is a Zero123, by whichever pipeline's name: it has an encoder of pictures and none of text."""
    return "image_encoder" in configuration and "text_encoder" not in configuration


def part_of(configuration: Configuration, part: str, dtype: torch.dtype) -> Any:
    """One part of a model, of that precision, on the meta device."""
    config = configuration[part]
    with torch.device("meta"):
        if part in DIFFUSERS:
            return nn.Module.to(DIFFUSERS[part].from_config(config), dtype).eval()  # diffusers' own warns in vain
        kind = TRANSFORMERS[config["architectures"][0]]
        return kind(kind.config_class.from_dict(config)).to(dtype).eval()


def prior_of(configuration: Configuration, dtype: torch.dtype) -> Any:
    """The denoiser and what encodes for it, as a prior on the meta device. Raises `ModelUnavailable`."""
    pipeline, alphas_cumprod = configuration["_class_name"], alphas_cumprod_from_betas("scaled_linear")
    parts = {part: part_of(configuration, part, dtype) for part in DIFFUSERS if part in configuration}
    if reads_pictures(configuration):
        return Zero123Prior(parts["unet"], parts["vae"], alphas_cumprod, "epsilon")
    if pipeline == "StableDiffusionPipeline":
        return StableDiffusionPrior(parts["unet"], parts["vae"], alphas_cumprod, "epsilon")
    if pipeline == "StableDiffusionXLPipeline":
        return StableDiffusionXLPrior(parts["unet"], parts["vae"], alphas_cumprod, "epsilon")
    if pipeline == "StableDiffusion3Pipeline":
        return RectifiedFlowPrior(parts["transformer"], parts["vae"], alphas_cumprod)
    if pipeline == "IFPipeline":
        return DeepFloydPrior(parts["unet"], alphas_cumprod, "epsilon")
    raise ModelUnavailable(pipeline, "is no pipeline that is known here")


def condition_shape(configuration: Configuration) -> tuple[int, int]:
    """Tokens and width of a condition; a pooled embedding is one token more, a picture's latent the rest of the only one."""
    if reads_pictures(configuration):
        unet = configuration["unet"]
        return 1, unet["cross_attention_dim"] + unet["in_channels"] // 2 * unet["sample_size"] ** 2
    if configuration["_class_name"] == "StableDiffusion3Pipeline":
        return 77 + 256 + 1, configuration["transformer"]["joint_attention_dim"]
    if configuration["_class_name"] == "IFPipeline":
        return 77, configuration["unet"]["encoder_hid_dim"]
    tokens = 78 if configuration["_class_name"] == "StableDiffusionXLPipeline" else 77
    return tokens, configuration["unet"]["cross_attention_dim"]
