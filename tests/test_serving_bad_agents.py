"""Agents whose answers are none: an error that names what they returned, and the server goes on."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from tests.serving import raw_client
from uva_agents.bridges.openpi import PolicyServer

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
    from uva_agents.bridges.openpi.session import Session

    with raw_client(server.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Session, "answer", lambda self, request: {"actions": object()})
            assert client.ask({}) == "WireError: the agent's answer cannot be sent: the wire has no form for object"
        np.testing.assert_array_equal(client.ask({})["actions"], GOOD[None])
