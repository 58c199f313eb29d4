"""Evaluation protocols that other packages register: by name, without harm to ours."""

from __future__ import annotations

import pytest

from tests import toys
from tests.installed_packages import install
from uva_agents import evaluate
from uva_agents.benchmarks import PROTOCOLS, describe_protocols, get_protocol, protocol_for
from uva_agents.benchmarks.evaluation import protocols
from uva_agents.cli import main
from uva_agents.errors import InputError, MachineError

MODULE = """
from uva_agents.benchmarks import EvalProtocol

def protocol(name, env_id=None):
    return EvalProtocol(name, "how often the walk succeeds", env_id, 5, 7, None, "is_success")

WALK, OTHER, THIEF = protocol("walk", "toys/Kitchen-v0"), protocol("other"), protocol("dp-pusht")
"""


def test_the_protocol_of_another_package_evaluates_by_its_name(site):
    install(site, "proto_kitchen", "[uva_agents.protocols]\nwalk = proto_kitchen:WALK\n", MODULE)
    toys.register()
    report = evaluate(toys.NoisyAgent(), toys.WALK, 2, protocol="walk", progress=False)
    assert report.protocol == "walk" and report.n == 2
    assert protocol_for("some_package:toys/Kitchen-v0").name == "walk"
    assert ("walk", "how often the walk succeeds") in describe_protocols()
    with pytest.raises(InputError, match="did you mean 'walk'"):
        get_protocol("wakl")


def test_broken_ones_are_named_and_harm_no_other(site, capsys):
    points = "walk = proto_mixed:WALK\nlacks = proto_mixed:NOTHING\nmine = proto_mixed:OTHER\n"
    points += "dp-pusht = proto_mixed:THIEF\ntext = proto_mixed:MODULE\n"
    install(site, "proto_mixed", f"[uva_agents.protocols]\n{points}", MODULE + 'MODULE = "text"\n')
    assert get_protocol("walk").max_steps == 5
    assert get_protocol("dp-pusht") is PROTOCOLS["dp-pusht"]
    with pytest.raises(MachineError, match=r"'lacks' .* of the package 'proto_mixed' cannot be loaded"):
        get_protocol("lacks")
    with pytest.raises(MachineError, match=r"'mine' .* 'proto_mixed' is a protocol called 'other'"):
        get_protocol("mine")
    with pytest.raises(MachineError, match=r"'text' .* is a str, expected a EvalProtocol"):
        get_protocol("text")
    with pytest.warns(UserWarning, match="proto_mixed"):
        assert protocol_for("toys/Kitchen-v0").name == "walk"
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  walk: how often") for line in lines)
    assert any(line.startswith("  dp-pusht: cannot be used: ") and "itself defines" in line for line in lines)


def test_names_of_this_package_are_not_looked_up_elsewhere(monkeypatch):
    monkeypatch.setattr(protocols, "plugins", lambda *args, **options: pytest.fail("looked up"))
    for name, protocol in PROTOCOLS.items():
        assert get_protocol(name) is protocol
    assert protocol_for("uva/PushT-v0").name == "dp-pusht"


def test_an_environment_is_evaluated_with_its_own_protocol(site):
    module = MODULE + f"HOME = protocol('home', {toys.WALK!r})\n"
    install(site, "proto_default", "[uva_agents.protocols]\nhome = proto_default:HOME\n", module)
    toys.register()
    assert evaluate(toys.NoisyAgent(), toys.WALK, 1, seed=7, progress=False).protocol == "home"
