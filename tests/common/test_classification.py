"""Classification metrics against hand-worked values, scikit-learn, and the laws that any such metric obeys."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import StudyError
from common.metrics import classification as ours

TOLERANCE = 1e-12  # sums of at most some hundred float64 terms

# Six samples: two positives and one negative called at 0.5, one positive missed, two negatives left alone.
Y_TRUE = np.array([1, 1, 1, 0, 0, 0])
Y_SCORE = np.array([0.9, 0.6, 0.2, 0.7, 0.4, 0.1])


def random_case(seed: int, size: int = 200, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities with many ties, and whole weights with zeros among them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, size)
    score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.25), 0, 1).round(decimals)
    return truth, score, rng.poisson(1.0, size).astype(float)


@st.composite
def binary_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Truth with both classes, and scores on a coarse grid, so that ties are common."""
    size = draw(st.integers(2, 25))
    truth = draw(
        st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda y: 0 < sum(y) < len(y))
    )
    score = draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    return np.array(truth), np.array(score) / 8


# --- values worked by hand ------------------------------------------------------------------------------------


def test_counts_come_in_the_order_tp_fp_fn_tn() -> None:
    counts = ours.count_outcomes(Y_TRUE, Y_SCORE, 0.5)
    assert [float(count[0]) for count in counts] == [2, 1, 1, 2]
    assert counts._fields == ("tp", "fp", "fn", "tn")


def test_binary_metrics_by_hand() -> None:
    scores = ours.classification_scores(Y_TRUE, Y_SCORE, 0.5)
    expected = {
        "auroc_score": (3 + 2 + 1) / 9,  # negatives below each positive
        "average_precision_score": (1 / 1 + 2 / 3 + 3 / 5) / 3,  # precision at each positive, from the top
        "accuracy_score": 4 / 6,
        "recall_score": 2 / 3,
        "specificity_score": 2 / 3,
        "precision_score": 2 / 3,
        "f1_score": 4 / 6,
        "brier_score": (0.01 + 0.16 + 0.64 + 0.49 + 0.16 + 0.01) / 6,
        "expected_calibration_error": (0.1 + 0.4 + 0.8 + 0.7 + 0.4 + 0.1) / 6,  # six bins of one sample
    }
    assert scores == pytest.approx(expected, rel=1e-12)
    assert list(scores) == list(expected) == list(ours.TITLE) == list(ours.DIRECTION)
    assert all(type(value) is float for value in scores.values())


def test_threshold_is_reached_by_an_equal_score() -> None:
    assert ours.recall_score([1, 0], [0.5, 0.4], threshold=0.5) == 1.0
    assert ours.recall_score([1, 0], [0.5, 0.4], threshold=np.nextafter(0.5, 1)) == 0.0


def test_auroc_gives_a_tie_half_a_win() -> None:
    assert ours.auroc_score([1, 0], [0.5, 0.5]) == 0.5
    assert ours.auroc_score([1, 1, 0, 0], [0.8, 0.5, 0.5, 0.1]) == (2 + 1.5) / 4


def test_confusion_matrix_has_true_rows_and_decided_columns() -> None:
    truth, score = [1, 1, 1, 0, 0, 0, 0], [0.9, 0.2, 0.3, 0.8, 0.1, 0.1, 0.1]
    matrix = ours.confusion_matrix(truth, score)
    np.testing.assert_array_equal(matrix, [[3, 1], [2, 1]])
    assert matrix.dtype == np.int64


def test_calibration_error_averages_bins_by_weight() -> None:
    # bin 0.2..0.3: mean probability 0.25, frequency 1/2, two samples; bin 0.9..1: 0.95 against 1/2, two samples
    assert ours.expected_calibration_error([0, 1, 1, 0], [0.25, 0.25, 0.9, 1.0]) == pytest.approx(
        (2 * 0.25 + 2 * 0.45) / 4, rel=1e-12
    )


