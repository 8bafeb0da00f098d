"""Which timestep t the prior is asked at in optimisation step i: DreamTime's Eq. 5 and 8, and every schedule it is compared to.

Letters: T length of `alphas_cumprod`, N optimisation steps, i in 1..N, t in 0..T-1, W a weight over t, W_d and W_p its two
factors. Each schedule is one function of `(alphas_cumprod, steps, t_min, t_max)` and its own constants, and returns a
`Timetable`. W decides which t is *visited*; it never multiplies a gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

MAX_STEPS = 1_000_000
LOWEST_SHARE = 0.02  # of T: where runs usually end
TRUNCATED_LINEAR_LOWEST_SHARE = 0.2
HIFA_LOWEST_SHARE = 0.3


@dataclass(frozen=True)
class Timetable:
    """A schedule as a value: step i draws t uniformly from low[i-1]..high[i-1], both included; one t where they agree."""

    low: Int[Tensor, " N"]
    high: Int[Tensor, " N"]

    def __call__(self, i: int, generator: Generator) -> int:
        low, high = int(self.low[i - 1]), int(self.high[i - 1])
        return low if low == high else int(torch.randint(low, high + 1, (), generator=generator))

    def __len__(self) -> int:
        return len(self.low)

    @property
    def random(self) -> bool:
        return bool((self.low != self.high).any())


def fixed_table(t: Int[Tensor, " N"]) -> Timetable:
    """The timetable that leaves nothing to chance."""
    return Timetable(t, t)


def lowest_timestep(T: int, t_min: int | None, default_low: float = LOWEST_SHARE) -> int:
    """Where the range of t begins; None stands for `default_low` T."""
    return round(default_low * T) if t_min is None else t_min


def timestep_range(
    alphas_cumprod: Float[Tensor, " T"], t_min: int | None, t_max: int | None, default_low: float = LOWEST_SHARE
) -> tuple[int, int]:
    """Checked bounds of t; None stands for `default_low` T and 0.98 T."""
    T = len(alphas_cumprod)
    low = lowest_timestep(T, t_min, default_low)
    high = round(0.98 * T) if t_max is None else t_max
    if not 0 <= low < high < T:
        raise ValueError(f"The timestep range needs 0 <= t_min < t_max < {T}, got t_min = {low}, t_max = {high}.")
    return low, high


def checked_steps(steps: int) -> int:
    """The number of steps if it is one a run can have."""
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"A run has between 1 and {MAX_STEPS:,} steps, got {steps:,}.")
    return steps


WIDEST = 1e6  # timesteps: beyond it the prior weight is flat, or zero everywhere

# -- weights over t: which timesteps deserve how much of a run


def diffusion_weight(alphas_cumprod: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """W_d(t) = sqrt((1 - abar_t) / abar_t), the noise-to-signal ratio (DreamTime, Eq. 8); float64."""
    abar = alphas_cumprod.double()
    return ((1 - abar) / abar).sqrt()


def prior_weight(T: int, m: float = 500.0, s: float = 125.0) -> Float[Tensor, " T"]:
    """W_p(t) = exp(-(t - m)^2 / (2 s^2)), where the prior is most informative (DreamTime, Eq. 8); float64."""
    if not 0 < s <= WIDEST:
        raise ValueError(f"The width s of the prior weight must be a positive number up to {WIDEST:,.0f}, got {s:g}.")
    if not abs(m) <= WIDEST:
        raise ValueError(f"The centre m of the prior weight must be a number within ±{WIDEST:,.0f}, got {m:g}.")
    t = torch.arange(T, dtype=torch.float64)
    return torch.exp(-((t - m) ** 2) / (2 * s**2))


def time_prioritized_weight(alphas_cumprod: Float[Tensor, " T"], m: float = 500.0, s: float = 125.0) -> Float[Tensor, " T"]:
    """W(t) = W_d(t) W_p(t), not normalised (DreamTime, Eq. 8)."""
    return diffusion_weight(alphas_cumprod) * prior_weight(len(alphas_cumprod), m, s)


def two_sided_weight(T: int, m1: float = 800.0, s1: float = 300.0, m2: float = 500.0, s2: float = 100.0) -> Float[Tensor, " T"]:
    """One on [m2, m1] with a Gaussian flank on either side: the weight of DreamTime's first version (v1, Eq. 6)."""
    if not m2 <= m1:
        raise ValueError(f"The plateau needs m2 <= m1, got m1 = {m1}, m2 = {m2}.")
    t = torch.arange(T, dtype=torch.float64)
    return torch.where(t > m1, prior_weight(T, m1, s1), torch.where(t < m2, prior_weight(T, m2, s2), torch.ones_like(t)))


