"""What a long command says of its progress."""

import io

import pytest
from rich.console import Console

from uva_agents.utils import progress


def log_of(steps: int, *, terminal: bool, disable: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=60)
    bar = progress.progress_bar(note="{task.fields[note]}", console=console, disable=disable, auto_refresh=False)
    with bar:
        task = bar.add_task("joint", total=1000, note="")
        for step in range(steps):
            bar.update(
                task, completed=step + 1, note=f"loss {step}, and a good deal more than fits into a line of sixty"
            )
        bar.advance(task)
        return file.getvalue()  # before the end, when rich shows the finished bar


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
    lines = log_of(3, terminal=False).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("joint: 2 of 1000, 0:00:00 so far")
    assert lines[1].endswith("; loss 1, and a good deal more than fits into a line of sixty")
    assert lines[3].startswith("joint: 4 of 1000")


def test_a_log_file_says_what_is_known_of_work_whose_size_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
    file = io.StringIO()
    bar = progress.progress_bar(console=Console(file=file, width=60), auto_refresh=False)
    task = bar.add_task("frames", total=None)
    bar.update(task, completed=1_500_000)
    assert file.getvalue().startswith("frames: 1500000 of ?, 0:00:00 so far")


def test_a_log_file_gets_no_more_than_a_line_a_minute() -> None:
    assert log_of(100, terminal=False) == ""


def test_a_terminal_and_quiet_commands_get_no_such_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
    assert "so far" not in log_of(3, terminal=True)
    assert log_of(3, terminal=False, disable=True) == ""
