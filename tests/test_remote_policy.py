"""RemotePolicy: an agent like any other, at the other end of our server or of openpi's."""

import contextlib
import threading
import time

import numpy as np
import pytest
from websockets.sync.server import serve as raw_serve

from tests import toys
from tests.planner_toys import Point, at, quadratic
from tests.serving import ToyAgent, obs, raw_pack, raw_unpack
from tests.tiny import observation, tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.bridges.openpi import Limits, PolicyServer, RemotePolicy
from uva_agents.bridges.openpi.connection import RemotePolicyError
from uva_agents.cli import main
from uva_agents.planners import SamplingPlanner


@contextlib.contextmanager
def remote(agent, *, server=None, **options):
    with PolicyServer(agent, port=0, **(server or {})) as running:
        policy = RemotePolicy(running.url, patience_s=5, **options)
        try:
            yield policy
        finally:
            policy.close()


@pytest.fixture(scope="module")
def policy():
    return UVA(tiny_bundle()).policy()


def test_it_acts_as_the_agent_does_in_this_process(policy):
    with remote(policy) as far:
        assert far.action_space == policy.action_space and far.execute == policy.execute == 8
        for seed in (0, 7):
            policy.reset(seed=seed), far.reset(seed=seed)
            for t in range(20):
                np.testing.assert_array_equal(far.act(observation(t)), policy.act(observation(t)))


def test_a_batch_equals_the_single_runs_whatever_resets_when(policy):
    with remote(policy) as far:
        seeds, restarts = [11, 22, 33], {(5, 0): 44, (13, 1): 55}
        states = [agent.initial_state(3, seed=seeds) for agent in (policy, far)]
        for t in range(20):
            mask = np.array([(t, row) in restarts for row in range(3)])
            rows = [observation(100 * row + t) for row in range(3)]
            batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
            actions = []
            for i, agent in enumerate((policy, far)):
                states[i] = states[i].restarted(mask, [restarts.get((t, row), 0) for row in range(3)])
                action, states[i] = agent.predict(batch, states[i])
                actions.append(action)
            np.testing.assert_array_equal(*actions)
        np.testing.assert_array_equal(states[0].decisions, states[1].decisions)


def test_samples_and_deterministic_actions_are_the_agents_own(policy):
    past = observation(5, batch=4)
    with remote(policy) as far:
        wanted = policy.sample(observation(0), 2, seed=3, history=past)
        np.testing.assert_array_equal(far.sample(observation(0), 2, seed=3, history=past), wanted)
        assert far.sample(observation(0, batch=2), 1).shape == (2, 1, 16, 2)
        runs = [
            agent.predict(observation(0), agent.initial_state(1, seed=9), deterministic=True)[0]
            for agent in (policy, far)
        ]
        np.testing.assert_array_equal(*runs)


def test_another_number_of_executed_actions_equals_an_agent_with_that_number():
    near = ToyAgent()
    near.execute = 5
    with remote(ToyAgent(), execute=5) as far:
        states = [near.initial_state(1, seed=[3]), far.initial_state(1, seed=3)]
        for t in range(17):
            a, states[0] = near.predict(obs(0.1 * t), states[0])
            b, states[1] = far.predict(obs(0.1 * t), states[1])
            np.testing.assert_array_equal(a, b)


def test_a_planner_is_served_like_a_policy():
    def planner():
        return SamplingPlanner(dynamics=Point(), objective=quadratic(), n_samples=8, execute=3, horizon=8)

    near = planner()
    with remote(planner()) as far:
        near.reset(seed=1), far.reset(seed=1)
        for t in range(8):
            np.testing.assert_array_equal(far.act(at(0.1 * t, 0.0)), near.act(at(0.1 * t, 0.0)))


def test_episode_start_begins_an_episode_of_that_row_only():
    with remote(ToyAgent()) as far:
        two = {"agent_pos": np.array([[0.1], [0.2]], np.float32)}
        _, state = far.predict(two, far.initial_state(2, seed=[1, 2]))
        _, state = far.predict(two, state, episode_start=np.array([True, False]))
        assert state.decisions.tolist() == [1, 1]
        assert (state[0].seed, state[0].executed, state[1].executed) == (2, 1, 2)


