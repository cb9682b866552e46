"""Flow by other means than TV-L1: OpenCV's DIS and Farneback, and functions of the user's."""

import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import cv2
import numpy as np
import pytest
import yaml

from mer4d.cache import content_key
from mer4d.cli import main
from mer4d.clip import Clip, Frame
from mer4d.errors import FrameError, SettingError
from mer4d.preprocess import DIS, Farneback, FlowFunction, Preprocess

OWN = """
import threading
import time
import numpy as np
busy = threading.Lock()

def moves_right(first, second):
    return np.full((*first.shape, 2), (1.0, 0.0))

def alone(first, second):
    assert busy.acquire(blocking=False)
    time.sleep(0.001)
    busy.release()
    return moves_right(first, second)

def wrong_size(first, second): return np.zeros((2, *first.shape))
def whole_numbers(first, second): return np.zeros((*first.shape, 2), int)
def no_array(first, second): return None
def not_a_number(first, second): return np.full((*first.shape, 2), np.nan)
def too_large(first, second): return np.full((*first.shape, 2), 1e300)

class Network:
    @staticmethod
    def flow(first, second): return moves_right(first, second)
    def __call__(self, first, second): return moves_right(first, second)

network = Network()
unnamed = lambda first, second: moves_right(first, second)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's."""
    (tmp_path / "my_flow.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("my_flow")
    del sys.modules["my_flow"]


# OpenCV's


@pytest.mark.parametrize(("setting", "value"), {"preset": "fast", "finest_scale": 0, "refinement": 0}.items())
def test_every_setting_reaches_dis(waves, setting, value):
    pair = waves(), waves(2.5, 1.5)
    assert not np.array_equal(DIS(**{setting: value})(*pair), DIS()(*pair))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_presets_of_dis_are_those_of_opencv(waves, preset):
    pair = waves(), waves(2.5, 1.5)
    solver = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    assert np.array_equal(DIS(preset)(*pair), solver.calc(*pair, None))


@pytest.mark.parametrize(
    ("setting", "value"),
    {
        **{"scales": 1, "scale_step": 0.8, "window": 9, "iterations": 1},
        **{"neighbourhood": 7, "deviation": 1.5},
    }.items(),
)
def test_every_setting_reaches_farneback(waves, setting, value):
    pair = waves(size=160), waves(6, 3, size=160)  # OpenCV ends the pyramid at 32 pixels
    assert not np.array_equal(Farneback(**{setting: value})(*pair), Farneback()(*pair))


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        (DIS, {"preset": "slow"}),
        (DIS, {"finest_scale": -1}),
        (DIS, {"refinement": -1}),
        (Farneback, {"scales": 0}),
        (Farneback, {"scale_step": 1.0}),
        (Farneback, {"window": 0}),
        (Farneback, {"iterations": 0}),
        (Farneback, {"neighbourhood": 2}),
        (Farneback, {"deviation": 0.0}),
    ],
)
def test_impossible_settings(method, setting):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.flow: ") as info:
        method(**setting)
    ((name, value),) = setting.items()
    assert f"{name}={value!r}" in info.value.found


def on_the_command_line(capsys, *settings):
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", *settings, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)["data"]["preprocess"]["flow"]


@pytest.mark.parametrize("name", ["DIS", "mer4d.preprocess.DIS"])
def test_dis_on_the_command_line(name, capsys):
    flow = on_the_command_line(capsys, f"--data.preprocess.flow={name}", "--data.preprocess.flow.preset=fast")
    assert flow == {
        "class_path": "mer4d.preprocess.DIS",
        "init_args": {"preset": "fast", "finest_scale": None, "refinement": None},
    }


# Functions


def test_a_function_measures_flow(own, waves):
    flow = FlowFunction(own.moves_right)(waves(), waves())
    assert flow.dtype == np.float32 and flow.shape == (80, 80, 2) and (flow == (1, 0)).all()
    assert (FlowFunction(own.Network.flow)(waves(), waves()) == (1, 0)).all()


def test_a_function_on_the_command_line(own, capsys):
    settings = "--data.preprocess.flow=FlowFunction", "--data.preprocess.flow.function=my_flow.moves_right"
    flow = on_the_command_line(capsys, *settings)
    assert flow == {"class_path": "mer4d.preprocess.FlowFunction", "init_args": {"function": "my_flow.moves_right"}}


def test_a_function_never_runs_in_two_threads_at_once(own):
    pictures = np.zeros((50, 8, 8), np.uint8)
    assert FlowFunction(own.alone).pairs(pictures, pictures, threads=4).shape == (50, 8, 8, 2)


def test_a_function_travels_to_fresh_processes(own, waves):
    method = FlowFunction(own.moves_right)
    assert pickle.loads(pickle.dumps(method)) == method
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert (pool.submit(method, waves(), waves()).result() == (1, 0)).all()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("wrong_size", r"float64 \(2, 80, 80\)"),
        ("whole_numbers", r"int64 \(80, 80, 2\)"),
        ("no_array", "NoneType"),
    ],
)
def test_what_a_function_returns_is_a_field(own, waves, name, found):
    expected = rf"function: expected a floating-point array \(80, 80, 2\), found {found}; correct my_flow\.{name}\.$"
    with pytest.raises(SettingError, match=expected):
        FlowFunction(getattr(own, name))(waves(), waves())


@pytest.mark.parametrize("name", ["not_a_number", "too_large"])
def test_what_a_function_returns_is_finite(own, waves, name):
    """Flow of one pair, which is why it is that clip's fault and not the setting's."""
    with pytest.raises(FrameError, match=rf"flow: expected finite numbers from my_flow\.{name}, found 12800 others"):
        FlowFunction(getattr(own, name))(waves(), waves())


def test_a_function_is_given_grey_levels(own, waves):
    with pytest.raises(FrameError, match="expected uint8 grey levels"):
        FlowFunction(own.moves_right)(waves().astype(float), waves())


@pytest.mark.parametrize("find", [lambda own: own.unnamed, lambda own: own.network, lambda own: len, lambda own: 3])
def test_only_functions_that_other_processes_find(own, find):
    with pytest.raises(SettingError, match=r"function: expected a function that other processes can import"):
        FlowFunction(find(own))


def test_name_and_file_of_a_function_are_in_the_key(own, tmp_path):
    clip = Clip("a", "S1", (Frame((tmp_path / "0.png",)), Frame((tmp_path / "1.png",))), 0, 1, ())

    def key(function):
        return content_key("sources", Preprocess(flow=FlowFunction(function)).parameters(clip))

    before = key(own.moves_right)
    assert before == key(own.moves_right) != key(own.alone)
    (tmp_path / "my_flow.py").write_text(OWN + "# another version\n")
    assert key(own.moves_right) != before
