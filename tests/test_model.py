"""Network behaviour: shapes, what each task may see, what trains, the fast forms against the plain ones."""

from dataclasses import replace

import pytest
import torch

from tests.small_nets import EVERYTHING, context, nano
from uva_agents.model import (
    CONFIGS,
    VAE,
    Context,
    HeadConfig,
    Jitter,
    SamplerConfig,
    Task,
    UVAConfig,
    UVANet,
    Visibility,
    draw_mask,
    joint_loss,
    nano_vae_config,
    patchify,
    sample_video,
    unpatchify,
    uva_nano_config,
)


def changed(model: UVANet, task: Task, **swap: torch.Tensor | None) -> bool:
    base = context(model)
    visibility = model.visibility(task, 2)
    with torch.no_grad():
        before = model.joint_latent(base, visibility)
        after = model.joint_latent(replace(base, **swap), visibility)
    # Not bit for bit: what is absent is computed as one row, what is masked as many.
    return not torch.allclose(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "sees"),
    [
        (Task.VIDEO, {"history"}),
        (Task.FORWARD, {"history", "actions"}),
        (Task.POLICY, {"history"}),
        (Task.INVERSE, {"future"}),
        (Task.POLICY_VIDEO, {"history"}),
    ],
)
def test_each_task_sees_exactly_what_it_is_given(task: Task, sees: set[str]) -> None:
    model = nano()
    other = context(model, 2)
    for name in ("history", "future", "actions"):
        value = getattr(other, name) + 1.0
        assert changed(model, task, **{name: value}) == (name in sees), name


def test_points_of_masked_frames_do_not_leak() -> None:
    """Points of a future frame count where the frame is shown whole, and nowhere else."""
    model = nano(frame_state_dim=4, num_keypoints=2)
    points = {"history_keypoints": torch.zeros(2, 4, 4), "future_keypoints": torch.zeros(2, 4, 4)}
    base = replace(context(model), **points)
    moved = replace(base, future_keypoints=torch.ones(2, 4, 4))
    mask = torch.zeros(2, 4, 9)
    mask[:, :, 3] = 1
    hidden = Visibility.for_tasks([Task.VIDEO] * 2, mask)
    torch.testing.assert_close(model.joint_latent(base, hidden), model.joint_latent(moved, hidden))
    shown = model.visibility(Task.INVERSE, 2)
    assert not torch.equal(model.joint_latent(base, shown), model.joint_latent(moved, shown))


def test_inverse_dynamics_needs_neither_history_nor_proprioception() -> None:
    model = nano()
    assert not changed(model, Task.INVERSE, history=None)
    assert not changed(model, Task.INVERSE, proprio=None)
    assert changed(model, Task.POLICY, proprio=None)


def test_missing_proprioception_rows_equal_absent_proprioception() -> None:
    model = nano()
    base = context(model)
    gone = replace(base, proprio=torch.full_like(base.proprio, float("nan")))
    absent = replace(base, proprio=None)
    visibility = model.visibility(Task.POLICY, 2)
    torch.testing.assert_close(model.joint_latent(gone, visibility), model.joint_latent(absent, visibility))


def test_a_mixed_batch_gives_every_sample_what_it_gets_alone() -> None:
    model = nano()
    mask = draw_mask(5, frames=4, tokens=9, generator=torch.Generator().manual_seed(3))
    tasks = list(Task)
    base = context(model, 5)
    with torch.no_grad():
        together = model.joint_latent(base, Visibility.for_tasks(tasks, mask))
        for i, task in enumerate(tasks):
            one = Context(**{k: None if v is None else v[i : i + 1] for k, v in vars(base).items()})
            alone = model.joint_latent(one, Visibility.for_tasks([task], mask[i : i + 1]))
            torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-4)


