"""TV-L1: the presets, and settings beside them."""

import subprocess
import sys
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from mer4d.cli import main
from mer4d.errors import SettingError
from mer4d.preprocess import TVL1
from mer4d.preprocess.flow.tvl1 import PRESETS


def test_exact_is_opencv_as_it_comes(waves):
    pair = waves(), waves(1.5, -0.75)
    assert np.array_equal(TVL1("exact")(*pair), cv2.optflow.DualTVL1OpticalFlow_create().calc(*pair, None))


def test_a_preset_gives_what_is_left_open():
    for name, numbers in PRESETS.items():
        assert TVL1(name).parameters == numbers
        assert TVL1(name, epsilon=0.05, median=1).parameters == replace(numbers, epsilon=0.05, median=1)
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_another_preset_takes_the_settings_along():
    assert replace(TVL1(warps=3), preset="fast").parameters == replace(PRESETS["fast"], warps=3)


def test_the_key_holds_the_numbers():
    assert TVL1("fast").key == TVL1("exact", **asdict(PRESETS["fast"])).key
    assert TVL1("fast").key != TVL1("fast", epsilon=0.05).key != TVL1("fast", epsilon=0.05, backend="torch").key


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_on_the_command_line(preset, capsys):
    """Numbers of the default preset must not stay when another one is named."""
    settings = [f"--data.preprocess.flow.preset={preset}", "--data.preprocess.flow.epsilon=0.05"]
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", *settings, "--print_config"])
    flow = yaml.safe_load(capsys.readouterr().out)["data"]["preprocess"]["flow"]
    assert flow["class_path"] == "mer4d.preprocess.TVL1"
    assert TVL1(**flow["init_args"]).parameters == replace(PRESETS[preset], epsilon=0.05)


def test_pictures_are_smoothed_without_rounding(waves):
    """Pictures of little contrast, where rounding to grey levels a second time would cost accuracy."""
    pair = [np.rint(128 + 0.1 * (picture - 128.0)).astype(np.uint8) for picture in (waves(), waves(0.5, 0.25))]
    smooth = [gaussian_filter(picture.astype(float), 0.8, mode="mirror") for picture in pair]
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    expected = solver.calc(*((picture / 255).astype(np.float32) for picture in smooth), None)
    rounded = solver.calc(*(np.rint(picture).astype(np.uint8) for picture in smooth), None)
    measured = TVL1("exact", presmoothing=0.8)(*pair)
    off, off_if_rounded = (np.abs(flow - expected)[10:-10, 10:-10].mean() for flow in (measured, rounded))
    assert off < 1e-4 < 1e-2 < off_if_rounded


@pytest.mark.parametrize(
    "setting",
    [
        {"scales": 0},
        {"warps": 0},
        {"outer_iterations": 0},
        {"inner_iterations": -1},
        {"epsilon": 0.0},
        {"smoothness": -0.1},
        {"tightness": 0.0},
        {"scale_step": 1.0},
        {"scale_step": 0.0},
        {"median": 4},
        {"median": 0},
        {"presmoothing": -0.1},
        {"presmoothing": 5.0},
        {"preset": "best"},
        {"backend": "jax"},
    ],
)
def test_impossible_settings(setting):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.flow: ") as info:
        TVL1(**setting)
    ((name, value),) = setting.items()
    assert f"{name}={value!r}" in info.value.found


@pytest.mark.parametrize(
    ("setting", "value"),
    {
        **{"scales": 1, "scale_step": 0.8, "warps": 3, "outer_iterations": 1, "inner_iterations": 1},
        **{"epsilon": 0.5, "smoothness": 0.02, "tightness": 0.9, "median": 1, "presmoothing": 2.0},
    }.items(),
)
def test_every_setting_reaches_opencv(waves, setting, value):
    pair = waves(), waves(2.5, 1.5)
    assert not np.array_equal(TVL1(**{setting: value})(*pair), TVL1()(*pair))


def test_opencv_without_contrib_is_named_with_the_remedy():
    program = "import cv2; del cv2.optflow; import mer4d.preprocess.flow"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "InstallationError: OpenCV: expected the contrib wheel" in done.stderr
    assert "pip install --force-reinstall opencv-contrib-python" in done.stderr
