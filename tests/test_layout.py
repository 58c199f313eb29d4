"""What is found in recordings, said otherwise, written down and read again."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests import datasets
from tests.any_task_data import ENDS, MAKERS, libero, pictures, umi
from uva_agents.checkpoints.text import InstructionTable
from uva_agents.commands.data_layout import add_layout_arguments
from uva_agents.data import Episodes, LatentWindows, LinearNormalizer, Variant, WindowSpec, open_dataset
from uva_agents.data.conventions import AbsolutePoses, DeltaActions, RelativePoses, RelativeProprio
from uva_agents.data.dataset import Extras
from uva_agents.data.libero import absolute_actions
from uva_agents.data.umi import UmiWindows
from uva_agents.data.window_numbers import network_limits, network_rows
from uva_agents.data.windows import WindowIndex
from uva_agents.data.writers.lerobot import write_lerobot
from uva_agents.errors import DataError, InputError
from uva_agents.training.any_task import LayoutOptions, layout_of, make_recipe, widths_of
from uva_agents.training.instructions import read_instructions
from uva_agents.training.layout import find_layout, held_out_count, meaning
from uva_agents.training.layout_files import layout_from_toml, layout_to_toml
from uva_agents.training.layout_report import describe_layout
from uva_agents.training.run import make_interface, make_normalizer
from uva_agents.training.sources import Part, Source, open_sources
from uva_agents.training.uva.sizes import OptionalInputs, recipe_for
from uva_agents.utils.rotations import matrix_from_vector


def found(name, tmp_path, **options):
    dataset = open_dataset(MAKERS[name](tmp_path))
    return find_layout(dataset, control_hz=10.0 if name == "pusht" else None, **options), dataset


def test_every_robot_is_recognised_for_what_it_is(tmp_path):
    arx, _ = found("arx", tmp_path)
    assert arx.action_transforms == (AbsolutePoses("vector", "rot6d"),) == arx.proprio_transforms
    assert arx.has_wrist and arx.instructions == "table" and (arx.control_hz, arx.rows_per_step) == (20.0, 1)
    assert arx.units["action"] == ("m", "m", "m", "rad", "rad", "rad", "")

    joints, dataset = found("joints", tmp_path)
    assert not joints.action_transforms and joints.instructions == "none" and joints.control_hz == 30
    assert joints.names["action"][0] == "shoulder_pan.pos"
    assert "(joints)" in "\n".join(describe_layout(joints, dataset))

    umi, _ = found("umi", tmp_path)
    assert umi.action_transforms == (RelativePoses("rot6d", "rot6d", "rot6d"),)
    assert umi.proprio_transforms == (RelativeProprio("rot6d"),)
    assert (umi.rows_per_step, umi.action_offset) == (3, 1) and umi.control_hz == pytest.approx(19.98)

    libero, dataset = found("libero", tmp_path)
    assert not libero.action_transforms and libero.instructions == "table" and libero.action_offset == 1
    assert "(changes)" in "\n".join(describe_layout(libero, dataset))

    pusht, _ = found("pusht", tmp_path)
    assert pusht.fields["agent_pos"].columns == slice(0, 2) and not pusht.frame_state_keys


def test_names_that_are_no_pose_are_plain_numbers():
    rows = np.zeros((5, 7), np.float32)
    assert meaning(("x", "y", "z", "roll", "pitch", "yaw", "gripper"), rows).kind == "numbers"
    assert meaning((), rows).kind == "numbers" and meaning((), rows, changes=True).kind == "changes"
    assert meaning((), rows + 2, changes=True).kind == "numbers"
    assert meaning(("a.joint_1", "a.joint_2"), rows[:, :2]).kind == "joints"


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_layout_is_the_same_after_it_was_written_down(name, tmp_path):
    layout, _ = found(name, tmp_path)
    file = tmp_path / "layout.toml"
    file.write_text(layout_to_toml(layout, "PATH"))
    assert layout_from_toml(file) == layout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "control_hz = 20\n[fields.pixels]\nkey = 'a'\n[fields.action]\nkey = 'b'\ncolums = [1]",
            "unknown setting 'colums'",
        ),
        ("control_hz = 20\nheld = 3\n[fields]", "unknown setting 'held': known are"),
        ("control_hz = 'fast'\n[fields]", "control_hz is 'fast'"),
        ("[fields]", "control_hz"),
        ("control_hz = 20\ninstructions = 'words'\n[fields]", "instructions is 'words'"),
        ("control_hz = 20\n[fields]\n[[action_transforms]]\nkind = 'nearly'", "no convention is called 'nearly'"),
        ("control_hz =", "is no TOML"),
    ],
)
def test_a_wrong_key_of_a_layout_is_named_with_its_file(tmp_path, text, message):
    (tmp_path / "layout.toml").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        layout_from_toml(tmp_path / "layout.toml")
    assert "layout.toml" in str(error.value)


def test_the_command_prints_a_layout_that_training_takes(tmp_path):
    path = MAKERS["joints"](tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "uva_agents.cli", "data", "layout", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "l.toml").write_text(done.stdout)
    layout = layout_from_toml(tmp_path / "l.toml")
    again, _ = layout_of([Source(path)], LayoutOptions(layout=layout, held_out=2))
    assert again == replace(layout, held_out=2)
    assert callable(add_layout_arguments)


def test_what_data_lacks_is_an_error_that_says_what_to_do(tmp_path):
    frames, rows = pictures(seed=1), np.zeros((len(pictures(seed=1)), 2), np.float32)
    no_rate = datasets.zarr_buffer(tmp_path / "a.zarr", {"img": frames, "action": rows}, ends=ENDS)
    with pytest.raises(DataError, match=r"a\.zarr does not say its rate: give it with --hz"):
        find_layout(open_dataset(no_rate))
    no_action = datasets.zarr_buffer(tmp_path / "b.zarr", {"img": frames, "state": rows}, ends=ENDS)
    with pytest.raises(DataError, match=r"b\.zarr.*--field action=KEY"):
        layout_of([Source(no_action)], LayoutOptions(control_hz=10.0))
    no_camera = datasets.zarr_buffer(tmp_path / "c.zarr", {"action": rows, "state": rows}, ends=ENDS)
    with pytest.raises(DataError, match=r"c\.zarr has no camera.*--field pixels=KEY"):
        find_layout(open_dataset(no_camera), control_hz=10.0)
    with pytest.raises(InputError, match="did you mean nano"):
        make_recipe("nan", [Source(no_rate)], LayoutOptions(control_hz=10.0))


def test_a_constant_action_is_refused_unless_its_limits_are_known(tmp_path):
    layout, dataset = found("joints", tmp_path)
    action = dataset.arrays["action"].copy()
    action[:, 5] = 3.0
    arrays = {**dataset.arrays, "action": action}
    episodes = Episodes({k: np.asarray(v[:]) for k, v in arrays.items()}, dataset.ends, source="somewhere")
    with pytest.raises(DataError, match=r"somewhere: action number 5 \(gripper\.pos\) is 3 in all 3 episodes"):
        make_normalizer(layout, episodes)
    limits = {"action": (tuple(action.min(0) - 1), tuple(action.max(0) + 1))}
    assert make_normalizer(replace(layout, limits=limits), episodes).scale["action"][5] == 1.0


def test_no_more_is_held_out_than_there_is():
    assert [held_out_count(n) for n in (1, 2, 3, 100, 10_000)] == [0, 1, 1, 5, 50]


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["nano", "tiny", "base", "huge"])
def test_a_network_has_the_inputs_of_the_data(size, tmp_path):
    layout, dataset = found("arx", tmp_path)
    inputs = OptionalInputs(history_actions=True, predict_wrist=True, predict_proprio=6)
    model = recipe_for(size, layout, widths_of(dataset), inputs=inputs).model
    assert (model.action_dim, model.proprio_dim, model.text_dim) == (10, 10, 32)
    assert model.wrist_image and model.predict_wrist and model.history_actions and model.predict_proprio_dim == 6
    assert model.num_keypoints == model.frame_state_dim == 0


# -- conventions in windows ----------------------------------------------------------------------------------------


def test_relative_windows_are_those_of_umi(tmp_path):
    dataset = open_dataset(umi(tmp_path / "g.zarr"))
    layout = find_layout(dataset)
    released = UmiWindows(dataset.episodes)
    spec = WindowSpec(4, 4, 16, action_offset=1, rows_per_step=3)
    plain = LinearNormalizer.from_limits(
        {key: (-np.ones(n), np.ones(n)) for key, n in (("action", 10), ("agent_pos", 16))}
    )
    windows = LatentWindows(
        dataset.episodes,
        [np.zeros((72, 1, 1), np.float16)],
        [Variant()],
        plain,
        spec,
        proprio_key="agent_pos",
        extras=Extras(
            action_transforms=layout.action_transforms,
            proprio_transforms=layout.proprio_transforms,
            every_step=True,
            proprio_target=6,
        ),
    )
    chosen = np.array([3, 25, 30, 71])
    batch, wanted = windows.batch(chosen), released.batch(chosen)
    np.testing.assert_allclose(batch.actions.numpy(), wanted.actions, atol=1e-6)
    np.testing.assert_allclose(batch.proprio.numpy(), wanted.proprio, atol=1e-6)
    assert batch.proprio_target.shape == (4, 16, 6)


def test_changes_become_goals_from_the_pose_at_which_they_were_given(tmp_path):
    dataset = open_dataset(libero(tmp_path / "l"))
    poses, actions = dataset.arrays["agent_pos"].astype(np.float64), dataset.arrays["action"]
    firsts = np.repeat(dataset.starts, np.diff(dataset.ends, prepend=0))
    goals = network_rows(dataset.arrays, "action", (DeltaActions(),), pose_key="agent_pos", delay=1, firsts=firsts)
    for row in (0, 5, int(ENDS[0]), int(ENDS[0]) + 3):
        given_at = max(row - 1, firsts[row])
        wanted = absolute_actions(actions[row], poses[given_at, :3], matrix_from_vector(poses[given_at, 3:6]))
        np.testing.assert_allclose(goals[row], wanted, atol=1e-6)


def test_limits_are_of_what_the_network_sees_and_rotations_keep_theirs(tmp_path):
    layout, dataset = found("umi", tmp_path)
    spec = WindowSpec(4, 4, 16, action_offset=1, rows_per_step=3)
    low, high = network_limits(
        dataset.arrays,
        "action",
        layout.action_transforms,
        WindowIndex(dataset.episodes, spec),
        spec.actions,
        pose_key="agent_pos",
    )
    assert (low[:3] < 0).all() and (high[:3] > 0).all()  # seen from the tool
    normalizer = make_normalizer(layout, dataset.episodes, spec)
    np.testing.assert_allclose(normalizer.scale["action"][3:9], 1.0)
    interface = make_interface(layout, dataset.episodes)
    assert interface.action_low[3:9] == (-1.0,) * 6 and interface.needs_pose


# -- instructions --------------------------------------------------------------------------------------------------


def part(tasks, *, actions=True, numbers=None):
    arrays = {"pixels": np.zeros((6, 8, 8, 3), np.uint8)}
    if actions:
        arrays["action"] = np.zeros((6, 2), np.float32)
    return Part(Episodes(arrays, np.array([2, 4, 6]), "the data", numbers), 1.0, tasks)


def test_an_instruction_has_the_same_vector_in_every_dataset():
    one = read_instructions([part(("reach", "grasp the cup", "reach"))], "table")
    two = read_instructions([part(("open", "Reach ", "open"))], "table")
    np.testing.assert_array_equal(one.vectors[0][0], one.vectors[0][2])
    np.testing.assert_array_equal(one.vectors[0][0], two.vectors[0][1])
    assert not np.array_equal(one.vectors[0][0], one.vectors[0][1])
    assert one.dim == 32


def test_an_instruction_that_is_missing_is_named_with_its_episode():
    with pytest.raises(
        DataError, match=r"the data: 1 of 3 episodes have no instruction, first episode 7.*--episodes '!7'"
    ):
        read_instructions([part(("a", "", "b"), numbers=(4, 7, 9))], "table")
    mixed = read_instructions([part(("a", "b", "a")), part(None, actions=False)], "table")
    assert np.isnan(mixed.vectors[1]).all()
    with pytest.raises(DataError, match="has no instructions"):
        read_instructions([part(None, actions=False)], "table")


def test_vectors_may_be_given_and_must_not_change_within_an_episode():
    given = part(("a", "b", "a"))
    rows = np.repeat(np.float32([[1, 2], [3, 4], [1, 2]]), 2, axis=0)
    given = replace(
        given, episodes=Episodes({**given.episodes.arrays, "task_embedding": rows}, given.episodes.ends, "d")
    )
    texts = read_instructions([given], "given")
    np.testing.assert_array_equal(texts.vectors[0], [[1, 2], [3, 4], [1, 2]])
    np.testing.assert_array_equal(texts.module.embed("b"), [3, 4])
    rows = rows.copy()
    rows[3] += 1
    broken = replace(
        given, episodes=Episodes({**given.episodes.arrays, "task_embedding": rows}, given.episodes.ends, "d")
    )
    with pytest.raises(DataError, match="changes within episode 1"):
        read_instructions([broken], "given")


def test_a_table_refuses_what_it_does_not_know():
    table = InstructionTable(["reach the ball", "pick up the cup"])
    np.testing.assert_array_equal(table.embed("  Reach  the ball"), table.vectors[0])
    with pytest.raises(InputError, match=r"know 2 instructions, and 'reach the bal' is none of them.*'reach the ball'"):
        table.embed("reach the bal")
    with pytest.raises(InputError, match="must differ"):
        InstructionTable(["a", "A "])


# -- several datasets ----------------------------------------------------------------------------------------------


def test_limits_hold_for_all_datasets_or_for_each_by_itself(tmp_path):
    layout, dataset = found("joints", tmp_path)
    small = {k: np.asarray(v[:]) for k, v in dataset.arrays.items()}
    large = {**small, "action": small["action"] * 3}
    one, two = (Episodes(arrays, dataset.ends) for arrays in (small, large))
    alone, both = make_normalizer(layout, one), make_normalizer(layout, one, more=[two])
    np.testing.assert_allclose(both.scale["action"] * 3, alone.scale["action"], rtol=1e-5)


def test_numbers_of_other_names_are_refused(tmp_path):
    layout, dataset = found("joints", tmp_path)
    other = tmp_path / "other"
    names = ("a.pos", "b.pos", "c.pos", "d.pos", "e.pos", "f.pos")
    arrays = {k: np.asarray(v[:]) for k, v in dataset.arrays.items()}
    write_lerobot(other, Episodes(arrays, dataset.ends), control_hz=30, tasks=("x",) * 3, names={"action": names})
    recipe = recipe_for("nano", layout, widths_of(dataset))
    with pytest.raises(DataError, match=r"'action' are a\.pos.* in .*other, and shoulder_pan\.pos"):
        open_sources([Source(dataset.path), Source(other)], recipe, layout.arrays)


def test_the_only_other_camera_is_the_second_one(tmp_path):
    rows = np.zeros((len(pictures(seed=1)), 2), np.float32)
    stored = {"img": pictures(seed=1), "outside": pictures(seed=2), "action": rows, "agent_pos": rows}
    dataset = open_dataset(datasets.zarr_buffer(tmp_path / "z.zarr", stored, ends=ENDS))
    layout = find_layout(dataset, control_hz=10.0)
    assert layout.wrist_key == "pixels_outside" and layout.has_wrist
    assert make_interface(layout, dataset.episodes).wrist_key == "pixels_outside"


def test_units_are_those_that_the_data_says_and_else_those_of_the_names(tmp_path):
    rows = np.zeros((len(pictures(seed=1)), 2), np.float32)
    attributes = {
        "names": {"action": ["arm.x", "gripper"], "agent_pos": ["arm.rx", "n"]},
        "units": {"action": ["1", "mm"]},
    }
    stored = {"img": pictures(seed=1), "action": rows, "agent_pos": rows}
    dataset = open_dataset(datasets.zarr_buffer(tmp_path / "z.zarr", stored, ends=ENDS, attributes=attributes))
    assert find_layout(dataset, control_hz=10.0).units == {"action": ("", "mm"), "agent_pos": ("rad", "")}
