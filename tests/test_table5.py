"""Table V's runner: all three ways of acting end to end with tiny networks, resuming, failures, what is reported."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_bundle, tiny_dp_bundle
from uva_agents.benchmarks.paper import table5
from uva_agents.benchmarks.paper.table5 import Table5Episode, lines, page, policy_title, summarise
from uva_agents.checkpoints import InterfaceSpec, save_bundle
from uva_agents.checkpoints.networks import save_net
from uva_agents.data import LinearNormalizer
from uva_agents.model.baselines.builders import dp_c_config, dp_c_positions_config, dp_t_config

LOW, HIGH = (0.15, -0.5), (0.7, 0.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained networks for block pushing."""
    folder = tmp_path_factory.mktemp("weights")
    spec = InterfaceSpec((96, 96), LOW, HIGH, proprio_key="agent_pos", env_id="uva/BlockPush-v0", execute=6)
    limits = {key: (np.array(LOW), np.array(HIGH)) for key in ("action", "agent_pos")}
    world = replace(
        tiny_bundle(frame_state_dim=0, num_keypoints=0), spec=spec, normalizer=LinearNormalizer.from_limits(limits)
    )
    policy = replace(tiny_dp_bundle(), spec=spec, normalizer=LinearNormalizer.from_limits(limits))
    return {
        "world": str(save_bundle(world, folder / "world", card="# tiny\n")),
        "policy": str(save_net(policy, folder / "policy", extra={})),
    }


def words(weights: dict[str, str], out: Path, *more: str) -> list[str]:
    sizes = ["--candidates", "3", "--max-steps", "7", "--steps", "1"]
    return ["--world", weights["world"], "--policy", weights["policy"], "--out", str(out), *sizes, *more]


def test_the_table_is_run_with_pictures_and_continued(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--episodes", "1", "--assignments", "R-G", "--seed", "100003")
    assert table5.main(words(weights, tmp_path, *more)) == 0
    first = json.loads((tmp_path / "table5.json").read_text())
    assert set(first["table"]) == {"dp-c", "uva", "simulator"}
    assert {e["length"] for e in first["episodes"]} == {7}
    assert all(len(e["latencies_s"]) == 2 for e in first["episodes"])  # at steps 0 and 6
    assert first["settings"]["candidates"] == 3 and first["seeds"] == [100003, 100003]
    text = capsys.readouterr().out
    assert "DP-C + simulator" in text and "n=1" in text
    assert first["policy"] in text and first["policy"].startswith("DP-")
    pictures = sorted(p.name for p in (tmp_path / "pictures").glob("*.png"))
    assert pictures == ["R-G-100003-000.png"]
    assert pictures[0] in (tmp_path / "index.html").read_text()

    log = tmp_path / "episodes.jsonl"
    log.write_text("\n".join(log.read_text().splitlines()[:3]) + '\n{"method": "simul')  # killed while it wrote
    assert table5.main(words(weights, tmp_path, *more)) == 0
    again = json.loads((tmp_path / "table5.json").read_text())
    assert [e["wall_s"] for e in again["episodes"]][:2] == [e["wall_s"] for e in first["episodes"]][:2], (
        "kept, not rerun"
    )
    assert len(again["episodes"]) == 3


def test_an_episode_that_fails_is_reported_and_costs_itself_only(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--episodes", "1", "--methods", "dp-c", "--assignments", "R-R", "R-B")
    assert table5.main(words(weights, tmp_path, *more)) == 1
    out = capsys.readouterr().out
    assert "failed: dp-c R-B seed 100000" in out
    assert [e["assignment"] for e in json.loads((tmp_path / "table5.json").read_text())["episodes"]] == ["R-R"]


def test_rates_intervals_and_ratios() -> None:
    def episodes(method: str, wins: int) -> list[Table5Episode]:
        return [Table5Episode(method, "R-R" if i % 2 else "G-G", i, i < wins, 100, 1.0, (0.1, 0.3)) for i in range(10)]

    table = summarise([*episodes("dp-c", 4), *episodes("uva", 6), *episodes("simulator", 8)])
    assert table["uva"]["all"]["rate"] == 0.6 and table["uva"]["assignments"]["R-R"]["n"] == 5
    low, high = table["uva"]["all"]["interval"]
    assert 0.25 < low < 0.35 and 0.8 < high < 0.86
    assert table["uva"]["over_dp_c"] == pytest.approx(1.5) and table["uva"]["over_simulator"] == pytest.approx(0.75)
    assert table["uva"]["latency_p50_s"] == pytest.approx(0.2)
    # A simulator that was given fewer starts is compared on those: 4 of 4 against 4 of 4.
    few = summarise([*episodes("dp-c", 4), *episodes("uva", 6), *episodes("simulator", 8)[:4]])
    assert few["uva"]["over_simulator"] == 1 and few["uva"]["over_dp_c"] == pytest.approx(1.5)
    text = lines(table, "DP-C on images")
    assert any("1.50 x DP-C on images" in line for line in text)
    assert "<pre>a line</pre>" in page("a line", {}, [])


def test_the_table_says_which_diffusion_policy_it_was() -> None:
    assert policy_title(dp_c_positions_config()) == "DP-C on keypoints with a mixture prior"
    assert policy_title(dp_c_config()) == "DP-C on images"
    assert policy_title(dp_t_config()) == "DP-T on images"


def test_columns_stay_apart_with_hundreds_of_episodes() -> None:
    many = [Table5Episode("uva", a, i, True, 100, 1.0, (0.1,)) for a in ("R-R", "G-G") for i in range(500)]
    assert len(re.split(r" {2,}", lines(summarise(many), "DP-C")[1].strip())) == 4
