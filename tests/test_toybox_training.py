"""What the trainings share: chance from a seed, rate, average and timesteps in closed form, a log that resumes."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, nn

from dreamtime.toybox import models, train_zero123, training


def test_training_starts_from_the_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with training.seeded_initialisation(3):
        first = nn.Linear(4, 4).weight
    with training.seeded_initialisation(3):
        again = nn.Linear(4, 4).weight
    with training.seeded_initialisation(4):
        other = nn.Linear(4, 4).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_of_no_steps_nothing_is_resumed(tmp_path: Path):
    """What lies in the work folder is of another plan."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())

    def plan(steps: int) -> torch.Tensor:
        draw = Generator().manual_seed(0)
        modules = {"layer": layer}
        training.loop("x", steps, tmp_path, modules, optimizer, 0.1, draw, lambda: layer(torch.ones(2)).sum(), lambda: None)
        return layer.weight.detach().clone()

    learnt = plan(3)
    nn.init.zeros_(layer.weight)
    assert not plan(0).any()
    assert torch.equal(plan(3), learnt)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (50, 0.25), (200, 1.0), (700, 1.0), (850, 0.5), (1000, 0.0)])
def test_the_learning_rate_rises_rests_and_falls(step: int, factor: float):
    assert math.isclose(training.warm_stable_decay(step, 1000), factor)


def test_the_average_follows_by_a_thousandth_a_step():
    """After n steps towards a constant 1, 1 - 0.999^n of the way."""
    average, live = nn.Linear(2, 2), nn.Linear(2, 2)
    for module, value in ((average, 0.0), (live, 1.0)):
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
    for _ in range(10):
        training.follow(average, live)
    assert all(torch.allclose(parameter, torch.tensor(1 - 0.999**10)) for parameter in average.parameters())
    assert all((parameter == 1).all() for parameter in live.parameters())


@pytest.mark.parametrize(("batch", "timesteps"), [(4, 1000), (32, 1000), (1, 10), (10, 10)])
def test_every_part_of_the_range_gets_one_timestep(batch: int, timesteps: int, generator: Callable[[int], Generator]):
    draw = generator(0)
    for _ in range(50):
        t = training.stratified_timesteps(batch, timesteps, draw)
        assert all(part * timesteps / batch - 1 < each < (part + 1) * timesteps / batch for part, each in enumerate(t.tolist()))


def test_a_cpu_keeps_what_it_made_and_a_gpu_makes_it_anew(tmp_path: Path):
    path, made = tmp_path / "x.safetensors", list[int]()

    def make() -> dict[str, torch.Tensor]:
        made.append(len(made))
        return {"x": torch.tensor(float(len(made)))}

    assert [training.kept(path, {"of": "a"}, make, torch.device("cuda"))["x"].item() for _ in range(2)] == [1, 2]
    assert not path.exists()
    assert [training.kept(path, {"of": "a"}, make, torch.device("cpu"))["x"].item() for _ in range(2)] == [3, 3]
    for device in map(torch.device, training.DEVICES):
        with pytest.raises(ValueError, match="choose another folder"):
            training.kept(path, {"of": "b"}, make, device)
    assert len(made) == 3


def test_latents_of_another_vae_are_refused(tmp_path: Path):
    images, cpu, path = torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.device("cpu"), tmp_path / "latents.safetensors"
    vaes = []
    for seed in (0, 1):
        with training.seeded_initialisation(seed):
            vaes.append(training.initial_vae(None).eval())
    made = training.kept_latents(vaes[0], images, path, cpu)
    assert torch.equal(training.kept_latents(vaes[0], images + 9, path, cpu), made), "kept, not made again"
    with pytest.raises(ValueError, match="choose another folder"):
        training.kept_latents(vaes[1], images, path, cpu)


def test_the_log_averages_and_forgets_what_will_be_repeated(tmp_path: Path):
    path = tmp_path / "log.csv"
    record = training.Log(path, 0)
    for step in range(1, 121):
        record.add(step, float(step), last=step == 120)
    assert path.read_text() == "step,loss\n50,25.50000\n100,75.50000\n120,110.50000\n"
    training.Log(path, 100)
    assert path.read_text() == "step,loss\n50,25.50000\n100,75.50000\n"
    training.Log(path, 0)
    assert path.read_text() == "step,loss\n"


def test_a_velocity_leads_to_the_picture_whatever_the_noise_was_added_to(generator: Callable[[int], Generator]):
    draw, scheduler = generator(0), models.build_scheduler()
    x, other, noise = torch.randn(3, 5, 4, 8, 8, generator=draw)
    t = torch.tensor([1, 400, 500, 800, 999])
    abar = scheduler.alphas_cumprod[t]
    alpha, sigma = (level.sqrt()[:, None, None, None] for level in (abar, 1 - abar))
    for shown in (x, other):
        z_t = scheduler.add_noise(shown, noise, t)
        v = training.v_from_x0(z_t, x, scheduler.alphas_cumprod, t)
        torch.testing.assert_close(alpha * z_t - sigma * v, x, atol=1e-4, rtol=1e-4)
    v = training.v_from_x0(scheduler.add_noise(x, noise, t), x, scheduler.alphas_cumprod, t)
    torch.testing.assert_close(v, scheduler.get_velocity(x, noise, t), atol=1e-3, rtol=1e-3)


def test_timesteps_stay_in_their_range_whatever_is_drawn(monkeypatch: pytest.MonkeyPatch):
    """31 + the float32 next to 1 rounds up to 32."""
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 1 - 2**-24))
    assert training.stratified_timesteps(32, 1000, Generator()).max() == 999


@pytest.mark.parametrize(
    ("capability", "dtype"), [("AVX512", torch.bfloat16), ("AVX2", torch.float32), ("DEFAULT", torch.float32)]
)
def test_a_cpu_that_is_slow_in_bfloat16_is_spared_it(capability: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with training.mixed_precision(torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype


def test_what_is_exchanged_is_told_and_hidden_by_noise(generator: Callable[[int], Generator]):
    t, told = torch.arange(1000).repeat(8), torch.arange(8000) % 2 == 0
    x, other = torch.zeros(8000, 1, 1, 1), torch.ones(8000, 1, 1, 1)
    exchanged = training.perhaps_another(x, other, t, 0.3 * told, generator(0))[:, 0, 0, 0].bool()
    possible = told & (t >= training.HIDING_FROM)
    assert not exchanged[~possible].any()
    assert exchanged[possible].float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_attention_step_by_step_is_the_same_attention(generator: Callable[[int], Generator]):
    encoder = train_zero123.build_image_encoder().eval()
    images = torch.rand(2, 3, 64, 64, generator=generator(0))
    fused = encoder(images).image_embeds
    assert encoder.config._attn_implementation == "sdpa"
    training.plain_attention(nn.ModuleDict({"image_encoder": encoder}))
    assert encoder.config._attn_implementation == "eager"
    torch.testing.assert_close(encoder(images).image_embeds, fused, atol=1e-5, rtol=1e-5)
