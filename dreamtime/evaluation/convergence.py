"""How many steps a schedule needs to a given quality, how many times as many another one needs, and how sure that is.

Chance enters by the prompts: intervals come from drawing the prompts anew with replacement (the bootstrap), a prompt's seeds
staying together. A row of an index R Q is one such drawing of Q prompts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the truth with `CONFIDENCE`.

    Infinite upwards where a quality was never reached; from -inf to inf where there is nothing to tell it from.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curves:
    """Quality over the steps of a schedule's runs, one row per prompt: the mean over its seeds."""

    steps: Int[Tensor, " K"]  # rising
    scores: Float[Tensor, "P K"]

    def means(self, prompts: Int[Tensor, "R Q"]) -> Float[Tensor, "R K"]:
        """The quality on average over each row of prompts."""
        return self.scores[prompts].mean(dim=1)


def first_step_at(steps: Int[Tensor, " K"], scores: Float[Tensor, "R K"], target: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """The first step at which the score is at least the target, between known steps linearly; infinite where it never is."""
    reached = scores >= target[:, None]
    after = reached.byte().argmax(dim=1)
    before = (after - 1).clamp(min=0)
    low, high = (scores.gather(1, k[:, None])[:, 0] for k in (before, after))
    share = torch.where(high > low, (target - low) / (high - low), 1.0).clamp(0, 1)
    step = torch.lerp(steps[before].double(), steps[after].double(), share.double())
    return torch.where(reached.any(dim=1), step, torch.inf)


def bootstrap(
    statistic: Callable[[Int[Tensor, "R Q"]], Float[Tensor, " R"]],
    prompts: int,
    generator: Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """The statistic of all prompts, with its percentile interval over prompts drawn with replacement.

    One prompt says nothing about others: its interval is infinite both ways.
    """
    value = statistic(torch.arange(prompts)[None]).item()
    if prompts == 1:
        return Interval(value, -math.inf, math.inf)
    drawn = statistic(torch.randint(prompts, (resamples, prompts), generator=generator)).double().sort().values
    tail = (1 - CONFIDENCE) / 2
    # The nearest of the drawn values: between a finite and an infinite one there is nothing to interpolate.
    low, high = (drawn[min(resamples - 1, math.floor(share * resamples))].item() for share in (tail, 1 - tail))
    return Interval(value, low, high)


def steps_ratio(reference: Curves, others: Sequence[Curves], generator: Generator, resamples: int = RESAMPLES) -> Interval:
    """How many times as many steps another schedule needs to reach what the reference reaches at its last one.

    The other schedule may take any of its runs, of whatever length: the one that gets there first counts. Scores are compared
    as means over the prompts, as R-Precision is one.
    """

    def ratio(prompts: Int[Tensor, "R Q"]) -> Float[Tensor, " R"]:
        return steps_to(others, prompts, reference.means(prompts)[:, -1]) / reference.steps[-1]

    return bootstrap(ratio, len(reference.scores), generator, resamples)


def steps_to(runs: Sequence[Curves], prompts: Int[Tensor, "R Q"], target: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """The steps that a schedule needs to a quality: in whichever of its runs, of whatever length, gets there first."""
    return torch.stack([first_step_at(run.steps, run.means(prompts), target) for run in runs]).amin(dim=0)


def common_end(reference: Sequence[Curves], others: Sequence[Curves], prompts: Int[Tensor, "R Q"]) -> Float[Tensor, " R"]:
    """The most that both of two schedules end with, in whichever of their runs ends best."""
    ends = [torch.stack([run.means(prompts)[:, -1] for run in runs]).amax(dim=0) for runs in (reference, others)]
    return torch.minimum(*ends)


def speedup(
    reference: Sequence[Curves],
    others: Sequence[Curves],
    generator: Generator,
    target: float | None = None,
    resamples: int = RESAMPLES,
) -> Interval:
    """How many times as many steps another schedule needs as the reference to the same quality, on average over the prompts.

    Without a target it is the most that both end with, for each drawing of the prompts its own. Where only the other one
    reaches a target the ratio is 0; where only the reference or neither does, infinite.
    """

    def ratio(prompts: Int[Tensor, "R Q"]) -> Float[Tensor, " R"]:
        end = common_end(reference, others, prompts)
        quality = end if target is None else torch.full_like(end, target)
        return (steps_to(others, prompts, quality) / steps_to(reference, prompts, quality)).nan_to_num(torch.inf, torch.inf)

    return bootstrap(ratio, len(reference[0].scores), generator, resamples)


def mean_interval(values: Float[Tensor, " P"], generator: Generator, resamples: int = RESAMPLES) -> Interval:
    """The mean over the prompts."""
    return bootstrap(lambda prompts: values[prompts].mean(dim=1), len(values), generator, resamples)
