"""Bundles: what is in one, and its very notebook run where there is nothing else.

The notebook runs in a virtual environment of its own that has what an image for notebooks has and
neither this project nor the wheels of the bundle. COMP_KERNEL_PYTHON names another Python with such
packages. Where namespaces are allowed it has no network, the inputs are mounted read-only and the
repository's code is out of reach; elsewhere an audit hook refuses the same.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import Forked, run
from conftest import ROOT
from image_layouts import write_layout

from comp.image.competitions import COMPETITIONS
from comp.kernel import Kernel

PYTHON = os.environ.get("COMP_KERNEL_PYTHON", sys.executable)
# Neither the project, nor what the bundle has to bring, nor what a notebook does without.
HIDDEN = ("comp", "__editable__", "segmentation_models", "timm", "deepwave", "iterstrat")
HIDDEN += ("iterative_stratification", "tensorboard", "_virtualenv", "distutils-precedence")

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

book = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(book)
client = NotebookClient(book, timeout=300, kernel_name="python3")
try:
    client.execute()
except CellExecutionError as error:
    print("FAILED", error)
finally:
    for cell in book.cells:
        for output in cell.get("outputs", []):
            print(output.get("text", ""), output.get("evalue", ""))
"""

HOOK = """
import os, sys
closed, inputs = {closed!r}, {inputs!r}

def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"no network: {{arguments[1]}}")
    elif event == "open" and isinstance(arguments[0], str):
        path, writes = os.path.abspath(arguments[0]), arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if path.startswith(closed) or (writes and path.startswith(inputs)):
            raise PermissionError(path)

sys.addaudithook(refuse)
"""

CONFIGS = {
    "fwi": """
task: fwi
name: small
folds: [0, 1]
data: {folder: data, folds: data/folds.csv}
model: {name: unet, encoder: tu-resnet10t, decoder: [16, 8, 8, 8, 8], input_size: [32, 64]}
loader: {workers: 0}
train: {epochs: 1, batch_size: 4, ema: 0.5}
""",
    "image": """
task: image
name: small
folds: [0, 1]
data: {folder: data, folds: data/folds.csv, size: [32, 32]}
model: {backbone: test_resnet}
loader: {workers: 0}
train: {epochs: 1, batch_size: 6}
""",
}


def good(*command):
    assert run(*command) == 0, command


@pytest.fixture(scope="module", params=["fwi", "image"])
def trained(request, tmp_path_factory):
    """The kind, and a working folder with a trained run, `test`, `sample.csv` and `here.csv`."""
    place, kind, before = tmp_path_factory.mktemp(request.param), request.param, Path.cwd()
    os.chdir(place)
    Path("config.yaml").write_text(CONFIGS[kind])
    submit = ["submit.py", "--task", kind, "--predictions", "test.npy", "--out", "here.csv"]
    if kind == "fwi":
        simulate = ["simulate.py", "--families", "FlatVel_A", "CurveVel_A"]
        good(*simulate, "--count", 4, "--out", "data")
        good(*simulate, "--count", 2, "--as-test", "--out", "raw")
        test = "raw/test"
    else:
        made = write_layout(place / "raw", COMPETITIONS["imet2019"])
        prepare = ["prepare.py", "--task", kind, "--competition", "imet2019"]
        good(*prepare, "--raw", made.raw, "--out", "data")
        test = "raw"
    good("make_folds.py", "--task", kind, "--data", "data", "--folds", 2)
    good("train.py", "--config", "config.yaml")
    Forked(place, "predict.py", "--run", "runs/small", "--test", test, "--tta").good()
    if kind == "image":
        good("predict.py", "--run", "runs/small", "--oof")
        parts = [f"runs/small/fold_{fold}/predictions/valid.npy" for fold in (0, 1)]
        joined = ["--ids", "data/folds.csv", "--out", "oof.npy"]
        good("ensemble.py", "--join-folds", *parts, *joined)
        good("rules.py", "--data", "data", "--oof", "oof.npy", "--out", "rule.json")
        submit += ["--data", "data", "--rule", "rule.json"]
    tests = [f"runs/small/fold_{fold}/predictions/test.npy" for fold in (0, 1)]
    weighted = ["--method", "weighted", "--weights", 0.25, 0.75]
    good("ensemble.py", "--predictions", *tests, *weighted, "--out", "test.npy")
    good(*submit, "--sample", "raw/sample_submission.csv")
    yield kind, place, place / test
    os.chdir(before)


