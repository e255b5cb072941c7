"""Checkpoints: the tree comes back as it was, a broken file is refused, loading is strict."""

import pytest
import torch
from cli import disk_full_at
from torch import nn

from comp.core.checkpoint import load_note, load_state, load_weights, save_state
from comp.core.errors import InputError


def test_round_trip_of_a_nested_state(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    shared = torch.arange(4.0)
    state = {
        "optimizer": optimizer.state_dict(),
        "numbers": [1, 0.1, None, True, float("inf"), "tä xt"],
        "tied": [shared, shared[1:]],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        7: {"nested": []},
    }
    save_state(tmp_path / "x.safetensors", state)
    found = load_state(tmp_path / "x.safetensors")
    assert found["numbers"] == state["numbers"] and found[7] == {"nested": []}
    assert torch.equal(found["tied"][1], shared[1:]) and found["half"].dtype == torch.bfloat16
    assert found["scalar"].shape == ()
    fresh = torch.optim.AdamW(model.parameters(), lr=0.5)
    fresh.load_state_dict(found["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1
    for a, b in zip(optimizer.state.values(), fresh.state.values()):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert load_note(tmp_path / "x.safetensors", "numbers") == state["numbers"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_leaf_that_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"a/b.*object"):
        save_state(tmp_path / "x", {"a": {"b": object()}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_truncated_or_missing_file(tmp_path, content):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="x.safetensors"):
        load_state(path)


def test_truncated_after_writing(tmp_path):
    path = tmp_path / "x.safetensors"
    save_state(path, {"a": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        load_state(path)


def test_strict_loading_names_the_first_differences():
    weights = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict()
    other = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(1, 1))
    with pytest.raises(
        InputError, match=r"5 differ: missing 2.weight, shape of 0.weight"
    ) as caught:
        load_weights(other, weights, "w.safetensors")
    assert "\n" not in str(caught.value)


def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    save_state(path, {"step": 1})
    with disk_full_at(10_000), pytest.raises(InputError) as caught:
        save_state(path, {"big": torch.randn(100_000)})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert load_state(path) == {"step": 1}
