"""Run the scripts inside the test process, which spares the start of an interpreter each time."""

import runpy
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"


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
