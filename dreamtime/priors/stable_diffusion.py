"""Models in the layout of a `StableDiffusionPipeline`: versions 1 and 2, their fine-tunes, and the embedded model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreamtime.diffusion import PredictionType, epsilon_from_prediction
from dreamtime.priors.adapters import merge_into_text_encoder, merge_into_unet, teach_word
from dreamtime.priors.autoencoder import Autoencoder, economise, read_autoencoder, read_tiny
from dreamtime.priors.camera_embedding import NUMBERS, CameraEmbedding, poses_of
from dreamtime.priors.folders import CAMERA_EMBEDDING, Checkpoint, ModelUnavailable
from dreamtime.priors.hub import find
from dreamtime.priors.layouts import checked_layout
from dreamtime.priors.options import PLAIN, Options
from dreamtime.priors.text_encoders import TextEncoder, apart, beside, read_clip
from dreamtime.priors.weights import one_sentence, place_denoiser, read_diffusers
from dreamtime.types import Cameras

PIPELINE = "StableDiffusionPipeline"
DENOISER = ("unet", "vae", "scheduler")
TEXT = ("text_encoder", "tokenizer")
CLIP_TOKENS = 77  # of every text: shorter ones are filled up, longer ones cut


@dataclass(frozen=True)
class StableDiffusionPrior:
    """A latent diffusion model as a `DiffusionPrior`; its weights are frozen, and gradients pass through `encode` alone.

    Where its folder holds an embedding of cameras, a condition may have a pose as one more token (`text_encoders.beside`).
    """

    unet: UNet2DConditionModel
    vae: Autoencoder
    alphas_cumprod: Float[Tensor, " T"]
    prediction_type: PredictionType

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Scaled posterior means of the images, resized to the model's own resolution first."""
        return self.vae.encode(images)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """The images of scaled latents, if a tiny VAE was loaded (`Options.decodes`); no gradient."""
        return self.vae.decode(x)

    @property
    def knows_cameras(self) -> bool:
        """Whether an embedding of cameras takes the place of one of classes."""
        return isinstance(self.unet.class_embedding, CameraEmbedding)

    def tell(self, embedded: Float[Tensor, "B L D"], cameras: Cameras) -> Float[Tensor, "B M D"]:
        """Text embeddings as they read from the cameras, with the poses beside them, if they mean something to this model."""
        embedding = self.unet.class_embedding
        if not isinstance(embedding, CameraEmbedding):
            return embedded
        poses = poses_of(cameras).to(embedded)
        read = embedding.reread(embedded.to(embedding.dtype), poses.to(embedding.dtype))
        return beside(read.to(embedded), poses)

    def understood(self, condition: Float[Tensor, "B M D"]) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B P"] | None]:
        """What `tell` said: text embeddings, and the poses; zeros, which add nothing, where none were told."""
        if not self.knows_cameras:
            return condition, None
        if condition.shape[1] == CLIP_TOKENS:
            return condition, condition.new_zeros(len(condition), NUMBERS)
        return apart(condition, NUMBERS)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t under the text, from a network that outputs epsilon, v or the sample."""
        tokens, poses = self.understood(condition.to(self.unet.dtype))
        output = self.unet(z_t.to(self.unet.dtype), t, encoder_hidden_states=tokens, class_labels=poses).sample.float()
        return epsilon_from_prediction(self.prediction_type, z_t, output, self.alphas_cumprod, t)


@dataclass(frozen=True)
class StableDiffusionText:
    """Prompts to embeddings: CLIP's last hidden state."""

    encoder: TextEncoder

    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        return self.encoder.outputs(prompts, self.encoder.tokenizer.model_max_length)[0]


def noise_levels_of(checkpoint: Checkpoint) -> tuple[Float[Tensor, " T"], PredictionType]:
    """The noise levels abar, float64, and what the network predicts, by whatever scheduler the model came with.

    Raises `ModelUnavailable` for one that does not say its betas, as EDM's does not, or predicts something else.
    """
    told = DDIMScheduler.load_config(checkpoint.configuration, subfolder="scheduler", local_files_only=True)
    if told.get("beta_schedule") is None and told.get("trained_betas") is None:
        raise ModelUnavailable(checkpoint.place, f"has noise levels of another kind ({told.get('_class_name')} names no betas)")
    if (predicted := told.get("prediction_type", "epsilon")) not in get_args(PredictionType):
        expected = " or ".join(get_args(PredictionType))
        raise ModelUnavailable(checkpoint.place, f"predicts {predicted!r}, expected {expected}")
    scheduler = DDIMScheduler.from_pretrained(checkpoint.configuration, subfolder="scheduler", local_files_only=True)
    return scheduler.alphas_cumprod.double(), scheduler.config.prediction_type


def load_alphas_cumprod(source: str | Path) -> Float[Tensor, " T"]:
    """The noise levels abar alone, float64, from the scheduler's few lines of configuration. Raises `ModelUnavailable`."""
    checkpoint = find(source, ("scheduler",), weights=False)
    with one_sentence(checkpoint):
        return noise_levels_of(checkpoint)[0]


def single_file_parts(checkpoint: Checkpoint, dtype: torch.dtype, *parts: str) -> list[Any]:
    """Those parts out of one file that holds them all, renamed from the original code's layout by diffusers."""
    from diffusers import StableDiffusionPipeline

    others = {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"} - set(parts)
    pipeline = StableDiffusionPipeline.from_single_file(
        str(checkpoint.path),
        config=str(checkpoint.configuration),
        torch_dtype=dtype,
        local_files_only=True,
        **dict.fromkeys(others),
    )
    return [pipeline.components[part] for part in parts]


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> StableDiffusionPrior:
    """The denoiser from a folder, a file or a Hub id. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, DENOISER), PIPELINE, options)
    with one_sentence(checkpoint):
        if checkpoint.path.is_file():
            unet, vae = single_file_parts(checkpoint, dtype, "unet", "vae")
        else:
            unet = read_diffusers(UNet2DConditionModel, checkpoint.path, "unet", dtype)
            vae = read_autoencoder(checkpoint.path, dtype)
        if (takes := unet.config.in_channels) != (has := vae.config.latent_channels):
            raise ModelUnavailable(
                checkpoint.place, f"is made for another task: its denoiser takes {takes} channels, where a latent has {has}"
            )
        if options.lora:
            merge_into_unet(unet, options)
        if checkpoint.has(CAMERA_EMBEDDING):
            unet.class_embedding = read_diffusers(CameraEmbedding, checkpoint.path, CAMERA_EMBEDDING, dtype)
        tiny = read_tiny(vae, checkpoint, dtype, options)
        autoencoder = economise(Autoencoder(vae, unet.config.sample_size, tiny), options).to(device)
        return StableDiffusionPrior(place_denoiser(unet, device, options), autoencoder, *noise_levels_of(checkpoint))


def load_text_encoder(
    source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> StableDiffusionText:
    """The text encoder beside that denoiser, for a run's few prompts; then let it go. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, TEXT), PIPELINE, options)
    with one_sentence(checkpoint):
        if checkpoint.path.is_file():
            encoder = TextEncoder(*single_file_parts(checkpoint, dtype, "tokenizer", "text_encoder"))
        else:
            encoder = read_clip(checkpoint.path, dtype)
        if options.lora:
            merge_into_text_encoder(encoder.model, options)
        if options.embedding:
            encoder = teach_word(encoder, options.embedding)
        encoder.model.eval().to(device)
    return StableDiffusionText(encoder)
