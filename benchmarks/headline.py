"""The paper's headline by this ruler: the steps that uniform timesteps need for what the time-prioritized ones reach.

    python -m benchmarks.headline --work FOLDER

The forty prompts of `benchmarks.verdicts` under uniform timesteps with twice as many steps, whose curves are laid beside those
that it kept, seed by seed. Further options are those of `evaluate` and take precedence (`--seeds 2`). The work folder keeps
every run, so that an interrupted benchmark goes on where it stopped. Writes `headline.md` and the curves beside this file.
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from benchmarks.rows import measured_on
from dreamtime.cli import main as dreamtime
from dreamtime.evaluation.report import ratio_sentence, speedup_sentence
from dreamtime.evaluation.summary import ratios, speedups

HERE = Path(__file__).parent
GRID = ["--prompts", "toybox:heldout", "--schedules", "uniform", "--steps", "250", "--seeds", "1", "--preset", "standard"]


def compared(curves: pd.DataFrame, longer: pd.DataFrame) -> list[str]:
    """What both sets of curves say together, of the prompts and seeds that both have."""
    common = curves[["prompt", "seed"]].merge(longer[["prompt", "seed"]]).drop_duplicates()
    both = pd.concat([curves, longer]).merge(common)
    found = [*map(ratio_sentence, ratios(both, "iou")), *map(speedup_sentence, speedups(both, "iou"))]
    ends = both[both.step == both.steps].groupby(["schedule", "steps"], sort=False).iou.mean()
    reached = [f"{schedule} ends with an IoU of {iou:.3f} after {steps} steps." for (schedule, steps), iou in ends.items()]
    return [f"Prompts and seeds: {len(common)}.", *reached, *found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie; not part of the repository")
    parser.add_argument("--verdicts", type=Path, default=HERE / "verdicts", help="what that kept (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE, help="where the result goes (default %(default)s)")
    arguments, others = parser.parse_known_args()
    if code := dreamtime(["evaluate", *GRID, *others, "--out", str(arguments.work)]):
        return code
    curves, longer = (pd.read_csv(folder / "curves.csv") for folder in (arguments.verdicts, arguments.work))
    lines = [measured_on(), "", *(f"* {sentence}" for sentence in compared(curves, longer))]
    shutil.copyfile(arguments.work / "curves.csv", arguments.output / "headline.csv")
    (arguments.output / "headline.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
