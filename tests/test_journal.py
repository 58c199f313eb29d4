"""What a killed benchmark keeps."""

import json
import warnings

import pytest

from uva_agents.benchmarks.journal import Journal
from uva_agents.benchmarks.table5_report import Episode

FIRST = Episode("uva", "R-R", 1, True, 40, 2.0, (0.5, 0.7))
SECOND = Episode("uva", "R-G", 1, False, 350, 9.0, (0.6,))
MADE = {"settings": {"candidates": 100, "goal": (1, 2)}, "versions": {"python": "3.11.2"}}


def open_journal(path, settings=MADE):
    return Journal(path, settings, Episode)


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
