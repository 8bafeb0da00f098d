"""Models in the layout of a `StableDiffusion3Pipeline`: rectified flows, asked as if they were diffusion models.

A flow walks x_s = (1 - s) x + s eps and predicts v = eps - x. Divided by its deviation, x_s is the z_t of a diffusion:

    alpha = (1 - s) / r,  sigma = s / r,  r = sqrt((1 - s)^2 + s^2),  z_t = x_s / r,  alpha + sigma = 1 / r

so a table of s over t is a table of abar = alpha^2, and whatever takes abar works: W_d = sigma / alpha = s / (1 - s), and
eps_hat - eps = (1 - s)(v_hat - (eps - x)), the residual of rectified flow distillation (RFDS) times (1 - s).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from jaxtyping import Float
from torch import Tensor

from dreamtime.diffusion import alpha_sigma, alphas_cumprod_from_flow
from dreamtime.priors.autoencoder import Autoencoder, economise, read_autoencoder, read_tiny
from dreamtime.priors.folders import Checkpoint
from dreamtime.priors.hub import find
from dreamtime.priors.layouts import checked_layout
from dreamtime.priors.options import PLAIN, Options
from dreamtime.priors.text_encoders import TextEncoder, apart, beside, load_t5, read_clip
from dreamtime.priors.weights import one_sentence, place_denoiser, read_diffusers

PIPELINE = "StableDiffusion3Pipeline"
DENOISER = ("transformer", "vae", "scheduler")
TEXT = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")

T5_TOKENS = 256


def epsilon_from_flow(
    z_t: Float[Tensor, "B C h w"], v: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """eps = (z_t + alpha v) / (alpha + sigma), of the flow's velocity v = eps - x."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return (z_t + alpha * v) / (alpha + sigma)


@dataclass(frozen=True)
class RectifiedFlowPrior:
    """A rectified flow in latents as a `DiffusionPrior`; its weights are frozen, and gradients pass through `encode` alone.

    The condition's last token is the pooled embedding (`text_encoders.beside`).
    """

    transformer: SD3Transformer2DModel
    vae: Autoencoder
    alphas_cumprod: Float[Tensor, " T"]

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Shifted and scaled posterior means of the images, resized to the model's own resolution first."""
        return self.vae.encode(images)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """The images of scaled latents, if a tiny VAE was loaded (`Options.decodes`); no gradient."""
        return self.vae.decode(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t under the text, from the velocity at x_s = z_t / (alpha + sigma)."""
        alpha, sigma = alpha_sigma(self.alphas_cumprod, t)
        dtype = self.transformer.dtype
        tokens, pooled = apart(condition.to(dtype), self.transformer.config.pooled_projection_dim)
        # The network knows the time as a thousand times s.
        time = torch.full((len(z_t),), 1000 * sigma / (alpha + sigma), device=z_t.device)
        v = self.transformer((z_t / (alpha + sigma)).to(dtype), tokens, pooled, time).sample.float()
        return epsilon_from_flow(z_t, v, self.alphas_cumprod, t)


@dataclass(frozen=True)
class RectifiedFlowText:
    """Prompts to embeddings: both CLIP encoders side by side, then T5's; both pooled embeddings as the last token.

    T5 may have been left out to save memory: its tokens are then zeros, as in training they sometimes were.
    """

    first: TextEncoder
    second: TextEncoder
    third: TextEncoder | None
    width: int  # of a token, T5's

    def __call__(self, prompts: list[str]) -> Float[Tensor, "P L D"]:
        length = self.first.tokenizer.model_max_length
        clips = [encoder.outputs(prompts, length) for encoder in (self.first, self.second)]
        tokens = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        tokens = torch.nn.functional.pad(tokens, (0, self.width - tokens.shape[-1]))
        pooled = torch.cat([clip.text_embeds for clip in clips], dim=-1)
        if self.third is None:
            more = tokens.new_zeros(len(prompts), T5_TOKENS, self.width)
        else:
            more = self.third.outputs(prompts, T5_TOKENS)[0].to(tokens)
        return beside(torch.cat([tokens, more], dim=1), pooled)


def flow_times(checkpoint: Checkpoint) -> Float[Tensor, " T"]:
    """The scheduler's s over t, rising, float64."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        checkpoint.configuration, subfolder="scheduler", local_files_only=True
    )
    return scheduler.sigmas.double().flip(0)


def load_alphas_cumprod(source: str | Path) -> Float[Tensor, " T"]:
    """The noise levels abar alone, float64, from the scheduler's few lines of configuration. Raises `ModelUnavailable`."""
    checkpoint = find(source, ("scheduler",), weights=False)
    with one_sentence(checkpoint):
        return alphas_cumprod_from_flow(flow_times(checkpoint))


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> RectifiedFlowPrior:
    """The denoiser from a folder or a Hub id. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, DENOISER), PIPELINE, options)
    with one_sentence(checkpoint):
        transformer = read_diffusers(SD3Transformer2DModel, checkpoint.path, "transformer", dtype)
        vae = read_autoencoder(checkpoint.path, dtype)
        tiny = read_tiny(vae, checkpoint, dtype, options)
        autoencoder = economise(Autoencoder(vae, transformer.config.sample_size, tiny), options).to(device)
        alphas_cumprod = alphas_cumprod_from_flow(flow_times(checkpoint))
        return RectifiedFlowPrior(place_denoiser(transformer, device, options), autoencoder, alphas_cumprod)


def load_text_encoder(
    source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> RectifiedFlowText:
    """The text encoders beside that denoiser, for a run's few prompts; then let them go. Raises `ModelUnavailable`."""
    checkpoint = checked_layout(find(source, TEXT), PIPELINE, options)
    with one_sentence(checkpoint):
        clips = [read_clip(checkpoint.path, dtype, number, projecting=True) for number in ("", "_2")]
        for encoder in clips:
            encoder.model.eval().to(device)
        t5 = load_t5(checkpoint.path, device, dtype, options, "_3") if checkpoint.has("text_encoder_3") else None
        described = find(source, ("transformer",), weights=False).configuration
        width = SD3Transformer2DModel.load_config(described, subfolder="transformer")["joint_attention_dim"]
    return RectifiedFlowText(clips[0], clips[1], t5, width)
