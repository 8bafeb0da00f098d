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


def alphas_cumprod_from_flow(s: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """abar = (1 - s)^2 / ((1 - s)^2 + s^2): the diffusion whose z_t is the flow's x_s = (1 - s) x + s eps up to a factor."""
    return (1 - s) ** 2 / ((1 - s) ** 2 + s**2)


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


def rescaled_guidance(
    guided: Float[Tensor, "B C h w"], conditional: Float[Tensor, "B C h w"], rescale: float
) -> Float[Tensor, "B C h w"]:
    """eps_hat (phi std(eps_c) / std(eps_hat) + 1 - phi), the deviations image by image (Lin et al. 2024, section 3.4).

    Strong guidance inflates the prediction, which burns colours; phi = 1 gives it the spread of the unguided one.
    """
    deviation, wanted = (x.std(dim=(1, 2, 3), keepdim=True) for x in (guided, conditional))
    return guided * (rescale * wanted / deviation + 1 - rescale)


def perpendicular(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """The part of a at right angles to b, image by image: a - (a.b / b.b) b."""
    # Where b vanishes every a is at right angles to it: the tiny number only avoids 0 / 0.
    share = (a * b).sum(dim=(1, 2, 3), keepdim=True) / b.square().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return a - share * b


def perp_neg_guidance(
    unconditional: Float[Tensor, "B C h w"],
    conditional: Float[Tensor, "B C h w"],
    negatives: Float[Tensor, "B K C h w"],
    weights: Float[Tensor, "B K"],
    guidance_scale: float,
) -> Float[Tensor, "B C h w"]:
    """eps_hat = eps_u + s (e + sum_k w_k perp(e_k, e)), e = eps_c - eps_u, e_k = eps_k - eps_u (Perp-Neg, w_k <= 0).

    A negative text takes away only what it does not share with the positive one.
    """
    towards = conditional - unconditional
    total = towards
    for negative, weight in zip(negatives.unbind(1), weights.unbind(1), strict=True):
        total = total + weight[:, None, None, None] * perpendicular(negative - unconditional, towards)
    return unconditional + guidance_scale * total


def ddim_step(
    z_t: Float[Tensor, "B C h w"], epsilon: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: int, s: int
) -> Float[Tensor, "B C h w"]:
    """z_s = alpha_s x0 + sigma_s eps with the x0 that eps implies: denoises where s < t, inverts where s > t (DDIM, Eq. 12)."""
    return add_noise(x0_from_epsilon(z_t, epsilon, alphas_cumprod, t), epsilon, alphas_cumprod, s)
