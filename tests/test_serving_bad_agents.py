"""Agents whose answers are none: an error that names what they returned, and the server goes on."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch

from tests.serving import raw_client
from tests.tiny import tiny_bundle
from uva_agents.agents import UVA
from uva_agents.benchmarks.evaluation.report import plain
from uva_agents.bridges.openpi import KeyMap, PolicyServer
from uva_agents.bridges.openpi.service import ServedEpisode, Service
from uva_agents.cli import main
from uva_agents.errors import InputError

GOOD = np.array([1.0, 2.0], np.float32)
ANSWERS: dict[str, Any] = {
    "an array of dtype complex128": np.array([1 + 1j, 2]),
    "an array of dtype <U4": np.array(["left", "up"]),
    "an array of NoneType": np.array([None, None]),
    "returned NoneType": None,
    "returned dict": {"a": 1},
    "masked": np.ma.masked_all(2),
    "NaN": np.array([np.nan, 1.0], np.float32),
}


class Told:
    """Answers with what the observation says."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        wanted = observation.get("wanted")
        if wanted == "exit":
            sys.exit(0)
        return (np.array([1, 2], np.longdouble) if wanted == "longdouble" else ANSWERS.get(wanted, GOOD)), state


@pytest.fixture(scope="module")
def server():
    with PolicyServer(Told(), port=0) as server:
        yield server


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_no_array_of_numbers_is_an_error_and_the_connection_goes_on(server, name):
    with raw_client(server.url) as client:
        frame = client.ask({"wanted": name})
        assert isinstance(frame, str) and name in frame
        for wanted in ("", "longdouble"):
            np.testing.assert_array_equal(client.ask({"wanted": wanted})["actions"], GOOD[None])


def test_an_agent_that_calls_exit_ends_its_connection_and_not_the_server(server):
    with raw_client(server.url) as client:
        assert client.ask({"wanted": "exit"}) == "RuntimeError: the agent raised SystemExit: 0"
    with raw_client(server.url) as client:
        np.testing.assert_array_equal(client.ask({})["actions"], GOOD[None])


def test_what_the_wire_has_no_form_for_is_an_error_of_the_answer(server, monkeypatch):
    from uva_agents.bridges.openpi.session import ClientSession

    with raw_client(server.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr(ClientSession, "answer", lambda self, request: {"actions": object()})
            assert client.ask({}) == "WireError: the agent's answer cannot be sent: the wire has no form for object"
        np.testing.assert_array_equal(client.ask({})["actions"], GOOD[None])


def test_a_name_of_a_part_that_the_agent_does_not_take_is_refused():
    agent = UVA(tiny_bundle()).policy()
    assert Service(agent, keys=KeyMap().with_names({"agent_pos": "where"})).keys.names["agent_pos"][0] == "where"
    with pytest.raises(InputError, match="no part 'nope' of an observation"):
        Service(agent, keys=KeyMap().with_names({"nope": "x"}))


@pytest.mark.parametrize("megabytes", ["inf", "nan", "-1", "0", "1e9"])
def test_a_size_of_messages_that_is_none_is_refused(megabytes, capsys):
    assert main(["serve", "pusht-nano", f"--max-message-mb={megabytes}"]) == 2
    assert "--max-message-mb" in capsys.readouterr().err


def test_an_identity_that_contains_itself_is_refused(tmp_path):
    ours: dict[str, Any] = {}
    ours["ours"] = ours
    agent = Told()
    agent.identity = ours  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="identity"):
        Service(agent)
    with pytest.raises(InputError, match="contains itself"):
        plain(ours)
    assert plain({"a": [1, 1], "b": (ours.keys().__len__(), float("inf"))}) == {"a": [1, 1], "b": [1, "inf"]}


def test_what_clients_say_fills_no_memory():
    """Instructions are bounded, and what is kept of an observation is counted whatever it is."""
    with pytest.raises(InputError, match="letters"):
        KeyMap().observation({"prompt": "x" * 10_000})
    seen = {"note": "x" * 1000, "more": [b"y" * 1000, {"deep": np.zeros(1000, np.uint8)}]}
    assert ServedEpisode(None, last=seen).size >= 3000


def test_encoded_instructions_are_kept_in_bounds():
    class Encoder(torch.nn.Module):
        calls = 0

        def embed(self, task: str) -> torch.Tensor:
            self.calls += 1
            return torch.full((8,), float(len(task)))

    encoder = Encoder()
    model = UVA(dataclasses.replace(tiny_bundle(text_dim=8), text=encoder))  # type: ignore[arg-type]
    for i in range(600):
        model.embed_task(f"task {i}")
        model.embed_task("task 0")
    assert encoder.calls == 600 and len(model._texts) < 300
    with pytest.raises(InputError, match="letters"):
        model.embed_task("x" * 10_000)