def bundle_command(kind, out, *more, wheels=True):
    who = ["--owner", "me", "--name", "small-bundle", "--competition", "waves"]
    rule = ["--rule", "rule.json"] if kind == "image" else []
    bring = [] if wheels else ["--wheels"]
    return ["kaggle/bundle.py", "--run", "runs/small", *who, *rule, *bring, "--out", out, *more]


def image_environment(place, venv):
    """A virtual environment with what an image for notebooks has; returns its python."""
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    paths = sys.path
    if sys.executable != PYTHON:  # in isolation, as PYTHONPATH is for this one
        ask = [PYTHON, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
        paths = json.loads(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
    packages = place / "packages"
    packages.mkdir()
    for path in map(Path, paths):
        if (path.is_dir() and (path / "numpy").exists()) or (path / "nbclient").exists():
            for entry in path.iterdir():
                link = packages / entry.name
                if not entry.name.startswith(HIDDEN) and not link.exists():
                    link.symlink_to(entry)
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(own, "image.pth").write_text(f"{packages}\n")
    return python, Path(own)


def shut_in(inputs):
    """The command before a command that cuts it off, or None where that is not allowed."""
    closed = " ".join(f"{ROOT / name}" for name in ("comp", "scripts", "configs"))
    script = f"""
set -e
ip link set lo up 2>/dev/null || python3 -c '{LOOPBACK}'
for folder in {closed}; do mount -t tmpfs none "$folder"; done
mount --bind {inputs} {inputs}
mount -o remount,bind,ro {inputs}
exec "$@"
"""
    before = ["unshare", "--map-root-user", "--net", "--mount", "bash", "-c", script, "bash"]
    if shutil.which("unshare") and not subprocess.run([*before, "true"]).returncode:
        return before
    return None


LOOPBACK = (
    "import fcntl,socket,struct;"
    "s=socket.socket();"
    'fcntl.ioctl(s,0x8914,struct.pack("16sh22x",b"lo",0x1|0x40))'
)
WHERE = """
import platform
from importlib.util import find_spec
print(platform.python_version(), find_spec("comp").origin, find_spec("timm").origin)
"""
PROBE = """
import socket, sys
from pathlib import Path
for what, probe in {
    "network": lambda: socket.create_connection(("192.0.2.1", 80), timeout=2),
    "inputs": lambda: (Path(sys.argv[1]) / "new").write_text(""),
    "repository": lambda: (Path(sys.argv[2]) / "comp/__init__.py").read_text(),
}.items():
    try:
        probe()
        print(what, "open")
    except OSError as error:
        print(what, "shut", type(error).__name__)
"""


def test_the_notebook_makes_the_same_submission_where_there_is_nothing_else(trained, tmp_path):
    pytest.importorskip("nbclient", reason="nbclient runs the notebook: pip install -e '.[dev]'")
    kind, place, _ = trained
    root = tmp_path / "kaggle"
    bundle = root / "input/datasets/me/small-bundle"
    tta = ["--tta", "--weights", "0.25", "0.75", "--hours", "1"]
    good(*bundle_command(kind, bundle, *tta))
    # Another nesting than that of the notebook's author, and a manifest of something else.
    shutil.copytree(place / "raw", root / "input/competitions/waves")
    (root / "input/competitions/manifest.json").write_text("{}")
    python, own = image_environment(tmp_path, tmp_path / "venv")
    inputs = root / "input"
    before = shut_in(inputs)
    if before is None:
        closed = tuple(f"{ROOT / name}/" for name in ("comp", "scripts", "configs"))
        (own / "sitecustomize.py").write_text(HOOK.format(closed=closed, inputs=f"{inputs}/"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COMP_"))}
    environment |= {"KAGGLE_ROOT": str(root), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    work = tmp_path / "work"
    work.mkdir()

    def inside(*command):
        line = [*(before or []), python, *command]
        how = {"cwd": work, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(list(map(str, line)), **how)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    probed = inside("-c", PROBE, inputs, ROOT)
    assert probed.count(" shut ") == 3, probed
    shutil.copy(bundle / "submission.ipynb", work)
    (work / "execute.py").write_text(EXECUTE)
    said = inside("execute.py", "submission.ipynb")
    assert "FAILED" not in said, said[-4000:]
    assert "the way is whole" in said and "checked" in said
    version, *where = inside("-c", WHERE).split()
    assert len(where) == 2 and all(path.startswith(str(own)) for path in where)
    made = root / "working/submission.csv"
    assert made.read_bytes() == (place / "here.csv").read_bytes()
    print(f"{kind}: Python {version}, {'namespaces' if before else 'an audit hook'}")


def test_a_recipe_travels_and_combines_the_runs(trained, tmp_path, capsys, monkeypatch):
    kind, place, test = trained
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {"post": "clip", "router": None} if kind == "fwi" else {"space": "probability"}
    recipe = {"version": 1, "task": kind, "method": "median", "files": 1, "settings": settings}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    how = ["--recipe", tmp_path / "recipe.json", "--tta", "--hours", "1"]
    bundle = bundle_command(kind, tmp_path / "bundle", *how, wheels=False)
    assert run(*bundle, "--weights", "1", "1") == 2
    assert "--weights: given beside --recipe" in capsys.readouterr().err
    good(*bundle)
    assert (tmp_path / "bundle/small.fold_0.stand_in.npy").exists()
    sample = place / "raw/sample_submission.csv"
    Kernel(tmp_path / "bundle", place, tmp_path, tmp_path, test, sample).submit()
    parts = [f"runs/small/fold_{fold}/predictions/test.npy" for fold in (0, 1)]
    good("ensemble.py", "--predictions", *parts, "--out", tmp_path / "mean.npy")
    about = ["--data", "data", "--rule", "rule.json"] if kind == "image" else []
    submit = ["submit.py", "--task", kind, *about, "--predictions", tmp_path / "mean.npy"]
    good(*submit, "--sample", sample, "--out", tmp_path / "here.csv")
    assert (tmp_path / "submission.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def started_once(start):
    """Instead of `subprocess.run`: of the steps, the first that is launched and the first that is
    not are started as processes; the other scripts run here, which spares their imports."""
    started = set()

    def do(command, **how):
        launched = "launch" in command
        at = next((i for i, word in enumerate(command) if word.endswith(".py")), None)
        if at is None:
            return start(command, **how)
        if launched not in started:
            started.add(launched)
            return start(command, **how)
        return subprocess.CompletedProcess(command, run(Path(command[at]).name, *command[at + 1 :]))

    return do


def test_submission_goes_on_where_it_stopped_and_says_why_it_skips(trained, capsys, monkeypatch):
    kind, place, test = trained
    if kind == "fwi":
        pytest.skip("images go through the same steps and one more")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(subprocess, "run", started_once(subprocess.run))
    sample = ["--sample", "raw/sample_submission.csv", "--out", f"{kind}.csv"]
    command = ["submission.py", "--config", "config.yaml", "--test", test, *sample]
    capsys.readouterr()
    good(*command)
    said = capsys.readouterr().out
    assert "folds: skipped: data/folds.csv there" in said
    assert "train: skipped: runs/small/fold_0/done.json" in said
    assert said.count("\n$ ") == 6
    assert (place / f"{kind}.csv").exists()
    good(*command)
    again = capsys.readouterr().out
    assert "\n$ " not in again and again.count(": skipped: ") == said.count("\n$ ") + 2
    assert run(*command, "optim.lr=0.5") == 2
    assert "optim.lr: 0.001 → 0.5" in capsys.readouterr().err
