"""The paper's Table VI on the twin of the arm: actions read off the wrist camera's video. ``uva bench table6-arx --data arm.zarr``.

Held-out videos are labelled by InverseModel on its main camera, by the two-frame network where its weights are given, and by
classical visual odometry, which is told the tool's first pose, the camera's calibration and where the table is. Errors of each
action's pose, position in cm and rotation in degrees:

``recorded``: from the recorded action. ``reached``: from where the tool was one step later, as the paper's motion capture measures
it; an arm lags behind its commands, so the recorded actions are not at zero there. ``replayed``: between the tool's way when the
actions are executed from the same start, and the recorded one; the recorded actions' own replay is the floor. Episodes in which
something pushed the arm about are not replayed: their actions are not what was executed.

Beside them the pose of the first frame, held: what an answer is worth that sees no motion.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.benchmarks.paper.arx_recordings import ArmRecording, ReplayedArm, actions_of, arm_recordings, poses_of
from uva_agents.benchmarks.paper.odometry import METHODS, WristOdometry
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_held_out
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.envs.arx_x5.fitting import cameras_for
from uva_agents.envs.arx_x5.twin.optics import wrist_pinhole
from uva_agents.utils.progress import progress_bar

TITLES = {
    "inverse": "InverseModel",
    "two-frame": "two frames (UniPi)",
    "odometry": "visual odometry",
    "held": "first pose, held",
    "recorded": "recorded actions (floor)",
}
TRUTHS = ("recorded", "reached", "replayed")
Labeller = Callable[[ArmRecording], np.ndarray]
"""Recording of N frames -> poses (N - 1, 4, 4) that its actions ask for."""
Errors = Mapping[str, Mapping[str, Sequence[np.ndarray]]]
"""Row -> truth -> per recording (n, 2): metres and rad."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="what `uva data collect arx-x5` wrote")
    parser.add_argument("--weights", default="arx-x5-nano", help="of InverseModel (default %(default)s)")
    parser.add_argument(
        "--two-frame", default=None, help="weights of the two-frame network; without them its row is left out"
    )
    parser.add_argument("--no-networks", action="store_true", help="only what needs no weights")
    parser.add_argument(
        "--odometry", choices=METHODS, default="plane", help="how motion is computed (default %(default)s)"
    )
    parser.add_argument("--no-replay", action="store_true", help="leave the column of replays out")
    add_held_out(parser)


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """The table and ``table6-arx.json``."""
    # How often the arm was held back is in no table.
    logging.getLogger("uva_agents.envs.arx_x5").setLevel(logging.ERROR)
    labellers: dict[str, Labeller] = {}
    weights: dict[str, str] = {}
    if not args.no_networks:
        from uva_agents.agents import InverseModel, TwoFrameInverse

        inverse = InverseModel.from_pretrained(args.weights)
        if cameras_for(inverse.weights.spec)[0] != "wrist":
            yield "InverseModel looks through the outside camera, as it was trained to; the odometry through the wrist's"
        labellers["inverse"] = _network(inverse, inverse.weights.spec)
        weights["inverse"] = inverse.weights.fingerprint
        if args.two_frame is not None:
            two = TwoFrameInverse.from_pretrained(args.two_frame)
            labellers["two-frame"] = _network(two, two.bundle.spec)
            weights["two-frame"] = two.fingerprint
    recordings = arm_recordings(args.data, args.held_out)
    lost: list[np.ndarray] = []
    labellers |= {
        "odometry": odometry(args.odometry, recordings[0], lost),
        "held": lambda r: np.repeat(r.reached[:1], len(r) - 1, axis=0),
        "recorded": lambda r: poses_of(r.actions)[: len(r) - 1],
    }
    arm = None if args.no_replay else ReplayedArm.of(recordings)
    try:
        with progress_bar() as bar:
            task = bar.add_task("videos", total=len(recordings) * len(labellers))
            errors = measure(labellers, recordings, arm, progress=lambda: bar.update(task, advance=1))
    finally:
        if arm is not None:
            arm.close()
    table = summarise(errors, recordings)
    table["odometry"] = {"method": args.odometry, "lost": float(np.concatenate(lost).mean())}
    yield from lines(table)
    return Outcome({"weights": weights, "table": table})


def odometry(method: str, like: ArmRecording, lost: list[np.ndarray]) -> Labeller:
    """Visual odometry for recordings of that picture size; which pairs of frames were lost is added to ``lost``."""
    eye = WristOdometry(wrist_pinhole((like.video("wrist").shape[1], like.video("wrist").shape[2])), method=method)

    def label(recording: ArmRecording) -> np.ndarray:
        track = eye.track(recording.video("wrist"), recording.in_sdk_axes(recording.reached[0]))
        lost.append(track.lost)
        return recording.in_own_axes(track.poses[1:])

    return label


