"""The gradient a frozen denoiser gives an image: w(t) (eps_hat - control), one function per choice of the two.

The control is the noise that was added in score distillation sampling (DreamFusion, Eq. 3), a second predictor's answer in
variational score distillation, and the prior's own answer to another question in the rest. The timestep comes from outside:
see `timesteps`. Objectives that compare texts are in `classifier_score`, those that invert the diffusion in `inversion`.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.diffusion import (
    add_noise,
    alpha_sigma,
    classifier_free_guidance,
    perp_neg_guidance,
    rescaled_guidance,
    x0_from_epsilon,
)
from dreamtime.types import (
    Cameras,
    Condition,
    DecodingPrior,
    DiffusionPrior,
    NoisePredictor,
    Objective,
    Rendering,
    ViewBlend,
)

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


def noise_to_signal(alphas_cumprod: Float[Tensor, " T"], t: int) -> float:
    """w(t) = sigma_t / alpha_t, which makes a difference of noises one of images: x0 - x0' = w(t) (eps' - eps)."""
    alpha, sigma = alpha_sigma(alphas_cumprod, t)
    return sigma / alpha


def distillation_gradient(
    noise_hat: Float[Tensor, "B C h w"], control: Float[Tensor, "B C h w"], weight: float
) -> Float[Tensor, "B C h w"]:
    """w(t) (eps_hat - control): SDS when the control is the noise, VSD when it is a second predictor (DreamFusion, Eq. 3)."""
    return weight * (noise_hat - control)


def half_squares(x: Float[Tensor, "B C h w"], target: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """1/2 ||x - sg(target)||^2 / B: a loss whose gradient with respect to x is (x - target) / B."""
    return 0.5 * torch.nn.functional.mse_loss(x, target.detach(), reduction="sum") / len(x)


def inject_gradient(x: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """1/2 ||x - sg(x - gradient)||^2 / B: a loss whose gradient with respect to x is `gradient` / B exactly."""
    return half_squares(x, x - gradient)


# -- eps_hat: what the prior answers under its texts


def answers(
    prior: DiffusionPrior, z_t: Float[Tensor, "B C h w"], t: int, *conditions: Float[Tensor, "B L D"]
) -> tuple[Float[Tensor, "B C h w"], ...]:
    """The noise in z_t under each condition, all in one pass."""
    together = prior.predict_noise(torch.cat([z_t] * len(conditions)), t, torch.cat(conditions))
    return together.chunk(len(conditions))


def guided_noise(
    prior: DiffusionPrior,
    z_t: Float[Tensor, "B C h w"],
    t: int,
    negative: Float[Tensor, "B L D"],
    positive: Float[Tensor, "B L D"],
    guidance_scale: float,
) -> Float[Tensor, "B C h w"]:
    """eps_hat with classifier-free guidance, both branches in one pass; at a scale of 1 only the one that counts is asked."""
    if guidance_scale == 1:
        return prior.predict_noise(z_t, t, positive)
    unconditional, conditional = answers(prior, z_t, t, negative, positive)
    return classifier_free_guidance(unconditional, conditional, guidance_scale)


def classifier_free(prior: DiffusionPrior, condition: Condition, guidance_scale: float) -> NoisePredictor:
    """eps_hat = eps_u + s (eps_c - eps_u)."""
    return lambda z_t, t, cameras: guided_noise(prior, z_t, t, *condition(cameras), guidance_scale)


def rescaled(prior: DiffusionPrior, condition: Condition, guidance_scale: float, rescale: float = 0.7) -> NoisePredictor:
    """The same, its spread drawn back towards that of eps_c (Lin et al. 2024, with their phi)."""

    def predict(z_t: Float[Tensor, "B C h w"], t: int, cameras: Cameras) -> Float[Tensor, "B C h w"]:
        unconditional, conditional = answers(prior, z_t, t, *condition(cameras))
        return rescaled_guidance(classifier_free_guidance(unconditional, conditional, guidance_scale), conditional, rescale)

    return predict


def perp_neg(prior: DiffusionPrior, blend: Callable[[Cameras], ViewBlend], guidance_scale: float) -> NoisePredictor:
    """eps_hat that steers away from the views that a camera does not have (Perp-Neg, Armandpour et al. 2023)."""

    def predict(z_t: Float[Tensor, "B C h w"], t: int, cameras: Cameras) -> Float[Tensor, "B C h w"]:
        text = blend(cameras)
        unconditional, conditional, *negatives = answers(
            prior, z_t, t, text.unconditional, text.positive, *text.negatives.unbind(1)
        )
        weights = text.weights.to(z_t)
        return perp_neg_guidance(unconditional, conditional, torch.stack(negatives, dim=1), weights, guidance_scale)

    return predict


# -- objectives


def noised(
    prior: DiffusionPrior, rendering: Rendering, t: int, generator: Generator
) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
    """x, the noise and z_t of a rendering; gradients pass through x alone."""
    x = prior.encode(rendering.image)
    noise = torch.randn(x.shape, generator=generator).to(x)
    return x, noise, add_noise(x.detach(), noise, prior.alphas_cumprod, t)


def score_distillation(prior: DiffusionPrior, guided: NoisePredictor, weighting: Weighting = noise_variance) -> Objective:
    """SDS, w(t) (eps_hat - eps) (DreamFusion, Eq. 3): ask the prior for the noise that was added, and follow the difference."""

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        x, noise, z_t = noised(prior, rendering, t, generator)
        return inject_gradient(x, distillation_gradient(guided(z_t, t, cameras), noise, weighting(prior.alphas_cumprod, t)))

    return objective


def image_residual(image: Float[Tensor, "B H W 3"], meant: Float[Tensor, "B S S 3"]) -> Float[Tensor, ""]:
    """1/2 ||I - sg(meant)||^2 / B, summed over pixels and colours; I is resized to the prior's own size, as `encode` does."""
    x = image.permute(0, 3, 1, 2)
    if x.shape[-2:] != meant.shape[1:3]:
        x = torch.nn.functional.interpolate(x, meant.shape[1:3], mode="bilinear", antialias=True)
    return half_squares(x, meant.permute(0, 3, 1, 2))


