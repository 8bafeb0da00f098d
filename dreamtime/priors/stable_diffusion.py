"""Models in the layout of a diffusers `StableDiffusionPipeline`, from a folder or a Hub id; the embedded one is one of them."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dreamtime.diffusion import PredictionType, epsilon_from_prediction

log = logging.getLogger(__name__)

Embed = Callable[[list[str]], Float[Tensor, "P L D"]]

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class ModelUnavailable(ValueError):
    """A model that could not be loaded, with the reason in one sentence."""


class StableDiffusionPrior:
    """A latent diffusion model as a `DiffusionPrior`; its weights are frozen, and gradients pass through `encode` alone."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        alphas_cumprod: Float[Tensor, " T"],
        prediction_type: PredictionType,
    ) -> None:
        self.unet = unet.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.alphas_cumprod = alphas_cumprod
        self.prediction_type = prediction_type
        # The decoder is never used: only the half that encodes stays in memory.
        self.vae.decoder = torch.nn.Identity()

    @property
    def resolution(self) -> int:
        """Side of the images the model was trained on, in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Scaled posterior means of the images, resized to the model's own resolution first."""
        x = images.permute(0, 3, 1, 2)  # [B, 3, H, W]
        if x.shape[-2:] != (self.resolution, self.resolution):
            x = torch.nn.functional.interpolate(x, (self.resolution, self.resolution), mode="bilinear", antialias=True)
        posterior = self.vae.encode((2 * x - 1).to(self.vae.dtype)).latent_dist
        return posterior.mean.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t under the text, from a network that outputs epsilon, v or the sample."""
        dtype = self.unet.dtype
        output = self.unet(z_t.to(dtype), t, encoder_hidden_states=condition.to(dtype)).sample.float()
        return epsilon_from_prediction(self.prediction_type, z_t, output, self.alphas_cumprod, t)


@dataclass(frozen=True)
class TextEncoder:
    """Prompts to embeddings, padded and cut to the tokenizer's length as the pipeline does."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        return self.model(tokens.input_ids.to(self.model.device))[0]


def checked_source(source: str | Path) -> str:
    """The source if it is a Hub id or a folder with a model in it; raises `ModelUnavailable` otherwise."""
    folder = Path(source)
    if folder.exists() and (missing := [part for part in PARTS if not (folder / part).is_dir()]):
        raise ModelUnavailable(f"{str(source)!r} is no Stable Diffusion model: it lacks the folders {', '.join(missing)}.")
    if not folder.exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise ModelUnavailable(f"{str(source)!r} is neither a folder nor a Hub id like 'owner/model'.")
    return str(source)


@contextmanager
def one_sentence(source: str | Path) -> Iterator[None]:
    """Turn what loading libraries raise into `ModelUnavailable`; the details go to the log."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        log.info("loading %s failed", source, exc_info=True)
        raise ModelUnavailable(
            f"The model {str(source)!r} could not be loaded: expected a reachable Stable Diffusion model in safetensors"
            f" files, got {type(error).__name__}."
        ) from error


def load_alphas_cumprod(source: str | Path) -> Float[Tensor, " T"]:
    """The noise levels abar alone, float64, from the scheduler's few lines of configuration. Raises `ModelUnavailable`."""
    name = checked_source(source)
    with one_sentence(source):
        return DDIMScheduler.from_pretrained(name, subfolder="scheduler").alphas_cumprod.double()


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype) -> StableDiffusionPrior:
    """The denoiser from a folder or a Hub id; safetensors only. Raises `ModelUnavailable`."""
    name = checked_source(source)
    with one_sentence(source):
        unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet", torch_dtype=dtype, use_safetensors=True)
        vae = AutoencoderKL.from_pretrained(name, subfolder="vae", torch_dtype=dtype, use_safetensors=True)
        scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler")
    prediction_type = scheduler.config.prediction_type
    return StableDiffusionPrior(unet.to(device), vae.to(device), scheduler.alphas_cumprod.double(), prediction_type)


def load_text_encoder(source: str | Path, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The text encoder beside that denoiser, loaded for a run's few prompts and then let go. Raises `ModelUnavailable`."""
    name = checked_source(source)
    with one_sentence(source):
        model = CLIPTextModel.from_pretrained(name, subfolder="text_encoder", dtype=dtype, use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(name, subfolder="tokenizer")
    return TextEncoder(tokenizer, model.to(device).eval())
