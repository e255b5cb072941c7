"""Rules: what they decide, that searches find the optimum, and that reports are honest."""

from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError

from comp.core.errors import InputError
from comp.image import checks, prior_search
from comp.image.heads import Head
from comp.image.label_groups import Group, label_groups, one_group
from comp.image.metrics import FBeta, MacroRecall
from comp.image.prior_search import fit_argmax, fit_prior
from comp.image.ranking import top_labels
from comp.image.rule_report import compare_rules, default_fits
from comp.image.threshold_search import (
    fit_classes,
    fit_fixed,
    fit_global,
    fit_groups,
    fit_matched,
    fit_relative,
)
from comp.image.thresholds import (
    ClassThresholds,
    GroupThresholds,
    PriorCorrection,
    RelativeThreshold,
    plain_argmax,
    read_rule,
    rule_from_json,
)

METRICS = [FBeta("samples", 2), FBeta("samples", 1, 1.0), FBeta("micro"), FBeta("macro")]
FITS = [fit_global, fit_groups, fit_classes, fit_relative, fit_matched]
LIMITED = label_groups("aabab", {"a": (1, 2), "b": (0, 1)})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(checks, "_CHUNK_VALUES", 200)


def draw(samples=80, labels=5, seed=0, levels=None):
    """Probabilities that say something about the truth, each label calibrated differently."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (samples, labels))
    truth = rng.random((samples, labels)) < 1 / (1 + np.exp(-logits))
    probabilities = 1 / (1 + np.exp(-logits * 0.7 - np.linspace(-2, 2, labels)))
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    return probabilities.astype(np.float32), truth


def candidates(probabilities):
    """Every threshold that tells two values apart, and 0 and 1."""
    values = np.unique(probabilities)
    return [0.0, *((values[1:] + values[:-1]) / 2).tolist(), 1.0]


def brute_force(probabilities, truth, metric, groups):
    """The best common threshold's score, by trying every one."""
    return max(
        metric.score(
            GroupThresholds(groups=groups, thresholds=(t,) * len(groups)).decide(probabilities),
            truth,
        )
        for t in candidates(probabilities)
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("levels", [None, 8], ids=["distinct", "tied"])
@pytest.mark.parametrize("groups", [one_group(5), one_group(5, 1, 3), LIMITED])
def test_global_threshold_is_the_best_of_all(metric, levels, groups):
    probabilities, truth = draw(levels=levels)
    rule = fit_global(probabilities, truth, metric, groups)
    found = metric.score(rule.decide(probabilities), truth)
    assert found == pytest.approx(brute_force(probabilities, truth, metric, groups), abs=1e-9)
    assert len(set(rule.thresholds)) == 1


def test_thresholds_lie_half_way_between_what_they_part():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.7]])
    truth = np.eye(2)
    for metric in METRICS:
        assert fit_global(probabilities, truth, metric).thresholds[0] == pytest.approx(
            0.45, rel=2e-5
        )
    own = fit_classes(probabilities, truth, FBeta("macro"), shrinkage=0)
    assert own.thresholds == pytest.approx((0.55, 0.4))


def test_group_thresholds_find_the_known_optimum():
    # Labels of kind b are all underrated by a factor of ten.
    probabilities = np.array([[0.9, 0.3, 0.07, 0.02], [0.2, 0.8, 0.03, 0.06]])
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 1]])
    groups = label_groups("aabb")
    for metric in METRICS:
        rule = fit_groups(probabilities, truth, metric, groups)
        assert rule.thresholds == pytest.approx((0.55, 0.045), rel=2e-5)
        assert metric.score(rule.decide(probabilities), truth) == 1
        common = fit_global(probabilities, truth, metric, groups)
        assert metric.score(common.decide(probabilities), truth) < 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("limits", [{}, {"a": (1, 2), "b": (0, 1)}], ids=["free", "limited"])
