"""Run scripts inside the test process, in one forked where the imports are done, or quite alone.

In an interpreter of its own a script takes up to ten seconds for its imports.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
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


@contextlib.contextmanager
def disk_full_at(size):
    """No file can grow beyond so many bytes: writing more fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# As from a launcher, so that all processes share the cores alike: sums come in the same order.
_LAUNCHED = {"OMP_NUM_THREADS": "1"}


def good_apart(place, script, *arguments):
    """Run a script in an interpreter of its own, as a user does; what it printed."""
    environment = {**os.environ, **_LAUNCHED, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    how = {"cwd": place, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Forked:
    """A script in a process and a session of its own, forked where the imports are done."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["comp.fwi.task", "comp.core.trainer"])

    def __init__(self, place, *command, **environment):
        self.output = tempfile.NamedTemporaryFile("r")  # noqa: SIM115
        start = self.output.name, place, list(map(str, command)), {**_LAUNCHED, **environment}
        self.process = self.server.Process(target=self._run, args=start)
        self.process.start()

    @staticmethod
    def _run(output, place, command, environment):
        os.setsid()
        # Else loaders start their workers from such a server too, which would import all anew.
        multiprocessing.set_start_method("fork", force=True)
        with open(output, "w") as file:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(file.fileno(), stream.fileno())
        os.environ.update(environment)
        os.chdir(place)
        sys.exit(run(*command))

    def wait(self, until):
        """Until something is the case, before which the process must not end."""
        while not until():
            self.process.join(0.005)
            assert self.process.exitcode is None, self.said()

    def kill(self, signum):
        """Send a signal to the process and all that it started, and wait for its end."""
        os.killpg(self.process.pid, signum)
        return self.end()

    def end(self):
        """The exit code: less than 0 where a signal ended it."""
        self.process.join()
        return self.process.exitcode

    def good(self):
        """What a script printed that ended well."""
        assert self.end() == 0, self.said()
        return self.said()

    def said(self):
        """What it has printed so far, and its errors."""
        self.output.seek(0)
        return self.output.read()
