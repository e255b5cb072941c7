"""Rules from out-of-fold predictions, scores of submissions, and the predictor that looks away."""

import numpy as np
import pandas as pd
import pytest
from cli import run
from image_layouts import write_layout

from comp.core.errors import InputError
from comp.core.predictions import load_predictions, save_predictions
from comp.image import rules
from comp.image.competitions import competition
from comp.image.heads import Head
from comp.image.metrics import FBeta, MacroRecall
from comp.image.prepare import prepare_images
from comp.image.rules import compare_on, write_rule
from comp.image.scoring import report
from comp.image.store import ImageStore
from comp.image.submission import ImageLayout
from comp.image.thresholds import read_rule
from comp.image.trivial import stand_in_labels, trivial_labels


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


@pytest.mark.parametrize("name", ["planet", "plant_pathology"])
def test_no_image_is_left_without_a_label_where_each_has_one(tmp_path, name):
    made = write_layout(tmp_path / "raw", competition(name), train=24)
    prepare_images(made.raw, tmp_path / "out", made.competition)
    store = ImageStore(tmp_path / "out")
    table = pd.DataFrame({"id": store.ids, "fold": np.arange(24) % 3})
    save_predictions(tmp_path / "oof.npy", table, 0.4 * store.targets(range(24)))
    comparison = compare_on(store, tmp_path / "oof.npy")
    assert comparison.table.loc["fixed 0.5", "nested"] > 0.3  # of an image's labels the first
    faint = np.full((5, len(store.labels)), 1e-9, np.float32)
    for rule in comparison.rules.values():
        assert rule.decide(faint).any(axis=1).all()
    rule = comparison.rules["fixed 0.5"]
    (cells,) = ImageLayout(store.competition, store.heads, rule).columns(faint)
    assert cells.to_pylist() == [store.heads[0].labels[0]] * 5


def test_only_out_of_fold_predictions_of_these_images_are_searched(tmp_path, made):
    store = ImageStore(made[1])
    table = pd.DataFrame({"id": store.ids})
    values = store.targets(range(len(store)))
    save_predictions(tmp_path / "a.npy", table, values)
    with pytest.raises(InputError, match=r"a.npy: no column 'fold'"):
        compare_on(store, tmp_path / "a.npy")
    save_predictions(tmp_path / "b.npy", table.assign(fold=-1), values)
    with pytest.raises(InputError, match="folds: -1 in row 0, expected 0 or more"):
        compare_on(store, tmp_path / "b.npy")
    other = pd.DataFrame({"id": ["z", *store.ids[1:]], "fold": 0})
    save_predictions(tmp_path / "c.npy", other, values)
    with pytest.raises(InputError, match="c.npy: id 'z' is unknown to"):
        compare_on(store, tmp_path / "c.npy")


def test_one_fold_is_judged_on_parts_of_it(tmp_path, made, oof, capsys):
    known = load_predictions(oof)
    save_predictions(tmp_path / "one.npy", known.table.assign(fold=3), known.values)
    files = ["--oof", tmp_path / "one.npy", "--out", tmp_path / "rule.json"]
    assert run("rules.py", "--data", made[1], *files) == 0
    assert "one fold: rules judged on 5 parts of it\n" in capsys.readouterr().out
    store = ImageStore(made[1])
    several, one = compare_on(store, oof), compare_on(store, tmp_path / "one.npy")
    assert "one fold" in capsys.readouterr().out
    assert one.rules == several.rules  # all are fitted on all samples
    assert (one.table["nested"] < one.table["searched"] + 0.05).all()
    assert one.table["nested"].drop("fixed 0.5").min() > one.table.loc["fixed 0.5", "nested"]
    pd.testing.assert_frame_equal(one.table, compare_on(store, tmp_path / "one.npy").table)


def test_parts_of_one_fold_keep_groups_whole(tmp_path, made, oof, monkeypatch):
    store, known = ImageStore(made[1]), load_predictions(oof)
    save_predictions(tmp_path / "one.npy", known.table.assign(fold=0), known.values)
    found = {}
    monkeypatch.setattr(rules, "compare_rules", lambda *given: found.update(parts=given[2]))
    for number in (60, 12, 3):
        groups = np.array([f"plate {row % number}" for row in range(len(store))])
        monkeypatch.setattr(ImageStore, "groups", groups)
        compare_on(store, tmp_path / "one.npy")
        of_group = pd.Series(found["parts"]).groupby(
            groups[pd.Index(store.ids).get_indexer(known.ids)]
        )
        assert (of_group.nunique() == 1).all()
        assert np.unique(found["parts"]).tolist() == list(range(min(number, 5)))
    monkeypatch.setattr(ImageStore, "groups", np.full(len(store), "plate 0"))
    with pytest.raises(InputError, match="one.npy: one fold and one group, expected two or more"):
        compare_on(store, tmp_path / "one.npy")


def test_a_submission_is_scored_beside_the_trivial_predictor(tmp_path, made, capsys):
    layout, out = made
    sample = pd.read_csv(layout.sample, dtype=str)
    lines = list(report(layout.sample, layout.truth, train=out))
    assert lines[0].split("\n")[2].startswith("the same for all")
    # A truth in the submission's layout gives the same.
    perfect = list(report(layout.sample, layout.sample, train=out))
    assert perfect[-1] == f"score of {layout.sample}: 1.0000"
    # So does one with stray spaces in its header, which a submission must not have.
    spaced = tmp_path / "spaced.csv"
    spaced.write_text(layout.sample.read_text().replace("id,attribute_ids", "id, attribute_ids", 1))
    assert list(report(layout.sample, spaced, train=out)) == perfect
    assert capsys.readouterr().out.count("stray spaces") == 1
    with pytest.raises(InputError, match="column 2 of the header is ' attribute_ids'"):
        list(report(spaced, layout.truth, train=out))
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


@pytest.mark.parametrize("density, number", [(0.32, 3), (0.01, 1)])
def test_an_image_not_seen_gets_as_many_labels_as_the_others_have(density, number):
    rng = np.random.default_rng(2)
    targets = (rng.random((400, 9)) < density * np.linspace(0.5, 1.5, 9)).astype(np.float32)
    head = Head("tags", tuple("abcdefghi"), "multilabel")
    store = Counted(targets, FBeta("macro", 1.0), (head,))
    assert trivial_labels(store).all()
    chosen = stand_in_labels(store)
    assert chosen.sum() == number
    assert targets.sum(0)[chosen].min() >= targets.sum(0)[~chosen].max()
    samples = Counted(targets, FBeta("samples", 1.0), (head,))
    assert (stand_in_labels(samples) == trivial_labels(samples)).all()
