"""Everything that is wrong with a corpus in one go: every file opened, every problem named, and pages to look at."""

import csv
import io
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from mer4d.cache import FlowStore, write_atomically
from mer4d.check.contact_sheet import Strip, write_contact_sheets
from mer4d.check.flow import FlowReport, report_flow
from mer4d.check.look import Look, flow_pictures, look_at
from mer4d.clip import PHASES, Clip
from mer4d.data import MER4DDataModule, Survey
from mer4d.data.corpora.corrections import Corrections
from mer4d.errors import Defect, FrameError, MER4DError, SettingError
from mer4d.parallel import process_pool, processes, progress_bars
from mer4d.preprocess import Preprocess
from mer4d.preprocess.sources import duplicates

LINES = 200
"""Most lines of the printed table of problems; the file has all."""


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Args:
        root: Folder of the corpus.
        survey: What the annotation says; empty where it cannot be read.
        defects: All that is wrong, the corpus as a whole first, then clip by clip.
        notes: What was done on purpose: corrections applied, clips left out, doubts accepted.
        resolutions: Height and width of a view in pixels, and how many clips have it.
        forms: What must be alike in all clips (views, or the shape of ready-made flow), and how many clips have it.
        flow: How far the flow of each clip can be trusted; None where it was not measured.
        table: File with all defects.
        flow_table: File with what `flow` holds, where it was measured.
        pages: Contact sheets, clips whose flow stands out as bad first.
    """

    root: Path
    survey: Survey
    defects: tuple[Defect, ...]
    notes: tuple[str, ...]
    resolutions: Counter[tuple[int, int]]
    forms: Counter[str]
    flow: FlowReport | None
    table: Path
    flow_table: Path | None
    pages: tuple[Path, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.defects

    @property
    def verdict(self) -> Text:
        """How many problems there are, in one line."""
        faulty = {defect.clip_id for defect in self.defects} - {None}
        clips = len(faulty | {clip.clip_id for clip in self.survey.clips})
        if self.clean:
            return Text(f"{self.root}: {_count(clips, 'clip')}, nothing wrong", "bold green")
        found = f"{_count(len(self.defects), 'problem')} in {len(faulty)} of {_count(clips, 'clip')}"
        if whole := sum(defect.clip_id is None for defect in self.defects):
            found += f", {whole} of them of the corpus as a whole"
        return Text(f"{self.root}: {found}", "bold red")

    def render(self) -> RenderableType:
        """The report for a person at a terminal."""
        parts: list[RenderableType] = [self.verdict]
        if self.defects:
            parts.append(problem_table(self.defects, self.root))
        if self.survey.clips:
            parts += [overview(self), class_table(self.survey)]
        if self.flow:
            parts.append(self.flow.render())
        parts += [Text(f"Note: {note}") for note in self.notes]
        files = [self.table, self.flow_table, *self.pages[:1]]
        sheets = f" to {self.pages[-1].name}" if len(self.pages) > 1 else ""
        parts.append(Text(f"Files: {', '.join(str(file) for file in files if file)}{sheets}"))
        if self.defects:
            parts += [
                self.verdict,
                Text(
                    "Repair the files or the annotation, or say what is right in a file of corrections "
                    "(--data.corpus.corrections FILE), which also accepts what is in doubt but harmless; "
                    "or leave clips that cannot be used out of everything with --data.on_error skip."
                ),
            ]
        return Group(*parts)


def check(data: MER4DDataModule, out: Path, flow: bool = True) -> CheckReport:
    """Reads all of a corpus, and writes `problems.csv`, `flow_quality.csv` and contact sheets.

    Memory holds one clip per process and one page, however large the corpus is. Measured flow stays in the store, where
    training finds it.

    Args:
        data: Corpus, and how it is to be read.
        out: Folder for the files, made if need be.
        flow: Whether to measure flow, too, and tell how far it can be trusted.

    Raises:
        CacheError: The disk refused a file.
        SettingError: A setting is impossible, or a process died.
    """
    try:
        # Ready-made flow and composites have no corrections of their own.
        survey, corrections = data.survey, Corrections.read(getattr(data.corpus, "corrections", None))
    except MER4DError as error:  # there is nothing to read
        survey, corrections = Survey((), (), True, (Defect(None, error),)), Corrections.read(None)
    looks: list[Look] = []
    found: list[Defect] = []
    measured, unmeasured = FlowReport({}, ()), []
    if flow:
        try:
            measured, unmeasured = report_flow(survey.clips, data)
        except SettingError as error:  # of which every clip may say the same below
            unmeasured = [Defect(None, error)]
    suspects = measured.suspects
    worst_first = sorted(survey.clips, key=lambda clip: clip.clip_id not in suspects)

    def strips() -> Iterator[Strip]:
        for look, strip in look_at_all(worst_first, data.preprocess, data.jobs):
            looks.append(look)
            yield with_flow(strip, look, measured, data.store)

    if survey.clips and all(defect.doubt for defect in survey.defects):
        try:
            _ = data.problem
        except SettingError as error:  # classes and settings that do not fit
            found.append(Defect(None, error))
    found += duplicates(survey.clips, data.digests)
    pages = write_contact_sheets(strips(), out)
    place = {clip.clip_id: number for number, clip in enumerate(survey.clips)}
    looks.sort(key=lambda look: place[look.clip_id])
    seen = [defect for look in looks for defect in look.defects]
    told = {defect.error.args[1:] for defect in seen}
    found += seen + [defect for defect in unmeasured if defect.error.args[1:] not in told] + unlike(looks)
    views = {look.clip_id: look.views for look in looks}
    found += measured.doubts(views)
    flow_table = out / "flow_quality.csv"
    if measured.flows:
        measured.write(flow_table, views)
    else:
        flow_table.unlink(missing_ok=True)
    defects = [*survey.defects, *corrections.settle(found, corrections.entries)]
    order = {clip_id: place for place, clip_id in enumerate(dict.fromkeys([None, *(each.clip_id for each in defects)]))}
    defects.sort(key=lambda defect: order[defect.clip_id])
    write_problems(defects, data.root, out / "problems.csv")
    return CheckReport(
        root=data.root,
        survey=survey,
        defects=tuple(defects),
        notes=(*survey.notes, *corrections.notes),
        resolutions=Counter(look.resolution for look in looks if look.resolution),
        forms=Counter(look.form for look in looks if look.form),
        flow=measured if measured.flows else None,
        table=out / "problems.csv",
        flow_table=flow_table if measured.flows else None,
        pages=tuple(pages),
    )


def with_flow(strip: Strip, look: Look, measured: FlowReport, store: FlowStore) -> Strip:
    """A strip and the flow of its clip, if it was measured."""
    if (key := measured.keys.get(look.clip_id)) is None:
        return strip
    pictures = flow_pictures(store.read(key).flow, look.views, PHASES)
    return replace(strip, title=f"{strip.title}   {measured.title(look.clip_id)}", pictures=strip.pictures + pictures)


def look_at_all(clips: Sequence[Clip], preprocess: Preprocess, jobs: int | None) -> Iterator[tuple[Look, Strip]]:
    """Looks at clips on all cores, in their order, only a few ahead of who asks for the next."""
    jobs = processes(jobs, len(clips))
    with progress_bars(disable=not clips) as bars, nullcontext() if jobs == 1 else process_pool(jobs) as pool:
        looks = _ahead(pool, clips, preprocess, 4 * jobs) if pool else (look_at(clip, preprocess) for clip in clips)
        yield from bars.track(looks, len(clips), description=f"Reading clips ({jobs} processes)")


def _ahead(
    pool: ProcessPoolExecutor, clips: Sequence[Clip], preprocess: Preprocess, ahead: int
) -> Iterator[tuple[Look, Strip]]:
    """What a pool makes of the clips, in their order; `ahead` of them may wait."""
    pending: deque[Future[tuple[Look, Strip]]] = deque()
    try:
        for clip in clips:
            pending.append(pool.submit(look_at, clip, preprocess))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        remedy = "use fewer, or see above what ended it"
        raise SettingError("data.jobs", "memory for all processes", "one that died", remedy) from error
    finally:
        pool.shutdown(cancel_futures=True)


def unlike(looks: Sequence[Look]) -> list[Defect]:
    """A defect for every clip that is of another form than most, with which it cannot be in one batch."""
    read = [look for look in looks if look.form]
    ((usual, number),) = Counter(look.form for look in read).most_common(1) or [("", 0)]
    expected, remedy = f"{usual}, as in {_count(number, 'clip')}", "bring it to this form or exclude it"
    return [
        Defect(look.clip_id, FrameError(f"clip '{look.clip_id}'", expected, look.form, remedy))
        for look in read
        if look.form != usual
    ]


def write_problems(defects: Sequence[Defect], root: Path, path: Path) -> None:
    """Writes a CSV with one line for each defect; `doubt` names a flaw that leaves the clip usable."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["clip_id", "where", "expected", "found", "remedy", "doubt"])
    table.writerows([defect.clip_id or "", *told(defect, root), defect.doubt] for defect in defects)
    write_atomically(path, text.getvalue().encode())