@pytest.mark.parametrize("seed", range(3))
def test_group_thresholds_against_brute_force(metric, limits, seed):
    probabilities, truth = draw(16, 4, seed, levels=16)
    groups = label_groups("abab", limits)

    def score(*thresholds):
        rule = GroupThresholds(groups=groups, thresholds=thresholds)
        return metric.score(rule.decide(probabilities), truth)

    tried = candidates(probabilities)
    a, b = fit_groups(probabilities, truth, metric, groups).thresholds
    if metric.average == "samples":  # an optimum in each threshold, the other held
        best = max(max(score(t, b), score(a, t)) for t in tried)
        assert score(a, b) >= brute_force(probabilities, truth, metric, groups) - 1e-9
    else:
        best = max(score(s, t) for s in tried for t in tried)
    assert score(a, b) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("seed", range(4))
def test_class_thresholds_against_brute_force(metric, seed):
    probabilities, truth = draw(24, 2, seed, levels=24)
    own = fit_classes(probabilities, truth, metric, shrinkage=0).thresholds

    def score(*thresholds):
        return metric.score(probabilities > np.array(thresholds, np.float32), truth)

    tried = candidates(probabilities)
    if metric.average == "samples":
        best = max(max(score(t, own[1]), score(own[0], t)) for t in tried)
        assert score(*own) >= brute_force(probabilities, truth, metric, one_group(2)) - 1e-9
    else:
        best = max(score(s, t) for s in tried for t in tried)
    assert score(*own) == pytest.approx(best, abs=1e-9)


def test_micro_thresholds_of_labels_follow_each_other():
    # Alone or in one step from the common threshold each label would be cut elsewhere than here.
    probabilities, truth = draw(200, 8, seed=3)
    probabilities **= np.geomspace(0.1, 30, 8, dtype=np.float32)
    metric = FBeta("micro", 2)
    own = np.array(fit_classes(probabilities, truth, metric, shrinkage=0).thresholds)
    best = metric.score(probabilities > own.astype(np.float32), truth)
    for column in range(8):
        for threshold in candidates(probabilities[:, column]):
            other = own.copy()
            other[column] = threshold
            assert metric.score(probabilities > other.astype(np.float32), truth) <= best + 1e-9


def test_comparisons_are_strict_and_minus_zero_is_zero():
    probabilities = np.array([[0.5, 0.25, -0.0]])
    rule = GroupThresholds(groups=one_group(3), thresholds=(0.25,))
    assert rule.decide(probabilities).tolist() == [[True, False, False]]
    rule = RelativeThreshold(groups=one_group(3), share=0.5)
    assert rule.decide(probabilities).tolist() == [[True, False, False]]
    everything = fit_global(probabilities, np.ones((1, 3)), FBeta("micro"))
    assert everything.decide(probabilities).tolist() == [[True, True, False]]


def test_rare_labels_are_shrunk_to_the_common_threshold():
    probabilities, truth = draw(400)
    truth[:, 0] = False
    truth[:4, 0] = True
    metric = FBeta("macro")
    common = fit_global(probabilities, truth, metric).thresholds[0]
    own = np.array(fit_classes(probabilities, truth, metric, shrinkage=0).thresholds)
    shrunk = np.array(fit_classes(probabilities, truth, metric, shrinkage=20).thresholds)
    support = truth.sum(axis=0)
    np.testing.assert_allclose(shrunk, (support * own + 20 * common) / (support + 20), rtol=1e-6)
    truth[:, 0] = False
    absent = fit_classes(probabilities, truth, metric, shrinkage=0).thresholds[0]
    assert absent == fit_global(probabilities, truth, metric).thresholds[0]


def test_relative_threshold_is_the_best_share():
    # Images of very different confidence: no common threshold is right for both.
    probabilities = np.array([[0.9, 0.8, 0.3, 0.2], [0.09, 0.08, 0.03, 0.02]], np.float32)
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
    for metric in METRICS[:3]:
        rule = fit_relative(probabilities, truth, metric)
        assert rule.share == pytest.approx((0.8 / 0.9 + 0.3 / 0.9) / 2, abs=1e-5)
        assert metric.score(rule.decide(probabilities), truth) == 1
    seventh = RelativeThreshold(groups=one_group(3), share=1 / 7)
    assert seventh.decide(np.array([[0.7, 0.11, 0.09]])).tolist() == [[True, True, False]]
    assert not seventh.decide(np.zeros((1, 3))).any()


