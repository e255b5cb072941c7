"""Rules from out-of-fold predictions, scores of submissions, and the predictor that looks away."""

import numpy as np
import pandas as pd
import pytest
from cli import run
from image_layouts import write_layout

from comp.core.errors import InputError
from comp.core.predictions import save_predictions
from comp.image.competitions import competition
from comp.image.heads import Head
from comp.image.metrics import FBeta, MacroRecall
from comp.image.prepare import prepare_images
from comp.image.rules import compare_on, write_rule
from comp.image.scoring import report
from comp.image.store import ImageStore
from comp.image.thresholds import read_rule
from comp.image.trivial import trivial_labels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """iMet's layout and its prepared folder."""
    folder = tmp_path_factory.mktemp("imet")
    made = write_layout(folder / "raw", competition("imet2019"), train=60)
    prepare_images(made.raw, folder / "out", made.competition)
    return made, folder / "out"


@pytest.fixture
def oof(tmp_path, made):
    """Out-of-fold predictions, right up to noise, of all images in another order."""
    store, rng = ImageStore(made[1]), np.random.default_rng(0)
    rows = rng.permutation(len(store))
    values = 0.3 * store.targets(rows) + rng.uniform(0, 0.35, (len(rows), len(store.labels)))
    table = pd.DataFrame({"id": store.ids[rows], "fold": rows % 3})
    save_predictions(tmp_path / "oof.npy", table, values.astype(np.float32))
    return tmp_path / "oof.npy"


def test_the_best_rule_is_written_and_decides(tmp_path, made, oof, capsys):
    out = tmp_path / "rule.json"
    assert run("rules.py", "--data", made[1], "--oof", oof, "--out", out) == 0
    said = capsys.readouterr().out
    store = ImageStore(made[1])
    comparison = compare_on(store, oof)
    best = comparison.table["nested"].max()
    assert f"wrote {out}: {comparison.best}, {best:.4f} nested" in said
    assert "groups" in comparison.rules  # cultures and tags have thresholds of their own
    assert best > 0.8 > comparison.table.loc["fixed 0.5", "nested"]
    rule = read_rule(out)
    assert rule == comparison.rules[comparison.best]
    assert [(g.name, g.maximum) for g in rule.groups] == [("culture", 2), ("tag", 3)]
    table = pd.read_csv(tmp_path / "rule.csv", index_col="rule")
    assert table["nested"].tolist() == pytest.approx(comparison.table["nested"], abs=1e-5)
    chosen = ["--rule", "matched"]
    assert run("rules.py", "--data", made[1], "--oof", oof, "--out", out, *chosen) == 0
    assert read_rule(out) == comparison.rules["matched"]
    with pytest.raises(InputError, match="rule 'best': unknown; takes one of fixed 0.5, matched"):
        write_rule(out, comparison, "best")


def test_only_out_of_fold_predictions_of_these_images_are_searched(tmp_path, made):
    store = ImageStore(made[1])
    table = pd.DataFrame({"id": store.ids})
    values = store.targets(range(len(store)))
    save_predictions(tmp_path / "a.npy", table, values)
    with pytest.raises(InputError, match=r"a.npy: no column 'fold'"):
        compare_on(store, tmp_path / "a.npy")
    save_predictions(tmp_path / "b.npy", table.assign(fold=1), values)
    with pytest.raises(InputError, match="only fold 1, expected two or more"):
        compare_on(store, tmp_path / "b.npy")
    other = pd.DataFrame({"id": ["z", *store.ids[1:]], "fold": 0})
    save_predictions(tmp_path / "c.npy", other, values)
    with pytest.raises(InputError, match="c.npy: id 'z' is unknown to"):
        compare_on(store, tmp_path / "c.npy")


def test_a_submission_is_scored_beside_the_trivial_predictor(tmp_path, made):
    layout, out = made
    sample = pd.read_csv(layout.sample, dtype=str)
    lines = list(report(layout.sample, layout.truth, train=out))
    assert lines[0].split("\n")[2].startswith("the same for all")
    # A truth in the submission's layout gives the same.
    perfect = list(report(layout.sample, layout.sample, train=out))
    assert perfect[-1] == f"score of {layout.sample}: 1.0000"
    sample["attribute_ids"] = ""
    sample.to_csv(tmp_path / "blank.csv", index=False)
    blank = list(report(tmp_path / "blank.csv", layout.truth, train=out))
    assert blank[-1].endswith(": 0.0000") and blank[0].split("\n")[1].split()[1:] == [
        *("0.0000", "0.0000", "1.0000")
    ]
    with pytest.raises(InputError, match="--train: not given"):
        list(report(layout.sample, layout.truth))
    with pytest.raises(InputError, match="--picture: of no use for images"):
        list(report(layout.sample, layout.truth, train=out, picture=tmp_path / "a.png"))


class Counted:
    """A store of known targets."""

    def __init__(self, targets, metric, heads):
        self._targets, self.metric, self.heads = targets, metric, heads

    def __len__(self):
        return len(self._targets)

    def targets(self, rows):
        return self._targets[np.asarray(rows)]

    @property
    def label_counts(self):
        return self._targets.sum(0).astype(int)


@pytest.mark.parametrize("average", ["samples", "micro", "macro"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_trivial_labels_are_the_best_of_all_leading_ones(average, beta):
    rng = np.random.default_rng(1)
    targets = (rng.random((300, 9)) < np.linspace(0.05, 0.6, 9)).astype(np.float32)
    metric = FBeta(average, beta)
    head = Head("tags", tuple("abcdefghi"), "multilabel")
    chosen = trivial_labels(Counted(targets, metric, (head,)))
    order = np.argsort(-targets.sum(0), kind="stable")
    scores = {}
    for k in range(1, 10):
        sets = np.zeros(9, bool)
        sets[order[:k]] = True
        scores[k] = metric.score(np.broadcast_to(sets, targets.shape), targets)
    best = max(scores, key=scores.get)
    assert chosen.sum() == best and chosen[order[:best]].all()


def test_the_trivial_class_of_each_head_is_the_most_frequent():
    heads = (Head("a", ("x", "y"), "multiclass"), Head("b", ("u", "v", "w"), "multiclass"))
    classes = np.array([[0, 2], [1, 2], [1, 0]])
    targets = np.concatenate([np.eye(2)[classes[:, 0]], np.eye(3)[classes[:, 1]]], 1)
    chosen = trivial_labels(Counted(targets, MacroRecall(heads, (1, 1)), heads))
    assert chosen.tolist() == [False, True, False, False, True]
