"""Metrics against scikit-learn, and against what can be counted by hand."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from comp.core.errors import InputError
from comp.image import checks
from comp.image.heads import Head
from comp.image.metrics import (
    FBeta,
    MacroRecall,
    average_precision,
    class_table,
    mean_average_precision,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(checks, "_CHUNK_VALUES", 400)


@pytest.fixture
def arrays():
    """(90, 12) probabilities with ties, truth, decisions; empty rows, rare and absent labels."""
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.random((90, 12)), 2).astype(np.float32)
    truth = rng.random((90, 12)) < np.linspace(0, 0.5, 12)
    decisions = probabilities > 0.8
    truth[:7] = decisions[:7] = False
    truth[0, 3] = True
    decisions[:, 0] = False
    return probabilities, truth, decisions


@pytest.mark.parametrize("average", ["samples", "micro", "macro"])
@pytest.mark.parametrize("beta", [0.5, 1, 2])
@pytest.mark.parametrize("empty", [0.0, 1.0])
def test_fbeta_equals_scikit_learn(arrays, average, beta, empty):
    _, truth, decisions = arrays
    expected = reference.fbeta_score(
        truth, decisions, beta=beta, average=average, zero_division=empty
    )
    assert FBeta(average, beta, empty).score(decisions, truth) == pytest.approx(expected, abs=1e-12)


def test_fbeta_by_hand():
    truth = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], np.float32)
    decisions = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]], bool)
    f2 = 5 * 1 / (4 * 2 + 1)
    assert FBeta("samples", 2).score(decisions, truth) == pytest.approx(f2 / 3)
    assert FBeta("samples", 2, empty=1).score(decisions, truth) == pytest.approx((f2 + 1) / 3)
    assert FBeta("samples", 2).name == "f2_samples"


def three_heads():
    sizes = {"root": 9, "vowel": 4, "consonant": 3}
    heads = tuple(
        Head(name, tuple(f"{name}{i}" for i in range(size)), "multiclass")
        for name, size in sizes.items()
    )
    return heads, MacroRecall(heads, (2, 1, 1))


def one_hot(heads, classes):
    """(n, C) from (n, heads) classes."""
    parts = [np.eye(len(head.labels), dtype=bool)[c] for head, c in zip(heads, classes.T)]
    return np.concatenate(parts, axis=1)


def test_macro_recall_equals_scikit_learn():
    heads, metric = three_heads()
    rng = np.random.default_rng(1)
    true = np.stack([rng.integers(0, size, 60) for size in (6, 4, 2)], axis=1)
    predicted = np.where(rng.random(true.shape) < 0.6, true, 0)
    predicted[0, 0] = 7  # predicted but never true; root 8 is neither
    predicted[1, 2] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recalls = [
            reference.recall_score(true[:, i], predicted[:, i], average="macro") for i in range(3)
        ]
    arrays = one_hot(heads, predicted), one_hot(heads, true)
    assert list(metric.of_heads(*arrays).values()) == pytest.approx(recalls)
    assert metric.score(*arrays) == pytest.approx(np.average(recalls, weights=[2, 1, 1]))


def test_average_precision_equals_scikit_learn_with_ties_and_absent_labels(arrays):
    probabilities, truth, _ = arrays
    truth[:, 5] = True
    ap = average_precision(probabilities, truth)
    assert np.isnan(ap[0]) and not truth[:, 0].any()
    expected = reference.average_precision_score(truth[:, 1:], probabilities[:, 1:], average=None)
    np.testing.assert_allclose(ap[1:], expected, rtol=1e-12)
    assert mean_average_precision(probabilities, truth) == pytest.approx(expected.mean())


def test_average_precision_of_the_extremes():
    truth = np.array([[1], [1], [0], [0]], bool)
    assert average_precision(np.array([[0.9], [0.8], [0.2], [0.0]]), truth)[0] == 1
    assert average_precision(np.full((4, 1), 0.3), truth)[0] == 0.5
    assert average_precision(np.array([[-0.0], [0.0], [0.0], [0.0]]), truth)[0] == 0.5
    assert np.isnan(mean_average_precision(np.full((4, 1), 0.3), np.zeros((4, 1))))


def test_class_table_has_support(arrays):
    probabilities, truth, _ = arrays
    table = class_table(probabilities, truth, [f"label{i}" for i in range(12)])
    assert list(table["support"]) == list(truth.sum(axis=0))
    assert table["ap"].mean() == pytest.approx(mean_average_precision(probabilities, truth))


def expect(message, call, *args):
    with pytest.raises(InputError, match=message) as error:
        call(*args)
    assert "\n" not in str(error.value)


def test_bad_input_is_named(arrays):
    probabilities, truth, decisions = arrays
    score = FBeta("samples").score
    expect(r"decisions: shape \(90, 11\), expected \(90, 12\)", score, decisions[:, 1:], truth)
    expect("truth: shape", score, decisions[0], truth[0])
    soft = truth.astype(np.float32)
    soft[40, 2] = 0.4
    expect(r"truth: 0\.4\d* in row 40, column 2, expected 0 or 1", score, decisions, soft)
    soft[40, 2] = np.nan
    expect("truth: nan in row 40, column 2", average_precision, probabilities, soft)
    for value in (np.nan, 1.5, -0.25):
        wrong = probabilities.copy()
        wrong[33, 7] = value
        expect(
            rf"probabilities: {value} in row 33, column 7, expected 0 to 1",
            *(average_precision, wrong, truth),
        )
    expect("dtype int64, expected floating", average_precision, truth.astype(int), truth)
    expect("truth: shape", average_precision, probabilities, truth[1:])
    expect("expected .samples, labels.", average_precision, probabilities[:0], truth[:0])
    expect("names: 3, expected 12", class_table, probabilities, truth, ["a", "b", "c"])


def test_bad_heads_are_named():
    heads, metric = three_heads()
    sets = one_hot(heads, np.zeros((5, 3), int))
    twice = sets.copy()
    twice[3, 10] = True
    expect("decisions: 2 labels of head vowel in row 3", metric.score, twice, sets)
    expect("truth: shape", metric.score, sets, sets[:, 1:])
    expect("weights: 2, expected 3", MacroRecall, heads, (1, 1))
    expect("weights:", MacroRecall, heads, (0, 0, 0))
    multilabel = Head("tags", ("a", "b"), "multilabel")
    expect("head tags: multilabel", MacroRecall, (multilabel,), (1,))
