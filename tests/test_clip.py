"""A clip that cannot be is refused when it is made."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from mer4d.clip import ActionUnit, Clip, Frame, Problem
from mer4d.errors import AnnotationError, SettingError


def clip(frames=10, onset=2, offset=7, apex=None, emotions=("negative",), **fields):
    shown = tuple(Frame((Path(f"{number}.png"),)) for number in range(frames))
    return Clip("S1_01", "S1", shown, onset, offset, emotions, apex, **fields)


@pytest.mark.parametrize(
    "positions",
    [
        {"onset": 7, "offset": 2},
        {"onset": 5, "offset": 5},
        {"onset": -1},
        {"offset": 10},
        {"offset": -1},
        {"onset": 9, "offset": 10},
        {"frames": 0, "onset": 0, "offset": 0},
        {"frames": 0, "onset": 0, "offset": -1},
        {"frames": 1, "onset": 0, "offset": 0},
        {"apex": 1},
        {"apex": 8},
        {"apex": -1},
        {"apex": 0},
    ],
)
def test_impossible_positions(positions):
    with pytest.raises(AnnotationError, match=r"^clip 'S1_01': expected (onset before offset|the apex within)") as info:
        clip(**positions)
    for name, position in positions.items():
        assert name == "frames" or str(position) in info.value.found


@pytest.mark.parametrize(
    "positions",
    [
        {"onset": 0},
        {"offset": 9},
        {"apex": 2},
        {"apex": 7},
        {"apex": 0, "onset": 0},
        {"frames": 2, "onset": 0, "offset": 1},
    ],
)
def test_possible_positions(positions):
    assert clip(**positions).apex == positions.get("apex")


def test_clip_without_emotions_is_one_to_be_predicted():
    assert clip(emotions=()).emotions == ()


def test_ready_flow_has_no_positions_to_be_wrong():
    assert Clip("S1_01", "S1", (), 0, 0, ("negative",), flow=Path("a.npy")).sequence == ()


def test_sequence_holds_onset_and_offset():
    assert [frame.files[0].stem for frame in clip().sequence] == ["2", "3", "4", "5", "6", "7"]


def test_records_cannot_be_changed():
    record = clip(action_units=(ActionUnit(4, "left", certain=False),))
    with pytest.raises(FrozenInstanceError):
        record.apex = 3
    assert record == clip(action_units=(ActionUnit(4, "left", certain=False),)) and hash(record)


@pytest.mark.parametrize(
    "axes",
    [
        {"views": ()},
        {"phases": ()},
        {"classes": ()},
        {"views": ("left", "left")},
        {"classes": ("positive", "negative", "positive")},
        {"classes": ("positive",), "multi_label": False},
    ],
)
def test_impossible_problems(axes):
    with pytest.raises(SettingError, match=f"^{next(iter(axes))} of the corpus: expected at least"):
        Problem(**axes)


def test_one_label_may_apply_or_not():
    assert Problem(classes=("positive",)).multi_label
