"""The forward process and the three things a denoiser can predict (PAPER section 1's letters).

z_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps; alpha = sqrt(abar_t), sigma = sqrt(1 - abar_t); v = alpha eps - sigma x.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]


def alphas_cumprod_from_betas(name: str, T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Float[Tensor, " T"]:
    """abar of a named noise schedule, float64; `scaled_linear` with the defaults is Stable Diffusion's.

    `squaredcos_cap_v2` is the cosine of Nichol & Dhariwal 2021 (DeepFloyd IF) and ignores start and end.
    """
    if name == "scaled_linear":
        betas = torch.linspace(math.sqrt(start), math.sqrt(end), T, dtype=torch.float64) ** 2
    elif name == "linear":
        betas = torch.linspace(start, end, T, dtype=torch.float64)
    elif name == "squaredcos_cap_v2":
        abar = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    else:
        raise ValueError(f"Unknown betas {name!r}: choose linear, scaled_linear or squaredcos_cap_v2.")
    return torch.cumprod(1 - betas, dim=0)


def alpha_sigma(alphas_cumprod: Float[Tensor, " T"], t: int) -> tuple[float, float]:
    """The share of signal and of noise in z_t: (sqrt(abar_t), sqrt(1 - abar_t))."""
    abar = float(alphas_cumprod[t])
    return math.sqrt(abar), math.sqrt(1 - abar)


def add_noise(
    x: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """z_t = alpha x + sigma eps."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return alpha * x + sigma * noise


def x0_from_epsilon(
    z_t: Float[Tensor, "B C h w"], epsilon: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """x0 = (z_t - sigma eps) / alpha."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return (z_t - sigma * epsilon) / alpha


def epsilon_from_x0(
    z_t: Float[Tensor, "B C h w"], x0: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """eps = (z_t - alpha x0) / sigma."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return (z_t - alpha * x0) / sigma


def epsilon_from_v(
    z_t: Float[Tensor, "B C h w"], v: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """eps = alpha v + sigma z_t (Salimans & Ho 2022)."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return alpha * v + sigma * z_t


def v_from_epsilon(
    z_t: Float[Tensor, "B C h w"], epsilon: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int
) -> Float[Tensor, "B C h w"]:
    """v = (eps - sigma z_t) / alpha: the inverse of `epsilon_from_v`."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return (epsilon - sigma * z_t) / alpha


def epsilon_from_prediction(
    prediction_type: PredictionType,
    z_t: Float[Tensor, "B C h w"],
    output: Float[Tensor, "B C h w"],
    alphas_cumprod: Float[Tensor, " T"],
    t: int,
) -> Float[Tensor, "B C h w"]:
    """Whatever the network was trained to output, as the noise it implies."""
    if prediction_type == "v_prediction":
        return epsilon_from_v(z_t, output, alphas_cumprod, t)
    if prediction_type == "sample":
        return epsilon_from_x0(z_t, output, alphas_cumprod, t)
    return output


def classifier_free_guidance(
    unconditional: Float[Tensor, "B C h w"], conditional: Float[Tensor, "B C h w"], guidance_scale: float
) -> Float[Tensor, "B C h w"]:
    """eps_hat = eps_u + s (eps_c - eps_u); s = 1 is none (Ho & Salimans 2022, in diffusers' convention)."""
    return unconditional + guidance_scale * (conditional - unconditional)
