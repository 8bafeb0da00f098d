"""The optimiser of the trainings: its orthogonalisation against the SVD, its steps against the formula and AdamW."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from dreamtime.checkpoints import CorruptCheckpoint, load_checkpoint, save_checkpoint
from dreamtime.toybox.models import build_unet
from dreamtime.toybox.muon import MOMENTUM, RMS, Muon, hidden_matrices, muon, orthogonalized
from dreamtime.toybox.training import seeded_initialisation


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (1, 24, 24)])
def test_every_direction_gets_about_the_same_weight(shape: tuple[int, int, int]) -> None:
    matrices = random(*shape)
    found = orthogonalized(matrices)
    assert found.shape == shape
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    # The singular vectors stay, whatever becomes of the values.
    kept = left.mT @ found @ right.mT
    values = kept.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(kept, torch.diag_embed(values), atol=1e-4, rtol=0)
    assert values.max() < 1.3
    wide = shape[1] != shape[2]  # a square one may be close to singular, and five iterations do not lift a zero
    assert values.min() > (0.6 if wide else 0)


def test_size_and_order_of_matrices_count_for_nothing() -> None:
    matrices = random(4, 8, 12)
    found = orthogonalized(matrices)
    torch.testing.assert_close(orthogonalized(1e-3 * matrices), found)
    torch.testing.assert_close(orthogonalized(matrices.mT), found.mT)
    torch.testing.assert_close(orthogonalized(matrices.flip(0)), found.flip(0))
    assert not orthogonalized(torch.zeros(1, 4, 4)).any()


@pytest.mark.parametrize("shape", [(6, 10), (6, 3, 3, 3)])
def test_steps_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(random(*shape))
    optimizer = Muon([weight], [], lr=0.02, weight_decay=0.1, betas=(0.9, 0.99))
    expected, momentum = weight.detach().flatten(1).clone(), torch.zeros_like(weight).flatten(1)
    for step in range(3):
        gradient = random(*shape, seed=step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        flat = gradient.flatten(1)
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * flat
        direction = (1 - MOMENTUM) * flat + MOMENTUM * momentum
        scale = 0.02 * RMS * max(expected.shape) ** 0.5
        expected = expected * (1 - 0.02 * 0.1) - scale * orthogonalized(direction[None])[0]
        torch.testing.assert_close(weight.detach().flatten(1), expected)


def test_an_update_is_as_large_as_one_of_adamw() -> None:
    weight = nn.Parameter(torch.zeros(64, 64 * 9))
    optimizer = Muon([weight], [], lr=1.0, weight_decay=0.0, betas=(0.9, 0.99))
    weight.grad = random(64, 64 * 9)
    optimizer.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(RMS, rel=0.3)


def test_matrices_alike_are_updated_together_and_each_for_itself() -> None:
    together = [nn.Parameter(random(4, 6, seed=seed)) for seed in range(3)]
    alone = [nn.Parameter(weight.detach().clone()) for weight in together]
    gradients = [random(4, 6, seed=seed + 10) for seed in range(3)]
    for weights in (together, *([weight] for weight in alone)):
        of_each = gradients if weights is together else [gradients[next(i for i, w in enumerate(alone) if w is weights[0])]]
        for weight, gradient in zip(weights, of_each, strict=True):
            weight.grad = gradient.clone()
        Muon(weights, [], lr=0.1, weight_decay=0.0, betas=(0.9, 0.99)).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_the_others_are_left_to_adamw() -> None:
    ours, theirs = nn.Parameter(random(5)), nn.Parameter(random(5))
    first = Muon([nn.Parameter(random(2, 3))], [ours], lr=0.1, weight_decay=0.01, betas=(0.9, 0.99))
    second = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01, betas=(0.9, 0.99))
    for step in range(3):
        ours.grad, theirs.grad = random(5, seed=step), random(5, seed=step)
        first.step()
        second.step()
    assert torch.equal(ours, theirs)


def test_half_precision_of_the_iterations_gives_much_the_same() -> None:
    matrices = random(2, 32, 96)
    whole, half = orthogonalized(matrices), orthogonalized(matrices.bfloat16()).float()
    assert (whole - half).norm() < 0.05 * whole.norm()


def test_hidden_matrices_of_a_unet() -> None:
    unet = build_unet()
    shapes = {name: weight.shape for name, weight in unet.named_parameters()}
    hidden = {id(weight) for weight in hidden_matrices(unet)}
    named = {name for name, weight in unet.named_parameters() if id(weight) in hidden}
    assert "mid_block.resnets.0.conv1.weight" in named
    assert "time_embedding.linear_1.weight" in named
    assert not {"conv_in.weight", "conv_out.weight"} & named
    assert all(len(shapes[name]) > 1 for name in named)
    assert sum(shapes[name].numel() for name in named) > 0.95 * sum(map(torch.Size.numel, shapes.values()))


def test_it_learns_and_goes_on_from_a_checkpoint_exactly(tmp_path: Path) -> None:
    def network() -> nn.Module:
        with seeded_initialisation(0):
            return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    x, y, generator = random(64, 6), random(64, 6).sin()[:, :3], Generator()

    def learn(module: nn.Module, optimizer: Muon, steps: int) -> float:
        for _ in range(steps):
            loss = (module(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    straight = network()
    optimizer = muon(straight, 0.02)
    before = learn(straight, optimizer, 1)
    learn(straight, optimizer, 19)
    save_checkpoint(tmp_path / "half.safetensors", {"net": straight}, {"optimizer": optimizer}, generator, {})
    assert learn(straight, optimizer, 20) < 0.2 * before
    resumed = network()
    other = muon(resumed, 0.02)
    load_checkpoint(tmp_path / "half.safetensors", {"net": resumed}, {"optimizer": other}, generator)
    learn(resumed, other, 20)
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    network, generator = nn.Sequential(nn.Linear(4, 3)), Generator()
    adamw = torch.optim.AdamW(network.parameters())
    network(random(2, 4)).sum().backward()
    adamw.step()
    save_checkpoint(tmp_path / "old.safetensors", {"net": network}, {"optimizer": adamw}, generator, {})
    with pytest.raises(CorruptCheckpoint, match="does not fit these settings"):
        load_checkpoint(tmp_path / "old.safetensors", {"net": network}, {"optimizer": muon(network, 0.1)}, generator)


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected at least two dimensions, got a shape of \(5,\)"):
        Muon([nn.Parameter(random(5))], [], lr=0.1, weight_decay=0.0, betas=(0.9, 0.99))


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="no closure"):
        Muon([nn.Parameter(random(2, 2))], [], lr=0.1, weight_decay=0.0, betas=(0.9, 0.99)).step(lambda: 0.0)
