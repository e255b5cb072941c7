"""The one exception for bad input, and the guard that turns it into one line on a terminal."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input from outside: a file, a key or a row.

    The message is one line that names the file, key or row, what was found and what was expected.
    """


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; bad input or a full disk ends it with one line and exit code 2."""
    try:
        main()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