def test_matched_threshold_gives_as_many_labels_as_there_are():
    probabilities, truth = draw(500)
    one = fit_matched(probabilities, truth, FBeta("micro"))
    assert one.decide(probabilities).sum() == truth.sum()
    groups = label_groups("aabab")
    each = fit_matched(probabilities, truth, FBeta("micro"), groups).decide(probabilities)
    for group in groups:
        assert each[:, group.where].sum() == truth[:, group.where].sum()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("metric", METRICS[::2], ids=lambda m: m.name)
def test_limits_are_kept(fit, metric):
    probabilities, truth = draw(300, seed=1, levels=10)
    groups = label_groups("aabab", {"a": (1, 2), "b": (1, 1)})
    sets = fit(probabilities, truth, metric, groups).decide(draw(200, seed=2, levels=10)[0])
    for group in groups:
        number = sets[:, group.where].sum(axis=1)
        assert number.min() >= group.minimum and number.max() <= group.maximum


def test_limits_keep_and_add_the_most_probable():
    probabilities = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.3, 0.2, 0.2], [0.6, 0.1, 0.2, 0.2]])
    groups = one_group(4, 2, 3)
    rule = GroupThresholds(groups=groups, thresholds=(0.5,))
    assert rule.decide(probabilities).astype(int).tolist() == [
        [1, 1, 1, 0],
        [0, 1, 1, 0],
        [1, 0, 1, 0],
    ]
    # What is over its own threshold stays before what is more probable and is not.
    own = ClassThresholds(groups=groups, thresholds=(1, 1, 1, 0.1))
    assert own.decide(probabilities[1:2]).astype(int).tolist() == [[0, 1, 0, 1]]


def test_top_labels_break_ties_by_column():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (50, 9)).astype(np.float32)
    for k in range(10):
        expected = np.zeros(values.shape, bool)
        np.put_along_axis(expected, np.argsort(-values, axis=1, kind="stable")[:, :k], True, axis=1)
        np.testing.assert_array_equal(top_labels(values, k), expected)


HEADS = (
    Head("root", tuple("abcdef"), "multiclass"),
    Head("vowel", tuple("xyz"), "multiclass"),
)
RECALL = MacroRecall(HEADS, (2, 1))


def draw_classes(samples=3000, seed=0):
    """Calibrated softmax probabilities of imbalanced classes: recall wants the prior out."""
    rng = np.random.default_rng(seed)
    parts, sets = [], []
    for prior in ([0.5, 0.25, 0.15, 0.06, 0.03, 0.01], [0.8, 0.15, 0.05]):
        size = len(prior)
        true = rng.choice(size, samples, p=prior)
        seen = np.eye(size)[true] * 2 + rng.normal(0, 1, (samples, size))
        joint = np.array(prior) * np.exp(2 * seen)
        parts.append(joint / joint.sum(axis=1, keepdims=True))
        sets.append(np.eye(size, dtype=bool)[true])
    return np.concatenate(parts, axis=1).astype(np.float32), np.concatenate(sets, axis=1)


def test_prior_correction_finds_the_best_gamma():
    probabilities, truth = draw_classes()
    rule = fit_prior(probabilities, truth, RECALL)
    found = RECALL.of_heads(rule.decide(probabilities), truth)
    for gamma in np.linspace(0, 3, 61):
        other = rule.model_copy(update={"gammas": (float(gamma),) * 2})
        for name, recall in RECALL.of_heads(other.decide(probabilities), truth).items():
            assert recall <= found[name] + 1e-9
    assert rule.gammas == pytest.approx((1, 1), abs=0.4)
    plain = fit_argmax(probabilities, truth, RECALL)
    assert RECALL.score(plain.decide(probabilities), truth) < sum(found.values()) / 2 - 0.05


