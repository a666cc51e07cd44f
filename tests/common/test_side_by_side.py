"""Two studies side by side: numbers from the predictions, paired only where the cases are the same, nothing trusted."""

from __future__ import annotations

import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mask_study_fixture import make_mask_study
from sklearn.metrics import roc_auc_score
from study_fixture import make_study

import compare
from common import results
from common.config import NOTICE, Run
from common.report.side_by_side import write_side_by_side
from common.report.side_numbers import place_of
from common.report.side_studies import differing_settings, read_side

TORCH, KERAS = "torch", "keras-tensorflow"
KEY = "aligned/binary/cnn"


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seeds, the fewest that can tell two frameworks apart."""
    return make_study(tmp_path_factory.mktemp("a") / "first", seeds=6)


@pytest.fixture(scope="module")
def b(a: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study, in which Keras judges much worse, on another machine."""
    directory = tmp_path_factory.mktemp("b") / "second"
    shutil.copytree(a, directory)
    for seed in range(6):
        folder = run_folder(directory, KERAS, seed)
        predictions = results.read_predictions(folder / "predictions.npz")
        worse = np.where(predictions.y_true == 1, 0.35, 1.0) * predictions.y_score
        results.write_predictions(folder / "predictions.npz", results.Predictions(
            predictions.sample_id, predictions.patient, predictions.split, predictions.y_true, worse
        ))  # fmt: skip
        document = results.read_json(folder / "run.json")
        document["environment"]["keras"] = "4.0.0"
        results.write_json(folder / "run.json", document)
    return directory


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, for what needs no verdict."""
    return make_study(tmp_path_factory.mktemp("small") / "small", seeds=2)


@pytest.fixture(scope="module")
def beside(a: Path, b: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A beside B."""
    return write_side_by_side(a, b, tmp_path_factory.mktemp("out")).parent


def run_folder(directory: Path, framework: str, seed: int) -> Path:
    return results.run_directory(directory, Run("binary", "cnn", framework, "aligned", seed, 0))


def rows(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "differences.csv", keep_default_na=False, na_values=[""]).set_index(
        "key_a"
    )


def page(directory: Path) -> str:
    return (directory / "report.html").read_text(encoding="utf-8")


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def auroc(directory: Path, framework: str) -> float:
    """Mean over seeds, from the predictions alone."""
    found = []
    for seed in range(6):
        test = results.read_predictions(run_folder(directory, framework, seed) / "predictions.npz").of("test")
        found.append(roc_auc_score(test.y_true, test.y_score))
    return float(np.mean(found))


def test_numbers_are_those_of_the_predictions(a: Path, b: Path, beside: Path) -> None:
    found = rows(beside)
    for framework in (TORCH, KERAS):
        row = found.loc[f"{KEY}/{framework}/auroc_score"]
        ours, theirs = auroc(a, framework), auroc(b, framework)
        assert row["a"] == pytest.approx(ours)
        assert row["b"] == pytest.approx(theirs)
        assert row["b_minus_a"] == pytest.approx(theirs - ours)
    gap = found.loc[f"{KEY}/{KERAS}-vs-{TORCH}/auroc_score"]
    assert gap["b"] == pytest.approx(auroc(b, KERAS) - auroc(b, TORCH))


def test_the_same_cases_are_compared_in_pairs(beside: Path) -> None:
    found = rows(beside)
    torch, keras = (found.loc[f"{KEY}/{name}/auroc_score"] for name in (TORCH, KERAS))
    assert torch["same_cases"] == keras["same_cases"] == "yes"
    assert (torch["low"], torch["high"]) == (0, 0), "the same predictions of the same patients"
    assert keras["low"] < keras["b_minus_a"] < keras["high"] < 0
    paired, unpaired = keras["high"] - keras["low"], keras["a_high"] - keras["a_low"]
    assert paired < unpaired, "what the patients share is no difference of the studies"
    gap = found.loc[f"{KEY}/{KERAS}-vs-{TORCH}/auroc_score"]
    assert (gap["low"], gap["high"]) == pytest.approx((keras["low"], keras["high"]))