def test_a_state_may_be_begun_twice_and_continued_twice(caplog):
    with remote(ToyAgent()) as far:
        start = far.initial_state(1, seed=4)
        one, after_one = far.predict(obs(0.1), start)
        other, after_other = far.predict(obs(0.9), start)
        near = ToyAgent()
        for x, first, state in ((0.1, one, after_one), (0.9, other, after_other)):
            wanted, near_state = near.predict(obs(x), near.initial_state(1, seed=[4]))
            np.testing.assert_array_equal(first, wanted)
            for t in range(6):
                action, state = far.predict(obs(0.2 * t), state)
                wanted, near_state = near.predict(obs(0.2 * t), near_state)
                np.testing.assert_array_equal(action, wanted)
        assert not [r for r in caplog.records if r.name == "uva_agents.remote"]
        for _ in range(3):
            _, after_one = far.predict(obs(0.3), after_one)
        far.predict(obs(0.3), after_one), far.predict(obs(0.3), after_one)
        assert "sent again" in caplog.text


def test_a_lost_connection_is_made_again_and_the_episode_goes_on(caplog):
    with PolicyServer(ToyAgent(), port=0) as first:
        far = RemotePolicy(first.url, patience_s=10)
        far.reset(seed=2)
        before = [far.act(obs(0.1)) for _ in range(3)]
    with PolicyServer(ToyAgent(), port=first.port):
        after = [far.act(obs(0.1)) for _ in range(3)]
        far.close()
    assert len(before) == 3 and "sent again" in caplog.text and far._state[0].decisions == 2
    # It has been shown all that was seen: three observations before the fourth, at which it decides anew.
    near, state = ToyAgent(), ToyAgent().initial_state(1, seed=[2])
    for _ in range(3):
        _, state = near.predict(obs(0.1), state)
    wanted, state = near.predict(obs(0.1), state)
    np.testing.assert_array_equal(after[0], wanted)


def test_another_agent_behind_the_same_address_is_refused(policy):
    with PolicyServer(policy, port=0) as first:
        far = RemotePolicy(first.url, patience_s=5)
    with PolicyServer(ToyAgent(), port=first.port), pytest.raises(ValueError, match="serves another agent"):
        far.act(observation(0))


def test_a_busy_server_is_asked_again():
    gate = threading.Event()
    with PolicyServer(ToyAgent(lambda: gate.wait(10)), port=0, limits=Limits(waiting=0)) as running:
        one, other = (RemotePolicy(running.url, patience_s=8) for _ in range(2))
        thread = threading.Thread(target=one.act, args=(obs(0.1),))
        thread.start()
        time.sleep(0.2)
        hasty = RemotePolicy(running.url, patience_s=0.2)
        with pytest.raises(RemotePolicyError, match="is busy"):
            hasty.act(obs(0.1))
        threading.Timer(0.3, gate.set).start()
        assert other.act(obs(0.1)).shape == (1,)
        thread.join(timeout=5)
        for client in (one, other, hasty):
            client.close()


def test_a_late_answer_is_not_taken_for_the_next_one():
    pauses = [1.0]
    with remote(ToyAgent(lambda: time.sleep(pauses.pop() if pauses else 0)), timeout_s=0.4) as far:
        state = far.initial_state(1, seed=6)
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.4 s"):
            far.predict(obs(0.9), state)
        time.sleep(0.8)
        action, _ = far.predict(obs(0.2), state)
    wanted, _ = ToyAgent().predict(obs(0.2), ToyAgent().initial_state(1, seed=[6]))
    np.testing.assert_array_equal(action, wanted)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="ws://HOST:PORT"):
        RemotePolicy("localhost:8000")
    with pytest.raises(RemotePolicyError, match=r"nothing listens at ws://127\.0\.0\.1:9"):
        RemotePolicy("ws://127.0.0.1:9", patience_s=0)
    with PolicyServer(ToyAgent(), port=0, token="word") as running:
        with pytest.raises(ValueError, match="asks for a token"):
            RemotePolicy(running.url)
        with pytest.raises(ValueError, match="token is wrong"):
            RemotePolicy(running.url, token="sword")
        assert RemotePolicy(running.url, token="word").act(obs(0.1)).shape == (1,)
    with remote(ToyAgent(), server={"limits": Limits(message_bytes=10_000, episodes=2)}) as far:
        with pytest.raises(KeyError, match="no 'agent_pos'"):
            far.act({"pixels": np.zeros((4, 4, 3), np.uint8)})
        with pytest.raises(TypeError, match="obs, info"):
            far.act((obs(0.1), {}))
        with pytest.raises(ValueError, match="takes 10000"):
            far.act({**obs(0.1), "pixels": np.zeros((100, 100, 3), np.uint8)})
        with pytest.raises(ValueError, match="3 environments"):
            far.initial_state(3)
        with pytest.raises(ValueError, match="state is for"):
            far.predict(obs(0.1), far.initial_state(2))
        far.reset(seed=0)
        far.act(obs(0.1))
        with pytest.raises(ValueError, match="earlier ones"):
            far.act({"agent_pos": np.zeros(3, np.float32)})