def test_prior_correction_by_hand():
    # The rare class wins from γ = log(0.6 / 0.3) / log(100 / 1) on.
    heads = (Head("h", ("common", "rare", "never"), "multiclass"),)
    probabilities = np.array([[0.6, 0.3, 0.1]])
    for gamma, expected in ((0.14, 0), (0.16, 1)):
        rule = PriorCorrection(names=("h",), counts=((100, 1, 1),), gammas=(gamma,))
        assert rule.decide(probabilities).argmax() == expected
    assert plain_argmax(heads).decide(probabilities).tolist() == [[True, False, False]]


def test_gammas_at_which_a_class_wins():
    # Beaten by a class as frequent at any γ; from the bound of a commoner class on, up to that of
    # a rarer one.
    prior = np.array([1, 1, 3, 0])
    rows = np.array([[0.1, 0.2, 0.1, 0.1], [0.2, 0.1, 0.4, 0.05]], np.float32)
    low, high = prior_search._right_between(rows, np.array([0, 0]), prior)
    assert low[0] > high[0]
    assert (low[1], high[1]) == pytest.approx((np.log(2) / 2, np.log(4)))


def test_prior_search_without_any_right_sample():
    probabilities = np.tile(np.array([[1, 0, 0, 0, 0, 0, 1, 0, 0]], np.float32), (3, 1))
    truth = np.roll(probabilities, 1, axis=1)
    rule = fit_prior(probabilities, truth, RECALL)
    assert rule.decide(probabilities).sum(axis=1).tolist() == [2, 2, 2]


def all_rules():
    probabilities, truth = draw()
    rules = [fit(probabilities, truth, METRICS[0], LIMITED) for fit in FITS]
    return [*rules, fit_prior(*draw_classes(200), RECALL)]


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.kind)
def test_json_round_trip_is_exact(rule, tmp_path):
    path = tmp_path / "rule.json"
    path.write_text(rule.to_json())
    again = read_rule(path)
    assert again == rule and type(again) is type(rule)
    probabilities = (draw() if rule.width == 5 else draw_classes(200))[0]
    np.testing.assert_array_equal(again.decide(probabilities), rule.decide(probabilities))
    with pytest.raises(ValidationError):
        rule.kind = "other"


def noise(seed, samples=300, labels=6):
    """Probabilities that know nothing of the truth."""
    rng = np.random.default_rng(seed)
    return rng.random((samples, labels)).astype(np.float32), rng.random((samples, labels)) < 0.15


def test_nested_scores_do_not_flatter_on_noise():
    metric = FBeta("macro")
    gaps = []
    for seed in range(4):
        probabilities, truth = noise(seed)
        folds = np.arange(len(truth)) % 5
        fits = {"global": fit_global, "classes": partial(fit_classes, shrinkage=0)}
        table = compare_rules(probabilities, truth, folds, metric, fits=fits).table
        gaps.append(table["searched"] - table["nested"])
        # Chance: whatever the thresholds, F1 of noise with 15 % positives is at most 2·0.15/1.15.
        assert (table["nested"] < 0.29).all()
    gap = sum(gaps) / 4
    assert gap["global"] > -0.005
    assert gap["classes"] > 0.02 and gap["classes"] > gap["global"]


def test_report_scores_each_fold_by_a_rule_of_the_others():
    probabilities, truth = draw(150)
    folds = np.random.default_rng(0).integers(0, 3, 150)
    metric = FBeta("samples", 2)
    report = compare_rules(probabilities, truth, folds, metric, LIMITED)
    assert list(report.table.index) == list(default_fits(metric, LIMITED))
    nested = np.zeros(truth.shape, bool)
    scores = []
    for fold in range(3):
        held = folds == fold
        rule = fit_groups(probabilities[~held], truth[~held], metric, LIMITED)
        nested[held] = rule.decide(probabilities[held])
        scores.append(metric.score(nested[held], truth[held]))
    row = report.table.loc["groups"]
    assert row["nested"] == metric.score(nested, truth)
    assert row["±"] == pytest.approx(np.std(scores, ddof=1))
    assert row["labels"] == pytest.approx(nested.sum() / 150)
    assert row["empty"] == pytest.approx((~nested.any(axis=1)).mean())
    whole = fit_groups(probabilities, truth, metric, LIMITED)
    assert report.rules["groups"] == whole
    assert row["searched"] == metric.score(whole.decide(probabilities), truth)
    assert report.table["nested"].max() == report.table.loc[report.best, "nested"]


