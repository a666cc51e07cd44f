"""How often do the intervals hold the truth, and how often do the tests find what is not there?

    python benchmarks/statistics_simulation.py [--trials N] [--quick] [--out DIR]

Draws test sets, seeds and splits of which the truth is known, lets every procedure of `common.statistics` judge them,
and counts. Writes DIR/statistics_simulation.csv and .md. Some ten minutes for 2000 trials on one core; equal --trials
give equal files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the matrices are small: more threads only wait for each other
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import simulate_patients
import simulate_seeds

TRIALS, QUICK_TRIALS = 2000, 100
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each setting (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    table = simulated(QUICK_TRIALS if given.quick else given.trials)
    given.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.out / "statistics_simulation.csv", index=False)
    text = markdown(table)
    (given.out / "statistics_simulation.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def simulated(trials: int) -> pd.DataFrame:
    """A row a procedure, case, size and quantity: share of the trials with its Monte-Carlo standard error."""
    happened, tried = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for part in (simulate_seeds, simulate_patients):
        for *key, yes in part.simulate(trials):
            tried[tuple(key)] += 1
            happened[tuple(key)] += bool(yes)
    rows = []
    for key, count in tried.items():
        share = happened[key] / count
        rows.append((*key, round(share, 4), round(float(np.sqrt(share * (1 - share) / count)), 4), count))
    return pd.DataFrame(
        rows, columns=["procedure", "case", "size", "quantity", "share", "monte_carlo_error", "trials"]
    )


def markdown(table: pd.DataFrame) -> str:
    """A table a quantity and kind of size, in per cent with the Monte-Carlo standard error; a column a size."""
    lines = ["# What the statistics hold, simulated at known truth", ""]
    lines += [
        "Written by `python benchmarks/statistics_simulation.py`. Research only, not a medical device.",
        "",
    ]
    lines += [
        f"The data are drawn numbers, of no patient. Up to {table['trials'].max()} trials each; those in which a",
        "procedure declined to answer are left out. Per cent ± Monte-Carlo standard error.",
        "",
    ]
    table = table.assign(kind=table["size"].str.split().str[-1].str.removesuffix("s"))
    for quantity, kind in product(dict.fromkeys(table["quantity"]), dict.fromkeys(table["kind"])):
        rows = table[(table["quantity"] == quantity) & (table["kind"] == kind)]
        sizes = list(dict.fromkeys(rows["size"]))
        if not sizes:
            continue
        lines += [f"## {quantity[0].upper()}{quantity[1:]}: over {kind}s", ""]
        lines += [f"| procedure | case | {' | '.join(sizes)} |", "|---|---|" + "---:|" * len(sizes)]
        for (procedure, case), cells in rows.groupby(["procedure", "case"], sort=False):
            found = {
                row.size_: f"{100 * row.share:.1f} ± {100 * row.monte_carlo_error:.1f}"
                for row in cells.rename(columns={"size": "size_"}).itertuples()
            }
            lines.append(f"| {procedure} | {case} | {' | '.join(found.get(size, '–') for size in sizes)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
