"""LightningCLI with leave-one-subject-out: the commands that take a configuration."""

import logging
import os
import shlex
import sys
import warnings
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, WandbLogger
from rich import print as show

from mer4d.ablation import Ablation, Row, run_ablation
from mer4d.audit import Audit, run_audit
from mer4d.check.report import check
from mer4d.commands import CONFIGURED, CORPUS, LIGHTNING, PROTOCOL
from mer4d.data import MER4DDataModule, write_manifest
from mer4d.errors import SettingError, told
from mer4d.logs import connect, failures, forget_failures, make_logger, sweep_run
from mer4d.loso import (
    LOSO,
    Part,
    Repetition,
    compare_repetition,
    config_digest,
    obstacle,
    recorded_name,
    run_id,
    run_loso,
    run_part,
)
from mer4d.page import write_page
from mer4d.parallel import import_once, processes, progress_bars
from mer4d.report import result_table
from mer4d.show import show_clips
from mer4d.task import MicroExpressionTask

DEFAULTS = Path(__file__).with_name("defaults.yaml")

OWN = CORPUS | PROTOCOL
"""Commands that LightningCLI does not know."""


class MER4DCLI(LightningCLI):
    """LightningCLI with leave-one-subject-out built in: every command takes the same configuration and overrides."""

    data_class = MER4DDataModule

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the `loso` section and the defaults, and makes one seed serve everything."""
        parser.default_config_files = [str(DEFAULTS)]
        parser.add_class_arguments(LOSO, "loso")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("loso.leaky", "data.leaky")
        parser.link_arguments("loso.scheduler", "data.scheduler")
        parser.link_arguments("data.problem", "model.problem", apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those of `LIGHTNING`, and which arguments of the Trainer's methods are not the user's."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name in LIGHTNING}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arguments = kwargs["args"]  # before the parser is made, which depends on the command that is asked for
        super().__init__(*args, **kwargs)

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: object) -> None:
        # Lightning offers no other place for a command that is not a method of its Trainer.
        super()._add_subcommands(parser, **kwargs)
        for name, purpose in OWN.items():
            self._subcommand_parsers[name] = made = self.init_parser(description=purpose)
            if self._asked(name):
                self._add_arguments(made)
                self._add_own_arguments(made, name)
            parser._subcommands_action.add_subcommand(name, made, help=purpose)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if self._asked(subcommand):
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self._subcommand_method_arguments[subcommand] = []
        return self.init_parser(**kwargs)

    def _asked(self, command: str) -> bool:
        """Whether a command's arguments are needed: those of all commands take longer to add than many a command."""
        first = self._arguments[0]
        return first not in CONFIGURED or command == first or (command, first) == ("loso", "ablation")

    @staticmethod
    def _add_own_arguments(parser: LightningArgumentParser, name: str) -> None:
        if name == "check":
            parser.add_argument("--out", type=Path, default=Path("check"), help="Folder of tables and contact sheets.")
            parser.add_argument("--flow", type=bool, default=True, help="Whether to measure flow, too.")
        elif name == "manifest":
            parser.add_argument("--file", type=Path, help="CSV to write; by default manifest.csv in the corpus.")
            parser.add_argument("--overwrite", type=bool, default=False, help="Whether to replace a file that exists.")
        elif name == "show":
            parser.add_argument("clip_ids", nargs="+", metavar="CLIP_ID", help="Name of a clip, and of others.")
            parser.add_argument("--out", type=Path, default=Path("show"), help="Folder of the pictures.")
            parser.add_argument("--video", type=bool, default=False, help="Whether to write slow videos (GIF), too.")
        elif name == "audit":
            parser.add_class_arguments(Audit, "audit")
        elif name == "ablation":
            parser.add_class_arguments(Ablation, "ablation")

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        """Parses, and keeps Lightning quiet where it would introduce itself once per fold."""
        super().parse_arguments(parser, args)
        if self.config.subcommand in OWN:
            for name in ("pytorch_lightning", "lightning_fabric"):
                logging.getLogger(name).setLevel(logging.WARNING)

    def before_instantiate_classes(self) -> None:
        """Sees to it that no logger makes a run fail."""
        self.parser.add_instantiator(make_logger, Logger)

    def instantiate_classes(self) -> None:
        """Instantiates what the command needs: trainer, module and data module, or the last alone."""
        if self.subcommand in (*CORPUS, "ablation"):  # rows are built in processes of their own
            self.datamodule = _data_module(self.config[self.subcommand])
        else:
            super().instantiate_classes()
            # Lightning writes the link's object into the configuration, which then could not be saved nor read again.
            self.config_dump["model"].pop("problem")

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand in OWN:
            getattr(self, subcommand)()
        else:
            connect(self.trainer)
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        """Tells what `_tell` does."""
        _tell(self.datamodule)

    def check(self) -> None:
        """Names all that is wrong with the corpus."""
        settings = self.config["check"]
        report = check(self.datamodule, settings.out, settings.flow)
        show(report.render())
        if not report.clean:
            sys.exit(1)

    def manifest(self) -> None:
        """Writes the corpus as a manifest."""
        settings, data = self.config["manifest"], self.datamodule
        file = settings.file or data.root / "manifest.csv"
        write_manifest(data.survey, data.root, file, overwrite=settings.overwrite)
        _tell(data)
        print(f"{len(data.survey.clips)} clips in {file}; read it back with configs/manifest.yaml")

    def prepare(self) -> None:
        """Fills the cache."""
        data = self.datamodule
        data.prepare_data()
        _tell(data)
        print(f"{len(data.clips) + len(data.unlabelled)} clips ready in {data.store.root}")
        if apex := data.apex_error():
            print(f"Apex against annotation: {apex}")

    def show(self) -> None:
        """Draws clips."""
        settings = self.config["show"]
        files = show_clips(self.datamodule, settings.clip_ids, settings.out, settings.video)
        print(f"Files: {', '.join(map(str, files))}")

    def loso(self) -> None:
        """Holds out every subject once."""
        self._keep_config()
        if self._loso.jobs != 1 and self._loso.strategy in (None, "processes"):
            import_once(__name__)
        data = self.datamodule  # of the run; every fold makes its own
        try:
            result = run_loso(
                self._loso,
                self.config_dump,
                data,
                self._build_fold,
                partial(_run_elsewhere, tuple(self._arguments)),
                lambda run: write_page([run], clips=0)[0],  # without faces, since the log sends it out of the house
                self._device(),
            )
        except SystemExit as error:  # how Lightning ends an interrupted fit
            raise KeyboardInterrupt from error
        _tell(data)
        show(result_table(result))
        print(f"Files: {self._loso.directory}")

    def _device(self) -> str:
        """Where folds train; elsewhere than on the CPU only where they can train together there."""
        device = self.trainer.strategy.root_device.type
        return "cpu" if device != "cuda" or obstacle(self.trainer, self.model) else device

    def audit(self) -> None:
        """Shows by experiment that held-out subjects influence nothing."""
        self._keep_config()
        self._loso_config.trainer.logger = False
        config = {name: section for name, section in self.config_dump.items() if name != "audit"}
        audit = self.config_init["audit"]["audit"]
        try:
            report = run_audit(audit, self._loso, config, self.datamodule, self._build_fold)
        except (SystemExit, KeyboardInterrupt):
            sys.exit("mer4d: interrupted; the same command starts anew")
        show(report.render())
        print(f"File: {self._loso.directory / 'audit.json'}")
        if not report.passed:
            sys.exit(1)

    def _keep_config(self) -> None:
        """Remembers the configuration from which every fold is built anew."""
        self._dump_config()
        # Whoever repeats a run, or uses its networks, is not to look for a cluster that may be gone.
        self.config_dump["loso"]["scheduler"] = self.config_dump["data"]["scheduler"] = None
        self.save_config_callback = None  # each fold's configuration is written by _build_fold
        self._loso, self._loso_config = self.config_init[self.subcommand]["loso"], self.config[self.subcommand]

    def ablation(self) -> None:
        """Runs the configuration as it is and with the differences of every row."""
        config = self.config["ablation"].clone()
        settings = Ablation(**config.pop("ablation"))
        import_once(__name__)
        run = LOSO(**config.loso)
        name = f"{run.name}_ablation"
        directory, parser = run.runs / name, self._parser("loso")
        parser.exit_on_error = False  # which would not say in which file the error is

        shared = []
        if run.jobs is None and run.strategy != "batched" and not torch.cuda.is_available():
            cores, rows = processes(None, sys.maxsize), processes(settings.jobs, 1 + len(settings.files))
            shared = [f"--loso.jobs={max(1, cores // rows)}"]

        def resolved(config: Namespace) -> dict[str, Any]:
            return yaml.safe_load(parser.dump(config, skip_link_targets=False, skip_none=False))

        def read(row: str, file: Path | None) -> Row:
            files = [directory / "config.yaml", *([file] if file else [])]
            arguments = [*(f"--config={each}" for each in files), f"--loso.name={name}/{row}", *shared]
            try:
                found = parser.parse_args(arguments)
            except ArgumentError as error:
                problem = " ".join(str(error).split())
                raise SettingError(
                    files[-1], "settings as `mer4d loso` takes them", problem, "correct the file"
                ) from error
            return Row(
                row,
                LOSO(**found.loso),
                resolved(found),
                lambda: _data_module(found),
                partial(_run_row, ["loso", *arguments]),
            )

        command = shlex.join(["mer4d", *self._arguments])
        table = run_ablation(settings, directory, resolved(config), self.datamodule, read, command)
        _tell(self.datamodule)
        show(table.render())
        print(f"Files: {directory / settings.title}.md, .tex and .csv")
        if table.failures:
            sys.exit(1)

    def _build_fold(self, part: Part) -> tuple[Trainer, LightningModule, MER4DDataModule]:
        """Everything a part of the run needs, made anew from the configuration."""
        config = self._loso_config.clone()
        config.data.test_subject, config.data.seed, config.seed_everything = part.subject, part.seed, part.seed
        config.trainer.default_root_dir = str(part.directory)
        config.trainer.enable_progress_bar = config.trainer.enable_model_summary = False
        if part.refit:
            config.trainer.logger = False  # the fold's log is that of the training whose epochs were chosen
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if isinstance(logger, Namespace):
                self._place_logger(logger, part)
        self.config[self.subcommand] = config
        seed_everything(part.seed, workers=True, verbose=False)
        self.instantiate_classes()
        connect(self.trainer, of_sweep=part.subject is None)
        for logger in self.trainer.loggers:
            fold = {"held_out": part.subject, "fold_seed": part.seed, "config_digest": config_digest(self.config_dump)}
            logger.log_hyperparams(self.config_dump | fold)
        if part.subject is not None and not part.refit:
            config.loso.scheduler = None
            text = self._parser(self.subcommand).dump(config, skip_unset=False, skip_validation=True)
            (part.directory / "config.yaml").write_text(text)
        return self.trainer, self.model, self.datamodule

    def _place_logger(self, logger: Namespace, part: Part) -> None:
        """Puts a fold's log into the fold's directory; in W&B one group per LOSO or ablation, a run per fold."""
        settings, of_wandb = logger.init_args, logger.class_path.rpartition(".")[2] == WandbLogger.__name__
        if "save_dir" in settings:
            settings.save_dir = str(part.directory if of_wandb else part.directory / "log")
        if of_wandb:
            settings.group = settings.get("group") or self._loso.name.rpartition("/")[0] or self._loso.name
            settings.job_type = "summary" if part.subject is None else "fold"
            seed = f"/seed {part.seed}" if part.subject is not None and self._loso.seeds > 1 else ""
            settings.name = f"{self._loso.name}/{part.subject or 'summary'}{seed}"
            settings.version, settings.id = None, run_id(self._loso, self.config_dump, part.subject, part.seed)
            if part.subject is None and (trial := sweep_run()):
                settings.id = trial