def score_distillation_in_images(
    prior: DecodingPrior, guided: NoisePredictor, weighting: Weighting = noise_variance, scale: float = 1.0
) -> Objective:
    """scale w(t) (alpha / sigma) 1/2 ||I - D(x0_hat)||^2, D the prior's decoder: SDS between images.

    At scale 1 SDS is the same loss between latents, as eps_hat - eps = (alpha / sigma) (x - x0_hat). There, what is asked of
    the pixels has to come back through the encoder, which passes on little of what it sees; here nothing passes through it.
    HiFA (Zhu et al. 2024, section 3) adds such a term, its weight lambda_rgb, to that between latents; here it stands alone.
    """

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        with torch.no_grad():
            _, _, z_t = noised(prior, rendering, t, generator)
        x0_hat = x0_from_epsilon(z_t, guided(z_t, t, cameras), prior.alphas_cumprod, t)
        weight = scale * weighting(prior.alphas_cumprod, t) / noise_to_signal(prior.alphas_cumprod, t)
        return weight * image_residual(rendering.image, prior.decode(x0_hat))

    return objective


def score_jacobian_chaining(prior: DiffusionPrior, guided: NoisePredictor) -> Objective:
    """SJC, (x - D(x + s eps; s)) / s, s = sigma_t / alpha_t: perturb, denoise, average over the noise (Wang et al. 2023).

    The steps do the averaging. Since D = x + s (eps - eps_hat), this is SDS with w(t) = 1, come to from the other side.
    """

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        x, _, z_t = noised(prior, rendering, t, generator)
        denoised = x0_from_epsilon(z_t, guided(z_t, t, cameras), prior.alphas_cumprod, t)
        return inject_gradient(x, (x.detach() - denoised) / noise_to_signal(prior.alphas_cumprod, t))

    return objective


@runtime_checkable
class SecondPredictor(Protocol):
    """A denoiser that learns the renderings' own distribution while they change: VSD's second network."""

    def predict_noise(self, z_t: Float[Tensor, "B C h w"], t: int, cameras: Cameras) -> Float[Tensor, "B C h w"]:
        """The noise in z_t, a noised rendering from these cameras; no gradient."""
        ...

    def loss(self, x: Float[Tensor, "B C h w"], cameras: Cameras, generator: Generator) -> Float[Tensor, ""]:
        """How badly it denoises x at a random timestep; the gradient reaches its own parameters alone."""
        ...


def variational_score_distillation(
    prior: DiffusionPrior, guided: NoisePredictor, second: SecondPredictor, weighting: Weighting = noise_variance
) -> Objective:
    """VSD, w(t) (eps_hat - eps_phi(z_t; t, camera)), while phi minimises ||eps_phi - eps||^2 (ProlificDreamer).

    One sum of two terms: the first reaches the scene alone, the second phi alone, whose t is drawn from the whole range.
    """

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        x, _, z_t = noised(prior, rendering, t, generator)
        weight = weighting(prior.alphas_cumprod, t)
        gradient = distillation_gradient(guided(z_t, t, cameras), second.predict_noise(z_t, t, cameras), weight)
        return inject_gradient(x, gradient) + second.loss(x.detach(), cameras, generator)

    return objective


def asynchronous_score_distillation(
    prior: DiffusionPrior,
    condition: Condition,
    guided: NoisePredictor,
    weighting: Weighting = noise_variance,
    shift: float = 0.1,
    t_min: int = 20,
) -> Objective:
    """ASD, w(t) (eps_hat(z_t; t) - eps_c(z_t'; t')), the same noise at t' = t + U[0, shift (t - t_min)] (ScaleDreamer).

    A prior errs less where there is more noise: its answer at t' stands in for VSD's second predictor.
    """

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        x, noise, z_t = noised(prior, rendering, t, generator)
        reach = shift * max(t - t_min, 0) * torch.rand((), generator=generator).item()
        later = min(t + int(reach), len(prior.alphas_cumprod) - 1)
        z_later = add_noise(x.detach(), noise, prior.alphas_cumprod, later)
        control = prior.predict_noise(z_later, later, condition(cameras)[1])
        weight = weighting(prior.alphas_cumprod, t)
        return inject_gradient(x, distillation_gradient(guided(z_t, t, cameras), control, weight))

    return objective
