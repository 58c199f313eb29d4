"""What ``uva doctor`` says of surroundings in which things will fail."""

import os
import sys
from types import SimpleNamespace

import pytest

from uva_agents.cli import main
from uva_agents.commands import doctor, surroundings
from uva_agents.commands.surroundings import CheckResult

VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "DISPLAY", "OMP_NUM_THREADS"),
    *(
        "OMP_WAIT_POLICY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "no_proxy",
    ),
)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """None of the variables is set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def found(name, **variables):
    os.environ.update(variables)  # the fixture puts them back
    try:
        return [finding for finding in surroundings.surroundings() if finding.name == name]
    finally:
        for variable in variables:
            del os.environ[variable]


@pytest.mark.parametrize(
    ("variables", "name", "text", "broken"),
    [
        ({}, "MuJoCo rendering", "unset", False),
        ({"MUJOCO_GL": "egl"}, "MuJoCo rendering", "egl", False),
        ({"MUJOCO_GL": "osmesaa"}, "MuJoCo rendering", "none of egl, osmesa and glfw", True),
        ({"MUJOCO_GL": "off"}, "MuJoCo rendering", "draws nothing", True),
        ({"MUJOCO_GL": "glfw"}, "MuJoCo rendering", "DISPLAY is not set", True),
        ({"MUJOCO_GL": "glfw", "DISPLAY": ":0"}, "MuJoCo rendering", "glfw", False),
        ({"PYOPENGL_PLATFORM": "glx"}, "MuJoCo rendering", "contradicts MUJOCO_GL=egl", True),
        ({"MUJOCO_EGL_DEVICE_ID": "GPU-1a2b"}, "MuJoCo rendering", "no number of a device", True),
        ({"OMP_NUM_THREADS": "many"}, "threads", "no number of threads", True),
        ({"OMP_NUM_THREADS": "0"}, "threads", "no number of threads", True),
        ({"OMP_NUM_THREADS": "4,2", "OMP_WAIT_POLICY": "passive"}, "threads", "OMP_NUM_THREADS=4,2", False),
        ({"CUDA_VISIBLE_DEVICES": ""}, "GPUs", "agents run on the CPU", False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b3c"}, "GPUs", "GPU-1a2b3c", False),
        ({"http_proxy": "http://proxy:3128"}, "proxies", "no_proxy=unset", False),
        ({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost"}, "proxies", "no_proxy=localhost", False),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_a_variable_that_will_break_something_is_named(variables, name, text, broken, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    lines = found(name, **variables)
    assert any(text in line.text for line in lines)
    assert any(line.broken for line in lines) == broken


def test_a_gpu_that_is_not_there_is_named_where_there_are_some(monkeypatch):
    monkeypatch.setattr(surroundings.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    (line,) = found("GPUs", CUDA_VISIBLE_DEVICES="1,3,0")
    assert "there is no number 3" in line.text and line.broken
    (line,) = found("GPUs", CUDA_VISIBLE_DEVICES="1,0")
    assert line.status == "ok" and "2 NVIDIA devices" in line.text


@pytest.mark.parametrize(
    ("version", "status"), [((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "FAIL"), ((3, 14), "FAIL")]
)
def test_a_python_that_the_dependencies_do_not_know_is_named(version, status, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    finding = surroundings.python()
    assert finding.status == status and ("take 3.11 or 3.12" in finding.text) == (status == "FAIL")


def test_a_locale_that_is_not_utf_8_is_named(monkeypatch):
    monkeypatch.setattr(surroundings.locale, "getpreferredencoding", lambda do_setlocale: "ANSI_X3.4-1968")
    finding = surroundings.text_encoding()
    assert finding.status == "note" and "ANSI_X3.4-1968" in finding.text and "PYTHONUTF8=1" in finding.text


def test_a_full_disk_and_a_read_only_folder_are_named(monkeypatch):
    monkeypatch.setattr(surroundings.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 << 20))
    assert "5 MiB left" in surroundings.space().text
    monkeypatch.setattr(surroundings.os, "access", lambda folder, mode: False)
    assert "may not be written" in surroundings.space().text and surroundings.space().status == "note"


def test_what_is_there_and_broken_is_in_the_last_line_and_what_is_not_installed_is_not(monkeypatch, capsys):
    def tried(env_id):
        if env_id == "uva/ToolHang-v0":
            raise RuntimeError("no EGL")
        if env_id == "uva/Libero10-v0":
            raise ImportError("needs LIBERO, which is not installed: pip install 'uva-agents[libero]'")
        return "made"

    monkeypatch.setattr(doctor, "_step", tried)
    monkeypatch.setattr(doctor, "surroundings", lambda: iter([CheckResult("note", "threads", "odd", broken=True)]))
    assert main(["doctor"]) == 0
    *_, core, rest = capsys.readouterr().out.splitlines()
    assert core == "everything that the core needs works"
    assert rest == "not everything else does: threads, uva/ToolHang-v0; see the lines marked note"


def test_a_mink_that_is_too_old_for_this_numpy_is_named(monkeypatch):
    import numpy as np

    monkeypatch.setattr(np, "__version__", "2.4.6")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    for version, named in (("0.0.5", True), ("0.0.9", True), ("0.0.10", False), ("1.3.0", False)):
        monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name, version=version: version)
        assert any("mink==0.0.13" in line.text for line in doctor._numpy()) == named