def told(defect: Defect, root: Path) -> tuple[str, ...]:
    """Where, expected, found and remedy of a defect, for a reader who knows the clip and the root of the corpus."""
    where, *said = (text.replace(f"{root}{os.sep}", "") if root.name else text for text in defect.error.args)
    return where.removeprefix(f"clip '{defect.clip_id}' in "), *said


def problem_table(defects: Sequence[Defect], root: Path) -> Table:
    """Defects by clip, those of a clip that differ in nothing but the file on one line.

    Args:
        defects: Those of a clip in succession.
        root: Folder of the corpus.
    """
    lines: dict[tuple[str | None, str, str, str], list[tuple[str, ...]]] = {}
    for defect in defects:
        said = told(defect, root)
        lines.setdefault((defect.clip_id, said[1], said[3], defect.doubt), []).append(said)
    columns = (Column(name, overflow="fold") for name in ("clip", "where", "problem", "remedy"))
    table, last = Table(*columns, title="Problems", title_justify="left"), ""
    for (clip_id, expected, remedy, doubt), ((where, _, found, _), *others) in list(lines.items())[:LINES]:
        if clip_id != last:
            table.add_section()
        where += f" and {len(others)} more" if others else ""
        remedy += f"; or accept `{doubt}`" if doubt and f"`{doubt}`" not in remedy else ""
        name = "" if clip_id == last else clip_id or "(the corpus)"
        table.add_row(*map(Text, (name, where, f"expected {expected}, found {found}", remedy)))
        last = clip_id
    if len(lines) > LINES:
        table.add_section()
        table.add_row("...", f"and {_count(len(lines) - LINES, 'more line')}", "", "")
    return table