def _network(agent: Any, spec: InterfaceSpec) -> Labeller:
    """It is shown its main camera's video."""
    camera = cameras_for(spec)[0]

    def label(recording: ArmRecording) -> np.ndarray:
        poses = poses_of(agent.label(recording.video(camera)))
        return poses if spec.relative is None else np.asarray(recording.reached[0] @ poses)

    return label


def measure(
    labellers: Mapping[str, Labeller],
    recordings: Sequence[ArmRecording],
    arm: ReplayedArm | None = None,
    *,
    progress: Callable[[], None] | None = None,
) -> dict[str, dict[str, list[np.ndarray]]]:
    """Errors (n, 2) in metres and rad, see :data:`Errors`."""
    errors: dict[str, dict[str, list[np.ndarray]]] = {name: {truth: [] for truth in TRUTHS} for name in labellers}
    for recording in recordings:
        wanted = poses_of(recording.actions)[: len(recording) - 1]
        for name, label in labellers.items():
            found = label(recording)
            errors[name]["recorded"].append(distances(found, wanted))
            errors[name]["reached"].append(distances(found, recording.reached[1:]))
            if arm is not None and not recording.disturbed:
                went = arm.replay(recording, actions_of(found, recording.actions[: len(found)]))
                errors[name]["replayed"].append(distances(went, recording.reached[1 : 1 + len(went)]))
            if progress is not None:
                progress()
    return errors


def distances(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Between poses (n, 4, 4): (n, 2) metres and rad."""
    move = np.linalg.norm(found[:, :3, 3] - true[:, :3, 3], axis=1)
    trace = np.einsum("nij,nij->n", found[:, :3, :3], true[:, :3, :3])
    return np.stack([move, np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0))], axis=1)


def summarise(errors: Errors, recordings: Sequence[ArmRecording]) -> dict[str, Any]:
    """Means in cm and degrees with 95 % intervals that resample whole episodes, and how many times InverseModel's they are."""
    table: dict[str, Any] = {
        "episodes": len(recordings),
        "actions": sum(len(r) - 1 for r in recordings),
        "replayed": max(len(by_truth["replayed"]) for by_truth in errors.values()),
        "rows": {},
    }
    for name, by_truth in errors.items():
        row: dict[str, Any] = {}
        for truth, found in by_truth.items():
            if not found:
                continue
            sums, counts = np.array([one.sum(0) for one in found]), np.array([len(one) for one in found])
            draws = np.random.default_rng(0).multinomial(len(found), np.full(len(found), 1 / len(found)), size=4000)
            means = (draws @ sums) / (draws @ counts)[:, None]
            base = errors.get("inverse", {}).get(truth)
            for column, (what, scale) in enumerate((("cm", 100.0), ("deg", 180 / np.pi))):
                mean = float(sums[:, column].sum() / counts.sum())
                low, high = np.quantile(means[:, column], (0.025, 0.975)) * scale
                row[f"{truth}_{what}"] = mean * scale
                row[f"{truth}_{what}_interval"] = (float(low), float(high))
                if base:
                    of_inverse = float(np.concatenate(base)[:, column].mean())
                    row[f"{truth}_{what}_over_inverse"] = mean / of_inverse if of_inverse > 0 else None
        table["rows"][name] = row
    return table


def lines(table: Mapping[str, Any]) -> list[str]:
    """The table as text."""
    text = [
        f"the arm: {table['actions']} actions of {table['episodes']} held-out videos, {table['replayed']} of them replayed; "
        f"odometry by {table['odometry']['method']}, lost in {table['odometry']['lost']:.0%} of the steps",
        f"{'':26s}" + "".join(f"{truth:^32s}" for truth in TRUTHS),
        f"{'':26s}" + f"{'cm':^20s}{'degrees':^12s}" * len(TRUTHS),
    ]
    for name, row in table["rows"].items():
        cells = ""
        for truth in TRUTHS:
            if f"{truth}_cm" not in row:
                cells += f"{'-':^32s}"
                continue
            low, high = row[f"{truth}_cm_interval"]
            cells += f"{row[f'{truth}_cm']:6.2f} [{low:5.2f}, {high:5.2f}]{row[f'{truth}_deg']:8.2f}{'':2s}"
        text.append(f"{TITLES[name]:26s}{cells}".rstrip())
    return text


BENCHMARK = Benchmark("table6-arx", __doc__, add_arguments, run, folder="outputs/table6-arx")
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
