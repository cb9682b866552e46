"""Run folders made by hand, a reader of pages, and a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from mer4d.report import score

VOID = {"meta", "img", "br", "input", "link", "hr"}


def write_run_folder(
    folder, classes=("joy", "awe"), subjects=("S1", "S2", "S3"), clips=4, seeds=(0,), multi_label=True, absent=(),
    curves=True, random=0, **changes,
):  # fmt: skip
    """A finished run of random predictions, whose corpus is nowhere; `changes` are entries of metrics.json."""
    rng, rows = np.random.default_rng(0), []
    names = [(subject, f"{subject}/{number:02d}") for subject in subjects for number in range(clips)]
    for subject, clip_id in names:
        labels = rng.random(len(classes)) < 0.5 if multi_label else rng.permutation(len(classes)) == 0
        truth = {name: int(label and name not in absent) for name, label in zip(classes, labels, strict=True)}
        true = {f"{name}_true": label for name, label in truth.items()}
        rows.append({"clip_id": clip_id, "subject": subject, "fold": subject} | true)
    tables = []
    for seed in seeds:
        draw = np.random.default_rng([random, seed]).random((len(rows), len(classes)))
        said = draw >= 0.5 if multi_label else draw == draw.max(1, keepdims=True)
        draw = draw if multi_label else draw / draw.sum(1, keepdims=True)
        shown = {f"{c}_prob": draw[:, k] for k, c in enumerate(classes)}
        shown |= {f"{c}_pred": said[:, k].astype(int) for k, c in enumerate(classes)}
        tables.append(pd.DataFrame(rows).assign(seed=seed, **shown))
    table = pd.concat(tables)
    metrics = {
        **score(table, classes, multi_label),
        "problem": {"views": ["left"], "phases": ["onset_apex"], "classes": classes, "multi_label": multi_label},
        "permuted_labels": False, "leaky": False, "apex_error": None, "skipped": [], "doubts": {}, "notes": [],
        "folds": len(subjects), "seeds": list(seeds), "seconds": 3.5, "hold_out": "subject",
        "protocol": "leave-one-subject-out; pooled", "data_digest": "0" * 32, "commit": None,
        "versions": {"python": "3"},
    } | changes  # fmt: skip
    folder.mkdir(parents=True)
    table.to_csv(folder / "predictions.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {
        "seed_everything": 0, "data": {"root": str(folder / "nowhere")}, "model": {"gamma": float(random)},
        "loso": {"name": folder.name, "leaky": False},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for number, subject in enumerate(subjects):
        fold = folder / "folds" / str(number)
        fold.mkdir(parents=True)
        outcome = {"subject": subject, "seed": 0, "best_epoch": 2, "best": {"val/loss": 0.2}}
        (fold / "metrics.json").write_text(json.dumps(outcome))
        if curves:
            losses = {"train/loss": [0.4, 0.2, 0.1], "val/loss": [0.4, 0.2, 0.3]}
            pd.DataFrame({"epoch": [1, 2, 3], **losses}).to_csv(fold / "curves.csv", index=False)
    return folder


class Page(HTMLParser):
    """A page as a program reads it: text, tables by caption, elements and their attributes."""

    def __init__(self, html):
        super().__init__()
        self.text, self.tables, self.elements, self._open = "", {}, [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "data" and "tr" in self._open:
            self._rows[-1].append(float(dict(attributes)["value"]))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self.tables.setdefault(self._caption.partition(";")[0], self._rows)

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & {*self._open} and "data" not in self._open:
            row = self._rows[-1]
            if isinstance(row[-1], float):
                row.append("")
            row[-1] += data

    def table(self, caption):
        """Rows below the head of the table whose caption begins so, empty cells left out."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        stripped = [[cell.strip() if isinstance(cell, str) else cell for cell in row] for row in rows[1:]]
        return [[cell for cell in row if cell != ""] for row in stripped]


def browse_page(page, folder):
    """What Chromium says on its console, the addresses that a page asks for, and what it then holds."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    folder.mkdir()
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=1000",
        f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}", "--dump-dom",
        page.absolute().as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    log = json.loads((folder / "net.json").read_text())
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [each["params"] for each in log["events"] if each["type"] == start and "url" in each.get("params", {})]
    # The browser's own requests, for updates and the like, come from no origin.
    urls = [each["url"] for each in asked if each["initiator"] != "not an origin"]
    return re.findall(r":CONSOLE\S*\] (.*)", result.stderr), urls, result.stdout


@pytest.fixture(scope="session")
def browse():
    return browse_page


@pytest.fixture(scope="session")
def write_run():
    return write_run_folder


@pytest.fixture(scope="session")
def parse():
    return Page