def overview(report: CheckReport) -> Table:
    """What kind of corpus it is."""
    clips = report.survey.clips
    labelled = [clip for clip in clips if clip.emotions]
    rates = Counter(f"{clip.frame_rate:g} per second" if clip.frame_rate else "unknown" for clip in clips)
    table = Table(show_header=False, box=None)
    table.add_row("clips", f"{len(labelled)} with a label, {len(clips) - len(labelled)} to be predicted")
    table.add_row("subjects", str(len({clip.subject for clip in clips})))
    table.add_row("frames of a clip", _spread([len(clip.frames) for clip in clips]))
    table.add_row("onset to offset", _spread([len(clip.sequence) for clip in clips]))
    table.add_row("width x height of a view", _shares(report.resolutions, lambda size: f"{size[1]} x {size[0]}"))
    table.add_row("in each clip", _shares(report.forms, str))
    table.add_row("frame rate", _shares(rates, str))
    table.add_row("annotated apexes", str(sum(clip.apex is not None for clip in clips)))
    return table


def class_table(survey: Survey) -> Table:
    """How many clips of each subject show each class; a clip may show several."""
    names = [*survey.classes, *(["to be predicted"] if any(not clip.emotions for clip in survey.clips) else [])]
    counts: dict[str, Counter] = {}
    for clip in sorted(survey.clips, key=lambda clip: clip.subject):
        counts.setdefault(clip.subject, Counter()).update(["clips", *(clip.emotions or ["to be predicted"])])
    total = sum(counts.values(), Counter())
    table = Table("subject", *(Column(name, justify="right") for name in (*names, "clips")), title="Clips")
    for subject, row in counts.items():
        table.add_row(Text(subject), *(str(row[name]) for name in (*names, "clips")))
    table.add_section()
    table.add_row("all", *(str(total[name]) for name in (*names, "clips")))
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _spread(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}, median {median(numbers):g}"


def _shares(counts: Counter, name: Callable[[Any], str]) -> str:
    return ", ".join(f"{name(value)} ({_count(number, 'clip')})" for value, number in counts.most_common())
