"""Text to 3D on the published test set: `python -m dreamtime evaluate`, and what of its folder is kept beside this file.

    python -m benchmarks.verdicts --work FOLDER

Forty held-out prompts with two seeds under uniform and time-prioritized timesteps, at the standard preset's number of steps.
Further options are those of `evaluate` and take precedence: `--steps 100,200,400` measures how many steps each schedule needs.
The work folder keeps every run, so that an interrupted benchmark goes on where it stopped.
"""

import argparse
import shutil
import sys
from pathlib import Path

from dreamtime.cli import main as dreamtime

HERE = Path(__file__).parent
GRID = ["--prompts", "toybox:heldout", "--schedules", "uniform,time-prioritized", "--seeds", "2", "--preset", "standard"]
GRID += ["--device", "cpu"]  # for which the embedded model's presets are made
KEPT = ("settings.json", "report.html", "results.csv", "curves.csv", "diversity.csv", "summary.json", "summary.md")


def keep(made: Path, kept: Path) -> None:
    """A copy of what was made, and nothing in the place of what was not: one seed has no diversity."""
    if made.is_file():
        shutil.copyfile(made, kept)
    else:
        kept.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie; not part of the repository")
    parser.add_argument("--output", type=Path, default=HERE / "verdicts", help="where the report goes (default %(default)s)")
    arguments, others = parser.parse_known_args()
    code = dreamtime(["evaluate", *GRID, *others, "--out", str(arguments.work)])
    if code == 0:
        arguments.output.mkdir(exist_ok=True)
        for name in KEPT:
            keep(arguments.work / name, arguments.output / name)
        shutil.copytree(arguments.work / "plots", arguments.output / "plots", dirs_exist_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
