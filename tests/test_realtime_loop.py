"""The loop on a clock that stands still between its steps: what it sends, when it asks, and what it does when nothing comes."""

import numpy as np
import pytest

from tests.ideal_arm import IdealArm, Timed, Virtual, chunk, path
from uva_agents.errors import NotFiniteError
from uva_agents.realtime import AgentError, Loop, LoopSettings
from uva_agents.realtime.controls import Command, Controls
from uva_agents.realtime.numbers import as_numbers
from uva_agents.realtime.schedule import ChunkSchedule, ScheduleSettings
from uva_agents.realtime.trajectory import ActionLayout
from uva_agents.realtime.worker import Reply

LAYOUT = ActionLayout(((3, "vector"),))


def make(*, answer=None, seconds=0.2, rate_hz=20.0, action_hz=20.0, execute=8, oversleep=lambda t: 0.0, **settings):
    clock = Virtual(oversleep)
    arm = IdealArm(clock)
    messages = []
    dt = 1 / action_hz
    worker = Timed(
        clock,
        answer or (lambda request: chunk(request, dt=dt)),
        seconds if callable(seconds) else lambda request: seconds,
    )
    schedule = ChunkSchedule(ScheduleSettings(action_hz=action_hz, execute=execute, blend_s=0.2), LAYOUT)
    settings = LoopSettings(rate_hz=rate_hz, **{"length_s": 10.0, **settings})
    return Loop(arm, worker, schedule, settings, say=messages.append), arm, worker, messages


def followed(arm, since=1.0):
    """Largest distance between what was sent for a time and what the path is at that time, after ``since``."""
    errors = []
    for now, start_s, dt, actions in arm.commands:
        if now >= since:
            # Those far ahead are sent again before their time comes.
            wanted = path(start_s + dt * np.arange(2))
            errors.append(np.abs(actions[:2] - wanted)[:, :3].max())
    return max(errors)


@pytest.mark.parametrize(("rate_hz", "action_hz"), [(20, 20), (8, 8), (50, 20), (20, 8)])
def test_chunks_join_without_gap_and_the_arm_is_on_the_path_at_the_right_times(rate_hz, action_hz):
    loop, arm, _, messages = make(rate_hz=rate_hz, action_hz=action_hz)
    episode = loop.run(seed=0)
    assert episode.end == "length" and messages == []
    assert episode.counts.gaps == 0 and episode.idle_steps == 0 and episode.counts.too_late == 0
    assert episode.timing.late_steps == 0
    # All decisions are of one path, so blending must not leave it: straight lines between its points are 0.3 mm off at most.
    assert followed(arm) < (0.0004 if action_hz == 20 else 0.002)
    # What came too late was dropped: 0.05 s of camera, 0.2 s of inference, 0.04 s of reaction, up to a step of waiting.
    late = (0.05 + 0.2 + 0.04) * action_hz
    assert late * 0.9 <= episode.counts.actions_dropped / episode.counts.chunks <= late + 2
    assert len(arm.holds) == 1


def test_no_command_jumps_from_the_one_before():
    # Two plans that disagree by 4 cm, alternately: blending must lead over.
    def answer(request):
        actions = chunk(request)
        actions[:, 1] += 0.04 * (request.number % 2)
        return actions

    loop, arm, _, _ = make(answer=answer)
    loop.run()
    rows = np.array([[start_s, *actions[0]] for _, start_s, _, actions in arm.commands])
    speed = np.abs(np.diff(rows[:, 2]) / np.diff(rows[:, 0]))
    assert 0.1 < speed.max() < 0.05 + 0.04 / 0.2 + 0.02  # the path's own speed and 4 cm in 0.2 s
    assert np.abs(rows[0, 1:4] - IdealArm.start[:3]).max() < 0.02  # and the first one begins where the arm is


def test_the_next_decision_begins_after_the_executed_actions_or_earlier_when_inference_is_slow():
    loop, _, worker, _ = make(execute=8, seconds=0.05)
    loop.run()
    observed = np.array([request.observed_s for request in worker.requests])
    np.testing.assert_allclose(np.diff(observed)[2:], 0.4, atol=0.051)
    # 24 actions cover 1.15 s, and a chunk takes about 0.5 s: after 20 actions would be too late.
    loop, _, worker, messages = make(answer=lambda request: chunk(request, n=24), execute=20, seconds=0.4)
    episode = loop.run()
    assert episode.counts.gaps == 0 and messages == []
    assert 0.4 < np.diff([request.observed_s for request in worker.requests])[3:].max() < 0.6
    assert episode.latency_s[1] == pytest.approx(0.5, abs=0.06)


def test_chunks_that_take_longer_than_half_of_what_they_cover_are_reported():
    loop, _, _, messages = make(seconds=0.45)
    episode = loop.run()
    assert episode.counts.gaps > 3 and sum("must be twice as long" in text for text in messages) == 1


