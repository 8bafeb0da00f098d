"""First steps, ratios and intervals on curves whose answers are known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from dreamtime.evaluation.convergence import Curves, bootstrap, first_step_at, mean_interval, speedup, steps_ratio


def first(steps: list[int], scores: list[float], target: float) -> float:
    return first_step_at(torch.tensor(steps), torch.tensor([scores]), torch.tensor([target])).item()


@pytest.mark.parametrize(
    ("target", "step"),
    [(0.0, 10), (0.2, 10), (0.3, 15), (0.4, 20), (0.7, 35), (0.8, 40), (0.81, math.inf)],
)
def test_the_first_step_lies_between_known_ones_linearly(target: float, step: float):
    assert first([10, 20, 40], [0.2, 0.4, 0.8], target) == pytest.approx(step)


def test_a_score_that_falls_again_has_been_reached():
    assert first([10, 20, 30, 40], [0.1, 0.5, 0.2, 0.6], 0.5) == 20


def test_many_curves_are_read_at_once():
    scores = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.0, 0.2]])
    found = first_step_at(torch.tensor([0, 100]), scores, torch.tensor([0.25, 0.5, 0.5]))
    assert found.tolist() == [25, 0, math.inf]


def saturating(rate: float, steps: Tensor, levels: Tensor) -> Curves:
    """level (1 - exp(-rate step)) for each prompt's level."""
    return Curves(steps, levels[:, None] * (1 - torch.exp(-rate * steps))[None])


def test_a_schedule_four_times_as_slow_needs_four_times_the_steps(generator: Callable[[int], Generator]):
    """Both curves have the same shape, stretched: whatever the prompts, the ratio is four."""
    levels = 0.2 + 0.8 * torch.rand(30, generator=generator(0), dtype=torch.double)
    fast = saturating(0.02, torch.arange(5, 101, 5), levels)
    slow = saturating(0.005, torch.arange(5, 801, 5), levels)
    interval = steps_ratio(fast, [slow], generator(1), 200)
    assert interval.value == pytest.approx(4, rel=1e-3)
    assert interval.low == pytest.approx(4, rel=1e-3)
    assert interval.high == pytest.approx(4, rel=1e-3)


def test_the_interval_holds_the_ratio_in_spite_of_noise(generator: Callable[[int], Generator]):
    draw = generator(3)
    levels = torch.full((40,), 0.8, dtype=torch.double)
    fast = saturating(0.02, torch.arange(5, 101, 5), levels)
    slow = saturating(0.01, torch.arange(5, 401, 5), levels)
    noisy = [
        Curves(curves.steps, curves.scores + 0.1 * torch.randn(40, 1, generator=draw, dtype=torch.double))
        for curves in (fast, slow)
    ]
    interval = steps_ratio(noisy[0], [noisy[1]], generator(4), 500)
    assert interval.low < 2 < interval.high
    assert interval.high - interval.low < 2


def test_what_is_never_reached_takes_infinitely_long(generator: Callable[[int], Generator]):
    good = Curves(torch.tensor([50, 100]), torch.full((6, 2), 0.9))
    poor = Curves(torch.tensor([100, 400]), torch.full((6, 2), 0.5))
    interval = steps_ratio(good, [poor], generator(0), 50)
    assert (interval.value, interval.low, interval.high) == (math.inf,) * 3
    either = steps_ratio(good, [poor, Curves(torch.tensor([100, 200]), torch.tensor([[0.4, 0.9]] * 6))], generator(0), 50)
    assert either.value == pytest.approx(2)


def test_both_are_asked_when_they_come_to_what_both_end_with(generator: Callable[[int], Generator]):
    """The reference rises thrice as fast and further: whatever the prompts, at the other one's end it is thrice as early."""
    levels = 0.2 + 0.8 * torch.rand(30, generator=generator(0), dtype=torch.double)
    fast, slow = saturating(0.03, torch.arange(1, 101), levels), saturating(0.01, torch.arange(1, 151), levels)
    for target in (None, 0.3):
        interval = speedup([fast], [slow], generator(1), target, 200)
        assert (interval.value, interval.low, interval.high) == pytest.approx((3,) * 3, rel=0.03)
    assert speedup([slow], [fast], generator(1), None, 200).value == pytest.approx(1 / 3, rel=0.03)


def test_what_only_one_of_them_reaches_is_nothing_or_infinitely_many_times_as_far(generator: Callable[[int], Generator]):
    good, poor = (Curves(torch.tensor([50, 100]), torch.full((6, 2), level)) for level in (0.9, 0.5))
    found = [speedup(*pair, generator(0), 0.8, 50).value for pair in (([good], [poor]), ([poor], [good]), ([poor], [poor]))]
    assert found == [math.inf, 0, math.inf]


def test_prompts_that_decide_it_widen_the_interval_to_never(generator: Callable[[int], Generator]):
    """One prompt of four carries the other schedule over the target: without it, it is never reached."""
    good = Curves(torch.tensor([100]), torch.full((4, 1), 0.5))
    other = Curves(torch.tensor([100, 200]), torch.tensor([[0.4, 0.4]] * 3 + [[0.4, 1.0]]))
    interval = steps_ratio(good, [other], generator(0), 400)
    assert 1 < interval.value < 2
    assert interval.high == math.inf


def test_the_bootstrap_of_a_mean_agrees_with_theory(generator: Callable[[int], Generator]):
    """The mean of n draws of deviation s has the 95 % interval 1.96 s / sqrt(n) either way."""
    values = torch.randn(400, generator=generator(0), dtype=torch.double)
    interval = mean_interval(values, generator(1), 4000)
    half = 1.96 * values.std().item() / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean().item())
    assert interval.high - interval.value == pytest.approx(half, rel=0.1)
    assert interval.value - interval.low == pytest.approx(half, rel=0.1)


def test_a_bootstrap_of_a_constant_is_that_constant(generator: Callable[[int], Generator]):
    interval = bootstrap(lambda prompts: torch.full((len(prompts),), 3.0), 5, generator(0), 10)
    assert (interval.value, interval.low, interval.high) == (3, 3, 3)