def test_a_changed_verdict_comes_first(beside: Path) -> None:
    table = pd.read_csv(beside / "differences.csv", keep_default_na=False)
    first = table.iloc[0]
    assert first["key_a"] == f"{KEY}/{KERAS}-vs-{TORCH}/auroc_score"
    assert first["verdict_a"] != first["verdict_b"] == "different"
    assert "The one shared verdict changed." in page(beside)
    assert page(beside).index("<strong>different</strong>") < page(beside).index('id="primary"')


def test_only_what_differs_is_listed(small: Path, beside: Path, tmp_path: Path) -> None:
    listed = re.search(r'id="differs-table">(.*?)</div>', page(beside), re.DOTALL)
    assert listed is not None
    body = listed[1].split("<tbody>")[1]
    assert body.count("<tr>") == 1
    assert "4.0.0" in body
    assert "3.15.1" in body
    twin = tmp_path / "twin"
    shutil.copytree(small, twin)
    same = write_side_by_side(small, twin, tmp_path / "out").parent
    assert "Nothing that is recorded differs." in page(same)
    edited = results.read_json(run_folder(twin, TORCH, 0) / "run.json")
    edited["recipe"]["weight_decay"] = 0.25
    results.write_json(run_folder(twin, TORCH, 0) / "run.json", edited)
    [row] = differing_settings(read_side(small, "A"), read_side(twin, "B"))
    assert row == {
        "part": TORCH, "setting": "binary/cnn.recipe.weight_decay", "a": "0.01", "b": "0.01, 0.25",
    }  # fmt: skip
    costs = rows(same)
    assert (costs["b_minus_a"].dropna() == 0).all()


def test_nothing_is_written_into_either_study_and_nothing_stale_is_read(
    a: Path, b: Path, tmp_path: Path
) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(a, stale)
    results.write_json(stale / "summary.json", {f"{KEY}/{TORCH}/auroc_score": {"mean": 0.123}})
    before = digests(stale) | digests(b)
    out = write_side_by_side(stale, b, tmp_path / "out").parent
    assert digests(stale) | digests(b) == before
    assert rows(out).loc[f"{KEY}/{TORCH}/auroc_score"]["a"] == pytest.approx(auroc(a, TORCH))


def test_other_pictures_under_equal_names_are_not_paired(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small, other)
    samples = results.read_study(other).samples()
    tested = samples["id"].isin(results.read_study(other).split().query("split == 'test'")["id"])
    samples.loc[samples.index[tested][0], "sha256"] = "0" * 64
    results.write_csv(other / "data" / "samples.csv", samples)
    out = write_side_by_side(small, other, tmp_path / "out").parent
    row = rows(out).loc[f"{KEY}/{TORCH}/auroc_score"]
    assert row["same_cases"] == "no"
    assert np.isnan(row["low"])
    assert "the pictures, labels or masks behind equal names are others" in page(out)


def test_other_patients_are_not_paired_and_that_is_said(small: Path, tmp_path: Path) -> None:
    folds = make_study(tmp_path / "folds", seeds=2, folds=2)
    out = write_side_by_side(small, folds, tmp_path / "out").parent
    assert set(rows(out)["same_cases"].dropna()) == {"no"}
    assert "Not the same test cases (90 cases in A, 180 in B, 90 in both; 10 patients in A, 20 in B)" in page(
        out
    )
    assert "split of binary" in page(out)


def test_studies_in_different_lanes_are_set_side_by_side_across_them(small: Path, tmp_path: Path) -> None:
    native = make_study(tmp_path / "native", seeds=2, lane="native")
    out = write_side_by_side(small, native, tmp_path / "out").parent
    row = rows(out).loc[f"{KEY}/{TORCH}/auroc_score"]
    assert row["key_b"] == f"native/binary/cnn/{TORCH}/auroc_score"
    assert "The two are in different lanes" in page(out)