class Worker(MER4DCLI):
    """The command line in a process that runs parts of a run for another one."""

    def _run_subcommand(self, subcommand: str) -> None:
        self._keep_config()
        torch.set_num_threads(self._loso.threads)
        self.run_data = self.datamodule

    def run(self, part: Part) -> dict[str, str]:
        """Runs a fold, and returns which loggers failed."""
        with self.run_data.shared(), progress_bars(disable=True) as progress:
            run_part(part, self._build_fold, self._loso.refit, progress)
        return failures()


@lru_cache(1)
def _worker(arguments: tuple[str, ...], attempt: str) -> Worker:
    forget_failures()  # of runs that the worker of a cluster had before
    return command_line(list(arguments), Worker)


def _run_elsewhere(arguments: tuple[str, ...], part: Part) -> dict[str, str]:
    """Runs a fold in this process, which was started to do so, of the run that the arguments describe."""
    return _worker(arguments, part.attempt).run(part)


def _run_row(arguments: list[str]) -> None:
    """Runs a row of an ablation in this process, which was started to do so."""
    with told():
        command_line(arguments)


def _data_module(config: Namespace) -> MER4DDataModule:
    """The data module of a command's configuration, without all else."""
    parser = ArgumentParser()
    parser.add_class_arguments(MER4DDataModule, "data")
    return parser.instantiate(Namespace(data=config.data)).data


