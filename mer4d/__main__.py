"""Entry point of the `mer4d` command and of `python -m mer4d`."""


def main() -> None:
    """Runs the command line."""
    # Imported here because worker processes import this module again, and start sooner without torch.
    from mer4d.cli import main as run

    run()


if __name__ == "__main__":
    main()
