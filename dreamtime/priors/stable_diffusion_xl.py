"""Models in the layout of a `StableDiffusionXLPipeline`: two text encoders, a pooled embedding, and the picture's size told."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreamtime.diffusion import PredictionType, epsilon_from_prediction
from dreamtime.priors.adapters import merge_into_text_encoder, merge_into_unet
from dreamtime.priors.autoencoder import Autoencoder, economise, read_autoencoder, read_tiny
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import find
from dreamtime.priors.layouts import checked_layout
from dreamtime.priors.options import PLAIN, Options
from dreamtime.priors.stable_diffusion import load_alphas_cumprod, noise_levels_of
from dreamtime.priors.text_encoders import TextEncoder, apart, beside, read_clip
from dreamtime.priors.weights import one_sentence, place_denoiser, read_diffusers

__all__ = ["StableDiffusionXLPrior", "StableDiffusionXLText", "load_alphas_cumprod", "load_prior", "load_text_encoder"]

PIPELINE = "StableDiffusionXLPipeline"
DENOISER = ("unet", "vae", "scheduler")
TEXT = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


@dataclass(frozen=True)
class StableDiffusionXLPrior:
    """A latent diffusion model as a `DiffusionPrior`; its weights are frozen, and gradients pass through `encode` alone.

    The condition's last token is the pooled embedding (`text_encoders.beside`).
    """

    unet: UNet2DConditionModel
    vae: Autoencoder
    alphas_cumprod: Float[Tensor, " T"]
    prediction_type: PredictionType

    @property
    def pooled_width(self) -> int:
        """Of the pooled embedding: what the added embedding takes besides six numbers about the picture's size."""
        return self.unet.config.projection_class_embeddings_input_dim - 6 * self.unet.config.addition_time_embed_dim

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Scaled posterior means of the images, resized to the model's own resolution first."""
        return self.vae.encode(images)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """The images of scaled latents, if a tiny VAE was loaded (`Options.decodes`); no gradient."""
        return self.vae.decode(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t under the text, of a picture in the model's own size that was never cropped."""
        side, dtype = self.vae.resolution, self.unet.dtype
        tokens, pooled = apart(condition.to(dtype), self.pooled_width)
        size = torch.tensor([side, side, 0, 0, side, side]).to(z_t.device, dtype).expand(len(z_t), -1)
        output = self.unet(
            z_t.to(dtype), t, encoder_hidden_states=tokens, added_cond_kwargs={"text_embeds": pooled, "time_ids": size}
        ).sample.float()
        return epsilon_from_prediction(self.prediction_type, z_t, output, self.alphas_cumprod, t)


@dataclass(frozen=True)
class StableDiffusionXLText:
    """Prompts to embeddings: both encoders' last hidden states but one, side by side, and the second one's pooled embedding.

    An empty prompt is all zeros where the model was trained so.
    """

    first: TextEncoder
    second: TextEncoder
    empty_is_zero: bool

    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        first, second = (encoder.outputs(prompts, encoder.tokenizer.model_max_length) for encoder in (self.first, self.second))
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        embedded = beside(tokens, second.text_embeds)
        empty = [self.empty_is_zero and not prompt for prompt in prompts]
        return embedded.masked_fill(torch.tensor(empty, device=embedded.device)[:, None, None], 0)


def precise(vae: AutoencoderKL) -> AutoencoderKL:
    """XL's own VAE overflows half precision, and its configuration says so; bfloat16 has the range."""
    return vae.float() if vae.config.force_upcast and vae.dtype == torch.float16 else vae


def load_prior(
    source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> StableDiffusionXLPrior:
    """The denoiser from a folder, a file or a Hub id. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, DENOISER), PIPELINE, options)
    if checkpoint.path.is_file():
        raise ModelUnavailable(checkpoint.place, "is a single file of version XL: only folders of that version are loaded")
    with one_sentence(checkpoint):
        unet = read_diffusers(UNet2DConditionModel, checkpoint.path, "unet", dtype)
        vae = precise(read_autoencoder(checkpoint.path, dtype))
        if options.lora:
            merge_into_unet(unet, options)
        tiny = read_tiny(vae, checkpoint, dtype, options)
        autoencoder = economise(Autoencoder(vae, unet.config.sample_size, tiny), options).to(device)
        return StableDiffusionXLPrior(place_denoiser(unet, device, options), autoencoder, *noise_levels_of(checkpoint))


def load_text_encoder(
    source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> StableDiffusionXLText:
    """The text encoders beside that denoiser, for a run's few prompts; then let them go. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, TEXT), PIPELINE, options)
    with one_sentence(checkpoint):
        first = read_clip(checkpoint.path, dtype)
        second = read_clip(checkpoint.path, dtype, "_2", projecting=True)
        if options.lora:
            merge_into_text_encoder(first.model, options)
            merge_into_text_encoder(second.model, options, "text_encoder_2")
        for encoder in (first, second):
            encoder.model.eval().to(device)
    return StableDiffusionXLText(first, second, bool(checkpoint.index.get("force_zeros_for_empty_prompt", True)))
