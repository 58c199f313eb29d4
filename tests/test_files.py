"""Where results are written: links lead on, streams are written to, and nothing that is no file is destroyed."""

from __future__ import annotations

import os
import socket
import stat
import threading

import pytest

from uva_agents.errors import MachineError
from uva_agents.utils.files import check_file_target, is_stream, write_text


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("there/real.json")  # a link to nothing, at first
    for text in ("one", "two"):
        assert check_file_target(link) == link
        write_text(link, text)
        assert link.is_symlink() and (tmp_path / "there" / "real.json").read_text() == text
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(MachineError, match="circle"):
        check_file_target(tmp_path / "a")


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    check_file_target(pipe)
    with pytest.raises(MachineError, match="no program reads"):
        write_text(pipe, "lost")
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    told = "long " * 100_000
    read: list[bytes] = []

    def reader() -> None:
        with os.fdopen(handle, "rb") as file:
            read.append(file.read())

    thread = threading.Thread(target=reader)
    writer = os.open(pipe, os.O_WRONLY)  # keeps the reader waiting until there is something
    thread.start()
    write_text(pipe, told)
    os.close(writer)
    thread.join(10)
    assert read == [told.encode()] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe.json"]


def test_standard_output_is_written_to_whatever_it_is(tmp_path, capfd):
    assert is_stream("/dev/stdout") and is_stream("/dev/null") and not is_stream("/dev/shm/x.json")
    print("before")
    check_file_target("/dev/stdout")
    write_text("/dev/stdout", "the report\n")
    print("after")
    assert capfd.readouterr().out == "before\nthe report\nafter\n"
    (tmp_path / "out").symlink_to("/dev/stdout")
    write_text(tmp_path / "out", "again")
    assert capfd.readouterr().out == "again" and (tmp_path / "out").is_symlink()


def test_a_device_that_is_full_or_no_stream_stays_what_it_is(tmp_path):
    with pytest.raises(MachineError, match="No space left"):
        write_text("/dev/full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for write in (check_file_target, lambda path: write_text(path, "x")):
            with pytest.raises(MachineError, match="not a file"):
                write(tmp_path / "socket")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