def test_report_of_softmax_heads():
    probabilities, truth = draw_classes()
    report = compare_rules(probabilities, truth, np.arange(len(truth)) % 4, RECALL)
    assert list(report.table.index) == ["argmax", "prior"]
    assert report.best == "prior"
    assert (report.table["labels"] == 2).all()


def expect(message, call, *args, **settings):
    with pytest.raises(InputError, match=message) as error:
        call(*args, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fit", [*FITS, fit_fixed])
def test_fits_name_bad_input(fit):
    probabilities, truth = draw()
    metric = METRICS[0]
    expect("truth: shape", fit, probabilities, truth[1:], metric)
    wrong = probabilities.copy()
    wrong[70, 4] = np.nan
    expect("probabilities: nan in row 70, column 4", fit, wrong, truth, metric)
    expect("groups: expected each of the 5", fit, probabilities, truth, metric, one_group(4))
    expect("softmax heads have fit_prior", fit, probabilities, truth, RECALL)


def test_prior_fit_names_bad_input():
    probabilities, truth = draw_classes(50)
    expect("expected macro recall", fit_prior, probabilities, truth, METRICS[0])
    expect("groups: softmax heads take none", fit_prior, probabilities, truth, RECALL, LIMITED)
    expect("8 columns, expected the heads' 9", fit_prior, probabilities[:, 1:], truth, RECALL)
    expect("0 labels of head root in row 0", fit_prior, probabilities, np.zeros((50, 9)), RECALL)


def test_decide_and_report_name_bad_input():
    probabilities, truth = draw()
    rule = fit_global(probabilities, truth, METRICS[0])
    expect("4 labels, expected the rule's 5", rule.decide, probabilities[:, 1:])
    expect("in row 0, column 0, expected 0 to 1", rule.decide, probabilities + 1.5)
    report = partial(compare_rules, probabilities, truth, metric=METRICS[0])
    folds = np.arange(80) % 3
    expect(r"folds: shape \(79,\), expected \(80,\)", report, folds=folds[1:])
    expect("folds: -1 in row 0", report, folds=folds - 1)
    expect("folds: dtype float64", report, folds=folds / 2)
    expect("folds: only fold 0", report, folds=folds * 0)
    expect("fits: no rules", report, folds=folds, fits={})
    expect("threshold: 1.5", fit_fixed, probabilities, truth, METRICS[0], threshold=1.5)
    expect("shrinkage: -1", fit_classes, probabilities, truth, METRICS[0], shrinkage=-1)


def test_groups_name_bad_limits():
    expect("limits: no labels of kind 'c'", label_groups, "aab", {"c": (0, 1)})
    expect("group 'a'", label_groups, "aab", {"a": (2, 1)})
    expect("group 'a'", label_groups, "aab", {"a": (3, None)})
    expect("key 'minimum': got -1", label_groups, "aab", {"a": (-1, None)})
    assert label_groups("aba")[0] == Group(name="a", columns=(0, 2))


def test_files_of_rules_name_what_is_wrong(tmp_path):
    path = tmp_path / "rule.json"
    expect("rule.json", read_rule, path)
    path.write_text("{")
    expect("rule.json: not JSON", read_rule, path)
    expect("kind None, expected one of groups, classes", rule_from_json, "[]")
    good = fit_global(*draw(), METRICS[0]).to_json()
    expect("takes 1 thresholds", rule_from_json, good.replace('thresholds":[', 'thresholds":[1,'))
    expect("unknown key 'treshold'", rule_from_json, good.replace("thresholds", "treshold"))
    expect("exactly one group", rule_from_json, good.replace("[0,1,2,3,4]", "[0,1,2,3,3]"))
    prior = plain_argmax(HEADS).to_json()
    expect("each of the 2 heads", rule_from_json, prior.replace("[0.0,0.0]", "[0.0]"))
