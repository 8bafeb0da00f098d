"""What a scorer's vectors come to, with vectors whose answers are known; and tables of cells that were only pretended."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pretended_evaluation import PROMPTS as PRETENDED
from pretended_evaluation import fails, plan, pretend
from safetensors.torch import save
from tiny_scorer import write_tiny_scorer

from dreamtime.evaluation import cells, grid, report, tables
from dreamtime.evaluation.grid import EvaluationError
from dreamtime.evaluation.scorers import Scorer, load_scorer
from dreamtime.evaluation.tables import Features, Texts
from dreamtime.evaluation.views import PREVIEWS, RESOLUTION, VIEWS, Portrait
from dreamtime.toybox.world import Object, Thing

DAMAGED = r"^The results in {} are damaged: delete that folder, and they are made again\.$"
PROMPTS = ("a red cube", "a blue cube", "a blue robot", "a red cone next to a blue sphere", "a corgi on the moon")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return load_scorer(str(write_tiny_scorer(tmp_path_factory.mktemp("scorer"))))


@pytest.fixture(scope="module")
def texts() -> Texts:
    """Every text has a direction of its own."""
    wanted = tables.wanted_texts(PROMPTS)
    assert len(set(wanted)) == len(wanted)
    return Texts(PROMPTS, dict(zip(wanted, torch.eye(len(wanted)), strict=True)))


def seen(texts: Texts, color: Sequence[str], bare: Sequence[str] = ()) -> Features:
    """Pictures that look exactly like those texts."""
    return Features(texts.matrix(color), texts.matrix(bare or color), texts.matrix(color)[:0])


def test_the_geometry_of_a_prompt_has_no_colour():
    assert [tables.geometry_text(prompt) for prompt in PROMPTS] == [
        "a cube", "a cube", "a robot", "a cone next to a sphere", "a corgi on the moon",
    ]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_pictures_like_the_prompt_are_right_in_everything(texts: Texts, prompt: str):
    said = tables.judged(seen(texts, [prompt] * 8, [tables.geometry_text(prompt)] * 8), prompt, texts)
    assert said["r_color"] == said["r_geometry"] == 1
    assert {value for name, value in said.items() if name.endswith("_right")} <= {1.0}


def test_prompts_of_one_shape_share_their_geometry(texts: Texts):
    """A red cube without its colour is a blue cube without its own: that is no mistake."""
    said = tables.judged(seen(texts, ["a blue cube"] * 8, ["a cube"] * 8), "a red cube", texts)
    assert said["r_color"] == 0
    assert said["r_geometry"] == 1
    assert (said["kind_right"], said["color_right"]) == (0, 0)  # like no variant of the prompt, and not like the prompt


@pytest.mark.parametrize(
    ("prompts", "asked"),
    [
        (["a red cube"], []),
        (["a red cube", "a blue cube"], ["r_color"]),
        (["a red cube", "a red cone"], ["r_color", "r_geometry", "r_geometry_prompts"]),
    ],
)
def test_nothing_is_retrieved_from_one_caption_or_one_shape(prompts: list[str], asked: list[str]):
    assert tables.retrievals(prompts) == asked


def test_the_shapes_are_fewer_than_the_captions():
    assert tables.candidates(PROMPTS) == {"r_color": 5, "r_geometry": 4, "r_geometry_prompts": 5}


def test_precision_is_the_share_of_views(texts: Texts):
    said = tables.judged(
        seen(texts, ["a blue robot"] * 6 + ["a red cube"] * 2, ["a robot"] * 5 + ["a cube"] * 3), "a blue robot", texts
    )
    assert said["r_color"] == 6 / 8
    assert said["r_geometry"] == 5 / 8
    assert said["r_geometry_prompts"] == 0, "a robot without its colour is no blue one to this scorer"


def test_an_attribute_is_right_on_average_over_the_views(texts: Texts):
    views = ["a blue robot"] * 5 + ["a red robot"] * 3
    said = tables.judged(seen(texts, views, ["a robot"] * 8), "a blue robot", texts)
    assert said["color_right"] == 1
    said = tables.judged(seen(texts, views[::-1][:6], ["a robot"] * 6), "a blue robot", texts)
    assert said["color_right"] == 0
    assert said["kind_right"] == 1


@pytest.mark.parametrize(("views", "janus"), [("fsbbbssf", False), ("ffssbssf", False), ("fbbsfbss", True), ("ffffffff", True)])
def test_a_second_face_is_seen(texts: Texts, views: str, janus: bool):
    names = {"f": "front", "s": "side", "b": "back"}
    said = tables.judged(
        seen(texts, [f"a blue robot, {names[view]} view" for view in views], ["a robot"] * 8), "a blue robot", texts
    )
    assert said["no_janus"] == 1 - janus
    assert said["front_views"] == views.count("f")


def test_faces_are_looked_for_where_there_could_be_one(texts: Texts):
    for prompt, asked in zip(PROMPTS, (False, False, True, False, True), strict=True):
        assert (
            "no_janus" in tables.judged(seen(texts, [prompt] * 8, [tables.geometry_text(prompt)] * 8), prompt, texts)
        ) is asked


# -- cells that were only pretended


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    for cell in plan():
        pretend(cell, grid.folder_of(root, cell))
    return root


def test_there_is_a_row_per_cell(pretended: Path, scorer: Scorer):
    planned = plan()
    texts = tables.texts_of(list(dict.fromkeys(cell.prompt for cell in planned)), scorer)
    table = tables.results_table(pretended, planned, scorer, texts, {"preset": "draft", "weights": "0a1b", "on": "today"})
    assert set(zip(table.prior, table.preset, table.weights, table.scorer, strict=True)) == {
        ("toybox", "draft", "0a1b", scorer.name)
    }
    assert list(zip(table.prompt, table.schedule, table.steps, table.seed, strict=True)) == [
        (cell.prompt, cell.schedule, cell.steps, cell.seed) for cell in planned
    ]
    failed = table[table.failure != ""]
    assert len(failed) == sum(map(fails, planned)) == 2
    assert (failed[["iou", "iou_scaled", "r_color", "r_geometry", "kind_right", "color_right"]] == 0).all(axis=None)
    assert failed.color.isna().all()
    free = table[table.group == "free text"]
    assert free.iou.isna().all()
    assert free.r_color.notna().all()
    whole = table[(table.failure == "") & (table.group == "solids")]
    assert set(zip(whole.schedule, whole.steps, whole.iou, strict=True)) == {
        ("uniform", 2, 0.1), ("uniform", 4, 0.2), ("time-prioritized", 2, 0.2), ("time-prioritized", 4, 0.4),
    }  # fmt: skip


def test_a_failed_run_of_free_text_has_no_overlap_either(tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    planned = [cell for cell in plan() if cell.prompt == PRETENDED[2]]
    monkeypatch.setattr("pretended_evaluation.fails", lambda cell: cell.seed == 1)
    for cell in planned:
        pretend(cell, grid.folder_of(tmp_path, cell))
    table = tables.results_table(tmp_path, planned, scorer, tables.texts_of(list(PRETENDED), scorer), {})
    assert (table.failure != "").sum() == len(planned) / 2
    assert table.iou.isna().all()
    assert table.r_color.notna().all()


@pytest.mark.parametrize("prompt", [*PRETENDED, None])
def test_the_columns_are_the_same_whatever_the_prompts(pretended: Path, scorer: Scorer, prompt: str | None):
    planned = [cell for cell in plan() if prompt in (cell.prompt, None)]
    texts = tables.texts_of(list(dict.fromkeys(cell.prompt for cell in planned)), scorer)
    table = tables.results_table(pretended, planned, scorer, texts, {})
    curves = tables.curves_table(pretended, planned, scorer, texts)
    columns = list(tables.with_steps_to(table, curves, (0.25, 0.5)))
    assert columns == [*tables.COLUMNS, "steps_to_iou_0.25", "steps_to_iou_0.5"]
    assert columns[:4] == list(cells.CELL)
    assert len(set(columns)) == len(columns)


def test_whatever_a_scorer_says_has_its_column(texts: Texts):
    for prompt in PROMPTS:
        assert tables.judged(seen(texts, [prompt] * 8, [tables.geometry_text(prompt)] * 8), prompt, texts).keys() <= {
            *tables.COLUMNS
        }


def test_curves_have_a_row_per_glance_and_failed_runs_count_as_nothing(pretended: Path, scorer: Scorer):
    planned = plan()
    texts = tables.texts_of(list(dict.fromkeys(cell.prompt for cell in planned)), scorer)
    table = tables.curves_table(pretended, planned, scorer, texts)
    assert len(table) == sum(len(cells.glance_steps(cell.steps)) for cell in planned)
    whole = table[(table.prompt == "a red cube") & (table.schedule == "time-prioritized") & (table.steps == 4)]
    assert whole[whole.seed == 0].iou.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    failed = table[(table.prompt == "a red cube") & (table.schedule == "uniform") & (table.seed == 1)]
    assert (failed[["iou", "r_precision"]] == 0).all(axis=None)
    assert len(failed) == 2 + 4


def test_diversity_is_between_seeds(pretended: Path, scorer: Scorer):
    table = tables.diversity_table(pretended, plan(), scorer)
    assert len(table) == 3 * 2 * 2
    alone = table[(table.prompt == "a red cube") & (table.schedule == "uniform")]
    assert alone[["seen_diversity", "shape_diversity"]].isna().all(axis=None)
    others = table.drop(alone.index)
    # Two random halves of space share a third of their union.
    assert others.shape_diversity.tolist() == pytest.approx([2 / 3] * len(others), abs=0.02)
    assert (others.seen_diversity > 0).all()


def test_pictures_are_judged_once_per_scorer(pretended: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    folder = grid.folder_of(pretended, plan()[0])
    first = tables.kept_features(folder, scorer)

    def never(*arguments: object) -> None:
        raise AssertionError("the pictures were judged before")

    monkeypatch.setattr(tables, "features_of", never)
    again = tables.kept_features(folder, scorer)
    assert torch.equal(first.color, again.color)
    assert first.color.shape == (VIEWS, 128)
    assert first.curve.shape == (2 * PREVIEWS, 128)


FREE = PRETENDED[2]  # no truth is drawn for free text, which takes its time
BAD_RESULTS = ["", "{", "3", "[1]", "{}", '{"failure": null, "measures": {}}', '{"failure": null, "measures": 1, "cost": {}}']
DAMAGES = [
    ("solid.safetensors", b""),
    ("solid.safetensors", save({"other": torch.zeros(1)})),
    ("solid.safetensors", None),
    ("color.png", b"\x89PNG half"),
    ("color.png", None),
    ("curve.csv", b""),
    ("curve.csv", b"step,iou\n1\n2\n"),
    ("curve.csv", b"step,iou\n1,high\n2,0.2\n"),
    ("curve.csv", b"step,iou\n1,0.1\n"),
    ("curve.csv", None),
]


@pytest.mark.parametrize(
    ("name", "content", "judged_before"),
    [
        *(("result.json", text.encode(), False) for text in BAD_RESULTS),
        *((name, content, before) for name, content in DAMAGES for before in (False, True)),
        ("curve.png", b"half", False),  # afterwards, what it showed is kept
    ],
)
def test_a_damaged_cell_is_one_sentence(tmp_path: Path, scorer: Scorer, name: str, content: bytes | None, judged_before: bool):
    cell = next(cell for cell in plan() if cell.prompt == FREE)
    folder = grid.folder_of(tmp_path, cell)
    pretend(cell, folder)
    if judged_before:
        tables.kept_features(folder, scorer)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=DAMAGED.format(re.escape(str(folder)))):
        report.write_report(tmp_path, [cell], scorer, {})


@pytest.mark.parametrize("content", [b"", b"half", save({"color": torch.zeros(1, 1)})])
def test_a_damaged_memory_of_what_was_seen_is_made_anew(tmp_path: Path, scorer: Scorer, content: bytes):
    pretend(plan()[0], tmp_path / "cell")
    seen = tables.kept_features(tmp_path / "cell", scorer)
    (path,) = (tmp_path / "cell").glob("features-*.safetensors")
    path.write_bytes(content)
    again = tables.kept_features(tmp_path / "cell", scorer)
    assert seen is not None
    assert again is not None
    torch.testing.assert_close(vars(again), vars(seen))
    assert path.read_bytes() != content


def test_the_truth_is_judged_by_its_own_pictures(scorer: Scorer):
    texts = tables.texts_of(["a red cube", "a corgi"], scorer)
    table = tables.truth_table(texts, scorer)
    assert table.prompt.tolist() == ["a red cube"]
    assert {"r_color", "r_geometry", "kind_right", "color_right"} <= set(table.columns)


def test_the_truth_is_drawn_once_for_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, cube = list[Object](), Thing("cube", "red")
    picture = torch.full((VIEWS, RESOLUTION, RESOLUTION, 3), 0.4)

    def portray(what: Object) -> Portrait:
        drawn.append(what)
        return Portrait(picture, 1 - picture)

    monkeypatch.setattr(tables, "portrait_of_truth", portray)
    first, again = tables.kept_truth(tmp_path, cube), tables.kept_truth(tmp_path, cube)
    assert drawn == [cube]
    torch.testing.assert_close(first.color, picture)
    torch.testing.assert_close(vars(again), vars(first))
    tables.kept_truth(tmp_path, Thing("cube", "blue"))
    assert drawn == [cube, Thing("cube", "blue")]
    for path in tmp_path.rglob("bare.png"):
        path.write_bytes(path.read_bytes()[:100])  # as an interruption may leave it
    torch.testing.assert_close(vars(tables.kept_truth(tmp_path, cube)), vars(first))
    assert drawn[2:] == [cube]
