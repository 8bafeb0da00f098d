import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, nn

from dreamtime.checkpoints import (
    CorruptCheckpoint,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
    write_atomically,
)

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-15)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


class Line(nn.Module):
    """y = slope x + offset: a matrix, a vector and a scalar, so that every number of dimensions passes through the file."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(width, width))
        self.offset = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def step(self, optimizer: torch.optim.Optimizer, generator: Generator) -> None:
        x = torch.randn(4, len(self.offset), generator=generator)
        loss = (self.scale * (x @ self.slope + self.offset) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.seen += 1


def trained(steps: int, make: Optimizer = adam) -> tuple[Line, torch.optim.Optimizer, Generator]:
    model, generator = Line(), Generator().manual_seed(0)
    optimizer = make(model)
    for _ in range(steps):
        model.step(optimizer, generator)
    return model, optimizer, generator


def save(path: Path, steps: int = 5, make: Optimizer = adam) -> tuple[Line, torch.optim.Optimizer, Generator]:
    model, optimizer, generator = trained(steps, make)
    save_checkpoint(path, {"scene": model}, {"adam": optimizer}, generator, {"step": str(steps), "prompt": "ein Würfel"})
    return model, optimizer, generator


def load(path: Path, make: Optimizer = adam, width: int = 3) -> tuple[Line, torch.optim.Optimizer, Generator, dict[str, str]]:
    model, generator = Line(width), Generator()
    optimizer = make(model)
    return model, optimizer, generator, load_checkpoint(path, {"scene": model}, {"adam": optimizer}, generator)


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("make", [adam, sgd])
def test_going_on_from_a_checkpoint_equals_never_stopping(tmp_path: Path, make: Optimizer):
    save(tmp_path / "c.safetensors", 5, make)
    resumed, optimizer, generator, text = load(tmp_path / "c.safetensors", make)
    assert text == {"step": "5", "prompt": "ein Würfel"}
    for _ in range(7):
        resumed.step(optimizer, generator)
    whole, _, whole_generator = trained(12, make)
    assert_same_state(resumed, whole)
    assert torch.equal(generator.get_state(), whole_generator.get_state())


def test_the_optimisers_state_returns_bit_by_bit(tmp_path: Path):
    _, optimizer, _ = save(tmp_path / "c.safetensors")
    _, restored, _, _ = load(tmp_path / "c.safetensors")
    before, after = optimizer.state_dict()["state"], restored.state_dict()["state"]
    assert before.keys() == after.keys() == {0, 1, 2}
    for index, state in before.items():
        assert state.keys() == after[index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for quantity, value in state.items():
            assert value.shape == after[index][quantity].shape
            assert torch.equal(value, after[index][quantity])


def test_an_optimiser_that_never_stepped_has_no_state(tmp_path: Path):
    assert optimizer_tensors(adam(Line())) == {}
    save(tmp_path / "c.safetensors", 0)
    resumed, optimizer, generator, _ = load(tmp_path / "c.safetensors")
    resumed.step(optimizer, generator)
    assert_same_state(resumed, trained(1)[0])


def test_what_the_file_system_refuses_is_an_os_error(tmp_path: Path):
    """Its number tells a full disk from a missing folder."""
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "gone" / "checkpoint.safetensors", {"line": Line()}, {}, Generator(), {"step": "1"})


def test_step_counts_stored_as_vectors_of_one_are_read_too():
    """Files of the embedded model's training hold them so."""
    _, optimizer, _ = trained(3)
    tensors = {name: x.reshape(-1) if name.endswith("step") else x for name, x in optimizer_tensors(optimizer).items()}
    restored = adam(Line())
    load_optimizer_tensors(restored, tensors)
    assert restored.state_dict()["state"][0]["step"].shape == ()


def test_gradients_and_devices_do_not_reach_the_file(tmp_path: Path):
    """A strided, still attached tensor is written as what it says."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"m": module}, {}, Generator(), {})
    fresh = nn.Module()
    fresh.weight = nn.Parameter(torch.zeros(3, 2))
    assert load_checkpoint(path, {"m": fresh}, {}, Generator()) == {}
    assert torch.equal(fresh.weight, module.weight)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbled(content: bytes) -> bytes:
    return b"\xff" * 16 + content[16:]


@pytest.mark.parametrize("damage", [truncated, garbled, lambda _: b"", lambda _: b"not a checkpoint at all"])
def test_a_damaged_file_is_named_as_such(tmp_path: Path, damage: Callable[[bytes], bytes]):
    path = tmp_path / "c.safetensors"
    save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptCheckpoint, match=r"The checkpoint c\.safetensors cannot be read"):
        load(path)


def test_a_missing_file_is_named_as_such(tmp_path: Path):
    with pytest.raises(CorruptCheckpoint, match=r"The checkpoint c\.safetensors cannot be read"):
        load(tmp_path / "c.safetensors")


def test_a_checkpoint_of_other_shapes_does_not_fit(tmp_path: Path):
    save(tmp_path / "c.safetensors")
    with pytest.raises(CorruptCheckpoint, match="does not fit these settings"):
        load(tmp_path / "c.safetensors", width=4)


@pytest.mark.parametrize("foreign", [{}, {"generator": torch.zeros(3)}, {"generator": torch.zeros(3, dtype=torch.uint8)}])
def test_somebody_elses_safetensors_are_named_as_such(tmp_path: Path, foreign: dict[str, torch.Tensor]):
    path = tmp_path / "c.safetensors"
    save_file(foreign, path)
    with pytest.raises(CorruptCheckpoint, match=r"The file c\.safetensors is no checkpoint of this program\."):
        load_checkpoint(path, {}, {}, Generator())


def test_a_single_other_byte_is_found_out(tmp_path: Path):
    """In a tensor, in the words, in the header: whatever byte a disk returns wrongly, nothing is gone on with."""
    path = tmp_path / "c.safetensors"
    save(path)
    content = path.read_bytes()
    text, words = load(path)[3], content.index("Würfel".encode())
    for place in [*range(8, len(content), 97), words, len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CorruptCheckpoint, match=r"The (checkpoint|file) c\.safetensors (is|cannot)"):
            load(path)
    path.write_bytes(content)
    assert load(path)[3] == text


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "c.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path: Path):
    path = tmp_path / "c.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path):
    write_atomically(tmp_path / "atomic", lambda temporary: temporary.write_text("x"))
    (tmp_path / "plain").write_text("x")
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


def test_readers_that_keep_a_file_from_being_replaced_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows refuses it while a file is open; a second later it is an error after all."""
    path, tries, replace = tmp_path / "a.txt", list[Path](), os.replace

    def refused_thrice(source: Path, target: Path) -> None:
        tries.append(target)
        if len(tries) < 4:
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused_thrice)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert (path.read_text(), len(tries)) == ("new", 4)

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        write_atomically(path, lambda temporary: temporary.write_text("newer"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
