"""Findings on single pictures: unreadable, painted, odd; what kinds of files there are; what is known of the masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from common import config
from common.data.cache import Cache
from common.data.findings import Finding, Row, counted
from common.data.looks import DRAWN, Looks
from common.data.samples import NO_LESION
from common.data.shards import Unreadable

MEASURES = {
    "mean": "mean grey value",
    "sd": "spread of the grey values",
    "border": "border",
    "lit": "lit share",
}
MAD_TO_SD = 1.4826  # of a normal law

Readings = Cache | Looks  # what came of reading pictures and masks: a cache's, or the audit's own


def find_unreadable(found: int, looks: Looks) -> Finding:
    """Files that no decoder may guess at. They are left out, so what remains can be compared: a warning; but where
    nothing remains, there is nothing to compare.
    """
    painted = {row.id for row in looks.painted}
    lost = [row for row in looks.unreadable if row.id not in painted]
    if not lost:
        of = "picture is drawn" if set(looks.table["format"]) == {DRAWN} else "picture can be read"
        return Finding("unreadable-files", "pass", f"Every {of} ({found:,}).")
    remedy = "Copy them again from their source, or delete them: they are left out either way."
    sentence = f"Left out, because unreadable: {counted(len(lost), 'picture')} of {found:,}."
    if looks.table.empty:
        sentence, remedy = (
            f"None of the {found:,} pictures can be used.",
            "Copy them again from their source.",
        )
    evidence = tuple({"file": row.path, "reason": _why(row)} for row in lost)
    return Finding("unreadable-files", "refuse" if looks.table.empty else "warn", sentence, evidence, remedy)


def find_painted(looks: Looks) -> Finding:
    """Pictures with colour in them, among the inputs. A lesion that is painted on is the answer in the question. Those
    that show colour are left out; but where some are painted, others may be in grey, which nobody can see. Refused.
    """
    if not looks.painted:
        return Finding("painted-inputs", "pass", "No picture has colour painted on.")
    evidence = tuple({"file": row.path, "reason": _why(row)} for row in looks.painted)
    return Finding(
        "painted-inputs",
        "refuse",
        f"Among the inputs {counted(len(looks.painted), 'picture')} in colour, as where a lesion is painted on. Such "
        "are left out, but paint in grey would go unseen.",
        evidence,
        "Give the plain slices, and painted ones as OVERLAY/ beside PNG/ only.",
    )


def find_odd(frame: pd.DataFrame) -> Finding:
    """Pictures of one grey value, nearly empty ones, and ones far from the rest of their data set."""
    rows: list[Row] = []
    constant, empty = frame["constant"], (frame["lit"] < config.AUDIT_EMPTY_SHARE) & ~frame["constant"]
    rows += [{"file": name, "why": "one grey value"} for name in frame.loc[constant, "file"]]
    rows += [
        {"file": name, "why": f"only {lit:.1%} brighter than background"}
        for name, lit in frame.loc[empty, ["file", "lit"]].itertuples(index=False)
    ]
    plain = frame[~constant & ~empty]
    far: dict[str, tuple[float, str]] = {}  # file -> deviations, why
    for _, those in plain.groupby("source"):
        for name, words in MEASURES.items():
            values = those[name].to_numpy(dtype=np.float64)
            middle = float(np.median(values))
            spread = MAD_TO_SD * float(np.median(np.abs(values - middle)))
            if spread == 0:
                continue
            deviations = np.abs(values - middle) / spread
            for k in np.flatnonzero(deviations > config.AUDIT_OUTLIER_DEVIATIONS):
                file, size = str(those["file"].iloc[k]), float(deviations[k])
                why = f"{words} {values[k]:.3g}, usually {middle:.3g}"
                far[file] = max(far.get(file, (0.0, "")), (size, why))
    rows += [
        {"file": file, "why": why} for file, (_, why) in sorted(far.items(), key=lambda item: -item[1][0])
    ]
    if not rows:
        return Finding("odd-pictures", "pass", "No picture is empty or far from the others.")
    parts = [
        f"{count:,} {words}"
        for count, words in (
            (int(constant.sum()), "of one grey value"),
            (int(empty.sum()), "nearly empty"),
            (len(far), "far from the others of their data set"),
        )
        if count
    ]
    return Finding(
        "odd-pictures",
        "warn" if constant.any() else "note",
        f"Pictures that stand out: {', '.join(parts)}.",
        tuple(rows),
        "Look at them; remove what is no slice of a head.",
    )


def find_kinds(frame: pd.DataFrame) -> Finding:
    """Which kinds of files there are, by data set and label."""
    groups = frame.groupby(["source", "label", "format", "mode", "bits", "width", "height"], sort=True)
    rows: list[Row] = []
    for (source, label, form, mode, bits, width, height), those in groups:
        pixels = form if not bits else f"{form}, {mode}, {bits} bits" if form != DRAWN else DRAWN
        rows.append(
            {
                "set": str(source),
                "label": str(label),
                "kind": str(pixels),
                "size_px": f"{width} x {height}",
                "pictures": len(those),
                "mean_grey": round(float(those["mean"].mean()), 1),
                "spread": round(float(those["sd"].mean()), 1),
                "border": round(float(those["border"].mean()), 1),
            }
        )
    kinds = sorted({(str(row["kind"]), str(row["size_px"])) for row in rows})
    rows.sort(key=lambda row: -int(row["pictures"]))
    if len(kinds) == 1:
        kind, size = kinds[0]
        return Finding(
            "picture-kinds", "pass", f"All pictures are of one kind: {kind}, {size} px.", tuple(rows)
        )
    return Finding(
        "picture-kinds",
        "note",
        f"The pictures are of {len(kinds)} kinds (format, depth, size), e.g. {kinds[0][0]}, {kinds[0][1]} px and "
        f"{kinds[-1][0]}, {kinds[-1][1]} px.",
        tuple(rows),
        "Kinds that go with a label would give it away: see the finding label-shortcut.",
    )


def find_masks(frame: pd.DataFrame, readings: Sequence[Readings]) -> Finding:
    """Lesion masks: how many, and where they do not fit their slices. Nothing here refuses: a mask that cannot be used
    is unknown, and its slice takes no part in segmentation.
    """
    lost = {row.id: row for one in readings for row in one.unreadable_masks}
    doubtful = {row.id: row for one in readings for row in one.doubtful_masks}
    empty = {name for one in readings for name in one.empty_masks}
    was_read = any(one.with_masks for one in readings)
    ids, label, mask = frame["id"], frame["label"], frame["mask"]
    drawn_on = ~mask.isin(["", NO_LESION])
    on_normal = frame[(label == "normal") & drawn_on]
    # Of "stroke" nothing is said: it may be a label of patients, whose other slices have no lesion
    shown = label.isin(["bleeding", "ischemia"] if drawn_on.any() or lost else [])
    without = frame[shown & ~drawn_on & ~ids.isin(list(lost)) & ~ids.isin(list(empty))]
    blank = frame[shown & ids.isin(list(empty))]
    rows: list[Row] = []
    rows += [{"file": row.path, "why": _why(row)} for row in lost.values()]
    rows += [
        {"file": name, "why": "labelled normal, but its mask shows a lesion"} for name in on_normal["file"]
    ]
    rows += [{"file": name, "why": "labelled with a lesion, but its mask is empty"} for name in blank["file"]]
    rows += [{"file": name, "why": "labelled with a lesion, but has no mask"} for name in without["file"]]
    rows += [
        {"file": row.id, "why": f"painted lesion read with confidence {row.confidence:g} only; {row.note}"}
        for row in doubtful.values()
    ]
    usable = int(drawn_on.sum())
    if not usable and not rows:
        return Finding("masks", "note", "No lesion mask is known, so that segmentation cannot be trained.")
    unread = "" if was_read or set(frame["path"].str[:8]) == {"phantom:"} else " (not read yet)"
    clean, unknown = int((mask == NO_LESION).sum()), int((mask == "").sum())
    sentence = f"{counted(usable, 'slice')} with a lesion mask{unread}, {clean:,} known to have no lesion"
    sentence += f", {unknown:,} of which nothing is known" if unknown else ""
    faults = [
        f"{len(those):,} {words}"
        for those, words in (
            (lost, "unusable"),
            (on_normal, "with a lesion on a normal slice"),
            (blank, "empty on a lesion slice"),
            (without, "missing of a lesion slice"),
            (doubtful, "doubtful"),
        )
        if len(those)
    ]
    if not faults:
        return Finding("masks", "pass", f"{sentence}.")
    return Finding(
        "masks", "warn", f"{sentence}. Masks to look at: {', '.join(faults)}.", tuple(rows),
        "Mend or complete the masks named: slices without a usable one take no part in segmentation, and where a "
        "normal slice shows a lesion, its mask or its label is wrong.",
    )  # fmt: skip


def _why(row: Unreadable) -> str:
    """The reason without the file's name, which stands beside it."""
    return row.reason.removeprefix("the lesion mask ").removeprefix(row.path).strip()
