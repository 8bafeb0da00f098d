"""Runs as folders: a run stopped and resumed equals one that never stopped, and nothing that was saved is ever lost."""

import errno
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file
from stand_in import photograph, write_stand_in
from tiny_models import tiny_pipeline

from dreamtime import preprocess, runs
from dreamtime.assembly import Dream, timetable_of
from dreamtime.checkpoints import CorruptCheckpoint, save_checkpoint
from dreamtime.image_to_3d import image_preset
from dreamtime.presets import Settings
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.runs import RunError
from dreamtime.types import Rendering


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Settings:
    """A run of six small steps on a model of random weights."""
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline("epsilon").save_pretrained(folder)
    return Settings(
        "a red cube",
        prior=str(folder),
        steps=6,
        views=1,
        resolution=16,
        samples_per_ray=16,
        mesh_resolution=24,
        faces=400,
        texture_size=64,
        learning_rate=0.001,
    )


def raised(error: BaseException) -> Callable[..., None]:
    """A function that fails like that."""

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def tensors_of(run: runs.Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint)


def test_a_run_leaves_its_settings_schedule_curve_and_checkpoint(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    frames = list(runs.work(run))
    assert [frame.step for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert [frame.t for frame in frames] == timetable_of(tiny).low.tolist()
    assert frames[-1].preview.shape == (128, 128, 4)
    assert frames[-1].remaining == 0
    assert runs.steps_done(run) == 6
    assert [row[0] for row in runs.curve_rows(run, 6)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run.folder / "settings.json").read_text())["prompt"] == "a red cube"
    assert len((run.folder / "schedule.csv").read_text().splitlines()) == 7
    with Image.open(run.preview) as preview:
        assert (preview.size, preview.mode) == ((128, 128), "RGBA")
    assert runs.open_run(tmp_path, run.id) == run


def test_where_nobody_watches_the_last_step_alone_has_pictures_and_all_else_is_the_same(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "PREVIEW_SECONDS", -1.0)
    watched, alone = (runs.create_run(tmp_path, tiny) for _ in range(2))
    frames = list(runs.work(watched)), list(runs.work(alone, pictures=False))
    assert [[frame.preview is not None for frame in of_run] for of_run in frames] == [
        [True] * tiny.steps,
        [False] * (tiny.steps - 1) + [True],
    ]
    kept, made = tensors_of(watched), tensors_of(alone)
    assert all(torch.equal(kept[name], made[name]) for name in kept)


def test_stopping_and_resuming_equals_never_stopping(tiny, tmp_path) -> None:
    whole, parts = runs.create_run(tmp_path, tiny), runs.create_run(tmp_path, tiny)
    expected = [frame.loss for frame in runs.work(whole)]
    losses = []
    for frame in runs.work(parts):
        losses.append(frame.loss)
        if frame.step == 2:
            runs.request_stop(parts)
    assert runs.steps_done(parts) == 2
    runs.clear_stop(parts)
    losses += [frame.loss for frame in runs.work(parts)]
    assert losses == expected
    first, second = tensors_of(whole), tensors_of(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert whole.curve.read_text() == parts.curve.read_text()


def test_a_run_from_a_picture_goes_on_bit_for_bit_too(tmp_path, monkeypatch) -> None:
    """Across a doubling of the resolution, and from the picture that lies in the run's folder."""
    write_stand_in(tmp_path / "models")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    reference = preprocess.process(photograph(tmp_path / "ball.png"), 32)
    small = {"steps": 6, "views": 1, "resolution": 32, "doublings": 1, "samples_per_ray": 16, "learning_rate": 0.001}
    settings = image_preset("draft", "cpu", **small)
    whole, parts = (runs.create_run(tmp_path / "runs", settings, reference) for _ in range(2))
    losses = [frame.loss for frame in runs.work(whole)]
    first = list(zip(range(2), runs.work(parts), strict=False))
    rest = list(runs.work(runs.open_run(tmp_path / "runs", parts.id)))
    assert [frame.loss for _, frame in first] + [frame.loss for frame in rest] == losses
    ends = tensors_of(whole), tensors_of(parts)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_picture_belongs_to_a_run_from_a_picture(tiny, tmp_path) -> None:
    reference = preprocess.process(photograph(tmp_path / "ball.png"), 32)
    with pytest.raises(ValueError, match="task 'text' was given a picture"):
        runs.create_run(tmp_path, tiny, reference)
    with pytest.raises(ValueError, match="task 'image' was not given any picture"):
        runs.create_run(tmp_path, image_preset("draft", "cpu"))


def test_closing_the_iteration_keeps_what_was_done(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    frames = runs.work(run)
    for _ in range(3):
        next(frames)
    frames.close()
    assert runs.steps_done(run) == 3
    assert next(runs.work(run)).step == 4


def test_a_deadline_ends_a_sitting(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    assert [frame.step for frame in runs.work(run, seconds=0.0)] == [1]
    assert [frame.step for frame in runs.work(run, seconds=0.0)] == [2]


@dataclass
class Clock:
    """A time that passes only when it is told to."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runs, "time", clock)
    return clock


def test_loading_counts_towards_the_deadline(tiny, tmp_path, monkeypatch, clock) -> None:
    """A slice of a borrowed GPU begins with loading, and ends in time all the same."""
    build = runs.text_to_3d

    def slow_start(settings: Settings) -> Dream:
        clock.now += 30
        return build(settings)

    monkeypatch.setattr(runs, "text_to_3d", slow_start)
    assert [frame.step for frame in runs.work(runs.create_run(tmp_path, tiny), seconds=30.0)] == [1, 2, 3, 4, 5, 6]
    run, steps = runs.create_run(tmp_path, tiny), []
    for frame in runs.work(run, seconds=29.0):
        steps.append(frame.step)
    assert steps == [1], "the first step is taken whatever the time, so that every slice gets somewhere"


def test_a_step_that_would_end_late_is_left_to_the_next_sitting(tiny, tmp_path, clock) -> None:
    steps = []
    for frame in runs.work(runs.create_run(tmp_path, tiny), seconds=2.9):
        steps.append(frame.step)
        clock.now += 1
    assert steps == [1, 2, 3]
    assert clock.now == 103


def test_the_remaining_time_follows_the_pace_of_the_latest_steps(tiny, tmp_path, monkeypatch, clock) -> None:
    monkeypatch.setattr(runs, "PACE_STEPS", 2)
    remaining = []
    for frame in runs.work(runs.create_run(tmp_path, tiny)):
        remaining.append(frame.remaining)
        clock.now += {1: 2, 2: 2, 3: 8, 4: 8, 5: 0}.get(frame.step, 0)
    assert remaining == [0, 4 * 1, 3 * 2, 2 * 5, 1 * 8, 0]


def test_a_cut_out_picture_over_white_is_the_rendering(tiny) -> None:
    opacity = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 2, 2, 1)
    color = torch.tensor([1.0, 0.5, 0.0]).expand(1, 2, 2, 3)
    image = opacity * color + (1 - opacity)
    cut = runs.cut_out(Rendering(image, opacity, opacity, color)).double() / 255
    assert cut[..., 3].flatten().tolist() == pytest.approx([0, 0.25, 0.5, 1], abs=0.5 / 255)
    over_white = cut[..., :3] * cut[..., 3:] + (1 - cut[..., 3:])
    assert (over_white - image[0]).abs().max() < 1.5 / 255


def test_a_second_worker_is_refused(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    frames = runs.work(run)
    next(frames)
    with pytest.raises(RunError, match="being worked on already"):
        next(runs.work(run))
    frames.close()


def test_a_partial_run_delivers_every_file(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    assert runs.delivered(run) is None
    result = runs.deliver(run)
    assert set(result.files) == {"glb", "obj", "zip", "ply", "stl", "turntable", "normals", "picture"}
    assert all(path.stat().st_size > 0 and path.parent == run.results for path in result.files.values())
    assert result.files["glb"].read_bytes()[:4] == b"glTF"
    assert result.files["glb"].name == "a-red-cube.glb"
    assert result.statistics["watertight"]
    assert result.steps == 1
    assert runs.delivered(run) == result


def test_no_mesh_before_the_first_step(tiny, tmp_path) -> None:
    with pytest.raises(RunError, match="not finished a first step"):
        runs.deliver(runs.create_run(tmp_path, tiny))


@pytest.mark.parametrize(
    "run_id", ["../../etc/passwd", "", "0" * 31, "0" * 33, "G" * 32, "0" * 31 + "/", "0" * 32 + "\n", None, 7]
)
def test_an_id_that_is_none_is_refused(run_id, tmp_path) -> None:
    with pytest.raises(RunError, match="32 hexadecimal digits"):
        runs.open_run(tmp_path, run_id)


def test_an_unknown_id_is_refused(tmp_path) -> None:
    with pytest.raises(RunError, match="no run with this id"):
        runs.open_run(tmp_path, "0" * 32)


def test_damaged_settings_are_one_sentence(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    (run.folder / "settings.json").write_text('{"prompt": 3')
    with pytest.raises(RunError, match="settings of this run cannot be read"):
        runs.open_run(tmp_path, run.id)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 6.5),
        ("steps", True),
        ("seed", "1"),
        ("t_min", "a"),
        ("views", 10**400),
        ("negative_prompt", None),
        ("embedding", {}),
        ("learning_rate", False),
        ("table", "abc"),
        ("table", [9.5, 3.2]),
        ("distance", [1.0]),
        ("memory", "huge"),
    ],
)
def test_settings_of_other_types_are_one_sentence(tiny, tmp_path, name: str, value: object) -> None:
    run = runs.create_run(tmp_path, tiny)
    path = run.folder / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(RunError, match="settings of this run cannot be read"):
        runs.open_run(tmp_path, run.id)


@pytest.mark.no_cuda
def test_a_run_of_another_machine_says_which_device_is_missing(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    elsewhere = runs.Run(run.folder, replace(tiny, device="cuda"))
    with pytest.raises(ValueError, match="The device 'cuda' is not there; this machine has cpu"):
        next(runs.work(elsewhere))


def test_a_checkpoint_of_something_else_is_one_sentence(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    save_file({"x": torch.zeros(1)}, run.checkpoint)
    with pytest.raises(CorruptCheckpoint, match="is no checkpoint of this program"):
        runs.steps_done(run)
    save_checkpoint(run.checkpoint, {}, {}, torch.Generator(), {})
    with pytest.raises(CorruptCheckpoint, match="is the checkpoint of something else"):
        runs.steps_done(run)


def test_a_refused_resume_leaves_the_stop_that_others_asked_for(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    frames = runs.work(run)
    next(frames)
    runs.request_stop(run)
    with pytest.raises(RunError, match="being worked on already"):
        runs.clear_stop(run)
    assert runs.stop_requested(run)
    assert list(frames) == []
    runs.clear_stop(run)
    assert not runs.stop_requested(run)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"a,b\n1,2\n", b"step,t,loss\n1,2\n", b"step,t,loss\none,2,3\n"])
def test_a_damaged_curve_costs_the_curve_alone(tiny, tmp_path, damage: bytes) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    run.curve.write_bytes(damage)
    frames = list(runs.work(run))
    assert frames[0].step == 2
    assert [row[0] for row in runs.curve_rows(run, tiny.steps)] == list(range(2, tiny.steps + 1))


def test_a_result_counts_as_long_as_it_is_whole_and_the_latest(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    result = runs.deliver(run)
    summary = (run.results / "result.json").read_text()
    for damaged in ("", "[]", '{"statistics": {}}'):
        (run.results / "result.json").write_text(damaged)
        assert runs.delivered(run) is None
    (run.results / "result.json").write_text(summary)
    assert runs.delivered(run) == result
    run.checkpoint.write_bytes(b"")
    assert runs.delivered(run) == result, "all that is left of the run"


def test_a_result_from_before_a_run_went_on_is_not_shown_for_the_latest(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    runs.deliver(run)
    list(runs.work(run))
    assert runs.delivered(run) is None
    assert runs.deliver(run).steps == tiny.steps


def test_a_result_is_told_even_if_the_run_went_on_while_it_was_made(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    next(iter(runs.work(run)))
    before = runs.steps_done(run)
    monkeypatch.setattr(runs, "steps_done", lambda run: before + 1)
    result = runs.deliver(run)
    assert result.steps == before
    assert all(path.is_file() for path in result.files.values())


def test_a_corrupt_checkpoint_is_one_sentence(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:500])
    for action in (lambda: list(runs.work(run)), lambda: runs.deliver(run)):
        with pytest.raises(ValueError, match="cannot be read"):
            action()


def test_a_full_disk_is_one_sentence_and_spares_the_last_checkpoint(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "save_checkpoint", full)
    with pytest.raises(RunError, match="disk is full: free some space, then resume; everything saved before is kept"):
        list(runs.work(run))
    monkeypatch.undo()
    assert runs.steps_done(run) == 1
    assert runs.deliver(run).steps == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9."
        ),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize(("whole", "kept"), [(0, "stopped before anything was computed"), (2, "checkpoint of step 2 is kept")])
def test_out_of_memory_is_one_sentence_and_keeps_what_was_computed(
    tiny, tmp_path, monkeypatch, error: BaseException, whole: int, kept: str
) -> None:
    asked = 0

    def opacity(rendering: Rendering, progress: float) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked > whole:
            raise error
        return rendering.image.sum() * 0

    monkeypatch.setattr("dreamtime.regularizers.opacity", opacity)
    run = runs.create_run(tmp_path, replace(tiny, opacity=1.0))
    with pytest.raises(RunError, match=f"^Out of memory: choose a smaller preset.*{kept}"):
        list(runs.work(run))
    assert runs.steps_done(run) == whole


def test_where_memory_does_not_even_suffice_to_save_the_last_checkpoint_is_named(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    monkeypatch.setattr(runs, "save_checkpoint", raised(MemoryError()))
    work = runs.work(run)
    next(work)
    monkeypatch.setattr("dreamtime.assembly.VolumeRenderer.__call__", raised(MemoryError()))
    with pytest.raises(RunError, match="checkpoint of step 1 is kept"):
        list(work)


def test_a_bug_is_not_taken_for_want_of_memory(tiny, tmp_path, monkeypatch) -> None:
    def broken(rendering: Rendering, progress: float) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("dreamtime.regularizers.opacity", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(runs.work(runs.create_run(tmp_path, replace(tiny, opacity=1.0))))


def test_a_run_goes_on_by_the_schedule_that_it_began_with_or_not_at_all(tiny, tmp_path) -> None:
    """Whoever exchanges the model, or its scheduler, changes the noise levels that the schedule was made of."""
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    began = run.schedule.read_text()
    run.schedule.write_text(began.replace("\n6,", "\n6,1"))
    with pytest.raises(RunError, match="The schedule of this run has changed since it began"):
        list(runs.work(run))
    assert runs.steps_done(run) == 1
    run.schedule.write_text(began)
    assert [frame.step for frame in runs.work(run)] == [2, 3, 4, 5, 6]
    run.schedule.write_text("of another release")
    assert list(runs.work(run)) == [], "with no step left there is nothing to be wrong about"


def test_a_run_is_made_of_the_same_files_wherever_it_is_resumed(tiny, tmp_path, monkeypatch) -> None:
    """A bare name could be anything elsewhere, or an id on the Hub; what travels tells no path."""
    folder = Path(tiny.prior)
    monkeypatch.chdir(folder.parent)
    began = runs.create_run(tmp_path, replace(tiny, prior=folder.name))
    list(runs.work(began, seconds=0.0))
    monkeypatch.chdir(tmp_path)
    run = runs.open_run(tmp_path, began.id)
    assert (began.settings.prior, run.settings.prior) == (folder.name, str(folder))
    list(runs.work(run))
    glb = runs.deliver(run).files["glb"].read_bytes()
    assert f'"prior":"{folder.name}"'.encode() in glb.replace(b'": "', b'":"')
    assert str(folder.parent).encode() not in glb


def test_locks_that_a_full_disk_refuses_are_one_sentence(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    monkeypatch.setattr(runs.FileLock, "acquire", raised(OSError(errno.ENOSPC, "No space left on device")))
    for action in (lambda: list(runs.work(run)), lambda: runs.deliver(run), lambda: runs.clear_stop(run)):
        with pytest.raises(RunError, match="disk is full"):
            action()


def test_a_nan_names_step_and_t_and_keeps_the_checkpoint(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    broken = replace(tiny, opacity=1.0)
    monkeypatch.setattr("dreamtime.regularizers.opacity", lambda rendering, progress: rendering.image.sum() * torch.nan)
    poisoned = runs.Run(run.folder, broken)
    with pytest.raises(RunError, match=rf"step 2 \(t = {timetable_of(tiny).low[1]}\).*checkpoint of step 1 is kept"):
        list(runs.work(poisoned))
    assert runs.steps_done(run) == 1


def test_a_nan_keeps_the_steps_since_the_last_checkpoint(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    steps = runs.work(run)
    next(steps)
    next(steps)
    monkeypatch.setattr(torch, "isfinite", lambda x: torch.zeros_like(x, dtype=torch.bool))
    with pytest.raises(RunError, match="checkpoint of step 2 is kept"):
        next(steps)
    monkeypatch.undo()
    assert runs.steps_done(run) == 2
    assert [frame.step for frame in runs.work(run)] == list(range(3, tiny.steps + 1))


@pytest.mark.parametrize(
    ("prompt", "name"), [("A red CUBE!", "a-red-cube"), ("../../x", "x"), ("立方体", "model"), ("a" * 90, "a" * 40)]
)
def test_file_names_are_plain(prompt: str, name: str) -> None:
    assert runs.file_name(prompt) == name


def test_sweep_takes_only_old_idle_runs(tiny, tmp_path) -> None:
    old, busy, between, mesh = (runs.create_run(tmp_path, tiny) for _ in range(4))
    other = tmp_path / "not-a-run"
    other.mkdir()
    frames = runs.work(busy)
    next(frames)
    with runs.attended(between), runs.holding(mesh, runs.MESH):
        assert runs.sweep(tmp_path, older_than=3600.0) == 0
        assert runs.sweep(tmp_path, older_than=-1.0) == 1
    assert not old.folder.exists()
    assert all(run.folder.exists() for run in (busy, between, mesh))
    assert other.exists()
    frames.close()


def test_sweep_leaves_what_is_no_run_and_goes_on(tiny, tmp_path, monkeypatch) -> None:
    """Whatever its name is, and whoever owns it."""
    (tmp_path / ("a" * 32)).mkdir()
    (tmp_path / ("a" * 32) / "precious.txt").write_text("of somebody else")
    (tmp_path / ("b" * 32)).write_text("a file")
    (tmp_path / ("c" * 32)).symlink_to(tmp_path / "nowhere")
    theirs, mine = (runs.create_run(tmp_path, tiny) for _ in range(2))
    lock_of = runs.lock_of

    def refused_by_theirs(folder: Path, name: str) -> FileLock:
        if folder == theirs.folder:
            raise PermissionError(13, "Permission denied")
        return lock_of(folder, name)

    monkeypatch.setattr(runs, "lock_of", refused_by_theirs)
    assert runs.sweep(tmp_path, older_than=-1.0) == 1
    assert theirs.folder.exists()
    assert not mine.folder.exists()
    assert (tmp_path / ("a" * 32) / "precious.txt").exists()


def test_a_run_whose_mesh_alone_is_missing_needs_neither_prior_nor_device(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run))
    before = run.checkpoint.stat().st_mtime_ns
    monkeypatch.setattr(runs, "dream_of", raised(ModelUnavailable("a/prior", "is gone")))
    assert list(runs.work(run)) == []
    assert run.checkpoint.stat().st_mtime_ns == before
    assert runs.deliver(run).steps == tiny.steps


def test_out_of_memory_before_the_first_step_is_one_sentence(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    monkeypatch.setattr(runs, "dream_of", raised(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(RunError, match=r"^Out of memory: .* before anything was computed\.$"):
        next(runs.work(run))


def test_a_run_that_nobody_works_on_cannot_be_stopped(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    with pytest.raises(RunError, match=r"^Nobody works on this run: there is nothing to stop\.$"):
        runs.request_stop(run)
    assert not runs.stop_requested(run)


def test_a_run_can_be_stopped_before_its_first_sitting_and_between_two(tiny, tmp_path) -> None:
    run = runs.create_run(tmp_path, tiny)
    with runs.attended(run):
        runs.request_stop(run)
        assert [frame.step for frame in runs.work(run)] == [1]
        with pytest.raises(RunError, match="being worked on already"):
            runs.clear_stop(run)
    assert runs.stop_requested(run), "a refused resume leaves it"
    runs.clear_stop(run)
    assert not runs.goes_on(run)


def test_what_one_thread_holds_another_may_let_go(tiny, tmp_path) -> None:
    """A page's generator is taken a step further by whichever thread is free."""
    run, held, done = runs.create_run(tmp_path, tiny), threading.Event(), threading.Event()
    lock = runs.lock_of(run.folder, runs.ATTENDED)

    def hold() -> None:
        lock.acquire()
        held.set()
        done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    assert runs.goes_on(run)
    lock.release()
    assert not runs.goes_on(run)
    done.set()
    thread.join()


def test_a_mesh_is_made_by_one_at_a_time(tiny, tmp_path, monkeypatch) -> None:
    run = runs.create_run(tmp_path, tiny)
    list(runs.work(run, seconds=0.0))
    written = []
    made = runs.Result(1, {}, {}, ())
    monkeypatch.setattr(runs, "write_results", lambda run, *_: written.append(runs.mesh_is_made(run)) or made)
    second = threading.Thread(target=runs.deliver, args=(run,))
    with runs.holding(run, runs.MESH):
        second.start()
        second.join(0.5)
        assert written == []
    second.join()
    assert written == [True]
    assert not runs.mesh_is_made(run)


@pytest.mark.parametrize("what", ["write_atomically", "save_reference"])
def test_a_full_disk_leaves_no_run_that_is_none(what: str, tmp_path, monkeypatch) -> None:
    write_stand_in(tmp_path / "models")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    reference = preprocess.process(photograph(tmp_path / "ball.png"), 32)

    def full(path: Path, *args: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, what, full)
    with pytest.raises(RunError, match=r"^The disk is full: free some space\.$"):
        runs.create_run(tmp_path / "runs", image_preset("draft", "cpu"), reference)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_root_that_cannot_be_written_is_one_sentence(tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="run folder cannot be written"):
        runs.create_run(tmp_path / "file", tiny)
