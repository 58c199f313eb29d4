"""Conventions of robots between environment and network: each a pair of transforms that a weights folder names."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tests.plugin_packages import install
from tests.tiny import tiny_bundle
from tests.weights_folders import edited, put
from uva_agents.agents.observations import read_observation
from uva_agents.agents.uva import UVA
from uva_agents.checkpoints import Bundle, InterfaceSpec, load_bundle, save_bundle
from uva_agents.data import LinearNormalizer, absolute_actions
from uva_agents.data.conventions import AbsolutePoses, DeltaActions, GripperRange, RelativePoses, RelativeProprio
from uva_agents.data.transforms import TRANSFORMS, ReferencePoses, Transform, register, to_environment, to_network
from uva_agents.errors import InputError, MachineError, WeightsError
from uva_agents.utils.rotations import matrix_from_quaternion, matrix_from_vector, quaternion_from_matrix

RNG = np.random.default_rng(0)
NOW = np.array([0.3, -0.1, 0.2, 0.4, 0.2, -1.0, 0.05])


def poses(*lead: int) -> np.ndarray:
    """(..., 7), with rotations well below half a turn, where a rotation vector is the only one."""
    return RNG.uniform(-0.9, 0.9, (*lead, 7))


@pytest.mark.parametrize("references", [ReferencePoses(NOW, NOW), ReferencePoses(NOW.astype(np.float32), NOW)])
@pytest.mark.parametrize(
    "transform", [AbsolutePoses(), RelativePoses(), RelativeProprio(), GripperRange((1.0, -1.0))], ids=lambda t: t.kind
)
def test_the_way_back_undoes_the_way_in(transform: Transform, references: ReferencePoses) -> None:
    values = poses(16)
    if isinstance(transform, RelativeProprio):
        references = dataclasses.replace(references, now=values[-1])
    inside = transform.to_network(values, references)
    assert inside.shape == (16, transform.network_size(7)) and transform.environment_size(inside.shape[-1]) == 7
    np.testing.assert_allclose(transform.to_environment(inside, references), values, atol=1e-9)


def test_relative_poses_are_seen_from_the_tool_and_absolute_ones_are_not() -> None:
    ahead = NOW.copy()
    ahead[:3] += matrix_from_vector(NOW[3:6]) @ [0.0, 0.0, 0.1]
    seen = RelativePoses().to_network(ahead, ReferencePoses(NOW))
    np.testing.assert_allclose(seen, [0, 0, 0.1, 1, 0, 0, 0, 1, 0, 0.05], atol=1e-12)
    np.testing.assert_allclose(AbsolutePoses().to_network(ahead, ReferencePoses())[:3], ahead[:3])
    with pytest.raises(InputError, match="relative to the current pose"):
        RelativePoses().to_network(ahead, ReferencePoses())
    with pytest.raises(InputError, match=r"pose actions are \(\.\.\., 7\)"):
        AbsolutePoses().to_network(np.zeros((3, 10)), ReferencePoses())


def test_rotations_take_any_of_the_known_forms() -> None:
    values = poses(8)
    quaternions = np.concatenate(
        [values[:, :3], quaternion_from_matrix(matrix_from_vector(values[:, 3:6])), values[:, 6:]], axis=1
    )
    from_vectors = AbsolutePoses().to_network(values, ReferencePoses())
    transform = AbsolutePoses(environment="quaternion")
    np.testing.assert_allclose(transform.to_network(quaternions, ReferencePoses()), from_vectors, atol=1e-12)
    np.testing.assert_allclose(transform.to_environment(from_vectors, ReferencePoses()), quaternions, atol=1e-12)
    flipped = matrix_from_quaternion(-quaternions[:, 3:7])
    np.testing.assert_allclose(quaternion_from_matrix(flipped), quaternions[:, 3:7], atol=1e-12)


def test_changes_become_the_goals_they_set() -> None:
    changes, here = RNG.uniform(-1, 1, (5, 7)), poses(5)
    rotation = matrix_from_vector(here[:, 3:6])
    goals = DeltaActions().to_network(changes, ReferencePoses(here))
    np.testing.assert_array_equal(goals, absolute_actions(changes, here[:, :3], rotation))
    np.testing.assert_allclose(DeltaActions().to_environment(goals, ReferencePoses(here)), changes, atol=1e-5)
    with pytest.raises(ValueError, match="position_scale must be above 0"):
        DeltaActions(position_scale=0.0)


def test_a_chunk_of_changes_goes_from_each_goal_to_the_next() -> None:
    changes = RNG.uniform(-1, 1, (2, 6, 7))
    changes[..., 3:6] = 0
    goals = DeltaActions(position_scale=0.1).to_network(changes, ReferencePoses(NOW))
    np.testing.assert_allclose(goals[..., :3], NOW[:3] + 0.1 * np.cumsum(changes[..., :3], axis=1), atol=1e-5)
    back = DeltaActions(position_scale=0.1).to_environment(goals, ReferencePoses(NOW))
    np.testing.assert_allclose(back, changes, atol=1e-5)


def test_several_conventions_follow_each_other() -> None:
    chain = (GripperRange(environment=(1.0, -1.0)), RelativePoses())
    values = poses(4, 16)
    inside = to_network(chain, values, ReferencePoses(NOW))
    np.testing.assert_allclose(inside[..., 9], (1 - values[..., 6]) / 2)
    np.testing.assert_allclose(to_environment(chain, inside, ReferencePoses(NOW)), values, atol=1e-9)


def test_changes_outside_may_be_relative_poses_inside() -> None:
    chain = (DeltaActions(), RelativePoses(environment="rot6d"))
    changes = RNG.uniform(-1, 1, (16, 7))
    inside = to_network(chain, changes, ReferencePoses(NOW))
    goals = DeltaActions().to_network(changes, ReferencePoses(NOW))
    first = matrix_from_vector(NOW[3:6]).T @ (goals[0, :3] - NOW[:3])
    np.testing.assert_allclose(inside[0, :3], first, atol=1e-6)
    np.testing.assert_allclose(to_environment(chain, inside, ReferencePoses(NOW)), changes, atol=1e-5)


# -- saved with the weights ------------------------------------------------------------------------------------------


def pose_bundle(**interface: object) -> Bundle:
    """Of a network with ten numbers per action and sixteen of proprioception."""
    bundle = tiny_bundle(action_dim=10, proprio_dim=16, frame_state_dim=0, num_keypoints=0)
    spec = InterfaceSpec((96, 96), (-np.inf,) * 7, (np.inf,) * 7, proprio_key="agent_pos", **interface)
    limits = {"action": (np.full(10, -1.0), np.ones(10)), "agent_pos": (np.full(16, -1.0), np.ones(16))}
    return dataclasses.replace(bundle, spec=spec, normalizer=LinearNormalizer.from_limits(limits))


UMI = {"action_transforms": (RelativePoses(),), "proprio_transforms": (RelativeProprio(),)}


def test_conventions_are_saved_and_read_with_their_settings(tmp_path: Path) -> None:
    chain = (GripperRange(environment=(1.0, -1.0)), DeltaActions(position_scale=0.02))
    bundle = pose_bundle(action_transforms=chain, proprio_transforms=(RelativeProprio(),))
    found = load_bundle(save_bundle(bundle, tmp_path / "w"), device="cpu").spec
    assert found == bundle.spec and found.action_transforms == chain
    assert InterfaceSpec.from_dict(json.loads(json.dumps(found.to_dict()))) == found


EARLIER = """{"image_shape": [96, 96], "action_low": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
"action_high": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "proprio_key": "agent_pos", "proprio_pose": %s, "wrist_shape": null,
"action_pose": %s, "control_hz": 20.0, "execute": 8, "action_offset": 1, "keypoint_keys": [], "env_id": "uva/ArxX5-v0"}"""


@pytest.mark.parametrize(
    ("proprio", "action", "transforms"),
    [
        ("false", "null", ((), ())),
        ("false", '"absolute"', ((AbsolutePoses(),), ())),
        ("true", '"relative"', ((RelativePoses(),), (RelativeProprio(),))),
    ],
)
def test_interfaces_of_earlier_versions_mean_what_they_meant(
    proprio: str, action: str, transforms: tuple[tuple[Transform, ...], ...]
) -> None:
    spec = InterfaceSpec.from_dict(json.loads(EARLIER % (proprio, action)))
    assert (spec.action_transforms, spec.proprio_transforms) == transforms
    assert spec.action_offset == 1 and spec.env_id == "uva/ArxX5-v0"


def test_a_folder_of_an_earlier_version_gives_the_same_actions(tmp_path: Path) -> None:
    bundle = pose_bundle(**UMI)
    folder = save_bundle(bundle, tmp_path / "now")

    def earlier(config: dict) -> None:
        interface = config["interface"]
        del interface["action_transforms"], interface["proprio_transforms"]
        interface.update(action_pose="relative", proprio_pose=True)

    old, new = (UVA(load_bundle(f, device="cpu")) for f in (edited(folder, tmp_path / "old", earlier), folder))
    assert old.bundle.spec == new.bundle.spec
    rows = poses(16)
    np.testing.assert_array_equal(old.normalize_proprio(rows, rows[0]), new.normalize_proprio(rows, rows[0]))
    inside = new.normalize_actions(rows, NOW)
    np.testing.assert_allclose(old.environment_actions(inside, NOW), rows, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("interface.action_transforms", [{"kind": "wheels"}], r"action_transforms\[0\]\.kind is 'wheels', not one of"),
        ("interface.action_transforms", [{"kind": "relative-poses", "netwrok": "rot6d"}], "did you mean 'network'"),
        ("interface.action_transforms", [{"kind": "relative-poses", "network": "euler"}], "'euler', not one of"),
        ("interface.action_transforms", [{"kind": "relative-poses", "network": "quaternion"}], "takes 8 numbers, not 10"),
        ("interface.action_transforms", [{"kind": "delta-actions", "position_scale": -1}], "position_scale must be above 0"),
        ("interface.action_transforms", "relative-poses", "not a list of at most"),
        ("interface.proprio_pose", True, "proprio_pose and proprio_transforms say the same"),
        ("interface.action_pose", "sideways", "action_pose is 'sideways', not one of 'absolute', 'relative'"),
    ],
)  # fmt: skip
def test_conventions_that_are_none_are_named(tmp_path: Path, place: str, value: object, message: str) -> None:
    folder = save_bundle(pose_bundle(**UMI), tmp_path / "w")
    with pytest.raises(WeightsError, match=message):
        load_bundle(edited(folder, tmp_path / "edited", put(place, value)), device="cpu")


def test_an_observation_has_the_pose_that_actions_start_from() -> None:
    spec = pose_bundle(**UMI).spec
    obs = {"pixels": np.zeros((96, 96, 3), np.uint8), "agent_pos": NOW.astype(np.float32)}
    assert spec.proprio_size(16) == spec.proprio_size(0) == 7 and spec.needs_pose and not spec.actions_average
    found = read_observation(obs, spec, 0).proprio
    assert found is not None and found.shape == (1, 7)
    plain = InterfaceSpec((96, 96), (0.0,), (1.0,), proprio_key="agent_pos")
    assert plain.proprio_size(0) == 0 and plain.proprio_size(5) == 5 and plain.actions_average
    assert read_observation(obs, plain, 0).proprio is None


def test_another_package_adds_a_convention_as_one_class(tmp_path: Path) -> None:
    @register
    @dataclasses.dataclass(frozen=True)
    class Millimetres(Transform):
        """Positions in millimetres outside, in metres inside."""

        per_metre: float = 1000.0
        kind: ClassVar[str] = "millimetres"
        averages: ClassVar[bool] = True

        def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
            return values / self.per_metre

        def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
            return values * self.per_metre

        def network_size(self, environment_size: int) -> int:
            return environment_size

        def environment_size(self, network_size: int) -> int:
            return network_size

    try:
        bundle = tiny_bundle()
        spec = dataclasses.replace(bundle.spec, action_transforms=(Millimetres(),))
        loaded = load_bundle(save_bundle(dataclasses.replace(bundle, spec=spec), tmp_path / "w"), device="cpu")
        assert loaded.spec.action_transforms == (Millimetres(),)
        actions = np.array([[1000.0, 2000.0]])
        np.testing.assert_allclose(
            UVA(loaded).normalize_actions(actions), UVA(bundle).normalize_actions(actions / 1000), rtol=1e-6
        )
        with pytest.raises(ValueError, match="registered already"):
            register(type("Other", (Millimetres,), {}))
    finally:
        del TRANSFORMS["millimetres"]


MILES = """
    from dataclasses import dataclass
    from typing import ClassVar
    from uva_agents.data.transforms import Transform

    @dataclass(frozen=True)
    class Miles(Transform):
        kind: ClassVar[str] = "miles"
        to_network = lambda self, values, references: values * 1609.344
        to_environment = lambda self, values, references: values / 1609.344
        network_size = environment_size = lambda self, size: size
"""


def test_weights_bring_the_convention_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    group = "uva_agents.conventions"
    install(tmp_path, "miles", MILES, "miles = miles_module:Miles", group=group)
    install(tmp_path, "broken", "1 / 0", "furlongs = broken_module:X", "odd = broken_module:X", group=group)
    install(tmp_path, "other", MILES, "yards = other_module:Miles", group=group)
    folder = save_bundle(tiny_bundle(), tmp_path / "w")

    def named(kind: str) -> Path:
        return edited(folder, tmp_path / kind, put("interface.action_transforms", [{"kind": kind}]))

    try:
        model = UVA(load_bundle(named("miles"), device="cpu"))
        near = UVA(tiny_bundle()).normalize_actions(np.array([[1609.344, 0.0]]))
        np.testing.assert_allclose(model.normalize_actions(np.array([[1.0, 0.0]])), near, rtol=1e-6)
        with pytest.raises(MachineError, match=r"'furlongs'.*package 'broken' cannot be loaded"):
            load_bundle(named("furlongs"), device="cpu")
        with pytest.raises(MachineError, match=r"'yards'.*is Miles, no Transform of that kind"):
            load_bundle(named("yards"), device="cpu")
    finally:
        TRANSFORMS.pop("miles", None)
