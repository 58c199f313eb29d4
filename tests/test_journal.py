"""What a killed benchmark keeps."""

import dataclasses
import json
import os
import warnings

import pytest

from uva_agents.benchmarks.evaluation.journal import Journal, check_journal
from uva_agents.benchmarks.evaluation.protocols import get_protocol
from uva_agents.benchmarks.evaluation.report import EpisodeRecord
from uva_agents.benchmarks.evaluation.runner import _is_episode
from uva_agents.benchmarks.paper.table5_report import Table5Episode
from uva_agents.errors import DataError, MachineError

FIRST = Table5Episode("uva", "R-R", 1, True, 40, 2.0, (0.5, 0.7))
SECOND = Table5Episode("uva", "R-G", 1, False, 350, 9.0, (0.6,))
MADE = {"settings": {"candidates": 100, "goal": (1, 2)}, "versions": {"python": "3.11.2"}}


def open_journal(path, settings=MADE):
    return Journal(path, settings, Table5Episode)


def records(path):
    """Those that the next run finds."""
    journal = open_journal(path)
    journal.close()
    return journal.records


@pytest.fixture
def path(tmp_path):
    """A journal with two episodes; warnings are errors."""
    path = tmp_path / "episodes.jsonl"
    journal = open_journal(path)
    journal.add(FIRST)
    journal.add(SECOND)
    journal.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield path


def test_the_same_settings_continue_it(path):
    journal = open_journal(path)
    journal.close()
    assert journal.records == [FIRST, SECOND] and journal.resumed == 2


def test_a_line_torn_by_a_kill_costs_that_line_only(path):
    path.write_text(path.read_text()[:-10])
    journal = open_journal(path)
    assert journal.records == [FIRST]
    journal.add(SECOND)
    journal.close()
    assert records(path) == [FIRST, SECOND]


def test_other_settings_begin_anew_and_keep_what_was_there(path):
    text = path.read_text()
    others = ({**MADE, "versions": {"python": "3.11.7"}}, {**MADE, "settings": {"candidates": 50, "goal": (1, 2)}})
    says = (
        r"versions\.python 3\.11\.2, not 3\.11\.7",
        r"candidates 100, not 50; versions\.python 3\.11\.7, not 3\.11\.2",
    )
    for count, (other, words) in enumerate(zip(others, says, strict=True), start=1):
        with pytest.warns(UserWarning, match=words) as caught:
            journal = open_journal(path, other)
        assert f"episodes.{count}.jsonl" in str(caught[0].message)
        assert journal.records == [] and journal.resumed == 0
        journal.add(SECOND)
        journal.close()
    assert (path.parent / "episodes.1.jsonl").read_text() == text
    assert len((path.parent / "episodes.2.jsonl").read_text().splitlines()) == 2


def test_nothing_is_kept_of_one_without_episodes(path, tmp_path):
    empty = tmp_path / "other.jsonl"
    open_journal(empty).close()
    open_journal(empty, {"settings": 1}).close()
    assert json.loads(empty.read_text()) == {"settings": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["episodes.jsonl", "other.jsonl"]


def test_none_is_kept_without_a_path():
    journal = open_journal(None)
    journal.add(FIRST)
    journal.close(remove=True)
    assert journal.records == [FIRST] and journal.resumed == 0


DAMAGED = {
    "no JSON": "{",
    "no episode": "[1, 2]",
    "deep": "[" * 100_000,
    "a number of thousands of digits": '{"seed": ' + "9" * 5000 + "}",
    **{
        f"{name} {value!r:.20}": json.dumps({**dataclasses.asdict(FIRST), name: value})
        for name, value in [
            ("seed", "1"),
            ("seed", 0.5),
            ("seed", True),
            ("seed", None),
            ("success", 1),
            ("wall_s", float("nan")),
            ("wall_s", 10**400),
            ("wall_s", "2"),
            ("latencies_s", [float("inf")]),
            ("latencies_s", 0.5),
            ("method", None),
            ("other", 1),
        ]
    },
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_costs_itself_and_a_warning_counts_it(path, line):
    head, first, second = path.read_text().splitlines()
    path.write_text("\n".join((head, first, line, second)) + "\n")
    with pytest.warns(UserWarning, match=r"1 of 3 lines is damaged or no episode of this run, and dropped"):
        assert records(path) == [FIRST, SECOND]
    assert records(path) == [FIRST, SECOND]


def test_of_two_records_of_an_episode_one_counts_where_they_agree_and_none_where_not(path):
    head, first, second = path.read_text().splitlines()
    other = json.dumps({**json.loads(second), "length": 2})
    path.write_text("\n".join((head, first, first, second, other)) + "\n")
    with pytest.warns(UserWarning, match="3 of 4 lines are damaged"):
        journal = Journal(path, MADE, Table5Episode, key=lambda e: (e.method, e.assignment, e.seed))
    journal.close()
    assert journal.records == [FIRST]


def test_an_episode_of_another_seed_or_score_is_none_of_an_evaluation():
    rules = get_protocol("dp-pusht")
    good = EpisodeRecord(2, 102, 300, rules.score(0.5), False, False, 0.5, 0.1, 3.0)
    assert _is_episode(good, rules, 100)
    for changed in (
        {"index": -1, "seed": 99},
        {"seed": 5},
        {"score": 1.5},
        {"score": 0.9},
        {"length": 0},
        {"case": "noise"},
        {"best_progress": 2.0},
    ):
        assert not _is_episode(dataclasses.replace(good, **changed), rules, 100), changed


def test_a_pipe_or_a_folder_is_no_journal(tmp_path):
    pipe, folder = tmp_path / "pipe.jsonl", tmp_path / "folder.jsonl"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(MachineError, match=path.name):
            check_journal(path)
        with pytest.raises(DataError, match=path.name):
            open_journal(path)
