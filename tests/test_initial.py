"""Training the released family: from MAR and kl-f16 files, in two stages, and one step at the full width."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import released
from tests.tiny import tiny_dataset
from uva_agents.checkpoints import load_bundle
from uva_agents.checkpoints.initial import load_mar, load_vae
from uva_agents.model import VAE, Context, HeadConfig, Task, UVANet, Visibility, joint_loss, uva_base
from uva_agents.training.optimisation import parameter_groups
from uva_agents.training.recipe import StageConfig
from uva_agents.training.run import RunOptions, train
from uva_agents.training.uva.recipes import Augmentation, UVARecipe
from uva_agents.training.uva.recipes import uva_base as recipe_base


def tiny_recipe() -> UVARecipe:
    recipe = recipe_base()
    _, vae = released.build("pusht")
    head = HeadConfig(width=32, depth=1)
    model = replace(
        recipe.model, vae=vae.config, image_size=64, width=32, encoder_depth=1, decoder_depth=1, heads=2,
        video_head=head, action_head=replace(head, clip=1.0),
    )  # fmt: skip
    stage = StageConfig(steps=2, batch_size=4, lr=1e-4, warmup=1, validate_every=2)
    return replace(
        recipe,
        model=model,
        data=replace(recipe.data, held_out=1),
        augmentation=Augmentation(variants=1, mirror=False),
        network=replace(recipe.network, video=stage, joint=stage),
    )


def mar_file(path: Path) -> Path:
    """As MAR writes it: everything of the network that MAR has, and class embeddings that it has not."""
    model, _ = released.build("pusht")
    kept = ("z_proj.", "z_proj_ln.", "encoder_blocks.", "encoder_norm.", "decoder_", "diffloss.net.")
    state = {k.removeprefix("model."): v for k, v in released.network_state(model).items()}
    state = {k: v for k, v in state.items() if k.startswith(kept) and not k.endswith("pos_embed")}
    state |= {"class_emb.weight": torch.zeros(10, 32), "encoder_pos_embed_learned": torch.zeros(1, 320, 32)}
    torch.save({"model_ema": state, "model": state, "args": argparse.Namespace(lr=1.0), "epoch": 3}, path)
    return path


def vae_file(path: Path) -> Path:
    _, vae = released.build("pusht")
    state = {k.removeprefix("vae_model."): v for k, v in released.vae_state(vae).items()}
    torch.save({"model": {**state, "loss.logvar": torch.zeros(())}}, path)
    return path


def test_the_released_recipe_starts_from_mar_and_kl16_and_its_weights_act(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny_dataset(tmp_path / "d.zarr")
    options = RunOptions(
        data,
        tmp_path / "run",
        vae_weights=vae_file(tmp_path / "kl16.ckpt"),
        init=mar_file(tmp_path / "mar.pth"),
        progress=False,
    )
    folder = train(tiny_recipe(), options)
    assert folder is not None
    assert "class_emb.weight" in caplog.text and "start fresh" in caplog.text, "what did not match is said"
    bundle = load_bundle(folder, device="cpu")
    _, vae = released.build("pusht")
    for name, tensor in vae.state_dict().items():
        torch.testing.assert_close(bundle.vae.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)  # fp16 on disk
    assert bundle.vae.config.scale == 0.2325


def test_matching_weights_are_taken_and_strangers_refused(tmp_path: Path) -> None:
    model, _ = released.build("pusht")
    target = UVANet(tiny_recipe().model)
    match = load_mar(target, mar_file(tmp_path / "mar.pth"))
    assert torch.equal(target.encoder_blocks[0].attn.qkv.weight, model.encoder_blocks[0].attn.qkv.weight)
    assert torch.equal(target.future_proj.weight, model.future_proj.weight)
    assert "history_proj.weight" in match.unmatched and match.unused == (
        "class_emb.weight",
        "encoder_pos_embed_learned",
    )
    torch.save({"weights": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="model_ema"):
        load_mar(target, tmp_path / "other.pth")
    torch.save({"model_ema": {"a": torch.zeros(1)}}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="no tensor matches"):
        load_mar(target, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="does not fill"):
        load_vae(VAE(replace(tiny_recipe().model.vae, channels=64)), vae_file(tmp_path / "kl16.ckpt"))
    with pytest.raises(ValueError, match="--vae"):
        train(tiny_recipe(), RunOptions(tiny_dataset(tmp_path / "d.zarr"), tmp_path / "run", progress=False))


def test_one_optimisation_step_at_the_released_width() -> None:
    torch.manual_seed(0)
    model = uva_base(action_dim=2, encoder_depth=2, decoder_depth=2).train()
    model.set_gradient_checkpointing(True)
    config = recipe_base().network.joint
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas)
    c = model.config
    frames = torch.randn(1, c.n_frames, c.tokens_per_frame, c.token_dim)
    context = Context(history=frames, future=frames.flip(1), actions=torch.randn(1, 16, 2).clamp(-1, 1))
    mask = torch.ones(1, c.n_frames, c.tokens_per_frame)
    qkv = dict(model.named_parameters())["encoder_blocks.0.attn.qkv.weight"]
    before = qkv.detach().clone()
    loss = joint_loss(model, context, Visibility.for_tasks([Task.POLICY_VIDEO], mask)).total
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    optimizer.step()
    # Heads begin as the zero function, so the first step moves only them and leaves the transformer to weight decay.
    moved = float((qkv.detach() - before).abs().max())
    assert 0 < moved < 1e-3
    assert model.video_head.net.final_layer.linear.weight.abs().max() > 0
