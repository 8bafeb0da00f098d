"""The paper's headline by this ruler: the steps that uniform timesteps need for what the time-prioritized ones reach.

    python -m benchmarks.headline --work FOLDER

The forty prompts of `benchmarks.verdicts` under uniform timesteps with twice as many steps, whose curves are laid beside those
that it kept, seed by seed. Further options are those of `evaluate` and take precedence (`--seeds 2`). The work folder keeps
every run, so that an interrupted benchmark goes on where it stopped. Writes `headline.md` and `headline.csv`, the longer runs'
curves, beside this file.
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from benchmarks.rows import digest_of, measured_on
from dreamtime.cli import main as dreamtime
from dreamtime.evaluation.report import ratio_sentence, speedup_sentence
from dreamtime.evaluation.summary import curves_by_schedule, ratios, speedups
from dreamtime.toybox import WEIGHTS

HERE = Path(__file__).parent
GRID = ["--prompts", "toybox:heldout", "--schedules", "uniform", "--steps", "250", "--seeds", "1", "--preset", "standard"]
GRID += ["--device", "cpu"]  # as the runs that they are laid beside


def compared(curves: pd.DataFrame, longer: pd.DataFrame) -> list[str]:
    """What both sets of curves say together, of the prompts and seeds that both have."""
    of_both = [each[["prompt", "seed"]].drop_duplicates() for each in (curves, longer)]
    both = pd.concat([curves, longer]).merge(of_both[0].merge(of_both[1]))
    reached = [
        f"{schedule} ends with an IoU of {run.scores[:, -1].mean():.3f} after {run.steps[-1]} steps."
        for schedule, runs in curves_by_schedule(both, "iou").items()
        for run in runs
    ]
    found = [*map(ratio_sentence, ratios(both, "iou")), *map(speedup_sentence, speedups(both, "iou"))]
    return [f"Prompts: {both.prompt.nunique()}; seeds of each: {both.seed.nunique()}.", *reached, *found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie; not part of the repository")
    parser.add_argument(
        "--verdicts", type=Path, default=HERE / "verdicts", help="the folder of `benchmarks.verdicts` (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="where the result goes (default %(default)s)")
    arguments, others = parser.parse_known_args()
    if code := dreamtime(["evaluate", *GRID, *others, "--out", str(arguments.work)]):
        return code
    folders = arguments.verdicts, arguments.work
    if len({(folder / "settings.json").read_text() for folder in folders}) > 1:
        print(f"{arguments.verdicts} is of other settings or weights: run benchmarks.verdicts anew first.", file=sys.stderr)
        return 2
    model = f"Model {digest_of(WEIGHTS)}. Runs of 125 steps: those of `benchmarks/verdicts`."
    lines = [measured_on(), model, ""]
    lines += [f"* {sentence}" for sentence in compared(*(pd.read_csv(folder / "curves.csv") for folder in folders))]
    shutil.copyfile(arguments.work / "curves.csv", arguments.output / "headline.csv")
    (arguments.output / "headline.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
