"""What the embedded text encoder tells of pairs: linear readings of its states, asked about captions they were not fitted to.

    python -m benchmarks.reading [--model FOLDER]

A UNet takes what it is told from such states by linear maps, so what no linear reading finds there it can hardly use. Captions
of 4,000 random pairs, held-out ones among them; readings are fitted to three quarters and asked about the rest. Writes
`reading.md` beside this file.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.rows import digest_of, measured_on
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.world import COLORS, RELATIONS, Pair, all_pairs

HERE = Path(__file__).parent
PAIRS = 4000
PENALTY = 1e-4  # on the square of a reading's weights


def answers(pairs: list[Pair]) -> dict[str, Int[Tensor, " N"]]:
    """What is asked, and the number of each pair's answer."""
    kinds, colors, relations = list(SOLIDS), list(COLORS), list(RELATIONS)
    return {
        "first kind": torch.tensor([kinds.index(pair.first.kind) for pair in pairs]),
        "first colour": torch.tensor([colors.index(pair.first.color) for pair in pairs]),
        "second kind": torch.tensor([kinds.index(pair.second.kind) for pair in pairs]),
        "second colour": torch.tensor([colors.index(pair.second.color) for pair in pairs]),
        "relation": torch.tensor([relations.index(pair.relation) for pair in pairs]),
    }


def read_right(states: Float[Tensor, "N D"], answer: Int[Tensor, " N"], fitted: int) -> float:
    """How often a linear reading of the states, fitted to the first so many, gives the right answer for the others."""
    x = (states - states.mean(dim=0)) / states.std(dim=0)
    reading = torch.nn.Linear(x.shape[1], int(answer.max()) + 1)
    optimizer = torch.optim.LBFGS(reading.parameters(), max_iter=150)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(reading(x[:fitted]), answer[:fitted]) + PENALTY * reading.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (reading(x[fitted:]).argmax(dim=1) == answer[fitted:]).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=WEIGHTS, help="a pipeline's folder (default: the embedded model)")
    parser.add_argument("--output", type=Path, default=HERE / "reading.md", help="(default %(default)s)")
    arguments = parser.parse_args()
    torch.default_generator.manual_seed(0)  # of a linear reading's first weights
    chosen = torch.randperm(len(every := all_pairs()), generator=Generator().manual_seed(0))[:PAIRS]
    pairs = [every[row] for row in chosen.tolist()]
    tokenizer = CLIPTokenizer.from_pretrained(arguments.model, subfolder="tokenizer", local_files_only=True)
    encoder = CLIPTextModel.from_pretrained(
        arguments.model, subfolder="text_encoder", dtype=torch.float32, local_files_only=True
    )
    tokens = tokenizer([pair.caption for pair in pairs], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = torch.cat([encoder(part)[0] for part in tokens.split(200)])
    row, end = torch.arange(PAIRS), (tokens == tokenizer.eos_token_id).int().argmax(dim=1)
    places = {"at the caption's end": end, "where nothing is left": torch.full_like(end, tokens.shape[1] - 1)}
    places |= {"at the second noun": end - 1}
    asked = answers(pairs)
    lines = [measured_on(), f"Model {digest_of(arguments.model)}.", ""]
    lines += [f"| read | {' | '.join(asked)} |", "|---" * (1 + len(asked)) + "|"]
    for name, place in places.items():
        right = [read_right(states[row, place], answer, PAIRS * 3 // 4) for answer in asked.values()]
        lines.append(f"| {name} | {' | '.join(f'{share:.1%}' for share in right)} |")
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
