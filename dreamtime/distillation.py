"""The gradient a frozen denoiser gives an image: every objective has the form w(t) (eps_hat - control).

For score distillation sampling the control is the noise that was added (DreamFusion, Eq. 3); for variational score
distillation it is a second predictor's output. The timestep comes from outside: see `timesteps`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.diffusion import add_noise, alpha_sigma, classifier_free_guidance
from dreamtime.types import Cameras, Condition, DiffusionPrior, Objective, Rendering

Weighting = Callable[[Float[Tensor, " T"], int], float]
"""w(t) of an objective: abar and t to a factor on the gradient."""


def noise_variance(alphas_cumprod: Float[Tensor, " T"], t: int) -> float:
    """w(t) = sigma_t^2 = 1 - abar_t (DreamFusion)."""
    return 1 - float(alphas_cumprod[t])


def unweighted(alphas_cumprod: Float[Tensor, " T"], t: int) -> float:
    """w(t) = 1."""
    return 1.0


def fantasia3d(alphas_cumprod: Float[Tensor, " T"], t: int) -> float:
    """w(t) = sqrt(abar_t) (1 - abar_t) (Fantasia3D)."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return alpha * sigma**2


def distillation_gradient(
    noise_hat: Float[Tensor, "B C h w"], control: Float[Tensor, "B C h w"], weight: float
) -> Float[Tensor, "B C h w"]:
    """w(t) (eps_hat - control): SDS when the control is the noise, VSD when it is a second predictor (DreamFusion, Eq. 3)."""
    return weight * (noise_hat - control)


def inject_gradient(x: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """1/2 ||x - sg(x - gradient)||^2 / B: a loss whose gradient with respect to x is `gradient` / B exactly."""
    target = (x - gradient).detach()
    return 0.5 * torch.nn.functional.mse_loss(x, target, reduction="sum") / len(x)


def guided_noise(
    prior: DiffusionPrior,
    z_t: Float[Tensor, "B C h w"],
    t: int,
    negative: Float[Tensor, "B L D"],
    positive: Float[Tensor, "B L D"],
    guidance_scale: float,
) -> Float[Tensor, "B C h w"]:
    """eps_hat with classifier-free guidance, both branches in one pass."""
    both = prior.predict_noise(torch.cat([z_t, z_t]), t, torch.cat([negative, positive]))
    unconditional, conditional = both.chunk(2)
    return classifier_free_guidance(unconditional, conditional, guidance_scale)


def score_distillation(
    prior: DiffusionPrior, condition: Condition, guidance_scale: float, weighting: Weighting = noise_variance
) -> Objective:
    """SDS (DreamFusion, Eq. 3): noise the rendering's latent, ask the prior for the noise, and follow the difference."""

    def objective(rendering: Rendering, cameras: Cameras, t: int, generator: Generator) -> Float[Tensor, ""]:
        x = prior.encode(rendering.image)
        noise = torch.randn(x.shape, generator=generator).to(x)
        z_t = add_noise(x.detach(), noise, prior.alphas_cumprod, t)
        noise_hat = guided_noise(prior, z_t, t, *condition(cameras), guidance_scale)
        return inject_gradient(x, distillation_gradient(noise_hat, noise, weighting(prior.alphas_cumprod, t)))

    return objective
