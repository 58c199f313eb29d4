"""Messages of openpi's wire: everything that goes in comes out, and what should not come in is refused with a reason."""

import contextlib
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving import raw_pack, raw_unpack
from uva_agents.bridges.openpi import KeyMap, Limits, WireError, pack, unpack

DTYPES = ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", ">i4", ">f8", "<U5", "S3"]
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (2, 3), (4, 5, 3), (1, 2, 3, 4, 5, 6)]


def filled(dtype, shape):
    size = int(np.prod(shape))
    return (np.arange(size) % 100 + (np.arange(size) % 3 == 0) * 17).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_arrays_of_every_dtype_and_shape_come_out_as_they_went_in(dtype, shape):
    array = filled(dtype, shape)
    found = unpack(pack({"a": array}))["a"]
    assert found.shape == shape and found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable and found.flags.c_contiguous


@pytest.mark.parametrize(
    "array", [np.arange(24).reshape(4, 6)[:, ::2], np.asfortranarray(np.eye(3, 4)), np.arange(9)[::-1]]
)
def test_arrays_need_not_be_contiguous(array):
    np.testing.assert_array_equal(unpack(pack(array)), array)


@pytest.mark.parametrize("dtype", DTYPES[:14])
def test_numpy_scalars_keep_their_type(dtype):
    scalar = np.array(1, dtype)[()]
    found = unpack(pack({"a": scalar}))["a"]
    assert found == scalar
    # np.float64 is a Python float, and msgpack takes it for one.
    assert isinstance(found, float if np.dtype(dtype).kind == "f" and scalar.itemsize == 8 else type(scalar))


def test_plain_values_nest():
    message = {"s": "grüß", "b": b"\x00\xff", "n": None, "t": True, "i": -(2**40), "f": 0.1, "l": [1, [2, {"x": "y"}]]}
    assert unpack(pack(message)) == message


def test_bytes_are_those_that_openpis_own_client_makes_and_reads():
    message = {
        "observation/image": filled("u1", (4, 4, 3)),
        "observation/state": np.zeros(8),
        "x": np.float32(1.5),
        "prompt": "go",
    }
    assert pack(message) == raw_pack(message)
    found = raw_unpack(pack(message))
    np.testing.assert_array_equal(found["observation/image"], message["observation/image"])


def test_arrays_whose_keys_are_text_are_read_too():
    data = msgpack.packb({"__ndarray__": True, "data": b"\x01\x02", "dtype": "|u1", "shape": [2]})
    np.testing.assert_array_equal(unpack(data), [1, 2])


def array(**changes):
    entries = {"data": bytes(8), "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({b"__ndarray__": True, **{k.encode(): v for k, v in entries.items() if v is not None}})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (array(dtype="|O"), "not accepted"),
        (array(dtype="O"), "not accepted"),
        (array(dtype="|V4"), "not accepted"),
        (array(dtype="f4,f4"), "not accepted"),
        (array(dtype="(1000,1000)f4"), "not accepted"),
        (array(dtype="<c8"), "not accepted"),
        (array(dtype="<M8[s]"), "not accepted"),
        (array(dtype="<f16"), "not accepted"),
        (array(dtype="<U0", data=b""), "not accepted|no length"),
        (array(dtype=[["a", "<f4"]]), "not accepted"),
        (array(dtype=None), "without its 'dtype'"),
        (array(data=None), "without its 'data'"),
        (array(data="text"), "must be bytes"),
        (array(shape=None), "without its 'shape'"),
        (array(shape=[3]), "8 bytes for an array of shape"),
        (array(shape=[-2]), "list of sizes"),
        (array(shape=[2.0]), "list of sizes"),
        (array(shape=[True, True]), "list of sizes"),
        (array(shape=[2**40, 0], data=b""), "list of sizes"),
        (array(shape=[2**31 - 1] * 8), "8 bytes for an array of shape"),
        (array(shape=[1] * 8 + [2]), "9 axes"),
        (array(shape=2), "list of sizes"),
        (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "cannot be a list"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "cannot be 300"),
        (msgpack.packb({1: 2}), "not a msgpack message"),
        (msgpack.packb({"a": 1})[:-1], "not a msgpack message"),
        (msgpack.packb({"a": 1}) + b"\x00", "not a msgpack message"),
        (b"", "not a msgpack message"),
        (b"\xa2\xff\xfe", "not a msgpack message"),
        (b"\xc1", "not a msgpack message"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "extension 5"),
        (msgpack.packb(msgpack.Timestamp(1)), "times"),
        (b"\x91" * 9 + b"\xc0", "8 deep"),
        (b"\x91" * 100_000 + b"\xc0", "not a msgpack message|deep"),
        (b"\xdd\xff\xff\xff\xff", "not a msgpack message"),
        (msgpack.packb([0] * 10_001), "not a msgpack message|more than"),
        (msgpack.packb([[0] * 100] * 100), "more than 10000 parts"),
        (b"\xdc\x27\x00" + b"\x80" * 0x2700, "more than 10000 parts"),
    ],
)  # fmt: skip
def test_what_should_not_come_in_is_refused_with_a_reason(data, reason):
    with pytest.raises(WireError, match=reason):
        unpack(data)


