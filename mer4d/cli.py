"""The one door: finds the command that is asked for, and loads no other."""

import sys
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from jsonargparse import ArgumentParser
from rich import print as show
from rich.markup import escape
from rich.table import Table

from mer4d.commands import CONFIGURED, FUNCTIONS, GROUPS, LIGHTNING
from mer4d.errors import told
from mer4d.parallel import show_bars, take_ctrl_c, warm_up

PLACES = {
    "synth": "mer4d.synth:write_corpus",
    "report": "mer4d.page:write_page",
    "compare": "mer4d.compare:compare_all",
    "explain": "mer4d.explain:explain_run",
    "repeat": "mer4d.experiment:repeat",
    "predict": "mer4d.predict:predict",
    "export": "mer4d.export:export",
}
"""Module and name of the function that a command is."""

AT_ONCE = ("loso", "ablation")
"""Commands that by default work in several processes."""

ALONE = ("--help", "-h ", "--print_config", "--loso.jobs 1 ", "--loso.strategy sequential", "--loso.strategy batched")
"""What an order has, as a rule, that does without them."""

QUIET = "--quiet"
"""Before or after any command: without progress bars."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line; a problem with the user's data or settings is one sentence and exit code 1."""
    from_shell, given = args is None, sys.argv[1:] if args is None else args
    quiet = QUIET in given
    show_bars(not quiet)
    args = [each for each in given if each != QUIET]
    if from_shell:
        take_ctrl_c()
        if works_at_once(args):
            warm_up("mer4d.experiment")
    with told():
        match args:
            case [] | ["-h" | "--help", *_]:
                with suppress(BrokenPipeError):  # of a reader that has seen enough
                    _help()
            case [command, *others] if command in FUNCTIONS:
                _run_function(command, others)
            case [command, *others] if command in LIGHTNING and quiet:
                command_line = import_module("mer4d.experiment").command_line
                command_line([command, "--trainer.enable_progress_bar=false", *others])
            case [command, *_] if command.startswith("-") or command in CONFIGURED:
                import_module("mer4d.experiment").command_line(args)
            case [command, *_]:
                near = get_close_matches(command, CONFIGURED | FUNCTIONS, 1)
                meant = f"did you mean '{near[0]}'? `mer4d --help` lists all" if near else "`mer4d --help` lists all"
                sys.exit(f"mer4d: no command '{command}'; {meant}")


def works_at_once(args: list[str]) -> bool:
    """Whether a command will, as far as its words tell, work in several processes.

    Example:
        >>> works_at_once(["loso", "--data.root=data"]), works_at_once(["loso", "--loso.jobs=1"])
        (True, False)
    """
    order = " ".join([*args, ""]).replace("=", " ")
    return bool(args) and args[0] in AT_ONCE and not any(each in order for each in ALONE)


def _help() -> None:
    print("4D micro-expression recognition: from faces to a leave-one-subject-out result.\n")
    print("Usage: mer4d COMMAND ..., with --quiet for no progress bars; mer4d COMMAND --help for all that it takes")
    for heading, commands in GROUPS.items():
        table = Table(box=None, show_header=False, padding=(0, 2), title=f"\n{heading}", title_justify="left")
        table.add_column(width=max(map(len, CONFIGURED | FUNCTIONS)))
        for name, purpose in commands.items():
            table.add_row(name, escape(purpose))
        show(table)
    print("\nA first result: `mer4d synth data/synthetic`, then `mer4d loso --config configs/synthetic.yaml`")


def _run_function(command: str, args: list[str]) -> None:
    module, _, name = PLACES[command].partition(":")
    parser = ArgumentParser(prog=f"mer4d {command}")
    function = getattr(import_module(module), name)
    parser.description = function.__doc__.split("\n\n")[0]
    # No parameter of a function becomes several positional arguments, or one that may be missing.
    if command in ("compare", "report"):
        parser.add_argument("runs", nargs="+", type=Path, help="Folder of a run, and of others to compare.")
    parser.add_function_arguments(function, as_positional=True, skip={"runs", "source"})
    if command == "predict":
        text = "A video, a folder of frames or of clips, a manifest, or a corpus."
        parser.add_argument("source", nargs="?", type=Path, help=text)
    result = function(**parser.parse_args(args).as_dict())
    if isinstance(result, list):
        print(*result, sep="\n")
    elif result is not None:
        text = result.render()
        print(text) if isinstance(text, str) else show(text)
    if command == "repeat" and not result.same:
        sys.exit(1)