def test_when_the_network_pauses_the_arm_stands_still_and_then_goes_on():
    paused = {12}
    loop, arm, _, messages = make(seconds=lambda request: 2.2 if request.number in paused else 0.2)
    episode = loop.run()
    assert episode.counts.gaps == 1 and episode.counts.too_late == 1
    assert any("holding" in text for text in messages) and any("dropped" in text for text in messages)
    sent = np.array([now for now, *_ in arm.commands])
    at = int(np.diff(sent).argmax())
    silence = sent[at + 1] - sent[at]
    assert 1.4 < silence < 2.2
    # It stood at the last place that it was sent to, and left it without a jump.
    stood = arm.commands[at][3][-1]
    first = arm.commands[at + 1][3][0]
    assert np.abs(first - stood)[:3].max() < 0.02
    assert episode.end == "length" and sent[-1] > 9.9
    assert len(sent) - at > 50 and followed(arm, since=sent[at + 1] + 0.5) < 0.0004


def test_an_error_of_the_agent_holds_and_is_asked_again_or_stops():
    def answer(request):
        if request.number == 5:
            raise ConnectionError("the server is gone")
        return chunk(request)

    loop, arm, worker, messages = make(answer=answer)
    episode = loop.run()
    assert episode.end == "length" and episode.counts.errors == 1
    assert any("the server is gone; holding" in text for text in messages)
    times = [request.observed_s for request in worker.requests]
    assert times[6] - times[5] >= 0.5  # not at once
    loop, arm, worker, messages = make(answer=answer, on_error="stop")
    episode = loop.run()
    assert episode.end == "error" and len(worker.requests) == 6 and len(arm.holds) == 1


def test_a_chunk_with_nan_is_not_followed():
    def answer(request):
        actions = chunk(request)
        if request.number == 5:
            actions[3, 2] = np.nan
        return actions

    loop, arm, _, messages = make(answer=answer)
    episode = loop.run()
    assert any("NaN" in text for text in messages) and episode.counts.errors == 1
    assert all(np.isfinite(actions).all() for *_, actions in arm.commands)


def test_an_agent_that_decides_one_action_at_a_time_is_followed_as_soon_as_it_has_decided():
    loop, arm, worker, _ = make(answer=lambda request: path(request.observed_s), seconds=0.1)
    episode = loop.run()
    assert episode.counts.gaps == 0 and episode.counts.too_late == 0 and len(worker.requests) > 60
    # Behind by what seeing, deciding and moving take, and no more.
    _, start_s, _, actions = arm.commands[-1]
    behind = [np.abs(actions[0] - path(start_s - lag)[0])[:3].max() for lag in np.arange(0.0, 1.0, 0.01)]
    assert np.argmin(behind) * 0.01 < 0.5


def test_late_steps_are_counted_and_times_that_passed_are_skipped_not_hurried():
    loop, arm, *_ = make(oversleep=lambda t: 0.12 if 2.97 < t < 3.02 else 0.0)
    episode = loop.run()
    assert episode.timing.late_steps == 1 and episode.timing.skipped == 2
    assert episode.counts.gaps == 0 and followed(arm) < 0.0004
    assert episode.timing.jitter_max_s == pytest.approx(0.12)


def test_history_is_spaced_by_the_agents_own_step_and_starts_with_the_episode():
    loop, _, worker, _ = make(rate_hz=40, action_hz=10, lookback=4)
    loop.run()
    assert len(worker.requests[0].history) == 0
    values = [obs["agent_pos"] for obs in worker.requests[5].history]
    assert len(values) == 4
    times = worker.requests[5].observed_s - 0.1 * np.arange(4, 0, -1)
    np.testing.assert_allclose(np.array(values)[:, 1], path(times)[:, 1], atol=0.002)


@pytest.mark.parametrize(
    ("command", "end"),
    [(Command.STOP, "stopped"), (Command.DROP, "dropped"), (Command.QUIT, "quit"), (Command.EMERGENCY, "emergency")],
)
def test_the_operator_ends_an_episode(command, end):
    loop, arm, worker, _ = make()
    controls = loop.controls
    plain = worker.answer
    worker.answer = lambda request: (controls.give(command) if request.number == 4 else None, plain(request))[1]
    episode = loop.run()
    assert episode.end == end and episode.seconds < 3
    assert len(arm.holds) == 1 and bool(arm.stops) == (end == "emergency")


def test_the_arm_is_held_when_it_fails_or_the_loop_does():
    loop, arm, *_ = make()
    arm.fails_at = 2.0
    with pytest.raises(RuntimeError, match="unplugged"):
        loop.run()
    assert len(arm.holds) == 1


def test_answers_to_an_earlier_episode_are_not_followed():
    loop, arm, worker, _ = make(length_s=1.0)
    loop.run(seed=1)
    if not worker.busy:
        worker.submit(worker.requests[-1])  # still under way when the next episode begins
    first = worker.requests[-1].episode
    worker.answer = lambda request: chunk(request) + (1.0 if request.episode == first else 0.0)
    arm.commands.clear()
    loop.run(seed=1)
    assert max(np.abs(actions[:, 0]).max() for *_, actions in arm.commands) < 0.5


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="rate_hz"):
        LoopSettings(rate_hz=0)
    with pytest.raises(ValueError, match="on_error"):
        LoopSettings(on_error="ignore")
    with pytest.raises(ValueError, match="execute"):
        ScheduleSettings(execute=0)
    assert Controls().take() is None