def test_calibration_error_of_classes_judges_the_decision() -> None:
    score = [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
    # decisions 0, 0, 2 against 0, 1, 2: bin 0.7 is right half the time, bin 0.8 always
    expected = (2 * abs(0.5 - 0.7) + 1 * abs(1 - 0.8)) / 3
    assert ours.expected_calibration_error([0, 1, 2], score) == pytest.approx(expected, rel=1e-12)


# --- scikit-learn as the oracle -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_metrics_equal_scikit_learn(seed: int, weighted: bool) -> None:
    truth, score, weight = random_case(seed, decimals=2 - seed % 2)
    w = weight if weighted else None
    called = (score >= 0.45).astype(int)
    expected = {
        "auroc_score": reference.roc_auc_score(truth, score, sample_weight=w),
        "average_precision_score": reference.average_precision_score(truth, score, sample_weight=w),
        "accuracy_score": reference.accuracy_score(truth, called, sample_weight=w),
        "recall_score": reference.recall_score(truth, called, sample_weight=w),
        "specificity_score": reference.recall_score(truth, called, pos_label=0, sample_weight=w),
        "precision_score": reference.precision_score(truth, called, sample_weight=w),
        "f1_score": reference.f1_score(truth, called, sample_weight=w),
        "brier_score": reference.brier_score_loss(truth, score, sample_weight=w),
    }
    scores = ours.classification_scores(truth, score, 0.45, w)
    scores.pop("expected_calibration_error")  # scikit-learn has none
    assert scores == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(
        ours.confusion_matrix(truth, score, 0.45, w),
        reference.confusion_matrix(truth, called, sample_weight=w),
    )


@pytest.mark.parametrize("seed", range(3))
def test_class_metrics_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 120)
    score = rng.dirichlet(np.ones(3), 120) + 0.5 * np.eye(3)[truth]
    score /= score.sum(1, keepdims=True)
    decided, each = score.argmax(1), np.eye(3)[truth]
    expected = {
        "auroc_score": reference.roc_auc_score(truth, score, multi_class="ovr"),
        "average_precision_score": reference.average_precision_score(each, score, average="macro"),
        "accuracy_score": reference.accuracy_score(truth, decided),
        "recall_score": reference.recall_score(truth, decided, average="macro"),
        "specificity_score": np.mean(
            [reference.recall_score(truth == c, decided == c, pos_label=False) for c in range(3)]
        ),
        "precision_score": reference.precision_score(truth, decided, average="macro"),
        "f1_score": reference.f1_score(truth, decided, average="macro"),
        "brier_score": ((score - each) ** 2).sum(1).mean(),
    }
    scores = ours.classification_scores(truth, score)
    scores.pop("expected_calibration_error")
    assert scores == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(
        ours.confusion_matrix(truth, score), reference.confusion_matrix(truth, decided)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_equal_scikit_learn(weighted: bool) -> None:
    truth, score, weight = random_case(7, decimals=2)
    w = weight if weighted else None
    curve = ours.roc_curve(truth, score, w)
    fpr, tpr, thresholds = reference.roc_curve(truth, score, sample_weight=w, drop_intermediate=False)
    if weighted:  # scikit-learn keeps points of zero weight in some versions; ours never has them
        kept = np.isin(thresholds, curve.thresholds)
        fpr, tpr, thresholds = fpr[kept], tpr[kept], thresholds[kept]
    for mine, theirs in zip(curve, (fpr, tpr, thresholds), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(
        np.trapezoid(curve.tpr, curve.fpr), ours.auroc_score(truth, score, w), rtol=TOLERANCE, atol=TOLERANCE
    )
    pr = ours.precision_recall_curve(truth, score, w)
    kept_rows = weight > 0 if weighted else np.full(len(truth), True)
    theirs_pr = reference.precision_recall_curve(
        truth[kept_rows], score[kept_rows], sample_weight=w[kept_rows] if w is not None else None
    )
    for mine, theirs in zip(pr, theirs_pr, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    stepwise = -np.sum(np.diff(pr.recall) * pr.precision[:-1])
    np.testing.assert_allclose(
        stepwise, ours.average_precision_score(truth, score, w), rtol=TOLERANCE, atol=TOLERANCE
    )


# --- weights --------------------------------------------------------------------------------------------------


def test_whole_weights_are_repeated_rows() -> None:
    truth, score, weight = random_case(11)
    weight[score >= np.sort(score)[-20]] = 0  # the highest scores are not drawn
    rows = np.repeat(np.arange(len(truth)), weight.astype(int))
    weighted = ours.classification_scores(truth, score, 0.4, weight)
    assert weighted == pytest.approx(ours.classification_scores(truth[rows], score[rows], 0.4), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_block_of_weights_is_each_weight_alone(classes: int) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, classes, 60)
    score = rng.random(60).round(1) if classes == 2 else rng.dirichlet(np.ones(3), 60)
    weights = rng.poisson(1.0, (7, 60))
    weights[0] = 0  # nothing drawn at all
    weights[1, truth == 1] = 0  # no positive drawn
    weights[2, np.argsort(score if classes == 2 else score[:, 0])[-20:]] = 0  # the highest scores not drawn
    together = ours.classification_scores(truth, score, 0.5, weights)
    for index, weight in enumerate(weights):
        alone = ours.classification_scores(truth, score, 0.5, weight)
        for name, value in alone.items():
            assert together[name].shape == (7,)
            np.testing.assert_allclose(
                together[name][index], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
    matrices = ours.confusion_matrix(truth, score, 0.5, weights)
    assert matrices.shape == (7, classes, classes)
    np.testing.assert_array_equal(matrices[3], ours.confusion_matrix(truth, score, 0.5, weights[3]))


# --- what is undefined ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "score", "undefined"),
    [
        (
            [0, 0],
            [0.2, 0.3],
            {"auroc_score", "average_precision_score", "recall_score", "precision_score", "f1_score"},
        ),
        ([0, 0], [0.2, 0.8], {"auroc_score", "average_precision_score", "recall_score"}),
        ([1, 1], [0.2, 0.8], {"auroc_score", "specificity_score"}),
        ([0, 1], [0.2, 0.3], {"precision_score"}),
        ([], [], set(ours.TITLE)),
    ],
)
def test_undefined_is_nan_without_a_warning(
    truth: list[int], score: list[float], undefined: set[str]
) -> None:
    scores = ours.classification_scores(truth, score)
    assert {name for name, value in scores.items() if np.isnan(value)} == undefined


def test_curves_of_one_class_are_nan_where_undefined() -> None:
    assert np.isnan(ours.roc_curve([0, 0], [0.1, 0.2]).tpr).all()
    np.testing.assert_array_equal(ours.roc_curve([0, 0], [0.1, 0.2]).fpr, [0, 0.5, 1])
    assert np.isnan(ours.precision_recall_curve([0, 0], [0.1, 0.2]).recall[:-1]).all()


def test_an_absent_class_leaves_its_macro_mean_undefined() -> None:
    score = np.full((4, 3), 1 / 3)
    assert np.isnan(ours.recall_score([0, 1, 0, 1], score))
    assert ours.accuracy_score([0, 1, 0, 1], score) == 0.5  # the first of equal columns decides


# --- laws -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(binary_cases())
def test_ranking_metrics_keep_under_a_rising_map(case: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = case
    for metric in (ours.auroc_score, ours.average_precision_score):
        assert metric(truth, score) == metric(truth, np.exp(3 * score) - 7)


@settings(max_examples=60, deadline=None)
@given(binary_cases())
def test_swapping_the_classes_turns_auroc_around(case: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = case
    auroc = ours.auroc_score(truth, score)
    assert ours.auroc_score(1 - truth, score) == pytest.approx(1 - auroc, abs=1e-12)
    assert ours.auroc_score(1 - truth, 1 - score) == pytest.approx(auroc, abs=1e-12)
    assert ours.auroc_score(truth, np.stack([1 - score, score], axis=1)) == pytest.approx(auroc, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(binary_cases())
def test_metrics_lie_within_0_and_1_and_auroc_counts_pairs(case: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = case
    for name, value in ours.classification_scores(truth, score).items():
        assert np.isnan(value) or 0 <= value <= 1, name
    won = np.sign(score[truth == 1][:, None] - score[truth == 0][None, :])
    assert ours.auroc_score(truth, score) == pytest.approx((won.mean() + 1) / 2, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(binary_cases())
def test_no_cut_beats_the_chosen_threshold(case: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = case

    def youden(threshold: float) -> float:
        return (
            ours.recall_score(truth, score, threshold) + ours.specificity_score(truth, score, threshold) - 1
        )

    chosen = ours.choose_threshold(truth, score)
    every = [*np.unique(score), score.max() + 1]
    assert youden(chosen) == pytest.approx(max(youden(cut) for cut in every), abs=1e-12)
    as_good = [cut for cut in every if youden(cut) > youden(chosen) - 1e-12]
    assert chosen <= min(as_good)  # the lowest of equals: it lies in the gap below the lowest such score


# --- the threshold --------------------------------------------------------------------------------------------


def test_threshold_lies_midway_and_prefers_to_miss_few() -> None:
    assert ours.choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    # cuts at 0.75 and 0.35 are equally good, 1/2 each: the lower one finds both positives
    assert ours.choose_threshold([0, 1, 0, 1], [0.2, 0.5, 0.6, 0.9]) == pytest.approx(0.35)


@pytest.mark.parametrize("seed", range(5))
def test_threshold_moves_no_further_than_the_rounding_of_the_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, score, _ = random_case(seed, size=60, decimals=2)  # many ties, which the noise breaks
    noisy = score + rng.uniform(-1e-7, 1e-7, len(score))
    assert abs(ours.choose_threshold(truth, noisy) - ours.choose_threshold(truth, score)) <= 1e-7


def test_a_worthless_score_calls_everything_positive() -> None:
    threshold = ours.choose_threshold([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5])
    assert 0.5 - 1e-5 < threshold < 0.5


def test_threshold_needs_both_classes_and_a_known_rule() -> None:
    with pytest.raises(StudyError, match="0 positive and 2 negative"):
        ours.choose_threshold([0, 0], [0.1, 0.2])
    with pytest.raises(StudyError, match="0 positive and 0 negative"):
        ours.choose_threshold([], [])
    with pytest.raises(ValueError, match=r"rule \(='f1'\)"):
        ours.choose_threshold([0, 1], [0.1, 0.2], rule="f1")


# --- each class against the rest ------------------------------------------------------------------------------


def class_case(seed: int, size: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth of three classes, half of it class 0; probabilities with ties; whole weights with zeros among them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size, p=(0.5, 0.3, 0.2))
    score = (rng.dirichlet(np.ones(3), size) + 0.4 * np.eye(3)[truth]).round(1) + 0.1
    return truth, score / score.sum(1, keepdims=True), rng.poisson(1.0, size).astype(float)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_per_class_scores_equal_scikit_learn(seed: int, weighted: bool) -> None:
    truth, score, weight = class_case(seed)
    w = weight if weighted else None
    decided = score.argmax(1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, decided, labels=[0, 1, 2], sample_weight=w
    )
    per_class = {
        "auroc_score": [reference.roc_auc_score(truth == k, score[:, k], sample_weight=w) for k in range(3)],
        "average_precision_score": [
            reference.average_precision_score(truth == k, score[:, k], sample_weight=w) for k in range(3)
        ],
        "recall_score": recall,
        "specificity_score": [
            reference.recall_score(truth == k, decided == k, pos_label=False, sample_weight=w)
            for k in range(3)
        ],
        "precision_score": precision,
        "f1_score": f1,
    }
    mine = ours.per_class_scores(truth, score, w)
    means, macro = ours.weighted_scores(truth, score, w), ours.classification_scores(truth, score, 0.5, w)
    assert list(mine) == list(means) == list(per_class) == [name for name in ours.TITLE if name in per_class]
    for name, values in per_class.items():
        np.testing.assert_allclose(mine[name], values, rtol=TOLERANCE, err_msg=name)
        assert means[name] == pytest.approx(np.average(values, weights=support), rel=1e-12)
        assert macro[name] == pytest.approx(np.mean(values), rel=1e-12)
    by_sklearn = reference.precision_recall_fscore_support(
        truth, decided, average="weighted", sample_weight=w
    )
    np.testing.assert_allclose(
        [means["precision_score"], means["recall_score"], means["f1_score"]], by_sklearn[:3], rtol=TOLERANCE
    )
    assert means["recall_score"] == pytest.approx(ours.accuracy_score(truth, score, sample_weight=w))


def test_per_class_scores_take_a_stack_of_weights() -> None:
    truth, score, _ = class_case(4)
    weights = np.random.default_rng(4).poisson(1.0, (5, len(truth))).astype(float)
    stacked, means = ours.per_class_scores(truth, score, weights), ours.weighted_scores(truth, score, weights)
    for row, weight in enumerate(weights):
        alone = ours.per_class_scores(truth, score, weight)
        single = ours.weighted_scores(truth, score, weight)
        for name, values in alone.items():
            assert stacked[name].shape == (5, 3)
            np.testing.assert_allclose(stacked[name][row], values, rtol=TOLERANCE)
            assert means[name][row] == pytest.approx(single[name], rel=1e-12)
            assert type(single[name]) is float


def test_an_absent_class_is_undefined_alone_and_weighs_nothing() -> None:
    truth = np.array([0, 0, 1, 1])
    score = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    mine, means = ours.per_class_scores(truth, score), ours.weighted_scores(truth, score)
    for name in ("auroc_score", "average_precision_score", "recall_score", "precision_score", "f1_score"):
        np.testing.assert_array_equal(np.isnan(mine[name]), [False, False, True])
    np.testing.assert_allclose(mine["specificity_score"], [1, 1 / 2, 1])
    np.testing.assert_allclose(mine["precision_score"][:2], [1, 2 / 3])
    assert means["precision_score"] == pytest.approx((2 * 1 + 2 * (2 / 3)) / 4)
    assert np.isnan(ours.precision_score(truth, score))  # the macro mean has no such way out
    uncalled = ours.weighted_scores([0, 1], [[0.9, 0.1], [0.8, 0.2]])
    assert np.isnan(uncalled["precision_score"])  # class 1 is there, but never called
    assert uncalled["f1_score"] == pytest.approx((2 / 3 + 0) / 2)


def test_per_class_scores_need_a_column_a_class() -> None:
    with pytest.raises(ValueError, match=r"y_score \(shape \(6,\)\) must be \(N, C\)"):
        ours.per_class_scores(Y_TRUE, Y_SCORE)
    nothing = ours.per_class_scores([], np.zeros((0, 3)))
    assert all(values.shape == (3,) and np.isnan(values).all() for values in nothing.values())


# --- patients -------------------------------------------------------------------------------------------------


def test_patient_table_is_sorted_any_positive_and_the_mean() -> None:
    table = ours.patient_table(["b", "a", "b", "a", "c"], [0, 0, 1, 0, 1], [0.1, 0.2, 0.5, 0.4, 0.9])
    assert table.patient.tolist() == ["a", "b", "c"]
    assert table.y_true.tolist() == [0, 1, 1]
    np.testing.assert_allclose(table.y_score, [0.3, 0.3, 0.9], rtol=TOLERANCE, atol=TOLERANCE)
    peaks = ours.patient_table(["b", "a", "b"], [0, 0, 1], [0.1, 0.2, 0.5], rule="max")
    assert peaks.y_score.tolist() == [0.2, 0.5]


def test_patient_scores_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(5)
    names, truth, score = rng.integers(0, 9, 300).astype(str), rng.integers(0, 2, 300), rng.random(300)
    order = rng.permutation(300)
    first = ours.patient_table(names, truth, score)
    second = ours.patient_table(names[order], truth[order], score[order])
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, theirs)  # to the last bit


# --- refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "score", "weight", "message"),
    [
        ([0, 1], [0.1], None, r"y_score \(length 1\) must be as long as y_true \(length 2\)"),
        ([0, 1], [0.1, np.nan], None, r"y_score \(=nan in row 1\) must be finite"),
        ([0, 1], [[0.1, 0.9], [np.inf, 0.1]], None, r"in row 1\) must be finite"),
        ([0, 2], [0.1, 0.2], None, r"y_true \(=2 in row 1\) must be within 0\.\.1"),
        ([-1, 0], [[0.1, 0.2, 0.7]] * 2, None, r"y_true \(=-1 in row 0\) must be within 0\.\.2"),
        ([0.0, 1.0], [0.1, 0.2], None, "y_true .* must hold whole numbers"),
        ([[0], [1]], [0.1, 0.2], None, r"y_true \(shape \(2, 1\)\) must be \(N,\)"),
        ([0, 1], [[0.1], [0.2]], None, r"y_score \(shape \(2, 1\)\)"),
        ([0, 1], [0.1, 0.2], [1.0], r"sample_weight \(shape \(1,\)\)"),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "must be finite and not negative"),
        ([0, 1], [0.1, 0.2], [[1.0, np.nan]], "must be finite and not negative"),
    ],
)
def test_bad_arguments_are_named(truth: object, score: object, weight: object, message: str) -> None:
    for metric in ours.metrics_at(0.5).values():
        with pytest.raises(ValueError, match=message):
            metric(truth, score, sample_weight=weight)


def test_logits_are_ranked_but_not_taken_for_probabilities() -> None:
    assert ours.auroc_score([0, 1], [-3.0, 4.0]) == 1.0
    for metric in (ours.brier_score, ours.expected_calibration_error):
        with pytest.raises(ValueError, match="must hold probabilities"):
            metric([0, 1], [-3.0, 4.0])


def test_binary_only_functions_refuse_classes() -> None:
    score = np.full((2, 3), 1 / 3)
    for function in (ours.roc_curve, ours.precision_recall_curve, ours.choose_threshold):
        with pytest.raises(ValueError, match="take one column"):
            function([0, 1], score)
    with pytest.raises(ValueError, match="take one column"):
        ours.patient_table(["a", "b"], [0, 1], score)
    with pytest.raises(ValueError, match="threshold"):
        ours.recall_score([0, 1], [0.1, 0.2], threshold=float("nan"))
