"""The forward process and the conversions against closed forms and against diffusers' own scheduler."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from dreamtime import diffusion

LEVELS = torch.tensor([1.0, 0.64, 0.0], dtype=torch.float64)


def test_signal_and_noise_shares() -> None:
    assert [diffusion.alpha_sigma(LEVELS, t) for t in range(3)] == [(1, 0), (0.8, 0.6), (0, 1)]


@pytest.mark.parametrize("t", [0, 1, 2])
def test_add_noise_mixes_by_those_shares(t: int) -> None:
    x, noise = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 3.0)
    expected = [2.0, 0.8 * 2 + 0.6 * 3, 3.0][t]
    torch.testing.assert_close(diffusion.add_noise(x, noise, LEVELS, t), torch.full_like(x, expected))


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_schedules_agree_with_diffusers(betas) -> None:
    theirs = DDPMScheduler(beta_schedule=betas, beta_start=0.00085, beta_end=0.012).alphas_cumprod
    ours = diffusion.alphas_cumprod_from_betas(betas)
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-4, atol=1e-7)


def test_unknown_betas_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown betas 'cosine'"):
        diffusion.alphas_cumprod_from_betas("cosine")


@pytest.mark.parametrize("t", [0, 333, 999])
def test_add_noise_agrees_with_diffusers(t: int, generator) -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    x, noise = torch.randn(2, 4, 8, 8, generator=generator(0)), torch.randn(2, 4, 8, 8, generator=generator(1))
    theirs = scheduler.add_noise(x, noise, torch.tensor([t, t]))
    torch.testing.assert_close(diffusion.add_noise(x, noise, scheduler.alphas_cumprod, t), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [1, 500, 980])
def test_conversions_agree_with_the_scheduler(prediction_type, t: int, generator) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction_type, clip_sample=False
    )
    scheduler.set_timesteps(1000)
    abar = scheduler.alphas_cumprod
    z_t, output = torch.randn(1, 4, 8, 8, generator=generator(2)), torch.randn(1, 4, 8, 8, generator=generator(3))
    epsilon = diffusion.epsilon_from_prediction(prediction_type, z_t, output, abar, t)
    theirs = scheduler.step(output, t, z_t).pred_original_sample
    torch.testing.assert_close(diffusion.x0_from_epsilon(z_t, epsilon, abar, t), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [1, 500, 980])
def test_conversions_are_inverse_pairs(t: int, generator) -> None:
    abar = diffusion.alphas_cumprod_from_betas("scaled_linear")
    x, noise = (torch.randn(2, 4, 4, 4, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    z_t = diffusion.add_noise(x, noise, abar, t)
    torch.testing.assert_close(diffusion.x0_from_epsilon(z_t, noise, abar, t), x)
    torch.testing.assert_close(diffusion.epsilon_from_x0(z_t, x, abar, t), noise)
    v = diffusion.v_from_epsilon(z_t, noise, abar, t)
    torch.testing.assert_close(diffusion.epsilon_from_v(z_t, v, abar, t), noise)
    alpha, sigma = abar[t].sqrt(), (1 - abar[t]).sqrt()
    torch.testing.assert_close(v, alpha * noise - sigma * x)


def test_guidance_scales_zero_one_two(generator) -> None:
    unconditional, conditional = (torch.randn(1, 4, 2, 2, generator=generator(s)) for s in (0, 1))
    guided = [diffusion.classifier_free_guidance(unconditional, conditional, scale) for scale in (0.0, 1.0, 2.0)]
    for result, expected in zip(guided, [unconditional, conditional, 2 * conditional - unconditional], strict=True):
        torch.testing.assert_close(result, expected)
