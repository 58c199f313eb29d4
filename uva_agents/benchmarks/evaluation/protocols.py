"""What is measured: environment, step limit, seeds and the score of an episode. Named, so that numbers compare.

Other packages add protocols through entry points of the group :data:`GROUP`. They are looked up when a name is not this package's.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from uva_agents.errors import InputError, MachineError
from uva_agents.utils.plugins import plugins

GROUP = "uva_agents.protocols"
"""Of the entry points through which other packages add protocols: name -> an :class:`EvalProtocol` of that name."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a protocol that is run under several conditions: its name, and the options that ``reset`` gets."""

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """How one episode is run and scored.

    Attributes:
        name: as given to ``evaluate`` and written into reports.
        description: one sentence.
        env_id: the environment it was made for; ``None`` for any.
        max_steps: control steps per episode; ``None`` keeps the environment's own limit.
        first_seed: published numbers use this seed and the ones after it.
        executes: actions of each predicted chunk that are executed; ``None`` where it is up to the agent.
        progress_key: key of ``info`` that holds the progress, in [0, 1] or bool.
        full_score_at: progress that earns a score of 1.
        version: goes up whenever a change makes numbers incomparable with older ones.
        cases: conditions; every one is run with the same seeds and gets a row in the report.
    """

    name: str
    description: str
    env_id: str | None
    max_steps: int | None
    first_seed: int
    executes: int | None
    progress_key: str
    full_score_at: float = 1.0
    version: int = 1
    cases: tuple[Case, ...] = (Case(),)

    @property
    def title(self) -> str:
        """Name and version, as people quote them."""
        return f"{self.name} v{self.version}"

    def episode(self, index: int, seed: int) -> tuple[int, Case]:
        """Seed and case of episode ``index`` of an evaluation from ``seed``: all cases of a seed, then the next seed."""
        later, which = divmod(index, len(self.cases))
        return seed + later, self.cases[which]

    def score(self, best_progress: float) -> float:
        """Score in [0, 1] of an episode from the best progress after any of its steps."""
        return min(max(best_progress / self.full_score_at, 0.0), 1.0)


def _pusht(name: str, description: str, env_id: str, cases: tuple[Case, ...] = (Case(),)) -> EvalProtocol:
    return EvalProtocol(
        name=name,
        description=description,
        env_id=env_id,
        max_steps=300,
        first_seed=100_000,
        executes=8,
        progress_key="coverage",
        full_score_at=0.95,
        cases=cases,
    )


_DISTURBED = "uva/PushTDisturbed-v0"
_PUBLISHED = ("background_color", "background_object", "goal_color")
_MORE = ("agent_color", "block_color", "lighting", "camera_shift", "noise")


def _cases(*names: str) -> tuple[Case, ...]:
    return tuple(Case(name, {"variation": (name,)}) for name in names)


# One row per task of LIBERO-10, in LIBERO's order.
_LIBERO_10 = (
    "0-soup-sauce-basket",
    "1-cream-cheese-butter-basket",
    "2-stove-on-moka-pot",
    "3-bowl-drawer-close",
    "4-mugs-plates",
    "5-book-caddy",
    "6-mug-plate-pudding",
    "7-soup-cream-cheese-basket",
    "8-moka-pots-stove",
    "9-mug-microwave-close",
)


def _libero(name: str, description: str, first_seed: int, **options: Any) -> EvalProtocol:
    return EvalProtocol(
        name=name,
        description=description,
        env_id="uva/Libero10-v0",
        max_steps=500,
        first_seed=first_seed,
        executes=8,
        progress_key="is_success",
        cases=tuple(Case(task, {"task_id": i, **options}) for i, task in enumerate(_LIBERO_10)),
    )


ARX_TASKS = ("reach", "cup")
ARX_CHANGES = ("table", "objects", "distractors", "light", "gripper")
"""In what the twin of the arm can look as it never did in training."""


def arx_case(task: str, change: str | None) -> Case:
    """A row of the arm's protocols: looks as in training, or unseen ones in one way or (``"all"``) in every one."""
    looks = "varied" if change is None else "unseen" if change == "all" else f"unseen-{change}"
    return Case(task if change is None else f"{task}, {change}", {"task": task, "looks": looks})


def _arx(name: str, description: str, changes: tuple[str | None, ...]) -> EvalProtocol:
    return EvalProtocol(
        name=name,
        description=description,
        env_id="uva/ArxX5-v0",
        max_steps=400,
        first_seed=100_000,
        executes=None,
        progress_key="is_success",
        cases=tuple(arx_case(task, change) for task in ARX_TASKS for change in changes),
    )


