"""Schedules against exhaustive search, reference vectors, and the properties their definitions promise."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import stable_diffusion_alphas_cumprod
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamtime import timesteps
from dreamtime.diffusion import alphas_cumprod_from_betas

VECTORS = json.loads((Path(__file__).parent / "vectors" / "schedules.json").read_text())["vectors"]

ABAR = stable_diffusion_alphas_cumprod()

ALL = [
    timesteps.time_prioritized,
    timesteps.time_prioritized_v1,
    timesteps.uniform,
    timesteps.linear,
    timesteps.truncated_linear,
    timesteps.prior_weight_only,
    timesteps.diffusion_weight_only,
    timesteps.exponential,
    timesteps.linear_decay,
    timesteps.sigmoid,
    timesteps.hifa,
    timesteps.prolificdreamer,
    timesteps.fixed,
    partial(timesteps.custom, table=(980, 20)),
]


def schedule_of(vector: dict) -> timesteps.Timetable:
    betas = "scaled_linear" if vector["betas"] == "any" else vector["betas"]
    arguments = (alphas_cumprod_from_betas(betas), vector["N"], vector["t_min"], vector["t_max"])
    name = vector["name"]
    if name.startswith("time-prioritized v1"):
        return timesteps.time_prioritized_v1(*arguments)
    if name.startswith("time-prioritized"):
        m, s = (float(word.split("=")[1]) for word in name.split()[1:])
        return timesteps.time_prioritized(*arguments, m=m, s=s)
    return {
        "prior weight only (W_p)": timesteps.prior_weight_only,
        "diffusion weight only (W_d)": timesteps.diffusion_weight_only,
        "linear": timesteps.linear,
        "truncated linear": timesteps.truncated_linear,
    }[name](*arguments)


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['name']}-{v['betas']}-{v['N']}" for v in VECTORS])
def test_reference_vectors_exactly(vector: dict) -> None:
    assert [int(schedule_of(vector).low[i - 1]) for i in vector["i"]] == vector["t"]


def brute_force(weight: np.ndarray, steps: int, t_min: int, t_max: int) -> list[int]:
    """Eq. 5 as it is written: try every t' for every i."""
    inside = weight[t_min : t_max + 1] / weight[t_min : t_max + 1].sum()
    distances = [[abs(inside[k:].sum() - i / steps) for k in range(len(inside))] for i in range(1, steps + 1)]
    return [t_min + min(range(len(row)), key=lambda k: (round(row[k], 11), k)) for row in distances]


@settings(max_examples=40, deadline=None)
@given(
    weight=st.lists(st.floats(0.01, 100), min_size=4, max_size=40),
    steps=st.integers(1, 30),
    bounds=st.tuples(st.floats(0, 0.4), st.floats(0.6, 1)),
)
def test_eq5_is_the_exhaustive_argmin(weight: list[float], steps: int, bounds: tuple[float, float]) -> None:
    t_min, t_max = int(bounds[0] * (len(weight) - 1)), max(1, int(bounds[1] * (len(weight) - 1)))
    found = timesteps.timesteps_from_weight(torch.tensor(weight, dtype=torch.float64), steps, t_min, t_max).tolist()
    assert found == brute_force(np.array(weight), steps, t_min, t_max)


@settings(max_examples=40, deadline=None)
@given(
    weight=st.lists(st.just(0.0) | st.floats(0.01, 100), min_size=4, max_size=40).filter(lambda weight: weight[-1] > 0),
    steps=st.integers(1, 30),
)
def test_no_step_is_spent_where_the_weight_is_zero(weight: list[float], steps: int) -> None:
    found = timesteps.timesteps_from_weight(torch.tensor(weight, dtype=torch.float64), steps, 0, len(weight) - 1)
    assert all(weight[t] > 0 for t in found.tolist())


def test_time_in_a_band_is_its_weight() -> None:
    steps, weight = (
        10_000,
        (torch.sqrt((1 - ABAR) / ABAR) * torch.exp(-((torch.arange(1000) - 500.0) ** 2) / (2 * 125**2)))[20:981],
    )
    table = timesteps.time_prioritized(ABAR, steps).low
    share = weight / weight.sum()
    for low, high in [(400, 600), (20, 199), (700, 980)]:
        in_band = ((table >= low) & (table <= high)).sum().item() / steps
        assert in_band == pytest.approx(share[low - 20 : high - 19].sum().item(), abs=2 * share.max().item())


def test_numbers_of_the_default() -> None:
    table = timesteps.time_prioritized(ABAR, 10_000).low
    assert [int(table[int(share * 10_000) - 1]) for share in (0.05, 0.25, 0.5, 0.75, 0.95)] == [767, 642, 556, 470, 349]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 100, 997])
def test_every_schedule_stays_in_its_range_and_has_n_steps(schedule, steps: int) -> None:
    table = schedule(ABAR, steps)
    assert len(table) == steps
    assert table.low.min() >= 20
    assert table.high.max() <= 980
    assert (table.low <= table.high).all()


@pytest.mark.parametrize("schedule", [s for s in ALL if s not in (timesteps.uniform, timesteps.prolificdreamer)])
def test_deterministic_schedules_never_rise(schedule) -> None:
    table = schedule(ABAR, 512)
    assert not table.random
    assert (table.low.diff() <= 0).all()