# -- other servers ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def openpi_server(infer):
    """What openpi's server does: metadata, then an answer to every observation, or a traceback as text and goodbye."""

    def handler(socket):
        socket.send(raw_pack({"reset_pose": [0.0]}))
        for message in socket:
            try:
                socket.send(raw_pack({**infer(raw_unpack(message)), "server_timing": {"infer_ms": 1.0}}))
            except Exception as error:
                socket.send(f"Traceback (most recent call last):\n  ...\n{type(error).__name__}: {error}\n")
                socket.close(1011, "Internal server error")

    with raw_serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(timeout=10)


def test_a_server_of_openpi_drives_an_environment():
    requests = []

    def infer(request):
        requests.append(request)
        return {"actions": np.arange(20.0).reshape(10, 2) + 100 * len(requests)}

    with openpi_server(infer) as url:
        far = RemotePolicy(
            url,
            execute=2,
            extra={"prompt": "push the T"},
            prepare=lambda o: {**o, "pixels": o["pixels"][::2, ::2]},
            postprocess=lambda chunk, o: chunk + o["agent_pos"],
        )
        see = {**observation(0), "agent_pos": np.float32([0.25, 0.5])}
        actions = [far.act(see) for _ in range(5)]
        np.testing.assert_allclose(actions[:3], [[100.25, 101.5], [102.25, 103.5], [200.25, 201.5]])
        assert len(requests) == 3
        assert set(requests[0]) == {"observation/image", "observation/state", "prompt"}
        assert requests[0]["observation/image"].shape == (48, 48, 3) and requests[0]["prompt"] == "push the T"
        assert far.action_space is None
        assert far.sample(see, 3).shape == (3, 10, 2)
        batch = {k: np.stack([v, v]) for k, v in see.items()}
        assert far.predict(batch)[0].shape == (2, 2)
        far.close()


def test_what_goes_wrong_in_a_server_of_openpi_is_its_last_line():
    def infer(request):
        raise ZeroDivisionError("no such camera") if "observation/image" not in request else KeyError("x")

    with openpi_server(infer) as url:
        far = RemotePolicy(url)
        with pytest.raises(RemotePolicyError, match="failed: ZeroDivisionError: no such camera"):
            far.act(obs(0.1))
        with pytest.raises(KeyError, match="has none of"):
            far.act({"sound": np.zeros(3)})
        far.close()
    with openpi_server(lambda request: {"actions": np.full((5, 2), np.nan)}) as url:
        far = RemotePolicy(url)
        with pytest.raises(RemotePolicyError, match="NaN"):
            far.act(obs(0.1))
        far.close()


# -- commands -----------------------------------------------------------------------------------------------------------


def test_uva_eval_takes_the_address_of_a_server(tmp_path, capsys, monkeypatch):
    toys.register()
    monkeypatch.setenv("UVA_TOKEN", "word")
    words = ["--episodes", "4", "--quiet"]
    assert main(["eval", "tests.serving:toy_agent", toys.WALK, *words]) == 0
    near = capsys.readouterr().out
    with PolicyServer(ToyAgent(), port=0, token="word") as running:
        assert main(["eval", running.url, toys.WALK, *words, "--n-envs", "2"]) == 0
        far = capsys.readouterr().out
        assert main(["eval", running.url, toys.WALK, *words, "--steps", "3"]) == 2
        assert "--steps is for whoever serves" in capsys.readouterr().err
    scores = [[w for w in out.split() if w.replace(".", "").isdigit() and "." in w][:3] for out in (near, far)]
    assert scores[0] and scores[0] == scores[1]
