"""How far the scorer can be trusted as `evaluate` asks it: about true objects, by all eight views of each together.

    python -m benchmarks.ruler

Random objects of the whole world, of a seed of their own, ray-traced as results are looked at. Single pictures from anywhere
are harder: for those see the scorer's own model card. Writes `ruler.md` beside this file.
"""

import argparse
from pathlib import Path

import pandas as pd
from torch import Generator

from benchmarks.rows import measured_on
from dreamtime.evaluation.prompt_sets import GROUPS
from dreamtime.evaluation.scorers import load_scorer
from dreamtime.evaluation.summary import MEASURES
from dreamtime.evaluation.tables import candidates, texts_of, truth_table
from dreamtime.toybox.portraits import random_objects
from dreamtime.toybox.world import Object, twin

HERE = Path(__file__).parent
TOLD = ("kind_right", "color_right", "accent_right", "relation_right", "r_color", "r_geometry")


def prompts_of_world(count: int, seed: int) -> list[str]:
    """The captions of objects that look different, drawn as the scorer's checked pictures are."""
    found = dict[Object, None]()
    generator = Generator().manual_seed(seed)
    while len(found) < count:
        (what,) = random_objects(1, generator)
        if twin(what) not in found:
            found[what] = None
    return [what.caption for what in found]


def row_of(name: str, table: pd.DataFrame) -> str:
    """How many objects there are, and of each measure its mean and among how many of them."""
    cells = [table[told].dropna() if told in table else pd.Series(dtype=float) for told in TOLD]
    shown = [f"{100 * values.mean():.1f} % of {len(values)}" if len(values) else "" for values in cells]
    return f"| {name} | {len(table)} | " + " | ".join(shown) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=60, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=3000, help="not the scorer's (default %(default)s)")
    parser.add_argument("--scorer", default="toybox", help="who judges, as for `evaluate` (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "ruler.md", help="where it is written (default %(default)s)")
    arguments = parser.parse_args()
    scorer, prompts = load_scorer(arguments.scorer), prompts_of_world(arguments.objects, arguments.seed)
    table, among = truth_table(texts_of(prompts, scorer), scorer), candidates(prompts)
    labels = [f"{MEASURES[told].label}, among {among[told]}" if told in among else MEASURES[told].label for told in TOLD]
    lines = [measured_on(), "", "| objects | | " + " | ".join(labels) + " |", "|---" * (2 + len(TOLD)) + "|"]
    lines.append(row_of("all", table))
    lines += [row_of(group, table[table.group == group]) for group in GROUPS if (table.group == group).any()]
    print("\n".join(lines))
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
