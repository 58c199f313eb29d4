"""Released checkpoints that are damaged, or mean harm: an error that names the file, or the right weights; in bounded memory."""

import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import hostile_files as hostile
from uva_agents.checkpoints.official.archive import UnsafeCheckpointError, read_archive
from uva_agents.checkpoints.official.load import load_official
from uva_agents.checkpoints.official.plain import plain, resolved

Write = Callable[[Path], Any]


def exponential_references(levels: int = 60) -> bytes:
    parts = {
        f"a{i}": hostile.dict_of(x=hostile.text(f"${{a{i + 1}}}"), y=hostile.text(f"${{a{i + 1}}}"))
        for i in range(levels)
    }
    return hostile.dict_of(**parts, **{f"a{levels}": b"N"})


def zip_of(data: bytes, **options: Any) -> Write:
    return lambda path: hostile.zip_file(path, data, **options)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def twice(path: Path) -> None:
    hostile.zip_file(path, hostile.payload())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", hostile.payload())


def long_directory(path: Path) -> None:
    """An archive that says it has two billion records."""
    hostile.zip_file(path, hostile.payload())
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    content[end + 10 : end + 16] = b"\xfe\xff\xfe\xff\xff\x7f"
    path.write_bytes(content)


HUGE = 10**10
EMPTY = {"data/0": bytes(4)}


def state_of(tensor: bytes) -> bytes:
    return hostile.payload(state=hostile.dict_of(a=tensor))