PROTOCOLS: dict[str, EvalProtocol] = {
    p.name: p
    for p in (
        _pusht(
            "dp-pusht",
            "Diffusion Policy's PushT: best coverage / 0.95 of each episode, clipped to 1, averaged",
            "uva/PushT-v0",
        ),
        _pusht("pusht-m", "as dp-pusht, with a mark per seed that is seen in the picture only", "uva/PushTMulti-v0"),
        _pusht(
            "pusht-disturbed",
            "as dp-pusht under the disturbances of UVA's Table III, a row for each and one without",
            _DISTURBED,
            _cases("Normal", *_PUBLISHED),
        ),
        _pusht(
            "pusht-disturbed-all",
            "as pusht-disturbed, with all eight variations",
            _DISTURBED,
            _cases("Normal", *_PUBLISHED, *_MORE),
        ),
        *(
            _pusht(f"pusht-disturbed/{name}", f"the row {name} of pusht-disturbed-all", _DISTURBED, _cases(name))
            for name in (*_PUBLISHED, *_MORE)
        ),
        _libero(
            "libero10-uva",
            "UVA's LIBERO-10: success within 500 steps from starts that LIBERO's generator draws, a row per task",
            100_000,
            initial_states="random",
            # The released evaluation lets the policy act at once.
            wait_steps=0,
        ),
        _libero(
            "libero10-fixed",
            "success within 500 steps from LIBERO's 50 fixed initial states, a row per task",
            0,
            initial_states="fixed",
            wait_steps=10,
        ),
        _arx(
            "arx-x5",
            "success within 400 steps on the twin of the arm, reach and cup, under looks as in training",
            (None,),
        ),
        _arx(
            "arx-x5-unseen",
            "as arx-x5 under looks that are never in training: a row per task and kind of change, and for all of them at once",
            (*ARX_CHANGES, "all"),
        ),
        EvalProtocol(
            name="toolhang",
            description="share of Tool Hang episodes in which the wrench hung on the assembled frame within 700 steps",
            env_id="uva/ToolHang-v0",
            max_steps=700,
            first_seed=100_000,
            executes=8,
            progress_key="is_success",
        ),
        EvalProtocol(
            name="pusht-goal",
            description="share of episodes that reach, within 50 steps, the state that a picture shows: 25 steps ahead in a "
            "scripted episode, finger and block within 20 px (one distance in 4-D) and 20 degrees, once",
            env_id="uva/PushTGoal-v0",
            max_steps=50,
            first_seed=100_000,
            executes=None,
            progress_key="is_success",
        ),
        EvalProtocol(
            name="recorded",
            description="1 minus the mean error of actions, as a share of their range, at every step of recorded episodes",
            env_id="uva/Recorded-v0",
            max_steps=None,
            first_seed=0,
            executes=None,
            progress_key="agreement",
        ),
        EvalProtocol(
            name="success",
            description="share of episodes in which info['is_success'] became true, in any environment",
            env_id=None,
            max_steps=None,
            first_seed=100_000,
            executes=None,
            progress_key="is_success",
        ),
    )
}


def get_protocol(name: str | EvalProtocol) -> EvalProtocol:
    """The protocol called ``name``, of this package or of another; a protocol is returned as it is.

    Raises:
        InputError: unknown name; the message lists the closest ones.
        MachineError: another package registers that name, and its protocol cannot be had; the message names the package.
    """
    if isinstance(name, EvalProtocol):
        return name
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    others = _other_packages()
    if name in others:
        return _loaded(name, others[name])
    names = [*PROTOCOLS, *others]
    close = difflib.get_close_matches(name, names, n=2) or sorted(names)
    raise InputError(f"no protocol called {name!r}; did you mean {' or '.join(map(repr, close))}?")


def protocol_for(env_id: str) -> EvalProtocol:
    """The protocol that ``env_id`` is usually measured with: the first one made for it, else ``success``.

    This package's come first, then those of others; one of them that cannot be loaded is a warning.
    """
    name = env_id.rpartition(":")[2]
    for protocol in PROTOCOLS.values():
        if protocol.env_id == name:
            return protocol
    for other, load in _other_packages().items():
        try:
            protocol = _loaded(other, load)
        except MachineError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if protocol.env_id == name:
            return protocol
    return PROTOCOLS["success"]


def describe_protocols() -> list[tuple[str, str]]:
    """Name and description of every protocol, of this package and of others; of one that cannot be loaded, what is wrong."""
    found = [(p.name, p.description) for p in PROTOCOLS.values()]
    for name, load in _other_packages().items():
        try:
            found.append((name, _loaded(name, load).description))
        except MachineError as error:
            found.append((name, f"cannot be used: {error}"))
    return found


def _other_packages() -> Mapping[str, Callable[[], Any]]:
    return plugins(GROUP, own=PROTOCOLS, expected=EvalProtocol)


def _loaded(name: str, load: Callable[[], Any]) -> EvalProtocol:
    protocol: EvalProtocol = load()
    if protocol.name != name:  # reports and journals go by the protocol's own name
        packages = {entry.dist.name for entry in entry_points(group=GROUP, name=name) if entry.dist is not None}
        raise MachineError(
            f"the entry point {name!r} ({GROUP}) of the package {' or '.join(map(repr, sorted(packages)))} is a protocol called "
            f"{protocol.name!r}: give both one name"
        )
    return protocol