# -- Eq. 5: from a weight to a timetable


def timesteps_from_weight(weight: Float[Tensor, " T"], steps: int, t_min: int, t_max: int) -> Int[Tensor, " N"]:
    """t(i) = argmin_t' | sum_{t = t'..t_max} W(t) - i / N | for i = 1..N (DreamTime, Eq. 5).

    W is restricted to [t_min, t_max] and normalised there first; t_min = 0 and t_max = T - 1 give the paper's literal form.
    The result never rises, and the time spent in a band is N times the band's weight. Of two equally near sums the smaller t
    wins; where the weight is zero and the sum stands still, the t that brought it there.
    """
    restricted = weight[t_min : t_max + 1].double()
    if not bool(torch.isfinite(restricted).all() and restricted.sum() > 0):
        raise ValueError(
            f"The weight has no finite, positive sum over t = {t_min}..{t_max}; choose another m or s, or a narrower range."
        )
    tail = (restricted / restricted.sum()).flip(0).cumsum(0)  # tail[k]: weight of the k + 1 largest t
    target = torch.arange(1, checked_steps(steps) + 1, dtype=torch.float64) / steps
    above = torch.searchsorted(tail, target).clamp(max=len(tail) - 1)
    below = (above - 1).clamp(min=0)
    # Rounding in the sums must not decide between two t that are equally near, as at the centre of a symmetric weight.
    nearest = torch.where((tail[above] - target).abs() <= (tail[below] - target).abs() + 1e-12, above, below)
    return t_max - torch.searchsorted(tail, tail[nearest])  # of t with the same sum the one whose weight brought it there


# -- schedules


def time_prioritized(
    alphas_cumprod: Float[Tensor, " T"],
    steps: int,
    t_min: int | None = None,
    t_max: int | None = None,
    m: float = 500.0,
    s: float = 125.0,
) -> Timetable:
    """TP-SDS: Eq. 5 with the weight of Eq. 8 (DreamTime v2). A rule of thumb is m near T / 2."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return fixed_table(timesteps_from_weight(time_prioritized_weight(alphas_cumprod, m, s), steps, low, high))


def time_prioritized_v1(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None
) -> Timetable:
    """Eq. 5 with the two-sided weight of DreamTime's first version."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return fixed_table(timesteps_from_weight(two_sided_weight(len(alphas_cumprod)), steps, low, high))


def prior_weight_only(
    alphas_cumprod: Float[Tensor, " T"],
    steps: int,
    t_min: int | None = None,
    t_max: int | None = None,
    m: float = 500.0,
    s: float = 125.0,
) -> Timetable:
    """Eq. 5 with W_p alone (DreamTime, appendix B)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return fixed_table(timesteps_from_weight(prior_weight(len(alphas_cumprod), m, s), steps, low, high))


def diffusion_weight_only(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None
) -> Timetable:
    """Eq. 5 with W_d alone (DreamTime, appendix B)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return fixed_table(timesteps_from_weight(diffusion_weight(alphas_cumprod), steps, low, high))


def linear(alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None) -> Timetable:
    """Eq. 5 with W = 1 / T: every t gets the same share (DreamTime, appendix B)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return fixed_table(timesteps_from_weight(torch.ones(len(alphas_cumprod), dtype=torch.float64), steps, low, high))


def truncated_linear(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None
) -> Timetable:
    """`linear` that stops at t = 0.2 T (DreamTime, appendix B)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max, default_low=TRUNCATED_LINEAR_LOWEST_SHARE)
    return linear(alphas_cumprod, steps, low, high)


def decaying(curve: Float[Tensor, " N"], t_min: int, t_max: int) -> Timetable:
    """A falling curve over the steps, rescaled so that its first value is t_max and its last t_min."""
    span = curve[0] - curve[-1]
    unit = (curve - curve[-1]) / span if len(curve) > 1 else torch.zeros_like(curve)
    return fixed_table((t_min + (t_max - t_min) * unit).round().long())


