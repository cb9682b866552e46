"""Every named error says the same four things and survives the way from one process to another."""

import pickle
from pathlib import Path

import pytest

from mer4d import errors

NAMED = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_all_are_known_and_of_one_family():
    assert {error.__name__ for error in NAMED} == {
        *("MER4DError", "AnnotationError", "FrameError", "FaceError", "SettingError"),
        *("FoldError", "CacheError", "RunError", "ClusterError", "InstallationError"),
    }
    assert all(issubclass(error, errors.MER4DError) for error in NAMED)


def test_a_defect_travels_between_processes():
    defect = errors.Defect("S1_01", errors.FrameError("7.png", "an image", "none", "copy it"), doubt="gap")
    again = pickle.loads(pickle.dumps(defect))
    assert (again.clip_id, str(again.error), again.doubt) == (defect.clip_id, str(defect.error), "gap")


@pytest.mark.parametrize("named", NAMED)
def test_message(named):
    error = named(Path("S1/7.png"), "a face", OSError(5, "broken"), "copy it again")
    assert str(error) == "S1/7.png: expected a face, found [Errno 5] broken; copy it again."
    assert (error.where, error.expected, error.found, error.remedy) == error.args
    with pytest.raises(errors.MER4DError):
        raise error


@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize(
    "found", [3, None, Path("a"), ValueError("x"), lambda: None], ids=lambda found: type(found).__name__
)
def test_pickling_round_trip_whatever_was_found(named, found):
    error = named(Path("S1/7.png"), "a face", found, "copy it again")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is named and str(copy) == str(error) and copy.args == error.args
    assert (copy.where, copy.found) == (error.where, error.found) == ("S1/7.png", str(found))
