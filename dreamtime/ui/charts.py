"""Charts as small HTML strings: curves in SVG stretched to its box, labels and markers in HTML, colours from the style sheet.

They follow the theme and any width, and cost a fraction of a millisecond where a matplotlib figure costs a tenth of a second
of the processor that is optimising. When only the marker moves, the page changes a few attributes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool1d

from dreamtime.timesteps import Timetable, diffusion_weight, prior_weight, stage_of, time_prioritized_weight

POINTS = 200  # of a curve, at most
BOX = 1000  # side of the SVG's own coordinates; integers keep the strings short
SMOOTHING = 0.05  # share of the steps that one point of the smoothed loss averages

Marked = Callable[[int, int], str]
"""A step (0 before the first) and its t to the chart with the marker there."""


def path(kind: str, x: Float[Tensor, " P"], y: Float[Tensor, " P"], closed: bool = False) -> str:
    """A curve through points of the unit square, y upwards, drawn by the style sheet's class `kind`."""
    across, down = (x * BOX).round().int().tolist(), ((1 - y) * BOX).round().int().tolist()
    line = "L".join(f"{a} {b}" for a, b in zip(across, down, strict=True))
    return f'<path class="{kind}" d="M{line}{"Z" if closed else ""}" vector-effect="non-scaling-stroke"/>'


def pane(kind: str, curves: str, overlay: str = "") -> str:
    """A plotting area: SVG curves below, HTML on top of it."""
    svg = f'<svg viewBox="0 0 {BOX} {BOX}" preserveAspectRatio="none" aria-hidden="true">{curves}</svg>'
    return f'<div class="dt-pane {kind}">{svg}{overlay}</div>'


def ticks(kind: str, at: Mapping[str, float]) -> str:
    """Labels along an axis, by their position in [0, 1]."""
    side = "left" if kind.startswith("dt-x") else "bottom"
    labels = "".join(f'<span style="{side}:{100 * where:.1f}%">{label}</span>' for label, where in at.items())
    return f'<div class="{kind}" aria-hidden="true">{labels}</div>'


def figure(title: str, note: str, alternative: str, body: str, kind: str) -> str:
    """A captioned chart that a screen reader reads as one sentence."""
    caption = f"<figcaption><b>{title}</b><span>{note}</span></figcaption>"
    plot = f'<div class="dt-plot">{body}</div>'
    return f'<figure class="dt-chart {kind}" role="img" aria-label="{alternative}">{caption}{plot}</figure>'


