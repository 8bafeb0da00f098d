"""Which pixels of a picture are the object: by rembg where it is at hand, else by what stands out from the border's colours."""

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree
from skimage.color import rgb2lab

CUTTING_SIDE = 144  # pixels of the long side at which object and background are told apart
LEAST_OBJECT = 0.003  # of a picture's pixels; less is dust


# -- rembg, an optional package


def rembg_weights() -> Path | None:
    """Where rembg's weights lie on this disk, or None if it or they are not here; nothing is ever downloaded."""
    home = os.environ.get("U2NET_HOME") or os.path.join(os.environ.get("XDG_DATA_HOME", "~"), ".u2net")
    weights = Path(os.path.expanduser(home)) / "u2net.onnx"  # which, unlike Path's own, gives up in silence
    return weights if weights.is_file() and importlib.util.find_spec("rembg") else None


@lru_cache(maxsize=1)
def rembg_session(weights: Path) -> Any:
    """The network, kept for the next picture."""
    from rembg import new_session

    return new_session("u2net_custom", model_path=str(weights))


def rembg_mask(opaque: Image.Image, weights: Path) -> Float[np.ndarray, "H W"]:
    """The object as rembg's U2-Net sees it; a session of its own model file never looks for another."""
    from rembg import remove

    mask = remove(opaque, session=rembg_session(weights), only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255


# -- by the colours at the border


def object_mask(rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """What stands out from the colours at the picture's border, in [0, 1], zero everywhere where nothing does.

    How unlike the border each pixel is gives a first guess; a random walk spreads it up to the edges of things. What is
    background then tells, pixel by pixel, which of the rest is only its shadow, twice. Where nothing stands out, the frame may
    cut the object, whose colours the border then holds, too.
    """
    small = resized(rgb, CUTTING_SIDE / max(rgb.shape))
    at_border = frame(*small.shape[:2])
    solid = standing_out(small, at_border)
    if not solid.any() and (cut := cut_by_the_frame(rgb2lab(small), at_border)).any():
        solid = standing_out(small, at_border & ~cut)
    if not solid.any():
        return np.zeros_like(rgb[..., 0])
    return sharpened(guided_filter(resized(solid.astype(np.float32)[..., None], size=rgb.shape[:2])[..., 0], rgb))


def standing_out(rgb: Float[np.ndarray, "H W 3"], background: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """What is unlike the pixels that are known to be background."""
    lab = rgb2lab(rgb)
    smooth = ndimage.gaussian_filter(lab, (0.7, 0.7, 0))
    trust = np.where(background, 20.0, 1.0)
    unlike = unlike_the_border(lab, background)
    inside = random_walk(unlike, trust, smooth)
    for _ in range(2):
        lit = unlike_its_surroundings(rgb, inside)
        in_doubt = (lit < 0.5) & (unlike > 0.5) & ~background
        inside = random_walk(np.minimum(unlike, lit), np.where(in_doubt, 0.05, trust), smooth)
    return main_parts(inside > 0.5, np.minimum(unlike, lit))


def cut_by_the_frame(lab: Float[np.ndarray, "H W 3"], at_border: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Border pixels that may be those of an object that the frame cuts: unlike what its corners show and lies between them.

    What holds a corner, as a table below a wall does, is background whatever its colour.
    """
    if at_border.all():
        return np.zeros_like(at_border)
    thickness = int(at_border[at_border.shape[0] // 2].argmin())
    rows, columns = ([slice(thickness), slice(-thickness, None)] for _ in range(2))
    shown = np.array([[np.median(lab[row, column], axis=(0, 1)) for column in columns] for row in rows])
    y, x = np.moveaxis((coordinates(*at_border.shape) + 1)[..., None, :] / 2, -1, 0)
    expected = (1 - y) * ((1 - x) * shown[0, 0] + x * shown[0, 1]) + y * ((1 - x) * shown[1, 0] + x * shown[1, 1])
    residual = np.linalg.norm(lab - expected, axis=-1)
    unlike = at_border & (residual > 10 + 4 * np.median(residual[at_border]))
    parts, _ = ndimage.label(unlike)
    corners = parts[[0, 0, -1, -1], [0, -1, 0, -1]]
    return unlike & ~np.isin(parts, corners)


def frame(height: int, width: int, share: float = 0.03) -> Bool[np.ndarray, "H W"]:
    """The pixels along the four sides."""
    thickness = max(2, round(share * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[thickness:-thickness, thickness:-thickness] = True
    return ~inside


def coordinates(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
    """Row and column of each pixel, from -1 to 1."""
    return np.stack(np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"), axis=-1)


def smooth_background(lab: Float[np.ndarray, "H W 3"], at_border: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 3"]:
    """The quadratic in x and y that passes through most of the border, fitted by reweighted least squares (Cauchy weights)."""
    y, x = np.moveaxis(coordinates(*at_border.shape), -1, 0)
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    terms, seen = basis[at_border], lab[at_border]
    weights = np.ones(len(seen))
    for _ in range(10):
        coefficients = np.linalg.lstsq(terms * weights[:, None], seen * weights[:, None], rcond=None)[0]
        residual = seen - terms @ coefficients
        spread = 1.4826 * np.median(np.abs(residual), axis=0) + 0.5
        weights = (1 + ((residual / spread) ** 2).sum(-1) / 9) ** -0.5
    return basis @ coefficients


def unlike_the_border(lab: Float[np.ndarray, "H W 3"], at_border: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """How sure it is, in [0, 1], that a pixel's colour is none of the border's, nor of the gradient through it.

    The distance is that to the fourth-nearest border pixel in CIELAB and, lightly, in place, relative to what is usual at
    the border itself: noise and texture widen it.
    """
    place = 3.0 * coordinates(*at_border.shape)
    distances = list[np.ndarray]()
    for expected in (np.zeros_like(lab), smooth_background(lab, at_border)):
        features = np.concatenate([lab - expected, place], axis=-1)
        known = features[at_border]
        tree = cKDTree(known[:: max(1, len(known) // 1500)])
        usual = np.quantile(tree.query(tree.data, k=5)[0][:, -1], 0.7)
        distances.append(tree.query(features, k=4)[0][..., -1] / (3.0 + usual))
    return surely(np.minimum(*distances))


def unlike_its_surroundings(
    rgb: Float[np.ndarray, "H W 3"], inside: Float[np.ndarray, "H W"], darkest: float = 0.45
) -> Float[np.ndarray, "H W"]:
    """How sure it is, in [0, 1], that a pixel is neither the background around it nor that background in shadow.

    The background under the object is that outside, blurred inwards. A shadow scales all channels alike, by no less than
    `darkest`; the darker, the less it is believed.
    """
    outside = np.clip(1 - 4 * ndimage.maximum_filter(inside, 3), 0, 1) + 1e-6
    background, total = np.zeros_like(rgb), np.zeros_like(outside)
    for sigma, share in ((5.0, 1e-1), (15.0, 1e-3), (45.0, 1e-9)):  # near pixels count most, far ones fill
        background += share * ndimage.gaussian_filter(rgb * outside[..., None], (sigma, sigma, 0), mode="nearest")
        total += share * ndimage.gaussian_filter(outside, sigma, mode="nearest")
    background /= total[..., None]
    brightness = (rgb * background).sum(-1) / (background**2).sum(-1).clip(1e-4)
    shade = brightness.clip(darkest, 1)
    distance = np.linalg.norm(rgb2lab(rgb / shade[..., None]) - rgb2lab(background), axis=-1)
    usual = np.quantile(distance[inside < 0.1], 0.7) if (inside < 0.1).any() else 0.0
    return surely(distance / (4.0 + usual) + 2.0 * (1 - shade))


def surely(distance: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A distance in units of what is usual as a probability of being something else."""
    return 1 - np.exp(-((distance / 2) ** 2))


def random_walk(
    guess: Float[np.ndarray, "H W"], trust: Float[np.ndarray, "H W"], lab: Float[np.ndarray, "H W 3"], gamma: float = 0.05
) -> Float[np.ndarray, "H W"]:
    """The x that minimises sum_ij w_ij (x_i - x_j)^2 + gamma sum_i trust_i (x_i - guess_i)^2 over neighbours in the picture.

    w falls with the difference in colour, so x changes at edges (Grady 2005, random walks with priors). The minimum solves
    (L + gamma diag(trust)) x = gamma trust guess with the graph's Laplacian L, which is positive definite.
    """
    index = np.arange(guess.size).reshape(guess.shape)
    most, rest, whole = slice(None, -1), slice(1, None), slice(None)
    here = [(whole, most), (most, whole), (most, most), (rest, most)]
    there = [(whole, rest), (rest, whole), (rest, rest), (most, rest)]  # to the right, below, and along the two diagonals
    gaps = [((lab[a] - lab[b]) ** 2).sum(-1).ravel() for a, b in zip(here, there, strict=True)]
    width = 2 * np.concatenate(gaps).mean() + 1e-6
    weights = [(np.exp(-gap / width) + 1e-3) / length for gap, length in zip(gaps, (1, 1, 2**0.5, 2**0.5), strict=True)]
    ends = [np.concatenate([index[some].ravel() for some in side]) for side in (here, there)]
    one_way = sparse.coo_matrix((np.concatenate(weights), tuple(ends)), (guess.size, guess.size))
    both_ways = (one_way + one_way.T).tocsr()
    pull = gamma * trust.ravel()
    system = sparse.diags_array(np.asarray(both_ways.sum(axis=1)).ravel() + pull) - both_ways
    return cg(system.tocsr(), pull * guess.ravel(), guess.ravel(), rtol=1e-4)[0].reshape(guess.shape)


def main_parts(inside: Bool[np.ndarray, "H W"], unlike: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The large pieces of a mask, their holes filled except where background is seen through them."""
    pieces, count = ndimage.label(inside, np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = (areas >= max(0.1 * np.max(areas), LEAST_OBJECT * inside.size, 1))[pieces]
    holes, count = ndimage.label(ndimage.binary_fill_holes(kept) & ~kept)
    sizes, surety = np.bincount(holes.ravel()), ndimage.mean(unlike, holes, range(count + 1))
    filled = (sizes < 8) | (np.asarray(surety) > 0.3)
    filled[0] = False
    return kept | filled[holes]


# -- images


def resized(
    image: Float[np.ndarray, "H W c"], scale: float = 1.0, size: Sequence[int] | None = None
) -> Float[np.ndarray, "h w c"]:
    """An image by a factor or to (height, width), antialiased."""
    height, width = size or (max(8, round(side * scale)) for side in image.shape[:2])
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[-1])]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BICUBIC)) for c in channels], axis=-1)


def guided_filter(values: Float[np.ndarray, "H W"], rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Values that follow the edges of a picture: locally linear in its colours (He, Sun & Tang 2010, Eq. 19)."""
    size = 2 * max(1, round(1.5 * max(values.shape) / CUTTING_SIDE)) + 1

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(image, (size, size, *([0] * (image.ndim - 2))), mode="nearest")

    center, level = mean(rgb), mean(values)
    products = mean((rgb[..., :, None] * rgb[..., None, :]).reshape(*values.shape, 9)).reshape(*values.shape, 3, 3)
    covariance = products - center[..., :, None] * center[..., None, :] + 1e-4 * np.eye(3)
    shared = mean(rgb * values[..., None]) - center * level[..., None]
    slope = np.linalg.solve(covariance, shared[..., None])[..., 0]
    return (mean(slope) * rgb).sum(-1) + mean(level - (slope * center).sum(-1))


def sharpened(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """The same border at one half, steeper around it, in [0, 1]."""
    return (0.5 + 2.0 * (values - 0.5)).clip(0, 1)


def with_alpha(opaque: Image.Image, mask: Float[np.ndarray, "H W"]) -> Image.Image:
    """The picture under a mask; pixels that are part background take the colour of the nearest that is all object."""
    rgb = np.asarray(opaque)
    whole = mask > 0.95
    if whole.any():
        rows, columns = ndimage.distance_transform_edt(~whole, return_distances=False, return_indices=True)
        rgb = rgb[rows, columns]
    return Image.fromarray(np.dstack([rgb, (mask * 255 + 0.5).astype(np.uint8)]))
