"""Released checkpoints: all agents load and act; hostile, truncated and altered files are refused and run nothing."""

import argparse
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uva_agents as uva
from tests import released
from uva_agents.checkpoints.official.archive import UnsafeCheckpointError, read_archive
from uva_agents.checkpoints.official.load import load_official
from uva_agents.checkpoints.official.plain import resolved
from uva_agents.cli import main
from uva_agents.model import SamplerConfig
from uva_agents.training import cli as training

FAMILIES = list(released.TASKS)


@pytest.fixture(scope="module", params=FAMILIES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    task = request.param
    state, _, _ = released.state_of(task)
    extra = {
        "model": {k: torch.zeros_like(v) for k, v in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
    }
    return task, released.write(tmp_path_factory.mktemp("released") / f"{task}.ckpt", task, state, **extra)


def observation(task: str, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sides = list(released.IMAGES[task].values())
    obs: dict[str, Any] = {"pixels": rng.integers(0, 256, (sides[0], sides[0], 3), dtype=np.uint8)}
    if len(sides) > 1:
        obs["pixels_wrist"] = rng.integers(0, 256, (sides[1], sides[1], 3), dtype=np.uint8)
    if task == "umi":
        obs["agent_pos"] = np.array([0.3, 0.0, 0.2, 0.1, 3.0, 0.2, 0.05], np.float32) + 0.01 * seed
    if task == "toolhang":
        obs["agent_pos"] = np.array([0.1, 0.2, 1.0, 0.0, 0.0, 0.0, 1.0, 0.02, -0.02], np.float32)
    if task in ("umi", "libero10"):
        obs["task_embedding"] = rng.normal(size=32).astype(np.float32)
    return obs


def test_all_three_agents_load_one_file_and_act(file: tuple[str, Path]) -> None:
    task, path = file
    weights = uva.UVA.from_pretrained(path, device="cpu")
    size = 2 if task == "pusht" else 7
    policy = uva.Policy(weights, steps=2)
    state = policy.initial_state(1, seed=0)
    for t in range(9):
        action, state = policy.predict(observation(task, t), state)
        assert action.shape == (size,) and np.isfinite(action).all() and policy.action_space.contains(action)
    chunks = policy.sample(observation(task), n=2, seed=0)
    assert chunks.shape == (2, 16, size)
    world = weights.world_model()
    world.sampler = SamplerConfig(action_steps=2, video_steps=2)
    side = next(iter(released.IMAGES[task].values()))
    roll = world.rollout(observation(task), chunks)
    assert roll.frames.shape == (2, 4, side, side, 3) and roll.frames.dtype == np.uint8
    obs = [observation(task, t) for t in range(4)]
    given = {"proprio": np.stack([o["agent_pos"] for o in obs])} if "agent_pos" in obs[0] else {}
    if "pixels_wrist" in obs[0]:
        given["wrist"] = np.stack([o["pixels_wrist"] for o in obs])
    track = weights.inverse_model().infer(
        np.stack([o["pixels"] for o in obs]), task=obs[0].get("task_embedding"), **given
    )
    assert track.shape == (16, size) and np.isfinite(track).all()
    video = np.stack([observation(task, t)["pixels"] for t in range(21)])
    if task in ("umi", "toolhang"):
        with pytest.raises(ValueError, match="frames alone"):
            weights.inverse_model().label(video)
    else:
        assert weights.inverse_model().label(video).shape == (20, size)


def test_a_loaded_network_is_the_one_that_was_written_and_every_tensor_is_accounted_for(file: tuple[str, Path]) -> None:
    task, path = file
    state, model, vae = released.state_of(task)
    bundle, report = load_official(path, device="cpu")
    for own, written in ((bundle.model, model), (bundle.vae, vae)):
        for name, tensor in written.state_dict().items():
            assert torch.equal(own.state_dict()[name], tensor), name
    assert set(report.used) | set(report.unused) == set(state) and not set(report.used) & set(report.unused)
    assert report.weights == "ema_model" and report.config["model"]["policy"]["shape_meta"]["image_resolution"] == 96
    assert report.config["task"]["latency"].startswith("${eval:"), "nothing is evaluated"
    c = bundle.model.config
    for name, value in released.TASKS[task].items():
        assert getattr(c, name) == value, name
    assert bundle.spec.action_offset == (1 if task == "umi" else 0) and bundle.spec.image_shape[0] == next(
        iter(released.IMAGES[task].values())
    )


def test_converting_keeps_every_bit_and_loads_the_same(file: tuple[str, Path], tmp_path: Path) -> None:
    task, path = file
    out = tmp_path / "weights"
    assert main(["convert", str(path), str(out), "--quiet"]) == 0
    assert not list(tmp_path.glob("*.partial")) and "ema_model" in (out / "README.md").read_text()
    a, b = (
        uva.Policy.from_pretrained(p, device="cpu", steps=2).sample(observation(task), n=1, seed=3) for p in (path, out)
    )
    np.testing.assert_array_equal(a, b)
    assert main(["convert", str(path), str(out), "--quiet"]) == 2, "an existing folder is not overwritten"
    assert main(["convert", str(path), str(out), "--quiet", "--force"]) == 0


def test_instructions_in_words_need_the_tokenizer_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("UVA_CLIP_TOKENIZER", str(tmp_path / "nowhere"))
    state, _, _ = released.state_of("libero10")
    weights = uva.UVA.from_pretrained(released.write(tmp_path / "l.ckpt", "libero10", state), device="cpu")
    obs = observation("libero10")
    del obs["task_embedding"]
    assert np.isfinite(uva.Policy(weights, steps=2).act(obs)).all(), "no instruction at all is allowed"
    with pytest.raises(ValueError, match="UVA_CLIP_TOKENIZER"):
        uva.Policy(weights, steps=2).act({**obs, "task": "put the mug on the plate"})
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = {w: i for i, w in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    words |= {"<|startoftext|>": 98, "<|endoftext|>": 99}
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    monkeypatch.setenv("UVA_CLIP_TOKENIZER", str(folder))
    assert np.isfinite(uva.Policy(weights, steps=2).act({**obs, "task": "put the mug"})).all()
    one, other = weights.embed_task("put the mug"), weights.embed_task("open it")
    assert one is not None and other is not None and (one - other).abs().max() > 0.1
    assert weights.embed_task("put the mug") is one, "an instruction is encoded once"


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["cfg", "pickles", "state_dicts"])
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path: Path, where: str, zipped: bool) -> None:
    trap = tmp_path / "ran"
    payload: dict[str, Any] = {"cfg": {}, "state_dicts": {"ema_model": {}}, "pickles": {}}
    payload[where] = Hostile(trap)
    path = tmp_path / "x.ckpt"
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match="system"):
        uva.Policy.from_pretrained(path)
    assert not trap.exists()


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        read_archive(tmp_path / "x.pt")


def test_damaged_and_altered_files_say_what_is_wrong(tmp_path: Path) -> None:
    state, _, _ = released.state_of("pusht")
    path = released.write(tmp_path / "a.ckpt", "pusht", state)
    whole = path.read_bytes()
    cut = tmp_path / "cut.ckpt"
    for size in (len(whole) // 2, len(whole) - 10, 100):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated"):
            uva.Policy.from_pretrained(cut)
    cut.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="no torch checkpoint"):
        uva.Policy.from_pretrained(cut)
    with pytest.raises(FileNotFoundError, match="no file"):
        uva.Policy.from_pretrained(tmp_path / "none.ckpt")

    renamed = dict(state)
    renamed["model.encoder_norm.wieght"] = renamed.pop("model.encoder_norm.weight")
    with pytest.raises(ValueError, match=r"wieght.*encoder_norm\.weight"):
        load_official(released.write(tmp_path / "b.ckpt", "pusht", renamed))
    extra = {**state, "model.encoder_blocks.0.adapter": torch.zeros(2)}
    with pytest.raises(ValueError, match="adapter"):
        load_official(released.write(tmp_path / "c.ckpt", "pusht", extra))
    foreign = {**state, "critic.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"critic\.weight"):
        load_official(released.write(tmp_path / "d.ckpt", "pusht", foreign))
    shorter = {**state, "model.encoder_norm.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"encoder_norm\.weight.*\(3,\)"):
        load_official(released.write(tmp_path / "e.ckpt", "pusht", shorter))
    torch.save({"model": {}}, tmp_path / "f.ckpt")
    with pytest.raises(ValueError, match="state_dicts"):
        load_official(tmp_path / "f.ckpt")


def test_only_plain_weights_do_where_there_is_no_average(tmp_path: Path) -> None:
    state, _, _ = released.state_of("pusht")
    path = tmp_path / "x.ckpt"
    torch.save(
        {
            "state_dicts": {"model": {f"module.{k}": v for k, v in state.items()}},
            "cfg": {},
        },
        path,
    )
    with pytest.raises(ValueError, match="heads="):
        load_official(path)
    _, report = load_official(path, heads=2)
    assert report.weights == "model"


def test_references_are_followed_and_circles_are_left_alone() -> None:
    config = {
        "a": {"b": 1, "c": "${a.b}", "d": "${.b}", "e": "${..f}"},
        "f": "${a.d}",
        "g": "${h}",
        "h": "${g}",
        "i": "${no.where}",
    }
    out = resolved(config)
    assert out["a"]["c"] == out["a"]["d"] == out["a"]["e"] == out["f"] == 1
    assert out["g"].startswith("${") and out["i"] == "${no.where}"


def test_every_snippet_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, task in {
        "pusht": "pusht",
        "pusht_multitask": "pusht",
        "libero10": "libero10",
        "umi_multitask": "umi",
    }.items():
        released.write(tmp_path / f"{name}.ckpt", task, released.state_of(task)[0])
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "released_checkpoints.md").read_text()
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```", text, flags=re.S | re.M)
    assert len(blocks) >= 8
    scope: dict[str, Any] = {}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, "released_checkpoints.md", "exec"), scope)
            continue
        for line in code.splitlines():
            words = shlex.split(line)
            if words[:2] == ["uva", "convert"]:
                assert main([*words[1:], "--quiet"]) == 0
            elif words[:3] == ["accelerate", "launch", "-m"]:
                parser = argparse.ArgumentParser()
                training.add_arguments(parser)
                assert training.configure(parser.parse_args(words[5:])).name == "uva-base"
