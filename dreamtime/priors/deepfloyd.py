"""DeepFloyd IF, stage I: a diffusion model of 64x64 pixels that reads its prompts with T5 (the layout of an `IFPipeline`)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreamtime.diffusion import PredictionType, epsilon_from_prediction
from dreamtime.priors.adapters import check_unet_alone, merge_into_unet
from dreamtime.priors.autoencoder import images_of, pixels
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import find
from dreamtime.priors.layouts import checked_layout
from dreamtime.priors.options import PLAIN, Options
from dreamtime.priors.stable_diffusion import load_alphas_cumprod, noise_levels_of
from dreamtime.priors.text_encoders import TextEncoder, load_t5
from dreamtime.priors.weights import one_sentence, place_denoiser, read_diffusers

__all__ = ["DeepFloydPrior", "DeepFloydText", "load_alphas_cumprod", "load_prior", "load_text_encoder"]

PIPELINE = "IFPipeline"
DENOISER = ("unet", "scheduler")
TEXT = ("text_encoder", "tokenizer")

MAX_TOKENS = 77  # T5 takes more, but IF was trained with these


@dataclass(frozen=True)
class DeepFloydPrior:
    """A pixel diffusion model as a `DiffusionPrior`; its weights are frozen."""

    unet: UNet2DConditionModel
    alphas_cumprod: Float[Tensor, " T"]
    prediction_type: PredictionType

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 h w"]:
        """The images themselves in [-1, 1], resized to the model's own resolution."""
        return pixels(images, self.unet.config.sample_size)

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B h w 3"]:
        """The images in [0, 1]."""
        return images_of(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B 3 h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B 3 h w"]:
        """The noise in z_t under the text. The network's other three channels say how to draw, and are of no use here."""
        dtype = self.unet.dtype
        output = self.unet(z_t.to(dtype), t, encoder_hidden_states=condition.to(dtype)).sample.float()
        return epsilon_from_prediction(self.prediction_type, z_t, output[:, : z_t.shape[1]], self.alphas_cumprod, t)


@dataclass(frozen=True)
class DeepFloydText:
    """Prompts, in lower case, to T5's last hidden state; padding is masked."""

    encoder: TextEncoder

    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        return self.encoder.outputs([prompt.lower().strip() for prompt in prompts], MAX_TOKENS, masked=True)[0]


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> DeepFloydPrior:
    """The denoiser from a folder or a Hub id. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, DENOISER), PIPELINE, options)
    with one_sentence(checkpoint):
        unet = read_diffusers(UNet2DConditionModel, checkpoint.path, "unet", dtype)
        if unet.config.in_channels != 3:
            raise ModelUnavailable(checkpoint.place, "is a later stage of IF, which enlarges pictures: stage I is needed")
        if options.lora:
            check_unet_alone(options)
            merge_into_unet(unet, options)
        return DeepFloydPrior(place_denoiser(unet, device, options), *noise_levels_of(checkpoint))


def load_text_encoder(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> DeepFloydText:
    """T5, 4.8 billion parameters for a run's few prompts; let it go before the denoiser comes. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, TEXT), PIPELINE, options)
    with one_sentence(checkpoint):
        return DeepFloydText(load_t5(checkpoint.path, device, dtype, options))
