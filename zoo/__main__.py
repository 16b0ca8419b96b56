"""`zoo`, and `python -m zoo`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, whose import an interrupt ends as it does a command."""
    try:
        from zoo.cli import main as run  # here, so that the interrupt is caught
    except KeyboardInterrupt:
        print("zoo: interrupted: nothing half-written is left", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
