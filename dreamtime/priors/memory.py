"""How much memory a prior will take, found by going through the motions with tensors that hold nothing.

What is counted are tensors; what a GPU's libraries keep for themselves, about a gigabyte, comes on top.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamtime.priors.autoencoder import economise
from dreamtime.priors.options import Options
from dreamtime.priors.skeletons import condition_shape, configuration_of, part_of, prior_of
from dreamtime.volume_rendering import normals_by_differences

CPU = torch.device("cpu")


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live at the same time, and remembers the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> Any:
        self.meet((arguments, options), outside=True)
        result = function(*arguments, **(options or {}))
        self.meet(result, outside=False)
        return result

    def meet(self, tensors: Any, outside: bool) -> None:
        """Count memory that was not there before; what an argument brings from outside costs nothing."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.living:
                self.living[key] = 0 if outside else tensor.untyped_storage().nbytes()
                self.now += self.living[key]
                self.most = max(self.most, self.now)
                weakref.finalize(tensor.untyped_storage(), self.died, key)

    def died(self, key: int) -> None:
        self.now -= self.living.pop(key)


def imagined(module: nn.Module, mode: FakeTensorMode) -> None:
    """Turn a skeleton's parameters and buffers into tensors that claim to be on a CPU, where attention is fused as on a GPU."""
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            owner.register_parameter(name, nn.Parameter(FakeTensor(mode, parameter.data, CPU), requires_grad=False))
        for name, buffer in owner.named_buffers(recurse=False):
            owner.register_buffer(name, FakeTensor(mode, buffer.to("meta"), CPU))


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that live at the same time during some work."""
    with Peak() as peak:
        work()
    return peak.most


def bytes_of(module: nn.Module) -> int:
    """The bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


def rendering_bytes(scene: Any, samples: int) -> int:
    """The peak of looking a scene on the meta device up at so many points, with normals by differences, and of the way back."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    imagined(scene, mode)
    scene.requires_grad_(True)
    with mode:
        points = torch.empty(samples, 3)

    def work() -> None:
        density, albedo = scene.density_and_albedo(points)
        (density.sum() + albedo.sum() + normals_by_differences(scene.density, points).sum()).backward()

    return peak_bytes(work)


@dataclass(frozen=True)
class Need:
    """Bytes on the GPU: of the text encoders, of the prior's weights, and at the peak of the prior's work in a step."""

    text_encoders: int
    weights: int
    step: int


def step_of(
    prior: Any, mode: FakeTensorMode, views: int, side: int, condition: tuple[int, int], learns: bool
) -> Callable[[], None]:
    """What a training step asks of a prior: encode, two answers per image, and the way back through the encoder."""

    def step() -> None:
        with mode:
            images, text = torch.empty(views, side, side, 3, requires_grad=True), torch.empty(2 * views, *condition)
        x = prior.encode(images)
        both = torch.cat([x, x]).detach()
        prior.predict_noise(both, 500, text)
        if learns:
            # A second predictor is the same network, with a way back through it.
            noisy = x.detach().to(prior.unet.dtype).requires_grad_()
            prior.unet(noisy, 500, encoder_hidden_states=text[:views].to(noisy.dtype)).sample.sum().backward()
        x.sum().backward()

    return step


def need_of(source: str, dtype: torch.dtype, views: int, side: int, options: Options, learns: bool = False) -> Need:
    """What a prior needs in a run; `learns` if the objective trains a second predictor. Raises `ModelUnavailable`."""
    configuration = configuration_of(source)
    readers = [part for part in configuration if part.startswith(("text_encoder", "image_encoder"))]
    texts = [part_of(configuration, part, dtype) for part in readers]
    prior = prior_of(configuration, dtype)
    modules = {name: module for name, module in vars(prior).items() if isinstance(module, nn.Module)}
    if "vae" in modules:
        economise(modules["vae"], options)
    denoiser = next(module for name, module in modules.items() if name != "vae")
    weights = sum(map(bytes_of, modules.values())) - (bytes_of(denoiser) if options.memory == "lowest" else 0)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in modules.values():
        imagined(module, mode)
    step = step_of(prior, mode, views, side, condition_shape(configuration), learns)
    return Need(sum(map(bytes_of, texts)), weights, peak_bytes(step))
