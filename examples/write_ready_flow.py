"""Writes flow from any function in the form that mer4d.data.ReadyFlow reads.

python examples/write_ready_flow.py pictures.csv out

pictures.csv has the columns clip_id, subject, labels, onset, apex, offset; the last three name pictures of the face,
all of one size, relative to the table.
"""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np


def flow(first, second):
    """Put yours here: from two pictures (H, W) uint8 to (H, W, 2) float32 pixels, u to the right and v downwards."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


table, out = map(Path, sys.argv[1:])
out.mkdir(parents=True)
with table.open(newline="") as source, (out / "index.csv").open("w", newline="") as target:
    index = csv.writer(target)
    index.writerow(["clip_id", "subject", "labels", "file"])
    for row in csv.DictReader(source):
        files = [str(table.parent / row[mark]) for mark in ("onset", "apex", "offset")]
        onset, apex, offset = (cv2.imread(file, cv2.IMREAD_GRAYSCALE) for file in files)
        phases = [flow(onset, apex), flow(apex, offset)]
        phases = [cv2.resize(phase, (56, 56), interpolation=cv2.INTER_AREA) for phase in phases]
        u, v = np.moveaxis(np.stack(phases), -1, 0)  # each (P, H, W)
        file = f"{row['clip_id']}.npy"
        np.save(out / file, np.stack([u, v, np.hypot(u, v)], axis=1)[np.newaxis])  # (V=1, P=2, C=3, H, W)
        index.writerow([row["clip_id"], row["subject"], row["labels"], file])