def progress(steps: int) -> Float[Tensor, " N"]:
    """i / N for i = 1..N; float64."""
    return torch.arange(1, checked_steps(steps) + 1, dtype=torch.float64) / steps


def exponential(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None, k: float = 3.0
) -> Timetable:
    """t falls as exp(-k i / N)."""
    return decaying(torch.exp(-k * progress(steps)), *timestep_range(alphas_cumprod, t_min, t_max))


def linear_decay(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None
) -> Timetable:
    """t falls as 1 - i / N."""
    return decaying(1 - progress(steps), *timestep_range(alphas_cumprod, t_min, t_max))


def sigmoid(
    alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None, k: float = 10.0
) -> Timetable:
    """t falls as logistic(k (1/2 - i / N))."""
    return decaying(torch.sigmoid(k * (0.5 - progress(steps))), *timestep_range(alphas_cumprod, t_min, t_max))


def hifa(alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None) -> Timetable:
    """t = t_max - (t_max - t_min) sqrt(i / N) with t_min = 0.3 T (HiFA)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max, default_low=HIFA_LOWEST_SHARE)
    return fixed_table((high - (high - low) * progress(steps).sqrt()).round().long())


def uniform(alphas_cumprod: Float[Tensor, " T"], steps: int, t_min: int | None = None, t_max: int | None = None) -> Timetable:
    """t ~ U{t_min..t_max} at every step (DreamFusion)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    return Timetable(torch.full((checked_steps(steps),), low), torch.full((steps,), high))


def prolificdreamer(
    alphas_cumprod: Float[Tensor, " T"],
    steps: int,
    t_min: int | None = None,
    t_max: int | None = None,
    first_stage: float = 0.2,
) -> Timetable:
    """t ~ U{t_min..t_max} for the first 5000 of 25 000 steps, then t ~ U{t_min..T/2} (ProlificDreamer)."""
    low, high = timestep_range(alphas_cumprod, t_min, t_max)
    table = uniform(alphas_cumprod, steps, low, high)
    late = torch.full_like(table.high, min(high, max(low, len(alphas_cumprod) // 2)))
    return Timetable(table.low, torch.where(progress(steps) <= first_stage, table.high, late))


def fixed(alphas_cumprod: Float[Tensor, " T"], steps: int, fixed_t: int = 500) -> Timetable:
    """The same t at every step (DreamTime, Fig. 13)."""
    if not 0 <= fixed_t < len(alphas_cumprod):
        raise ValueError(f"A fixed timestep needs 0 <= t < {len(alphas_cumprod)}, got {fixed_t}.")
    return fixed_table(torch.full((checked_steps(steps),), fixed_t))


def checked_table(table: tuple[int, ...]) -> tuple[int, ...]:
    """The table of a custom schedule, if there is one and it is monotone."""
    if not table:
        raise ValueError("A custom schedule needs a table: timesteps that fall or rise, such as 980,500,20; got none.")
    if list(table) not in (sorted(table), sorted(table, reverse=True)):
        raise ValueError(f"A custom schedule needs timesteps that only fall or only rise, got {list(table)[:12]}.")
    return table


def custom(alphas_cumprod: Float[Tensor, " T"], steps: int, table: tuple[int, ...] = ()) -> Timetable:
    """The user's own monotone curve through evenly spaced values, interpolated to N steps; only T bounds it."""
    T = len(alphas_cumprod)
    if any(not 0 <= t < T for t in checked_table(table)):
        raise ValueError(f"A custom schedule needs timesteps in 0..{T - 1}, got {list(table)[:12]}.")
    knots = torch.tensor(table, dtype=torch.float64)
    position = torch.linspace(0, len(table) - 1, checked_steps(steps), dtype=torch.float64)
    left = position.floor().long().clamp(max=max(len(table) - 2, 0))
    right = (left + 1).clamp(max=len(table) - 1)
    return fixed_table(torch.lerp(knots[left], knots[right], position - left).round().long())


def stage_of(t: int, m: float = 500.0, s: float = 125.0) -> str:
    """The stage of DreamTime's Fig. 5 that a timestep belongs to: within one s of m is content, above coarse, below detail."""
    if t > m + s:
        return "coarse"
    return "detail" if t < m - s else "content"
