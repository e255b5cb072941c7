"""Run the scripts inside the test process, which spares the start of an interpreter each time."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"


def run(script, *arguments):
    """The exit code of `scripts/<script>` with these arguments."""
    before, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


def run_in(place, *command):
    """`run` in the folder `place`; the exit code, what it printed and its errors."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(out):
        with contextlib.redirect_stderr(error):
            code = run(*command)
    return code, out.getvalue(), error.getvalue()


def good(place, *command):
    """What a script printed that ended well in the folder `place`."""
    code, out, error = run_in(place, *command)
    assert code == 0, error[-3000:]
    return out


def start_apart(place, script, *arguments, **how):
    """Start a script in a process of its own, as a user does."""
    # One thread as from a launcher, so that all processes here share the cores alike: sums come in
    # the same order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=place, env=environment, text=True, **how)


def good_apart(place, *command):
    """Run a script in a process of its own; what it printed."""
    with start_apart(place, *command, stdout=-1, stderr=-1) as process:
        out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return out
