"""A VAE between images and the latents that a denoiser knows; no step needs more of it than the half that encodes.

A step that looks at what a prior means decodes it by a much smaller network, which has to lie beside the VAE: a TAESD, which
diffusers knows as `AutoencoderTiny`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from jaxtyping import Float
from torch import Tensor, nn

from dreamtime.priors.folders import TINY_VAE, Checkpoint, ModelUnavailable, check_decodes
from dreamtime.priors.options import Options
from dreamtime.priors.weights import read_diffusers


def pixels(images: Float[Tensor, "B H W 3"], side: int) -> Float[Tensor, "B 3 S S"]:
    """The images as denoisers and VAEs know them: channels first, at that side, from [0, 1] to [-1, 1]."""
    x = images.permute(0, 3, 1, 2)  # [B, 3, H, W]
    if x.shape[-2:] != (side, side):
        x = nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
    return 2 * x - 1


def images_of(x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B S S 3"]:
    """The inverse of `pixels`, cut off at black and white."""
    return ((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


class Autoencoder(nn.Module):
    """A VAE, frozen, for a denoiser whose latents have that side.

    What decodes is a part of its own: nothing, a tiny VAE, or, outside of runs, the VAE itself, which then is kept whole.
    """

    def __init__(self, vae: AutoencoderKL, side: int, decoder: AutoencoderKL | AutoencoderTiny | None = None) -> None:
        super().__init__()
        if decoder is not vae:
            vae.decoder = nn.Identity()
            if decoder:
                decoder.encoder = nn.Identity()
        self.model = vae.eval().requires_grad_(False)
        self.decoder = decoder.eval().requires_grad_(False) if decoder else None
        # Side of the images that the denoiser was trained on, in pixels.
        self.resolution = int(side * 2 ** (len(vae.config.block_out_channels) - 1))

    def means(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Posterior means of the images at that resolution; differentiable."""
        return self.model.encode(pixels(images, self.resolution).to(self.model.dtype)).latent_dist.mean.float()

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """The same, shifted and scaled as the denoiser expects."""
        config = self.model.config
        return (self.means(images) - (config.shift_factor or 0.0)) * config.scaling_factor

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """The images of latents, in [0, 1] and at that resolution; no gradient."""
        assert self.decoder is not None, "There is nothing to decode by: Options(decodes=True) loads it."
        config = self.decoder.config
        latents = x / config.scaling_factor + (config.shift_factor or 0.0)
        return images_of(self.decoder.decode(latents.to(self.decoder.dtype)).sample.float())


def economise(vae: Autoencoder, options: Options) -> Autoencoder:
    """The VAE, sparing memory as the options ask."""
    if options.memory != "normal":
        vae.model.enable_slicing()
        vae.model.enable_gradient_checkpointing()
        if vae.decoder is not None:
            vae.decoder.enable_slicing()
    return vae


def read_autoencoder(folder: Path, dtype: torch.dtype) -> Any:
    """The whole VAE of a model's folder, on the CPU."""
    return read_diffusers(AutoencoderKL, folder, "vae", dtype)


@contextmanager
def untold_of_old_names() -> Iterator[None]:
    """Without diffusers' warning of `block_out_channels`, which it writes into tiny VAEs' configurations and does not read."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)


def read_tiny(vae: AutoencoderKL, checkpoint: Checkpoint, dtype: torch.dtype, options: Options) -> AutoencoderTiny | None:
    """The tiny VAE beside it, if it is to decode. Raises `ModelUnavailable` where there is none, or one of other latents."""
    if not options.decodes:
        return None
    check_decodes(checkpoint)
    with untold_of_old_names():
        tiny: AutoencoderTiny = read_diffusers(AutoencoderTiny, checkpoint.path, TINY_VAE, dtype)
    levels, factor = len(tiny.config.decoder_block_out_channels), tiny.config.upsampling_scaling_factor
    has = tiny.config.latent_channels, factor ** (levels - 1)
    takes = vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)
    if has != takes:
        decodes = f"it decodes {has[0]} channels to {has[1]} times their side, expected {takes[0]} and {takes[1]}"
        raise ModelUnavailable(checkpoint.place, f"has a tiny VAE of another kind: {decodes}")
    return tiny