@pytest.mark.parametrize("schedule", [timesteps.exponential, timesteps.linear_decay, timesteps.sigmoid])
def test_decays_hit_both_ends(schedule) -> None:
    table = schedule(ABAR, 300, 100, 900).low
    assert (int(table[0]), int(table[-1])) == (900, 100)


def test_decay_formulas_in_the_middle() -> None:
    i, steps = 150, 300
    u = np.arange(1, steps + 1) / steps
    for schedule, curve in [
        (timesteps.exponential, np.exp(-3 * u)),
        (timesteps.linear_decay, 1 - u),
        (timesteps.sigmoid, 1 / (1 + np.exp(-10 * (0.5 - u)))),
    ]:
        expected = 100 + 800 * (curve[i - 1] - curve[-1]) / (curve[0] - curve[-1])
        assert int(schedule(ABAR, steps, 100, 900).low[i - 1]) == round(float(expected))


def test_hifa_is_the_square_root() -> None:
    table = timesteps.hifa(ABAR, 400).low
    assert [int(table[i - 1]) for i in (1, 100, 400)] == [round(980 - 680 * (i / 400) ** 0.5) for i in (1, 100, 400)]
    assert int(table[-1]) == 300


def test_uniform_draws_its_whole_range(generator) -> None:
    table, chance = timesteps.uniform(ABAR, 20_000), generator(0)
    drawn = torch.tensor([table(i, chance) for i in range(1, 20_001)])
    assert (int(drawn.min()), int(drawn.max())) == (20, 980)
    assert drawn.double().mean().item() == pytest.approx(500, abs=8)


def test_prolificdreamer_lowers_the_ceiling_after_a_fifth() -> None:
    table = timesteps.prolificdreamer(ABAR, 1000)
    assert (table.high[:200] == 980).all()
    assert (table.high[200:] == 500).all()
    assert (table.low == 20).all()


def test_same_seed_same_timesteps(generator) -> None:
    table = timesteps.uniform(ABAR, 50)
    first, second = generator(3), generator(3)
    assert [table(i, first) for i in range(1, 51)] == [table(i, second) for i in range(1, 51)]


def test_custom_passes_through_its_knots() -> None:
    table = timesteps.custom(ABAR, 5, table=(900, 700, 100)).low
    assert table.tolist() == [900, 800, 700, 400, 100]
    assert timesteps.custom(ABAR, 3, table=(7,)).low.tolist() == [7, 7, 7]
    assert timesteps.custom(ABAR, 5, table=(100, 900)).low.tolist() == [100, 300, 500, 700, 900], "a rising one, too"


def test_literal_form_of_the_paper_without_restriction() -> None:
    weight = (torch.sqrt((1 - ABAR) / ABAR) * torch.exp(-((torch.arange(1000) - 500.0) ** 2) / (2 * 125**2))).numpy()
    assert timesteps.time_prioritized(ABAR, 20, 0, 999).low.tolist() == brute_force(weight, 20, 0, 999)


def test_zero_terminal_snr_is_tamed_by_the_range_and_refused_without_it() -> None:
    abar = ABAR.clone()
    abar[-1] = 0.0
    assert timesteps.time_prioritized(abar, 100).low.tolist() == timesteps.time_prioritized(ABAR, 100).low.tolist()
    with pytest.raises(ValueError, match="narrower range"):
        timesteps.time_prioritized(abar, 100, 0, 999)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: timesteps.time_prioritized(ABAR, 0), "between 1 and 1,000,000 steps, got 0"),
        (lambda: timesteps.uniform(ABAR, 10**9), "got 1,000,000,000"),
        (lambda: timesteps.time_prioritized(ABAR, 10, s=0.0), "positive number up to 1,000,000, got 0"),
        (lambda: timesteps.time_prioritized(ABAR, 10, s=float("nan")), "positive number up to 1,000,000, got nan"),
        (lambda: timesteps.time_prioritized(ABAR, 10, m=float("inf")), "within ±1,000,000, got inf"),
        (lambda: timesteps.time_prioritized(ABAR, 10, s=1e200), r"positive number up to 1,000,000, got 1e\+200"),
        (lambda: timesteps.linear(ABAR, 10, 980, 20), "t_min = 980, t_max = 20"),
        (lambda: timesteps.linear(ABAR, 10, 20, 1000), "t_max < 1000"),
        (lambda: timesteps.linear(ABAR, 10, -1, 500), "t_min = -1"),
        (lambda: timesteps.fixed(ABAR, 10, fixed_t=1000), "got 1000"),
        (lambda: timesteps.custom(ABAR, 10, table=(20, 980, 500)), "only fall or only rise"),
        (lambda: timesteps.custom(ABAR, 10, table=(1000, 20)), r"in 0\.\.999, got \[1000, 20\]"),
        (lambda: timesteps.custom(ABAR, 10, table=()), "needs a table"),
        (lambda: timesteps.custom(ABAR, 10), "needs a table: timesteps that fall or rise, such as 980,500,20; got none"),
        (lambda: timesteps.two_sided_weight(1000, m1=100.0, m2=200.0), "m2 <= m1"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_stages() -> None:
    assert [timesteps.stage_of(t) for t in (626, 625, 375, 374)] == ["coarse", "content", "content", "detail"]
