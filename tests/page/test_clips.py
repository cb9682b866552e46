import base64
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from mer4d.cli import main
from mer4d.page import write_page

RUN = Path("runs/quick")


def test_the_page_of_a_real_run(quick, parse, browse):
    main(["loso", *quick])
    main(["report", str(RUN)])
    html = (RUN / "report.html").read_text()
    page, metrics = parse(html), json.loads((RUN / "metrics.json").read_text())
    assert page.table("UF1 with its 95 % interval")[0][1] == metrics["uf1"]

    pictures = [each["src"].partition(",") for tag, each in page.elements if tag == "img"]
    assert len(pictures) == 1 + 6 * 2 * (3 + 2 * 3)  # wheel; clips, views, faces, and colours, arrows, heat of a phase
    for kind, _, content in pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        picture.load()
        assert kind == f"data:image/{picture.format.lower()};base64"
    assert len(html) < 3_000_000
    assert page.text.count("apex detected, frame ") == page.text.count("apex annotated, frame ") == 6
    weights = [row[1] for row in page.table("Fusion attention")]
    assert len(weights) == 3 and sum(weights) == pytest.approx(1, abs=1e-5)

    assert page.text.count(" of 2") >= 4  # epochs of the folds
    for file in RUN.glob("folds/*/curves.csv"):
        curves = pd.read_csv(file)
        assert curves.epoch.tolist() == [1, 2] and curves.notna().all(axis=None)
        scores = {f"{split}/{score}" for split in ("train", "val") for score in ("loss", "uf1", "soft_uf1", "uar")}
        assert {*curves} == {"epoch", *scores}  # and nothing of the held-out subject
        outcome = json.loads(file.with_name("metrics.json").read_text())
        best = curves["val/soft_uf1"][outcome["best_epoch"] - 1]
        assert best == curves["val/soft_uf1"].max() == pytest.approx(outcome["best"]["val/soft_uf1"])

    assert write_page([RUN], Path("again.html"))[0].read_text() == html
    assert browse(RUN / "report.html", Path("browser").absolute())[:2] == ([], [])

    for file in RUN.glob("folds/*/best.ckpt"):
        file.unlink()
    text = parse(write_page([RUN])[0].read_text()).text
    assert "No heat maps and no attention. RunError: " in text and "apex detected" in text
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    config["data"]["root"] = "gone"
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))
    text = parse(write_page([RUN])[0].read_text()).text
    assert "No pictures. " in text and "gone" in text and "Probabilities" in text
