"""Kinds of weights are rows of one table, to which other packages add theirs."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.installed_packages import install
from tests.tiny import tiny_dp_bundle
from uva_agents.agents import load_policy
from uva_agents.checkpoints import save_net, weights_kind
from uva_agents.checkpoints.kinds import OWN_KINDS, all_kinds, kind_of_network, resolved
from uva_agents.errors import InputError, MachineError, WeightsError


@pytest.mark.parametrize("name", OWN_KINDS)
def test_everything_that_a_row_names_is_there(name: str) -> None:
    kind = weights_kind(name)
    assert kind.name == name
    assert resolved(kind.recipes) and callable(resolved(kind.steps))
    for recipe in resolved(kind.recipes).values():
        assert type(recipe().model) is kind.config
    if kind.policy is not None:
        assert callable(resolved(kind.policy).from_pretrained)
    import uva_agents as uva

    for public in kind.loaded_with.replace(" or ", ", ").split(", "):
        assert getattr(uva, public.removeprefix("uva."))


def test_weights_of_an_unknown_kind_name_the_known_ones_and_a_missing_package(tmp_path: Path) -> None:
    folder = save_net(tiny_dp_bundle(), tmp_path / "w")
    config = json.loads((folder / "config.json").read_text())
    config.pop("checksum")
    (folder / "config.json").write_text(json.dumps({**config, "kind": "quantum"}))
    with pytest.raises(
        WeightsError, match=r"w holds 'quantum' weights.*known are uva, diffusion-policy, .*package .* may be missing"
    ):
        load_policy(folder)


def test_a_network_of_no_kind_is_not_saved() -> None:
    class Sizes:
        pass

    with pytest.raises(InputError, match=r"no kind of weights has a Sizes for its sizes: .*entry point"):
        kind_of_network(Sizes())


def test_a_broken_package_harms_its_own_kind_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = "from uva_agents.checkpoints.kinds import DIFFUSION_POLICY as KIND\n"
    points = "[uva_agents.weights]\nabsent = kinds_of_others:NOTHING\nother = kinds_of_others:KIND\nuva = kinds_of_others:KIND\n"
    install(tmp_path, "kinds_of_others", points, source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert [kind.name for kind in all_kinds()] == list(OWN_KINDS)
    assert "'kinds_of_others'" in caplog.text
    assert weights_kind("uva") is OWN_KINDS["uva"]
    with pytest.raises(MachineError, match=r"'absent'.*cannot be loaded"):
        weights_kind("absent")
    with pytest.raises(MachineError, match=r"'other'.*called 'diffusion-policy': name them alike"):
        weights_kind("other")
    sys.modules.pop("kinds_of_others", None)
