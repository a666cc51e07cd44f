"""`scale.md` and `scale.svg`: what `python -m benchmarks.scale` measured, to read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.ticker import FuncFormatter, NullFormatter

from common.config import NOTICE
from common.report.plotting import INK, new_panels, style
from common.results import write_text

WORDS = {
    "table": "sample table",
    "build": "cache built",
    "prepare": "study prepared (check of the cache, split, audit)",
    "open": "opened by a run",
    "epoch": "training epoch from the cache",
    "epoch, decoded": "training epoch, nothing kept by --cache-limit",
}
HUES = {"build": "#0072b2", "prepare": "#009e73", "open": "#cc79a7", "epoch": "#d55e00"}
MARKERS = {"build": "o", "prepare": "s", "open": "^", "epoch": "D"}


def write_page(table: pd.DataFrame, pixels: int, out: Path) -> None:
    """`scale.md`."""
    lines = [
        "# What more slices cost",
        "",
        f"Written by `python -m benchmarks.scale`. {NOTICE} Drawn phantom, {pixels} px a side; no patients.",
        "Each step is a process of its own. Rates are slices a CPU second, all processes together: they depend",
        "little on what else the machine had to do. Memory is the largest resident set (MiB) of the process, and what",
        "of it was there when the step began; of the decoding processes the largest is given.",
        "",
        "| slices | step | slices a CPU second | CPU seconds | memory before | peak | decoding process | on disk |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table.itertuples(index=False):
        helper = f"{row.helper_peak_mib:.0f}" if row.helper_peak_mib else "–"
        disk = f"{row.disk_mib:.0f}" if row.disk_mib else "–"
        lines.append(
            f"| {row.slices:,} | {WORDS[row.step]} | {row.images_per_cpu_second:,.0f} | {row.cpu_seconds:,.1f} | "
            f"{row.start_mib:.0f} | {row.peak_mib:.0f} | {helper} | {disk} |"
        )
    lines += ["", f"What each slice more, whose pixels are {pixels**2 / 1024:.0f} KiB, adds to the peak:", ""]
    for step, those in table.groupby("step", sort=False):
        if len(those) > 1:  # between the two largest numbers: below, a build has no whole shard to hold
            (few, less), (many, more) = those.sort_values("slices")[["slices", "peak_mib"]].to_numpy()[-2:]
            each = (more - less) * 1024 / (many - few)
            lines.append(f"- {WORDS[str(step)]}: {each:.2f} KiB (from {few:,.0f} to {many:,.0f} slices)")
    write_text(out / "scale.md", "\n".join(lines) + "\n")


def write_figure(table: pd.DataFrame, pixels: int, out: Path) -> None:
    """`scale.svg`: memory and rate over the number of slices."""
    with style():
        figure, (memory, rate) = new_panels(8.6, 3.6, columns=(1, 1))
        for step, hue in HUES.items():
            those = table[table["step"] == step].sort_values("slices")
            for axes, column in ((memory, "peak_mib"), (rate, "images_per_cpu_second")):
                axes.plot(
                    those["slices"],
                    those[column],
                    MARKERS[step] + "-",
                    color=hue,
                    markersize=5,
                    label=WORDS[step],
                )
        slices = sorted(set(table["slices"]))
        memory.plot(
            slices, [n * pixels**2 / 2**20 for n in slices], "--", color=INK, label="all pixels in memory"
        )
        for axes, title, label in (
            (memory, "Peak memory of the process", "MiB"),
            (rate, "Throughput", "slices a CPU second"),
        ):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.set_title(title)
            axes.set_xlabel("slices")
            axes.set_ylabel(label)
        memory.legend(fontsize=7, loc="upper left")
        figure.supxlabel(f"{NOTICE} Drawn phantom, {pixels} px.", fontsize=7.5)
        figure.savefig(out / "scale.svg", metadata={"Date": None, "Creator": None})
