"""Priors whose parameters have shapes and no values: to count them, to size them, to fill them with chance.

They live on torch's meta device, where building a model of billions of parameters takes a second and no memory.
"""

import json
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    T5EncoderModel,
)

from dreamtime.priors import camera_embedding
from dreamtime.priors.architectures import PUBLISHED, Configuration
from dreamtime.priors.autoencoder import Autoencoder, untold_of_old_names
from dreamtime.priors.deepfloyd import DeepFloydPrior
from dreamtime.priors.folders import BESIDE, CAMERA_EMBEDDING, TINY_VAE, ModelUnavailable, read_by, without_tiny_vae
from dreamtime.priors.hub import find, folder_here
from dreamtime.priors.layouts import LAYOUTS, TOLD_A_PICTURE, Layout
from dreamtime.priors.rectified_flow import RectifiedFlowPrior
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.priors.stable_diffusion_xl import StableDiffusionXLPrior, precise
from dreamtime.priors.zero123 import Zero123Prior

DIFFUSERS = {
    "unet": UNet2DConditionModel,
    "transformer": SD3Transformer2DModel,
    "vae": AutoencoderKL,
    TINY_VAE: AutoencoderTiny,
    CAMERA_EMBEDDING: camera_embedding.CameraEmbedding,
}
TRANSFORMERS = {
    kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, T5EncoderModel)
}
PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder")


def configuration_of(source: str) -> Configuration:
    """What a model consists of: as published if it is one we know, else from its own files. Raises `ModelUnavailable`.

    What lies beside a model that we know, in its folder on this disk, is part of it.
    """
    if source in PUBLISHED:
        folder = folder_here(source)
        beside = {part: folder / part / "config.json" for part in BESIDE} if folder else {}
        added = {part: json.loads(file.read_text(encoding="utf-8")) for part, file in beside.items() if file.is_file()}
        return {**PUBLISHED[source], **added}
    checkpoint = find(source, PARTS, weights=False)
    parts = [part for part in (*PARTS, *BESIDE) if checkpoint.has(part)]
    read = {part: json.loads((checkpoint.configuration / part / "config.json").read_text(encoding="utf-8")) for part in parts}
    return {"_class_name": checkpoint.pipeline, **read}


def part_of(configuration: Configuration, part: str, dtype: torch.dtype) -> Any:
    """One part of a model, frozen, of that precision, on the meta device."""
    config = configuration[part]
    with torch.device("meta"):
        if part in DIFFUSERS:
            with untold_of_old_names():
                made = nn.Module.to(DIFFUSERS[part].from_config(config), dtype)  # diffusers' own warns in vain
        else:
            kind = TRANSFORMERS[config["architectures"][0]]
            made = kind(kind.config_class.from_dict(config)).to(dtype)
            if dtype == torch.float16:
                keep_precise(made)
    return made.eval().requires_grad_(False)


def keep_precise(model: PreTrainedModel) -> None:
    """Put those modules back into single precision that transformers keeps there, as T5's `wo`, which would overflow."""
    for name, module in model.named_modules():
        if name.split(".")[-1] in (model._keep_in_fp32_modules or ()):
            module.float()


def layout_in(configuration: Configuration) -> Layout:
    """Its kind. Raises `ModelUnavailable`."""
    pipeline = TOLD_A_PICTURE if read_by(configuration) == "image" else configuration["_class_name"]
    if pipeline not in LAYOUTS:
        raise ModelUnavailable(pipeline, "is no pipeline that is known here")
    return LAYOUTS[pipeline]


def prior_of(configuration: Configuration, dtype: torch.dtype, decodes: bool = False) -> Any:
    """The denoiser and its VAE, as a prior on the meta device. Raises `ModelUnavailable`."""
    module, alphas_cumprod = (layout := layout_in(configuration)).module, layout.usual_alphas_cumprod()
    parts = {part: part_of(configuration, part, dtype) for part in DIFFUSERS if part in configuration}
    if module == "deepfloyd":
        return DeepFloydPrior(parts["unet"], alphas_cumprod, "epsilon")
    denoiser = parts["transformer" if "transformer" in parts else "unet"]
    if CAMERA_EMBEDDING in parts:
        denoiser.class_embedding = parts[CAMERA_EMBEDDING]
    vae = precise(parts["vae"]) if module == "stable_diffusion_xl" else parts["vae"]
    if decodes and TINY_VAE not in parts:
        raise without_tiny_vae(configuration["_class_name"])
    autoencoder = Autoencoder(vae, denoiser.config.sample_size, parts[TINY_VAE] if decodes else None)
    if module == "rectified_flow":
        return RectifiedFlowPrior(denoiser, autoencoder, alphas_cumprod)
    kinds = {"stable_diffusion": StableDiffusionPrior, "stable_diffusion_xl": StableDiffusionXLPrior, "zero123": Zero123Prior}
    return kinds[module](denoiser, autoencoder, alphas_cumprod, "epsilon")


def condition_shape(configuration: Configuration) -> tuple[int, int]:
    """Tokens and width of a condition; a pooled embedding is one token more, a picture's latent the rest of the only one."""
    if read_by(configuration) == "image":
        unet = configuration["unet"]
        return 1, unet["cross_attention_dim"] + unet["in_channels"] // 2 * unet["sample_size"] ** 2
    if configuration["_class_name"] == "StableDiffusion3Pipeline":
        return 77 + 256 + 1, configuration["transformer"]["joint_attention_dim"]
    if configuration["_class_name"] == "IFPipeline":
        return 77, configuration["unet"]["encoder_hid_dim"]
    tokens = 78 if configuration["_class_name"] == "StableDiffusionXLPipeline" else 77
    return tokens, configuration["unet"]["cross_attention_dim"]
