"""`External_Test/`: tested on only, labelled by its table."""

from pathlib import Path

import pytest
from folder_fixture import fill, refusal

from common.data.layouts import open_dataset

CLASSES = {f"{name}/PNG": [f"{k}.png"] for k, name in enumerate(("Bleeding", "Ischemia", "Normal"))}
EXTERNAL = {
    "External_Test/PNG": ["20000.png", "20001.png", "20002.png"],
    "External_Test/OVERLAY": ["20000.png"],
}
LABELS = "image_id,Stroke\n20000,1\n20001,0\n20002,1\n"


def dataset(root: Path, labels: str = LABELS) -> Path:
    fill(root, CLASSES | EXTERNAL)
    (root / "External_Test" / "labels.csv").write_text(labels, encoding="utf-8")
    return root


def test_rows(tmp_path: Path) -> None:
    samples = open_dataset(dataset(tmp_path)).set_index("id")
    external = samples[samples["split"] == "external"]
    assert list(external.index) == ["External_Test/20000", "External_Test/20001", "External_Test/20002"]
    assert list(external["label"]) == ["stroke", "normal", "stroke"]
    assert list(external["mask"]) == [f"overlay:{tmp_path}/External_Test/OVERLAY/20000.png", "none", ""]
    assert set(samples["split"][["Bleeding/0", "Ischemia/1", "Normal/2"]]) == {""}


def test_masks_go_before_overlays(tmp_path: Path) -> None:
    fill(dataset(tmp_path), {"External_Test/MASKS": ["20000.png", "20001.png"]})
    masks = open_dataset(tmp_path).set_index("id")["mask"]
    assert masks["External_Test/20000"] == str(tmp_path / "External_Test" / "MASKS" / "20000.png")
    assert masks["External_Test/20001"] == "none"


@pytest.mark.parametrize(
    "labels",
    [
        " Image_ID , stroke\n20000, 1\n20001,0 \n20002,1\n",
        "\ufeffIMAGE ID,STROKE,note\r\n20000.png,1,a\r\n20001.png,0,b\r\n20002.png,1,c\r\n",
        "stroke,image_id\n1,External_Test/20000\n0,20001\n1,20002\n1,99999\n0,20001\n",
    ],
)
def test_spellings_of_the_table(tmp_path: Path, labels: str) -> None:
    samples = open_dataset(dataset(tmp_path, labels))
    assert list(samples.loc[samples["split"] == "external", "label"]) == ["stroke", "normal", "stroke"]


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ("image_id,label\n20000,1\n", "lacks the column 'Stroke'"),
        (
            "image_id,Stroke\n20000,1\n20001,0\n20002,2\n",
            "says '2' in the column Stroke of 'External_Test/20002'",
        ),
        ("image_id,Stroke\n20000,1\n20000,0\n", "gives image_id '20000' to '1' and to '0'"),
        ("image_id,Stroke\n20000,1\n", "no Stroke for 2 of 3 pictures, e.g. 'External_Test/20001'"),
        ("image_id,Stroke\n20000,1\n20001,\n20002,1\n", "no Stroke for image_id '20001'"),
        ("", "lacks the column 'image_id'"),
    ],
)
def test_faults_of_the_table(tmp_path: Path, labels: str, fault: str) -> None:
    message = refusal(dataset(tmp_path, labels))
    assert fault in message
    assert "labels.csv" in message
    assert "\n" not in message


def test_a_folder_without_table_or_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "a", CLASSES | EXTERNAL)
    assert "has no labels.csv" in refusal(tmp_path / "a")
    fill(tmp_path / "b", CLASSES | {"External_Test": ["labels.csv"]})
    assert "External_Test holds no pictures" in refusal(tmp_path / "b")
