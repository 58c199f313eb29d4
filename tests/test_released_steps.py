"""One optimisation step of both stages of every released recipe, on data in that task's own format, with a small network."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.released_data import WRITERS, tiny_clip
from uva_agents.checkpoints import load_bundle
from uva_agents.checkpoints.tensor_files import write_tensors
from uva_agents.model import VAE, HeadConfig
from uva_agents.model.vae import VAEConfig
from uva_agents.training.run import RunOptions, train
from uva_agents.training.sources import Source
from uva_agents.training.uva.named_recipes import named
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.training.uva.validation import Validator


@pytest.fixture(autouse=True)
def few_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation looks at three windows: decoding frames is most of the work otherwise."""

    def few(*args: object, **options: object) -> Validator:
        return Validator(*args, **{**options, "n_actions": 3, "n_videos": 2})  # type: ignore[arg-type]

    monkeypatch.setattr("uva_agents.training.uva.held_out.Validator", few)


def small(recipe: UVARecipe) -> UVARecipe:
    """Another width and depth, smaller pictures and batches, one step of each stage; all else as it is."""
    head = HeadConfig(width=32, depth=1)
    model = dataclasses.replace(
        recipe.model,
        vae=VAEConfig(channels=32, res_blocks=1),
        image_size=64,
        width=32,
        heads=2,
        encoder_depth=1,
        decoder_depth=1,
        text_tokens=4,
        video_head=head,
        action_head=dataclasses.replace(head, clip=1.0),
    )
    stages = {
        name: dataclasses.replace(recipe.stage(name).shortened(1), batch_size=3)  # type: ignore[union-attr]
        for name in ("video", "joint")
    }
    return dataclasses.replace(
        recipe,
        model=model,
        network=dataclasses.replace(recipe.network, **stages),
        data=dataclasses.replace(recipe.data, held_out=0.25),
    )


def options(recipe: UVARecipe, folder: Path) -> RunOptions:
    (folder / "data").mkdir()
    paths = WRITERS[recipe.name](folder / "data")
    torch.manual_seed(0)
    write_tensors(folder / "vae.safetensors", VAE(recipe.model.vae), torch.float32)
    clip = tiny_clip(folder / "clip") if recipe.data.instructions == "clip" else None
    data = paths[0] if len(paths) == 1 else tuple(Source(path) for path in paths)
    return RunOptions(data, folder / "run", vae_weights=folder / "vae.safetensors", progress=False, text_encoder=clip)


@pytest.mark.parametrize("name", WRITERS)
def test_a_released_recipe_takes_a_step_of_both_stages_on_data_of_its_task(name: str, tmp_path: Path) -> None:
    recipe = small(named(name))
    given = options(recipe, tmp_path)
    folder = train(recipe, given)
    assert folder is not None
    bundle = load_bundle(folder)
    assert bundle.spec.action_offset == recipe.data.action_offset
    assert bundle.model.config.action_dim == recipe.model.action_dim
    assert bundle.spec.resize == "bilinear", "agents bring frames to the network's size as training does"


@pytest.mark.long
def test_a_released_recipe_takes_a_step_at_its_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mar_base with a batch of one, the whole autoencoder, both stages: what the others say of a small network."""
    monkeypatch.setattr(Validator, "run", lambda *_, **__: {})
    recipe = named("uva-pusht")
    stages = {
        name: dataclasses.replace(recipe.stage(name).shortened(1), batch_size=1)  # type: ignore[union-attr]
        for name in ("video", "joint")
    }
    network = dataclasses.replace(recipe.network, **stages, gradient_checkpointing=True)
    folder = train(dataclasses.replace(recipe, network=network), options(recipe, tmp_path))
    assert folder is not None
    bundle = load_bundle(folder)
    assert sum(p.numel() for p in bundle.model.parameters()) == 261_079_156
    assert all(bool(torch.isfinite(p).all()) for p in bundle.model.parameters())


@pytest.mark.long
def test_two_processes_train_a_released_recipe_with_tasks_of_their_own(tmp_path: Path) -> None:
    """As on several GPUs: the processes' batches may be of different tasks, whose heads are idle in the other; one warm-up step."""
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import dataclasses, pathlib, torch; torch.set_num_threads(1)\n"
        "from tests.test_released_steps import small\n"
        "from uva_agents.training.run import RunOptions, train\n"
        "from uva_agents.training.uva.named_recipes import named\n"
        "from uva_agents.training.uva.validation import Validator\n"
        "Validator.run = lambda *_, **__: {}\n"
        "recipe = small(named('uva-pusht'))\n"
        "joint = dataclasses.replace(recipe.network.joint, steps=5, batch_size=2, warmup=4, validate_every=5)\n"
        "recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, joint=joint))\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "data = folder / 'data' / 'pusht.zarr'\n"
        "train(recipe, RunOptions(data, folder / 'run', vae_weights=folder / 'vae.safetensors', progress=False))\n"
    )
    options(small(named("uva-pusht")), tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=400, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "joint" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 5
    bundle = load_bundle(tmp_path / "run" / "weights")
    assert all(bool(torch.isfinite(p).all()) for p in bundle.model.parameters())
