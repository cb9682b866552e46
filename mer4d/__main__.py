"""Entry point of the `mer4d` command and of `python -m mer4d`."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        # Imported here because worker processes import this module again, and start sooner without it.
        from mer4d.cli import main as run
    except KeyboardInterrupt:
        sys.exit("mer4d: interrupted")
    run()


if __name__ == "__main__":
    main()