def test_a_sketch_is_the_current_frame_changed_by_what_is_done() -> None:
    model = nano(frame_state_dim=4, num_keypoints=2, rendered_prior=True)
    model.token_std.fill_(0.5)
    base = context(model)
    assert base.actions is not None and base.history is not None
    with torch.no_grad():
        done, other = model.render_prior(base, base.actions), model.render_prior(base, -base.actions)
        assert done.shape == (2, 4, 9, 64) and (done - other).abs().max() > 1e-3
        for p in model.guide.renderer.net[-1].parameters():
            p.zero_()
        now = base.history[:, -1:].expand(-1, 4, -1, -1)
        torch.testing.assert_close(model.render_prior(base, base.actions), now, atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="history_keypoints"):
            model.render_prior(replace(base, history_keypoints=None), base.actions)


def test_a_sketch_starts_from_measured_points_where_they_are_known() -> None:
    model = nano(frame_state_dim=4, num_keypoints=2, rendered_prior=True, proprio_keypoints=1)
    base = context(model)
    assert base.actions is not None and base.proprio is not None
    partly = base.proprio.clone()
    partly[1] = float("nan")
    with torch.no_grad():
        read = model.render_prior(replace(base, proprio=None), base.actions)
        measured = model.render_prior(replace(base, proprio=partly), base.actions)
    assert not torch.equal(read[0], measured[0]) and torch.equal(read[1], measured[1])
    with pytest.raises(ValueError, match="proprio_keypoints"):
        uva_nano_config(proprio_keypoints=1)


def test_the_writer_sees_every_point_from_every_token() -> None:
    model = nano(frame_state_dim=4, num_keypoints=2, rendered_prior=True)
    seen = model.guide.renderer._seen(torch.tensor([[-2 / 3, 0.0, 0.5, 0.5]]))
    # Token 3 is the left one of the middle row: its centre is the first point.
    torch.testing.assert_close(seen[0, 3, :2], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0, 0, :2], torch.tensor([0.0, 2 / 3]))


@pytest.mark.parametrize("task", [Task.POLICY_VIDEO, Task.VIDEO])
def test_frames_without_given_actions_are_drawn_from_sampled_ones(task: Task) -> None:
    model = nano(frame_state_dim=4, num_keypoints=2, rendered_prior=True)
    base = replace(context(model), future=None, actions=None)
    for p in model.video_head.net.final_layer.parameters():
        torch.nn.init.zeros_(p)
    with torch.no_grad():
        sampler = SamplerConfig(iterations=3, temperature=0.0)
        sample = sample_video(model, base, task=task, sampler=sampler, with_actions=True)
        assert sample.actions is not None
        expected = model.render_prior(base, sample.actions)
        torch.testing.assert_close(sample.tokens, expected, atol=1e-4, rtol=1e-4)
        assert (sample_video(model, base, task=task, sampler=sampler).actions is None) == (task is Task.VIDEO)


def test_jitter_reaches_the_network_and_not_the_targets() -> None:
    base = context(nano(frame_state_dim=4, num_keypoints=2))
    noisy = Jitter(tokens=0.1).applied(base)
    assert noisy.history is not None and base.history is not None and base.future is not None
    assert 0.08 < float((noisy.history - base.history).std()) < 0.12
    assert noisy.history_keypoints is base.history_keypoints and noisy.actions is base.actions
    model = nano(frame_state_dim=4, num_keypoints=2)
    visibility = Visibility.for_tasks([Task.VIDEO] * 2, torch.ones(2, 4, 9))
    seen: list[torch.Tensor] = []
    model.video_head.row_losses = lambda target, *a, **k: seen.append(target) or target.sum(-1) * 0  # type: ignore
    joint_loss(model, base, visibility, jitter=Jitter(tokens=0.5))
    every = {tuple(row) for row in base.future.flatten(0, 2).tolist()}
    assert seen and {tuple(row) for row in seen[0].tolist()} <= every


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_masked_tokens_has_the_gradient_of_all_of_them_on_average(share: float) -> None:
    model = nano(video_head=HeadConfig(width=16, depth=1, prediction="flow", share=share))
    base = context(model)
    assert base.future is not None
    mask = torch.zeros(2, 4, 9)
    mask[:, :, :6] = 1
    hidden = base.future[:, :, :6].flatten(0, 2)
    rows: list[torch.Tensor] = []
    # A loss that is known for every token: the sum of its numbers.
    model.video_head.row_losses = lambda target, *a, **k: rows.append(target) or target.sum(-1)  # type: ignore
    losses = [joint_loss(model, base, Visibility.for_tasks([Task.VIDEO] * 2, mask)).video for _ in range(300)]
    assert {len(r) for r in rows} == {round(share * len(hidden))}
    spread = float(hidden.sum(-1).std()) / (len(rows[0]) * 300) ** 0.5
    assert float(torch.stack(losses).mean()) == pytest.approx(float(hidden.sum(-1).mean()), abs=4 * spread + 1e-4)