def _tell(data: MER4DDataModule) -> None:
    """Prints what a person should know of the corpus before believing a result."""
    for note in data.survey.notes:
        print(f"Note: {note}")
    for defect in data.defects:
        if not defect.doubt:
            print(f"Skipped: {defect.error}")
    if data.doubts:
        counts = ", ".join(f"{kind} ({number})" for kind, number in sorted(data.doubts.items()))
        print(f"In doubt: {counts}; `mer4d check` names the clips")


def command_line(args: list[str], kind: type[MER4DCLI] = MER4DCLI) -> MER4DCLI:
    """Parses arguments and does what they say, in quiet."""
    # Every logged run would otherwise tell on its own how to sync it, and record the progress bars.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    for pattern in (
        ".*does not have many workers",  # tensors lie in memory, where worker processes only cost
        ".*exists and is not empty",  # a fold's directory holds its configuration before its checkpoint
        ".*isinstance.treespec, LeafSpec",  # between Lightning 2.6 and torch 2.13
        "LightningCLI's args parameter is intended",  # `repeat` calls `loso`
    ):
        warnings.filterwarnings("ignore", pattern)
    return kind(
        MicroExpressionTask,
        kind.data_class,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"description": "4D micro-expression recognition: from faces to a leave-one-subject-out result."},
        args=args,
    )


def repeat(run: Path) -> Repetition:
    """Runs a finished leave-one-subject-out run again from its record, in the folder beside it named `<run>_again`.

    Args:
        run: Folder of a run, such as runs/loso.

    Raises:
        MER4DError: The folder holds no finished run, or its corpus is no longer what it was.
    """
    config, name = recorded_name(run)
    again = run.resolve().parent / name
    command_line(["loso", f"--config={config}", f"--loso.runs={again.parent}", f"--loso.name={name}"])
    return compare_repetition(run, again)