def test_studies_with_nothing_in_common_say_so(small: Path, tmp_path: Path) -> None:
    masks = make_mask_study(tmp_path / "masks", seeds=1, gates=())
    out = write_side_by_side(small, masks, tmp_path / "out").parent
    assert "no number in common" in page(out)
    assert "aligned/segmentation/unet/torch/dice_score" in page(out), "told as only in one"


def test_masks_are_paired_too(tmp_path: Path) -> None:
    one, other = (
        make_mask_study(tmp_path / name, seeds=seeds, gates=()) for name, seeds in (("a", 2), ("b", 1))
    )
    found = rows(write_side_by_side(one, other, tmp_path / "out").parent)
    row = found.loc["aligned/segmentation/unet/torch/dice_score"]
    assert row["same_cases"] == "yes"
    assert row["low"] <= row["b_minus_a"] <= row["high"]


@pytest.mark.parametrize(
    ("key", "fields", "place"),
    [
        (f"{KEY}/{TORCH}/auroc_score", {"mean": 1}, ("score", TORCH, "slice", "", "auroc_score")),
        (f"{KEY}/{TORCH}/patient/auroc_score", {"mean": 1}, ("score", TORCH, "patient", "", "auroc_score")),
        (f"{KEY}/k-vs-t/f1_score", {"difference": 1}, ("difference", "k-vs-t", "slice", "", "f1_score")),
        (f"{KEY}/{TORCH}/train_seconds", {"runs": 2}, ("cost", TORCH, "", "", "train_seconds")),
        ("native/subtype/densenet121/t/external/bleeding/f1_score", {"support": 9},
         ("class", "t", "external", "bleeding", "f1_score")),
        ("aligned/segmentation/unet/t/small/dice_score", {"mean": 1}, ("score", "t", "small", "", "dice_score")),
        ("aligned/cascade/cnn-unet/t/gated_dice_score", {"mean": 1},
         ("cascade", "t", "lesion", "", "gated_dice_score")),
    ],
)  # fmt: skip
def test_keys_are_understood(key: str, fields: dict[str, float], place: tuple[str, ...]) -> None:
    found = place_of(key, fields)
    assert (found.kind, found.who, found.level, found.group, found.metric) == place
    assert key.startswith(f"{found.comparison}/")


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_trusts_nothing(small: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(small, hostile)
    text = page(write_side_by_side(small, hostile, tmp_path / "out").parent)
    tags = Tags()
    tags.feed(text)
    names = {name for name, _ in tags.found}
    assert not names & {"script", "img", "iframe", "object", "link", "form"}
    assert not [key for _, attributes in tags.found for key in attributes if key.startswith("on")]
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"]) for name, attributes in tags.found if name == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert not [link for link in links if not link.startswith(("#", "figures/"))]
    assert "default-src 'none'" in text
    assert text.count(NOTICE) >= 2
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<img" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert str(tmp_path) not in text + markdown, "a page to share tells nobody's folders"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["{a}", "{a}"], "was given twice"),
        (["{a}", "{b}", "{a}"], "one study or two, not 3"),
        (["{a}", "--out", "{b}"], "is for two studies"),
        (["{a}", "{b}", "--out", "{a}"], "holds a study"),
        (["{a}", "{a}/data"], "does not exist"),
    ],
)
def test_faults_are_told_in_a_sentence(
    a: Path, b: Path, words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(a)
    assert compare.main(["report", *(word.format(a=a, b=b) for word in words)]) == 2
    assert fault in capsys.readouterr().err
    assert digests(a) == before


def test_the_command_names_its_folder(
    a: Path, b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare.main(["report", str(a), str(b)]) == 0
    path = Path("results", "first-beside-second", "report.html")
    assert path.exists()
    assert f"{path}" in capsys.readouterr().out