def test_tiny_parts_cannot_be_used_to_fill_the_memory():
    inner = b"\xdc\x0f\xa0" + b"\x80" * 4000  # 4000 empty maps in 4 kB, of 64 bytes each in Python
    data = b"\xdc\x0f\xa0" + inner * 4000
    tracemalloc.start()
    with pytest.raises(WireError, match="more than"):
        unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "value", [object(), {"a": {1, 2}}, np.array([object()]), np.zeros(2, "c8"), 2**70, np.datetime64("now")]
)
def test_what_has_no_form_is_not_sent(value):
    with pytest.raises(WireError):
        pack(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data):
    with contextlib.suppress(WireError):
        unpack(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_damage_to_a_message_raises_anything_else(position, value):
    data = bytearray(pack({"pixels": filled("u1", (4, 4, 3)), "agent_pos": filled("<f4", (2,)), "n": np.int16(3)}))
    data[position % len(data)] = value
    with contextlib.suppress(WireError):
        unpack(bytes(data))


def test_limits_that_make_no_sense_are_refused():
    assert Limits(waiting=0).waiting == 0
    for name in ("message_bytes", "connections", "keepalive_s"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            Limits(**{name: 0})


# -- names --------------------------------------------------------------------------------------------------------------

FRAME = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "message",
    [
        {"pixels": FRAME, "agent_pos": np.arange(3.0), "task": "go"},
        {"observation/image": FRAME, "observation/state": np.arange(3.0), "prompt": "go"},
        {"observation": {"image": FRAME, "state": np.arange(3.0)}, "prompt": np.array("go")},
        {"images": {"cam_high": np.moveaxis(FRAME, -1, 0), "cam_low": FRAME}, "state": np.arange(3.0), "prompt": [b"go"]},
        {
            "observation/exterior_image_1_left": FRAME,
            "observation/joint_position": np.arange(2.0),
            "observation/gripper_position": np.array(2.0),
            "prompt": "go",
        },
    ],
    ids=["ours", "libero", "nested", "aloha", "droid"],
)  # fmt: skip
def test_clients_names_become_ours(message):
    found = KeyMap().observation(message)
    assert set(found) == {"pixels", "agent_pos", "task"} and found["task"] == "go"
    np.testing.assert_array_equal(found["pixels"], FRAME)
    np.testing.assert_array_equal(found["agent_pos"], np.arange(3.0))


def test_other_entries_are_passed_on_and_own_names_come_first():
    assert KeyMap().observation({"agent_pos": [1.0], "state": {"x": 1}})["state"] == {"x": 1}
    found = KeyMap().with_names({"pixels": "cam/top"}).observation({"cam": {"top": FRAME}, "image": FRAME[:1]})
    assert found["pixels"].shape == FRAME.shape


@pytest.mark.parametrize(
    ("message", "reason"),
    [({"prompt": 3}, "'task' must be text"), ({"pixels": "cat.png"}, "'pixels' must be an array")],
)
def test_an_entry_of_the_wrong_kind_is_named(message, reason):
    with pytest.raises(ValueError, match=reason):
        KeyMap().observation(message)
