"""Run an agent for a number of episodes and report what it achieved.

Episode ``i`` always has environment seed ``seed + i`` and agent seed ``seed + i`` (a protocol with several cases runs each
seed in all of them), whichever row runs it: the result depends on neither the number of environments nor the order in which
episodes end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from uva_agents.agents.arguments import flag
from uva_agents.benchmarks.evaluation.env_workers import Broken, EnvFacts, EnvWorker, Request
from uva_agents.benchmarks.evaluation.episode_loop import EpisodeLoop, EpisodeVideos
from uva_agents.benchmarks.evaluation.journal import Journal, check_journal
from uva_agents.benchmarks.evaluation.machine import hardware, versions
from uva_agents.benchmarks.evaluation.protocols import EvalProtocol
from uva_agents.benchmarks.evaluation.report import EpisodeFailure, EpisodeRecord, EvalReport, EvaluationError, Latency
from uva_agents.benchmarks.evaluation.where import Environment, environment_and_rules, find_environment
from uva_agents.envs.fitting import options_for
from uva_agents.errors import InputError
from uva_agents.utils.files import check_file_target, check_folder_target, is_stream
from uva_agents.utils.results import UnwrittenError

_ROUNDING = 1e-5
"""What a bound may be off that went through float32."""


class NotAnAgentError(InputError, TypeError):
    """Something without ``predict`` was to be evaluated."""


def evaluate(
    agent: Any,
    env_id: str | gym.Env[Any, Any] | None = None,
    n_episodes: int = 50,
    *,
    seed: int = 100_000,
    protocol: str | EvalProtocol | None = None,
    n_envs: int = 1,
    workers: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    vectorization: str = "sync",
    deterministic: bool = False,
    video_dir: str | Path | None = None,
    n_videos: int = 0,
    json_path: str | Path | None = None,
    progress: bool = True,
    label: str | None = None,
) -> EvalReport:
    """Evaluate ``agent``.

    An agent may tell more about itself: ``name`` for the report; ``identity``, a JSON value that changes with its
    weights and options (only the same identity continues a killed evaluation); and, on its state, ``decisions``, (n,)
    ints, chunks sampled so far, which separates the latency of new chunks from that of queued actions.

    Args:
        agent: an :class:`~uva_agents.agents.base.Agent`, or anything with stable-baselines3's ``predict``.
        env_id: a registered gymnasium id, with ``module:`` in front if a module has to be imported first; ``None`` for the
            one that the protocol is defined for, or else the one that the agent's ``spec`` names. Or one environment that is
            made already: it is used as it is, with the protocol's step limit around it, and stays open; ``n_envs`` of more
            than 1 needs an id.
        n_episodes: of each case of the protocol (most have one). Episode i has seed ``seed + i``, in the environment and in
            the agent; all cases have the same seeds.
        protocol: step limit and score, by name or as an :class:`EvalProtocol`; by default the environment's usual one, see
            :func:`protocol_for`.
        n_envs: environments that share a batch.
        workers: processes, with an environment in each: short for ``n_envs=workers, vectorization="async"``. The agent stays in
            this process and acts for all of them; results are the same for any number. A process that dies (killed, out of
            memory, a crash in the simulator) costs the episode that it was in, which is reported, and is replaced.
        env_kwargs: given to ``gymnasium.make``, with what else the environment has for weights such as these
            (:mod:`uva_agents.envs.fitting`).
        vectorization: ``"sync"`` runs them in this process, ``"async"`` in one process each.
        deterministic: passed to ``predict``.
        video_dir, n_videos: where to put MP4 files of the first ``n_videos`` episodes.
        json_path: writes the report there; while it runs, a journal beside it lets a killed evaluation continue.
        progress: a progress bar with the mean score so far.
        label: what the report calls the agent; the default is its ``name`` or its class.

    An error inside the environment ends that episode only and is listed in ``report.failures``, as is an episode in which the
    agent's network or the environment gives NaN or infinity; any other error in the agent ends the evaluation.

    Raises:
        InputError: unknown environment or protocol, or none is named; ``workers`` with another ``n_envs``, an action space that
            does not match, an ``info`` without the progress that the protocol scores, or a wrong number of actions.
        NotAnAgentError: ``agent`` has no ``predict``; also a ``TypeError``.
        EvaluationError: the environment cannot be made, or no episode finished.
        MachineError: no report or video can be written there; known before the first episode.
        UnwrittenError: all episodes are done, and now the report cannot be written. It is the error's ``result``, and is saved
            elsewhere where that is possible; the journal is kept.
    """
    env_id, rules = environment_and_rules(agent, env_id, protocol)
    deterministic = flag(deterministic, "deterministic")
    if workers is not None:
        n_envs, vectorization = _check_workers(workers, n_envs), "async"
    _check_arguments(agent, n_episodes, seed, n_envs, n_videos, video_dir)
    where = find_environment(env_id)
    env_id = where.name
    where.check(n_envs=n_envs, vectorization=vectorization, env_kwargs=env_kwargs or {}, with_videos=n_videos > 0)
    env_kwargs = {} if where.made is not None else options_for(env_id, agent, env_kwargs or {})
    kwargs = dict(env_kwargs)
    beside = None
    if json_path is not None:
        check_file_target(json_path)
        if not is_stream(json_path):
            beside = Path(json_path).with_suffix(".partial.jsonl")
            check_journal(beside)
    if n_videos and video_dir is not None:
        check_folder_target(video_dir)
    label = label or str(getattr(agent, "name", None) or type(agent).__name__)
    settings = {
        "agent": label,
        # Other weights under the same name must not continue a killed evaluation: an agent may say what it is.
        "identity": getattr(agent, "identity", None),
        "env_id": env_id,
        "protocol": dataclasses.asdict(rules),
        "seed": seed,
        "env_kwargs": where.settings or dict(env_kwargs),
        "deterministic": deterministic,
        "versions": versions(),
    }
    if rules.max_steps is not None:
        kwargs.setdefault("max_episode_steps", rules.max_steps)
    if n_videos:
        kwargs.setdefault("render_mode", "rgb_array")

    began = time.perf_counter()
    total = n_episodes * len(rules.cases)
    videos = EpisodeVideos(None if video_dir is None else Path(video_dir), n_videos, fps=10.0)
    env_workers = where.env_workers(max(1, min(n_envs, total)), kwargs, vectorization, rules.max_steps)
    journal: Journal[EpisodeRecord] | None = None
    done_with_journal = False
    try:
        facts = _facts(env_workers[0], env_id)
        _check_action_space(agent, facts.action_space, env_id)
        if not hasattr(agent, "initial_state") and hasattr(agent, "set_random_seed"):
            agent.set_random_seed(seed)  # stable-baselines3 draws from one global stream
        journal = Journal(
            beside, settings, EpisodeRecord, fits=lambda r: _is_episode(r, rules, seed), key=lambda r: r.index
        )
        done = [r for r in journal.records if r.index < total]
        resumed = len(done)
        failures: list[EpisodeFailure] = []
        pending = sorted(set(range(total)) - {r.index for r in done})
        with _progress(progress, total, done) as tick:

            def finished(record: EpisodeRecord) -> None:
                journal.add(record)
                done.append(record)
                tick()

            def failed(failure: EpisodeFailure) -> None:
                failures.append(failure)
                tick()

            videos = dataclasses.replace(videos, fps=facts.fps)
            loop = EpisodeLoop(
                agent,
                env_workers,
                rules,
                seed=seed,
                deterministic=deterministic,
                videos=videos,
                on_episode=finished,
                on_failure=failed,
                env_id=env_id,
            )
            timing = loop.run(pending)
        report = EvalReport.of(
            done,
            failures,
            protocol=rules.name,
            protocol_version=rules.version,
            progress_key=rules.progress_key,
            env_id=env_id,
            agent=label,
            seed=seed,
            latency=Latency.of(timing.seconds, timing.replanned, len(env_workers)),
            n_envs=len(env_workers),
            workers=len(env_workers) if vectorization == "async" else 0,
            deterministic=deterministic,
            env_kwargs=where.settings or dict(env_kwargs),
            resumed=resumed,
            wall_time_s=time.perf_counter() - began,
            versions=versions(),
            hardware=hardware(),
            notes=(*_notes(agent, rules, where), *videos.problems),
        )
        if json_path is not None:
            try:
                report.to_json(json_path)
            except UnwrittenError as error:
                error.result = report
                raise
        done_with_journal = True
        return report
    finally:
        if journal is not None:
            journal.close(remove=done_with_journal)
        for worker in env_workers:
            worker.close()


def _check_arguments(
    agent: Any, n_episodes: int, seed: int, n_envs: int, n_videos: int, video_dir: str | Path | None
) -> None:
    if not callable(getattr(agent, "predict", None)):
        raise NotAnAgentError(
            f"{type(agent).__name__} cannot be evaluated: it has no "
            "predict(observation, state, episode_start, deterministic)"
        )
    for name, value in (("n_episodes", n_episodes), ("n_envs", n_envs)):
        if value < 1:
            raise InputError(f"{name}={value}: at least 1 is needed")
    if seed < 0:
        raise InputError(f"seed={seed}: at least 0 is needed")
    if n_videos > 0 and video_dir is None:
        raise InputError(f"n_videos={n_videos} without video_dir: say where the files should go")


def _check_workers(workers: int, n_envs: int) -> int:
    if workers < 1:
        raise InputError(f"workers={workers}: at least 1 is needed")
    if n_envs not in (1, workers):
        raise InputError(f"workers={workers} and n_envs={n_envs}: each worker runs one environment, leave n_envs out")
    return workers


def _is_episode(record: EpisodeRecord, rules: EvalProtocol, seed: int) -> bool:
    """Whether a record that was read from a file can be an episode of an evaluation from ``seed``."""
    if record.index < 0 or record.length < 1:
        return False
    own, case = rules.episode(record.index, seed)
    score = rules.score(record.best_progress)
    return (record.seed, record.case) == (own, case.name) and abs(record.score - score) < 1e-9


def _facts(worker: EnvWorker, env_id: str) -> EnvFacts:
    worker.send(Request("facts"))
    reply = worker.receive()
    if isinstance(reply, Broken):
        raise EvaluationError(f"{env_id} cannot be made: {reply.message}", reply.status)
    assert isinstance(reply, EnvFacts)
    return reply


def _check_action_space(agent: Any, space: gym.Space[Any], env_id: str) -> None:
    own = getattr(agent, "action_space", None)
    if own is None:
        return
    same = own.shape == space.shape
    if same and isinstance(own, gym.spaces.Box) and isinstance(space, gym.spaces.Box):
        # Without bounds of its own: released weights, whose files hold none. The environment's apply.
        low, high = (np.where(np.isinf(b), e, b) for b, e in ((own.low, space.low), (own.high, space.high)))
        same = np.allclose(low, space.low) and np.allclose(high, space.high)
        if not same and _bounded_by_data(agent, env_id):
            same = bool((low >= space.low - _ROUNDING).all() and (high <= space.high + _ROUNDING).all())
    if not same:
        raise InputError(
            f"the agent acts in {own}, but {env_id} takes {space}: it was made for another environment, or for another kind of "
            "action (env_kwargs, or --env-arg, where the environment offers several)"
        )


def _bounded_by_data(agent: Any, env_id: str) -> bool:
    """Weights that were trained on recordings of this environment, or of none that they name, act within what was recorded."""
    spec = getattr(agent, "spec", None)
    return spec is not None and getattr(spec, "env_id", None) in (None, env_id.rpartition(":")[2])


def _notes(agent: Any, rules: EvalProtocol, where: Environment) -> tuple[str, ...]:
    """Deviations from the protocol that a reader of the number must know."""
    notes = []
    limit = where.max_steps
    if limit is not None and rules.max_steps is not None and limit < rules.max_steps:
        notes.append(f"the environment's own limit of {limit} steps is below the protocol's {rules.max_steps}")
    if rules.env_id is not None and where.name.rpartition(":")[2] != rules.env_id:
        notes.append(f"protocol {rules.name} is defined for {rules.env_id}")
    execute = getattr(agent, "execute", None)
    if rules.executes is not None and execute is not None and execute != rules.executes:
        notes.append(f"the agent executes {execute} actions of a chunk, the protocol {rules.executes}")
    return tuple(notes)


class _Tick(Protocol):
    def __call__(self) -> None: ...


@contextlib.contextmanager
def _progress(show: bool, total: int, done: list[EpisodeRecord]) -> Iterator[_Tick]:
    """A bar on stderr; the tick that it yields is called once per ended episode."""
    if not show:
        yield lambda: None
        return
    from rich.console import Console

    from uva_agents.utils.progress import progress_bar

    def mean() -> str:
        return f"{np.mean([r.score for r in done]):.3f}" if done else "-"

    with progress_bar(note="mean score {task.fields[score]}", console=Console(stderr=True)) as bar:
        task = bar.add_task("episodes", total=total, completed=len(done), score=mean())
        yield lambda: bar.update(task, advance=1, score=mean())
