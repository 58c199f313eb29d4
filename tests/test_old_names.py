"""What was saved under earlier names loads, and is known by the same fingerprint."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import uva_agents as uva
from tests.small_nets import nano
from tests.tiny import tiny_dp_bundle
from uva_agents.checkpoints.folder import SHIPPED
from uva_agents.checkpoints.kinds import DIFFUSION_POLICY, UVA_WEIGHTS
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.latents import weights_fingerprint
from uva_agents.model.baselines import old_names as baseline_names
from uva_agents.model.uva import old_names as uva_names


def networks() -> list[tuple[nn.Module, object]]:
    net = nano(frame_state_dim=4, num_keypoints=2, rendered_prior=True)
    return [(net, uva_names), (tiny_dp_bundle().model, baseline_names)]


@pytest.mark.parametrize("which", [0, 1])
def test_a_state_under_earlier_names_is_loaded_and_has_the_same_fingerprint(which: int) -> None:
    net, names = networks()[which]
    state = {names.first_name(name): value.clone() for name, value in net.state_dict().items()}
    expected, before = {name: value.clone() for name, value in net.state_dict().items()}, weights_fingerprint(net)
    assert [names.renamed(name) for name in state] == list(expected)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert weights_fingerprint(net) != before
    net.load_state_dict(state)
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert weights_fingerprint(net) == before


def test_earlier_names_occur() -> None:
    """Otherwise the test above would hold of an empty table."""
    net, names = networks()[0]
    changed = {name for name in net.state_dict() if names.first_name(name) != name}
    assert any(name.startswith("guide.detector.") for name in changed)
    assert any(name.startswith("state_head.") for name in changed)
    assert any(name.startswith("guide.renderer.") for name in changed)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("pusht-nano", "c8125fde063c6e8ee6285fcb0145bb54"), ("dp-c-block-push", "455463e9bf40ce2b")],
)
def test_shipped_weights_keep_their_fingerprint(name: str, fingerprint: str) -> None:
    from uva_agents.agents import load_policy

    assert load_policy(name, device="cpu").identity["weights"] == fingerprint


def test_configurations_and_interfaces_under_earlier_names_are_read() -> None:
    saved = json.loads((SHIPPED / "pusht-nano" / "config.json").read_text())
    assert saved["model"]["frame_points"] == 10  # the file is from before
    sizes = UVA_WEIGHTS.read_sizes(saved["model"], "here")
    assert (sizes.num_keypoints, sizes.rendered_prior, sizes.keypoint_detector) == (10, True, "conv")
    assert UVA_WEIGHTS.read_sizes(sizes.to_dict(), "here") == sizes
    assert json.loads(json.dumps(UVA_WEIGHTS.first_names(sizes.to_dict()))) == saved["model"]
    spec = InterfaceSpec.from_dict(saved["interface"])
    assert spec.keypoint_keys == tuple(saved["interface"]["point_keys"])
    policy = json.loads((SHIPPED / "dp-c-block-push" / "config.json").read_text())["model"]
    sizes = DIFFUSION_POLICY.read_sizes(policy, "here")
    assert (sizes.relations, sizes.modes) == (policy["geometry"], policy["guesses"])
    assert sizes.encoder.positions == policy["encoder"]["points"]


def test_weights_saved_now_load_again(tmp_path: Path) -> None:
    from uva_agents.checkpoints import save_bundle

    first = uva.UVA.from_pretrained("pusht-nano", device="cpu")
    save_bundle(first.bundle, tmp_path / "again", dtype=torch.float32)
    assert "num_keypoints" in (tmp_path / "again" / "config.json").read_text()
    assert uva.UVA.from_pretrained(tmp_path / "again", device="cpu").fingerprint == first.fingerprint