@pytest.mark.parametrize("where", ["error", "chunk"])
def test_an_agent_that_computes_nan_is_held_with_that_reason_and_asked_again(where):
    def answer(request):
        if request.number != 5:
            return chunk(request)
        if where == "error":
            raise NotFiniteError("weights 'umi', head 'action': NaN")
        return np.full((16, 7), np.nan)

    loop, arm, worker, messages = make(answer=answer)
    episode = loop.run()
    assert episode.end == "length" and episode.counts.errors == 1 and episode.interventions == 1
    assert any("NaN" in text and text.endswith("holding") for text in messages)
    # At once, not at the end of what was decided before; then from where it stands.
    held = arm.holds[0]
    sent = np.array([now for now, *_ in arm.commands])
    after = sent[sent > held].min()
    assert len(arm.holds) == 2 and after - held >= 0.5
    stood = [actions[-1] for now, _, _, actions in arm.commands if now <= held][-1]
    first = next(actions[0] for now, _, _, actions in arm.commands if now > held)
    assert np.abs(first - stood)[:3].max() < 0.02
    loop, arm, worker, messages = make(answer=answer, on_error="stop")
    assert loop.run().end == "error" and len(worker.requests) == 6


def test_actions_that_mean_nothing_to_the_arm_are_a_hold():
    """Two rows of a rotation that are zero, for example."""
    loop, arm, _, messages = make()
    schedule, asked = arm.schedule, []

    def refusing(actions, start_s, dt):
        asked.append(1)
        if len(asked) == 40:
            raise ValueError("the rotation of the action is none")
        return schedule(actions, start_s, dt)

    arm.schedule = refusing
    episode = loop.run()
    assert episode.end == "length" and episode.interventions == 1 and len(arm.holds) == 2
    assert any("the rotation of the action is none; holding" in text for text in messages)


def test_a_worker_that_has_ended_ends_every_episode_and_the_warm_up():
    loop, _, worker, messages = make()
    worker.poll = lambda: Reply(None, None, "the thread of the agent has ended")
    with pytest.raises(RuntimeError, match="has ended"):
        loop.warm_up()
    assert [loop.run().end, loop.run().end] == ["error", "error"]
    assert messages == ["the thread of the agent has ended"] * 2


def test_an_episode_says_why_it_did_not_go_as_it_should():
    def answer(request):
        if request.number in (2, 5):
            raise KeyError(f"oops {request.number}")
        return chunk(request)

    assert make()[0].run().failure is None
    episode = make(answer=answer)[0].run()
    assert episode.end == "length" and episode.failure == "the agent failed 2 times, the last time: KeyError: 'oops 5'"
    assert make(answer=answer, on_error="stop")[0].run().failure == "the agent failed: KeyError: 'oops 2'"
    assert "none came in 10.0 s" in make(seconds=60.0)[0].run().failure
    late = make(seconds=2.0)[0].run()
    assert late.counts.chunks == 0 and f"all {late.counts.too_late} came too late" in late.failure
    loop = make()[0]
    loop.controls.give(Command.EMERGENCY)
    assert "emergency stop" in loop.run().failure


@pytest.mark.parametrize("shape", [(7, 4), (16, 6), (16, 8), (7,), (1, 16, 7), (16, 0), ()])
@pytest.mark.parametrize("fill", [0.0, 0.1])
def test_a_chunk_of_another_shape_is_named_before_anything_moves_and_later_held(shape, fill):
    loop, arm, _, _ = make(answer=lambda request: np.full(shape, fill))
    with pytest.raises(AgentError) as raised:
        loop.warm_up()
    assert f"a chunk of shape {shape}, but this arm takes (T, 7)" in str(raised.value) and arm.commands == []
    answer = lambda request: np.full(shape, fill) if request.number == 2 else chunk(request)  # noqa: E731
    loop, arm, _, messages = make(answer=answer, length_s=3.0)
    episode = loop.run()
    assert episode.end == "length" and episode.counts.errors == 1 and episode.counts.chunks > 2
    assert any(f"shape {shape}" in text and text.endswith("holding") for text in messages)


@pytest.mark.parametrize(
    ("value", "message"), [(0.0, "no place for a tool"), (np.nan, "NaN or infinity"), (None, "gave None")]
)
def test_a_first_chunk_that_could_not_be_followed_ends_the_warm_up(value, message):
    loop, *_ = make(answer=lambda request: as_numbers(None, "it") if value is None else np.full((16, 7), value))
    with pytest.raises(AgentError, match=message):
        loop.warm_up()
    assert make()[0].warm_up() == pytest.approx(0.2, abs=0.06)
