"""Priors and a scene whose answers are known in closed form, for the tests of everything built on them."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn


def stable_diffusion_alphas_cumprod(T: int = 1000) -> Float[Tensor, " T"]:
    """Stable Diffusion's abar, written out: the product of 1 - beta, sqrt(beta) linear from sqrt(0.00085) to sqrt(0.012)."""
    root = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), T, dtype=torch.float64)
    return torch.cumprod(1 - root * root, dim=0)


def pixels_to_latents(images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
    """The simplest encoder: channels first, [0, 1] to [-1, 1]."""
    return 2 * images.permute(0, 3, 1, 2) - 1


def latents_to_pixels(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W 3"]:
    """Its inverse, cut off at black and white."""
    return ((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class GaussianPrior:
    """The exact denoiser of x ~ N(mu, s^2 I), whose mean the condition's first number shifts.

    z_t = alpha x + sigma eps gives E[eps | z_t] = sigma (z_t - alpha mu) / (alpha^2 s^2 + sigma^2). For an image x the expected
    SDS difference E[eps_hat - eps] is therefore alpha sigma (x - mu) / (alpha^2 s^2 + sigma^2): it points away from the mean.
    """

    mean: Float[Tensor, "C h w"]
    deviation: float = 0.5
    alphas_cumprod: Float[Tensor, " T"] = field(default_factory=stable_diffusion_alphas_cumprod)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        return pixels_to_latents(images)

    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B h w 3"]:
        return latents_to_pixels(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        abar = self.alphas_cumprod[t].item()
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        mean = self.mean + condition[:, 0, 0, None, None, None]
        return sigma * (z_t - alpha * mean) / (abar * self.deviation**2 + 1 - abar)


@dataclass(frozen=True)
class FiniteSetPrior:
    """The exact denoiser of an x drawn uniformly from finitely many images; the condition says nothing.

    x0 = sum_k p_k x_k with p = softmax_k(-|z_t - alpha x_k|^2 / (2 sigma^2)), and eps = (z_t - alpha x0) / sigma.
    """

    images: Float[Tensor, "K C h w"]
    alphas_cumprod: Float[Tensor, " T"] = field(default_factory=stable_diffusion_alphas_cumprod)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        return pixels_to_latents(images)

    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B h w 3"]:
        return latents_to_pixels(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        abar = self.alphas_cumprod[t].item()
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        squares = (z_t[:, None] - alpha * self.images).square().sum(dim=(2, 3, 4))  # [B, K]
        share = torch.softmax(-squares / (2 * (1 - abar)), dim=1)
        x0 = torch.einsum("bk,kchw->bchw", share, self.images)
        return (z_t - alpha * x0) / sigma


class SolidSphere(nn.Module):
    """A ball at the origin with a soft rim: density level sigmoid((radius - |p|) / softness), albedo (1 + p) / 2.

    The level is the one parameter. A ray through the centre gathers, from rim to rim and beyond, the optical depth
    2 level softness log(1 + exp(radius / softness)), about 2 level radius, so its opacity is 1 - exp(-that).
    """

    def __init__(self, radius: float = 0.5, level: float = 20.0, softness: float = 0.02) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))
        self.radius, self.softness = radius, softness

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        return self.level * torch.sigmoid((self.radius - points.norm(dim=-1)) / self.softness)

    def density_and_albedo(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        return self.density(points), ((1 + points) / 2).clamp(0, 1)

    def central_optical_depth(self) -> float:
        return 2 * self.level.item() * self.softness * math.log1p(math.exp(self.radius / self.softness))