def thinned(count: int) -> list[int]:
    """Indices of at most POINTS evenly spread items out of `count`, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, POINTS)).round().long().tolist()


def visits(table: Timetable, T: int) -> Float[Tensor, " T"]:
    """The expected number of steps at each t: what a schedule really does, whatever it was made from."""
    share = 1 / (table.high - table.low + 1).double()
    edges = torch.zeros(T + 1, dtype=torch.float64)
    edges.index_add_(0, table.low, share)
    edges.index_add_(0, table.high + 1, -share)
    return edges.cumsum(0)[:T]


def time_spent(table: Timetable, T: int) -> Float[Tensor, " T"]:
    """The visits near each t, largest 1: averaged twice over T / 25, since few steps hit few of the t."""
    reach = T // 50
    density = visits(table, T)[None]
    for _ in range(2):
        density = avg_pool1d(density, 2 * reach + 1, 1, reach, count_include_pad=False)
    return density[0] / density.max()


def stage_shares(table: Timetable, T: int, m: float, s: float) -> dict[str, float]:
    """The share of the steps that each stage gets, expected where t is drawn."""
    seen = visits(table, T)
    shares = dict.fromkeys(("coarse", "content", "detail"), 0.0)
    for t, count in enumerate(seen.tolist()):
        shares[stage_of(t, m, s)] += count / len(table)
    return shares


def along_t(kind: str, weight: Float[Tensor, " T"], filled: bool = False) -> str:
    """A weight over t as a curve with t upwards."""
    T = len(weight)
    index = torch.tensor(thinned(T))
    x, y = weight[index], index / T
    if filled:
        x, y = torch.cat([x.new_zeros(1), x, x.new_zeros(1)]), torch.cat([y[:1], y, y[-1:]])
    return path(kind, x, y, closed=filled)


def over_steps(kind: str, table: Timetable, T: int) -> str:
    """t(i) as a curve over the steps, or as a band where t is drawn at random."""
    index = torch.tensor(thinned(len(table)))
    x = (index + 1) / len(table)
    low, high = table.low[index] / T, table.high[index] / T
    if not table.random:
        return path(kind, x, low)
    return path(f"{kind} dt-band", torch.cat([x, x.flip(0)]), torch.cat([high, low.flip(0)]), closed=True)


def stage_bands(T: int, m: float, s: float, named: bool) -> str:
    """The coarse, content and detail bands of t behind a pane."""
    edges = {"detail": (0.0, m - s), "content": (m - s, m + s), "coarse": (m + s, float(T))}
    bands = ""
    for stage, (low, high) in edges.items():
        low, high = max(low, 0.0), min(high, float(T))
        if low < high:
            position = f"bottom:{100 * low / T:.1f}%;height:{100 * (high - low) / T:.1f}%"
            bands += f'<div class="dt-stage dt-{stage}" style="{position}">{f"<span>{stage}</span>" if named else ""}</div>'
    return bands


def t_ticks(T: int) -> str:
    return ticks("dt-y", {str(t): t / T for t in range(0, T + 1, max(T // 5, 1))})


def step_ticks(steps: int) -> str:
    return ticks("dt-x", {"step 1": 0.0, f"{steps // 2:,}": 0.5, f"{steps:,}": 1.0} if steps > 2 else {f"{steps} steps": 1.0})


WEIGHT_KEYS = (
    '<span class="dt-keys"><i class="dt-key dt-W"></i>W <i class="dt-key dt-Wd"></i>W<sub>d</sub>'
    ' <i class="dt-key dt-Wp"></i>W<sub>p</sub> <i class="dt-key dt-spent"></i>time spent</span>'
)


def schedule_chart(name: str, alphas_cumprod: Float[Tensor, " T"], table: Timetable, m: float, s: float) -> Marked:
    """W, W_d, W_p and the time a run spends at each t, beside t(i), with the three stages (DreamTime, Fig. 5).

    Everything but the marker is drawn once.
    """
    T, steps = len(alphas_cumprod), len(table)
    inside = slice(round(0.02 * T), round(0.98 * T) + 1)
    weights = {
        "dt-Wp": prior_weight(T, m, s),
        "dt-Wd": diffusion_weight(alphas_cumprod),
        "dt-W": time_prioritized_weight(alphas_cumprod, m, s),
    }
    curves = along_t("dt-spent", time_spent(table, T), filled=True)
    for kind, weight in weights.items():
        curves += along_t(kind, (weight / weight[inside].max().clamp(min=1e-300)).clamp(max=1))
    over = over_steps("dt-t", table, T)
    behind, behind_named = stage_bands(T, m, s, named=False), stage_bands(T, m, s, named=True)
    span = f"from t = {int(table.high[0])} to t = {int(table.low[-1])}"

    def marked(step: int, t: int) -> str:
        level = dot = note = ""
        if step:
            left, bottom = f"{100 * step / steps:.2f}%", f"{100 * t / T:.2f}%"
            level = f'<div class="dt-level" style="bottom:{bottom}"></div>'
            dot = (
                f'<div class="dt-veil" style="left:{left}"></div><div class="dt-dot" style="left:{left};bottom:{bottom}"></div>'
            )
            note = f"step {step:,}, t = {t}, {stage_of(t, m, s)}"
        body = (
            t_ticks(T)
            + pane("dt-weights", curves, behind + level)
            + pane("dt-steps", over, behind_named + level + dot)
            + ticks("dt-x dt-x-weights", {"weight": 0.5})
            + step_ticks(steps)
        )
        alternative = f"Timestep schedule {name}: {steps} steps {span}. {note}"
        return figure("Timestep schedule", WEIGHT_KEYS, alternative, body, "dt-schedule")

    return marked


def comparison_chart(tables: Mapping[str, Timetable], T: int, m: float, s: float) -> str:
    """Several schedules' t(i) in one plot, beside the time each spends at each t."""
    spent = over = keys = ""
    for number, (name, table) in enumerate(tables.items(), start=1):
        spent += along_t(f"dt-c{number}", time_spent(table, T))
        over += over_steps(f"dt-c{number}", table, T)
        keys += f'<i class="dt-key dt-c{number}"></i>{name} '
    steps = max((len(table) for table in tables.values()), default=1)
    body = (
        t_ticks(T)
        + pane("dt-weights", spent, stage_bands(T, m, s, named=False))
        + pane("dt-steps", over, stage_bands(T, m, s, named=True))
        + ticks("dt-x dt-x-weights", {"time spent": 0.5})
        + step_ticks(steps)
    )
    alternative = f"Timestep over {steps} steps for the schedules {', '.join(tables)}"
    return figure("t(i)", f'<span class="dt-keys">{keys}</span>', alternative, body, "dt-schedule dt-comparison")


def compact(number: float) -> str:
    """Three digits, in thousands or millions where it takes them: 0.123, 45.6, 1.06k."""
    for unit in ("", "k", "M"):
        if abs(number) < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def running_mean(values: Float[Tensor, " N"], index: Int[Tensor, " K"], reach: int) -> Float[Tensor, " K"]:
    """At each index the mean of the values up to `reach` places away, fewer at both ends."""
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    low, high = (index - reach).clamp(min=0), (index + reach + 1).clamp(max=len(values))
    return (sums[high] - sums[low]) / (high - low)


def loss_chart(rows: Sequence[tuple[int, int, float]], steps: int) -> str:
    """The loss by step, raw and smoothed, from rows of (step, t, loss)."""
    if not rows:
        words = '<p class="dt-none">Falls as the object takes shape</p>'
        body = ticks("dt-y", {}) + pane("dt-steps", "", words) + step_ticks(steps)
        return figure("Loss", "", "Loss curve, empty before the first step", body, "dt-loss")
    step, loss = torch.tensor([row[0] for row in rows]), torch.tensor([row[2] for row in rows], dtype=torch.float64)
    index = torch.tensor(thinned(len(rows)))
    mean = running_mean(loss, index, round(SMOOTHING * len(rows) / 2))
    top = float(loss.sort().values[int(0.98 * (len(loss) - 1))]) * 1.05 or 1.0
    x, height = step[index] / steps, lambda curve: (curve / top).clamp(0, 1)
    curves = path("dt-raw", x, height(loss[index])) + path("dt-mean", x, height(mean))
    body = ticks("dt-y", {"0": 0.0, compact(top): 1.0}) + pane("dt-steps", curves) + step_ticks(steps)
    note = compact(float(mean[-1]))
    return figure("Loss", note, f"Loss curve: {note} at step {int(step[-1])} of {steps}", body, "dt-loss")
