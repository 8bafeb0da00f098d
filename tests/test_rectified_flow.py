"""A flow is a diffusion in other words: the identities, and that the schedules work with them."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_models import tiny_flow_pipeline

from dreamtime import diffusion, timesteps
from dreamtime.priors import loading
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.options import Options
from dreamtime.priors.rectified_flow import alphas_cumprod_from_flow, epsilon_from_flow

CPU, FLOAT = torch.device("cpu"), torch.float32
S = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas.double().flip(0)
ABAR = alphas_cumprod_from_flow(S)


@pytest.mark.parametrize("t", [20, 500, 950])
def test_a_flow_and_its_diffusion_say_the_same(t: int, generator) -> None:
    """x_s = (1 - s) x + s eps is z_t (alpha + sigma)^-1, and v = eps - x gives eps back."""
    x, noise = torch.randn(2, 1, 4, 3, 3, generator=generator(t), dtype=torch.float64)
    s = S[t].item()
    x_s = (1 - s) * x + s * noise
    alpha, sigma = diffusion.alpha_sigma(ABAR, t)
    z_t = diffusion.add_noise(x, noise, ABAR, t)
    torch.testing.assert_close(z_t / (alpha + sigma), x_s)
    torch.testing.assert_close(epsilon_from_flow(z_t, noise - x, ABAR, t), noise)
    assert alpha**2 + sigma**2 == pytest.approx(1)


@pytest.mark.parametrize("t", [20, 500, 950])
def test_the_residual_is_that_of_rectified_flow_distillation(t: int, generator) -> None:
    """eps_hat - eps = (1 - s)(v_hat - (eps - x)), whatever the network says."""
    x, noise, v = torch.randn(3, 1, 4, 3, 3, generator=generator(t), dtype=torch.float64)
    z_t = diffusion.add_noise(x, noise, ABAR, t)
    torch.testing.assert_close(epsilon_from_flow(z_t, v, ABAR, t) - noise, (1 - S[t]) * (v - (noise - x)))


def test_the_diffusion_weight_is_that_of_the_flow() -> None:
    """W_d = sqrt((1 - abar) / abar) = s / (1 - s)."""
    torch.testing.assert_close(((1 - ABAR) / ABAR).sqrt()[:-1], (S / (1 - S))[:-1])


def test_the_time_prioritized_schedule_is_that_of_the_flows_weight() -> None:
    """Eq. 5 by exhaustive search, with s / (1 - s) for W_d and the paper's W_p."""
    steps, times = 25, range(20, 981)
    weight = {t: S[t].item() / (1 - S[t].item()) * math.exp(-((t - 500) ** 2) / (2 * 125**2)) for t in times}
    total = sum(weight.values())
    tails, tail = {}, 0.0
    for t in reversed(times):
        tail += weight[t] / total
        tails[t] = tail
    table = timesteps.time_prioritized(ABAR, steps)
    expected = [min(times, key=lambda t: abs(tails[t] - i / steps)) for i in range(1, steps + 1)]
    assert table.low.tolist() == expected
    assert expected == sorted(expected, reverse=True)


def test_the_table_is_the_schedulers(tmp_path) -> None:
    tiny_flow_pipeline().save_pretrained(tmp_path)
    torch.testing.assert_close(loading.load_alphas_cumprod(tmp_path), ABAR, rtol=0, atol=0)


def test_what_is_made_for_unets_is_refused(tmp_path) -> None:
    tiny_flow_pipeline().save_pretrained(tmp_path)
    refused = {
        Options(lora="owner/lora"): "'owner/lora' is a LoRA, which .* cannot take",
        Options(embedding="owner/word"): "'owner/word' is a textual inversion, which .* cannot take",
        Options(attention="sliced"): "is a transformer, whose attention cannot be sliced: choose 'fused'",
    }
    for options, sentence in refused.items():
        for load in (loading.load_prior, loading.load_text_encoder):
            with pytest.raises(ModelUnavailable, match=sentence):
                load(tmp_path, CPU, FLOAT, options)


def test_the_weights_may_wait_in_main_memory(tmp_path, generator) -> None:
    tiny_flow_pipeline().save_pretrained(tmp_path)
    prior, spare = (loading.load_prior(tmp_path, CPU, FLOAT, Options(memory)) for memory in ("normal", "lowest"))
    z, condition = torch.randn(1, 4, 8, 8, generator=generator(1)), torch.randn(1, 9, 72, generator=generator(2))
    torch.testing.assert_close(spare.predict_noise(z, 500, condition), prior.predict_noise(z, 500, condition))
