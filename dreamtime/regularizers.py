"""Penalties on a rendering that keep a scene simple, each a mean over the pixels; their weights are the caller's."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from dreamtime.types import Regularizer, Rendering, VolumeSamples
from dreamtime.volume_rendering import exclusive_sum, gradients_by_differences


def samples_of(rendering: Rendering) -> VolumeSamples:
    """The samples behind a rendering; a detached one has none left."""
    if rendering.samples is None:
        raise ValueError("This regularizer needs the samples of a volume rendering, got a rendering without them.")
    return rendering.samples


def orientation(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
    """sum_i sg(w_i) max(0, n_i . d)^2 along a ray: no visible normal faces away from the camera (Ref-NeRF, Eq. 11)."""
    samples = samples_of(rendering)
    backfacing = (samples.normals * samples.directions).sum(-1).clamp(min=0)
    return (samples.weights.detach() * backfacing.square()).sum() / samples.intervals.n_rays


def opacity(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
    """sqrt((sum_i w_i)^2 + 0.01): space that is not needed empties (DreamFusion, appendix A.1)."""
    return (rendering.opacity.square() + 0.01).sqrt().mean()


def entropy(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
    """-o log2 o - (1 - o) log2 (1 - o) of a pixel's opacity o, in bits: a pixel is either object or background."""
    # Clamping keeps the logarithms and their gradients finite at o = 0 and 1.
    o = rendering.opacity.clamp(1e-3, 1 - 1e-3)
    return -(o * o.log2() + (1 - o) * (1 - o).log2()).mean()


def distortion(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
    """sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 delta_i along a ray: neither fog nor floaters (mip-NeRF 360, Eq. 15).

    With midpoints m sorted by depth, each pair counts once as w_i (m_i sum_{j<i} w_j - sum_{j<i} w_j m_j): running sums
    replace the double one. Distances are in scene units.
    """
    samples = samples_of(rendering)
    intervals, w = samples.intervals, samples.weights
    m = (intervals.t_starts + intervals.t_ends) / 2
    pairs = w * (m * exclusive_sum(w, intervals) - exclusive_sum(w * m, intervals))
    within = w.square() * (intervals.t_ends - intervals.t_starts) / 3
    return (2 * pairs + within).sum() / intervals.n_rays


def normal_smoothness(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
    """mean (n_p - n_q)^2 over neighbouring pixels and components: surfaces without ripples, as seen (threestudio, Zero123)."""
    n = rendering.normal
    return n.diff(dim=1).square().mean() + n.diff(dim=2).square().mean()


def normal_smoothness_3d(normals: Callable[[Float[Tensor, "S 3"]], Float[Tensor, "S 3"]], step: float = 0.01) -> Regularizer:
    """mean |n(x) - n(x + delta)| over samples and components, delta `step` scene units along the diagonal.

    Of threestudio's Zero123, which draws delta at random; a regularizer has no generator to draw from.
    Zero where nothing is visible.
    """

    def penalty(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
        samples = samples_of(rendering)
        differences = samples.normals - normals(samples.points.detach() + step / 3**0.5)
        return differences.abs().sum() / max(differences.numel(), 1)

    return penalty


def eikonal(distance: Callable[[Float[Tensor, "S 3"]], Float[Tensor, " S"]]) -> Regularizer:
    """mean (|grad f(x)| - 1)^2 over samples: f is a distance (Gropp et al. 2020, Eq. 2; NeuS, Eq. 16).

    Zero where nothing is visible.
    """

    def penalty(rendering: Rendering, progress: float) -> Float[Tensor, ""]:
        lengths = gradients_by_differences(distance, samples_of(rendering).points.detach()).norm(dim=-1)
        return (lengths - 1).square().sum() / max(len(lengths), 1)

    return penalty