def test_a_head_without_draws_or_tokens_is_named() -> None:
    for wrong in ({"draws": 0}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ValueError, match="share"):
            HeadConfig(**wrong)  # type: ignore[arg-type]


def test_every_optional_input_trains_and_every_parameter_gets_a_gradient() -> None:
    model = UVANet(_everything_config())
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    base = context(model, 10)
    mask = draw_mask(10, frames=4, tokens=9)
    losses = joint_loss(
        model,
        base,
        Visibility.for_tasks(list(Task) * 2, mask),
        proprio_target=torch.randn(10, 16, 4),
        frame_state_target=torch.randn(10, 2, 4, 4),
    )
    losses.total.backward()
    # The text mask stands in for absent text, the history-action mask for absent actions: neither is absent here.
    idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert {n for n in idle if not n.startswith(("guide.detector", "guide.renderer"))} == {
        "text_mask",
        "history_action_mask",
    }


def _everything_config() -> UVAConfig:
    return uva_nano_config(**EVERYTHING, aggregator="flatten")


def test_the_loss_averages_to_the_single_task_losses() -> None:
    model = nano()
    base = context(model, 4)
    mask = torch.ones(4, 4, 9)
    torch.manual_seed(0)
    losses = joint_loss(model, base, Visibility.for_tasks([Task.POLICY] * 4, mask))
    assert float(losses.video) == 0 and float(losses.action) > 0
    losses = joint_loss(model, base, Visibility.for_tasks([Task.VIDEO] * 4, mask))
    assert float(losses.action) == 0 and float(losses.video) > 0


def test_a_network_with_a_wrist_camera_predicts_both_views() -> None:
    model = nano(wrist_image=True, predict_wrist=True, proprio_dim=9, proprio_steps=16, proprio_maskable=False)
    base = context(model)
    sample = sample_video(model, base, task=Task.FORWARD, sampler=SamplerConfig(iterations=3, video_steps=2))
    assert sample.wrist_tokens is not None and sample.wrist_tokens.shape == sample.tokens.shape
    assert (sample.wrist_tokens != 0).all() and not torch.equal(sample.wrist_tokens, sample.tokens)


def test_patches_go_there_and_back() -> None:
    x = torch.randn(2, 4, 16, 6, 6)
    assert torch.equal(unpatchify(patchify(x, 2), 2), x)
    # The first token is the top-left patch.
    assert torch.equal(patchify(x, 2)[0, 0, 0].view(16, 2, 2), x[0, 0, :, :2, :2])


def test_base_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        model = UVANet(CONFIGS["base"]())
    assert sum(p.numel() for p in model.parameters()) == 261_079_156


def test_official_autoencoder_has_the_released_number_of_parameters() -> None:
    from uva_agents.model import VAEConfig

    with torch.device("meta"):
        vae = VAE(VAEConfig())
    assert sum(p.numel() for p in vae.parameters()) == 66_456_019


def test_nano_autoencoder_halves_16_times_and_names_bad_input() -> None:
    vae = VAE(nano_vae_config())
    images = torch.rand(2, 3, 96, 96) * 2 - 1
    assert vae.encode(images).shape == (2, 16, 6, 6)
    assert vae.decode(vae.encode(images)).shape == images.shape
    with pytest.raises(ValueError, match="multiples of 16"):
        vae.encode(torch.rand(2, 3, 90, 96))


def test_configuration_round_trips_and_names_unknown_fields() -> None:
    config = _everything_config()
    assert UVAConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="wdith"):
        UVAConfig.from_dict({"wdith": 3})