BOMBS: dict[str, tuple[Write, str]] = {
    "shared tuples as configuration": (zip_of(hostile.payload(cfg=hostile.laughs())), "configuration"),
    "shared tuples as a key": (zip_of(hostile.payload(cfg=b"}" + hostile.laughs() + b"Ns")), "as a key"),
    "shared tuples in a set": (zip_of(hostile.payload(cfg=b"\x8f(" + hostile.laughs() + b"\x90")), "as a key"),
    "shared tuples as weights": (zip_of(hostile.payload(state=hostile.dict_of(a=hostile.laughs()))), "no tensor"),
    "shared tuples as everything": (zip_of(b"\x80\x02" + hostile.laughs() + b"."), "state_dicts"),
    "shared lists": (zip_of(hostile.payload(cfg=hostile.shared_lists())), "configuration"),
    "a long text, over and over": (
        zip_of(hostile.payload(cfg=b"](" + hostile.text("x" * 2**20) + b"q\x00" + b"h\x00" * 9999 + b"e")),
        "configuration",
    ),
    "references": (zip_of(hostile.payload(cfg=exponential_references())), "configuration"),
    "a deep configuration": (zip_of(hostile.payload(cfg=hostile.deep_lists(5000))), "nested"),
    "a deep pickle": (zip_of(b"\x80\x02" + hostile.deep_lists(200_000) + b"."), "state_dicts"),
    "no end": (zip_of(b"\x80\x02" + b"N" * 3_000_000), "instructions"),
    "a place in the memo": (zip_of(b"\x80\x02Nr\xff\xff\xff\x7f."), "state_dicts"),
    "a text of 2 ** 40": (zip_of(b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x."), "damaged"),
    "bytes of 2 ** 40": (zip_of(b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x."), "damaged"),
    "bytes that are asked for": (
        zip_of(b"\x80\x02cbuiltins\nbytearray\n" + hostile.tuple_of(hostile.number(2**40)) + b"R."), "damaged",
    ),
    "a long range": (
        zip_of(b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\n" + hostile.tuple_of(hostile.number(2**40)) + b"R\x85R."),
        "damaged",
    ),
    "a huge number": (zip_of(hostile.payload(cfg=b"\x8b" + (2**22).to_bytes(4, "little") + b"\x7f" * 2**22)), "64 bytes"),
    "a pickle that unpacks": (zip_of(bytes(48 << 20), compress=True), "unpacks"),
    "a record that is not there": (zip_of(state_of(hostile.tensor(HUGE, (HUGE,), (1,)))), "missing"),
    "a tensor larger than its record": (
        zip_of(state_of(hostile.tensor(1, (10**5, 10**5), (0, 0))), records=EMPTY),
        "1 numbers",
    ),
    "a tensor beyond its record": (
        zip_of(state_of(hostile.tensor(1, (1,), (1,), 10**9)), records=EMPTY),
        "1 numbers",
    ),
    "an older file without its numbers": (
        lambda path: hostile.legacy_file(
            path, state_of(hostile.tensor(HUGE, (HUGE,), (1,))), ("0",), HUGE.to_bytes(8, "little")
        ),
        "missing at its end",
    ),
    "older: shared tuples": (lambda path: hostile.legacy_file(path, hostile.payload(cfg=hostile.laughs())), "configuration"),
    "two pickles": (twice, "data.pkl"),
    "two billion records": (long_directory, "records"),
    "a pipe": (pipe, "regular"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "regular"),
}  # fmt: skip


def run_bombs(folder: Path) -> None:
    """Every file is refused by name. Run in a process of its own, whose memory is limited."""
    page = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (page + (1 << 30), resource.RLIM_INFINITY))
    for name, (_, words) in BOMBS.items():
        path = folder / f"{name}.ckpt"
        found, message = hostile.outcome(lambda path=path: load_official(path, device="cpu"))  # type: ignore[misc]
        assert found is None, f"{name} was loaded"
        assert str(path) in message and words in message and len(message) < 1000, f"{name}: {message}"
        print(name, flush=True)


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    for name, (write, _) in BOMBS.items():
        write(tmp_path / f"{name}.ckpt")
    code = "import sys, pathlib, tests.test_hostile_checkpoints as t; t.run_bombs(pathlib.Path(sys.argv[1]))"
    # A hang would be killed; nothing here is near that.
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == list(BOMBS)


def test_what_a_pickle_mentions_cannot_be_changed_by_it(tmp_path: Path) -> None:
    before = dict(vars(torch.FloatStorage))
    attack = b"\x80\x02ctorch\nFloatStorage\n" + hostile.tuple_of(b"N", hostile.dict_of(dtype=b"N")) + b"b."
    with pytest.raises(UnsafeCheckpointError, match="sets attributes"):
        read_archive(hostile.zip_file(tmp_path / "x.pt", attack))
    assert dict(vars(torch.FloatStorage)) == before


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.getattr", "torch.load", "torch.FloatStorage.from_file"]
)
@pytest.mark.parametrize("how", ["GLOBAL", "STACK_GLOBAL", "INST"])
def test_names_outside_the_list_are_refused(tmp_path: Path, name: str, how: str) -> None:
    module, _, attribute = name.partition(".")
    code = {
        "GLOBAL": f"c{module}\n{attribute}\n".encode() + hostile.tuple_of(hostile.text("true")) + b"R",
        "STACK_GLOBAL": hostile.text(module)
        + hostile.text(attribute)
        + b"\x93"
        + hostile.tuple_of(hostile.text("true"))
        + b"R",
        "INST": b"(" + hostile.text("true") + f"i{module}\n{attribute}\n".encode(),
    }[how]
    with pytest.raises(UnsafeCheckpointError, match=name.replace(".", r"\.")):
        read_archive(hostile.zip_file(tmp_path / "x.pt", b"\x80\x04" + code + b"."))


def test_plain_values_have_a_bound_and_only_json_comes_out() -> None:
    assert plain({1: (True, {"a"}, b"x", None, 2.5)}) == {"1": [True, "<set>", "<bytes>", None, 2.5]}
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(UnsafeCheckpointError, match="nested"):
        plain(circle)
    assert resolved({"a": {"b": ["${a.b.0}", "${a.b.999999999999999999999}"]}})["a"]["b"][0].startswith("${")
