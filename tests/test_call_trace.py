"""Through how many files a decision goes."""

from __future__ import annotations

import importlib
import sys

import pytest

from uva_agents.benchmarks.speed.call_trace import ACT_FILES, PLAN_FILES, files_entered, trace
from uva_agents.benchmarks.speed.data_loading import Measured


def test_files_are_counted_in_the_order_in_which_they_are_entered(tmp_path, monkeypatch):
    (tmp_path / "traced").mkdir()
    (tmp_path / "traced" / "__init__.py").write_text("")
    (tmp_path / "traced" / "first.py").write_text(
        "from traced.second import halves\n\ndef work():\n    return [h for h in halves()] + [h for h in halves()]\n"
    )
    (tmp_path / "traced" / "second.py").write_text("def halves():\n    yield 1\n    yield 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    work = importlib.import_module("traced.first").work

    entered = files_entered(work, tmp_path / "traced")
    assert list(entered) == ["first.py", "second.py"]
    assert entered["first.py"] >= 1 and entered["second.py"] >= 4  # a generator is entered at every value
    assert files_entered(lambda: [], tmp_path / "traced") == {}


def test_an_error_ends_the_tracing():
    def fail():
        Measured(1.0, 1.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files_entered(fail)
    assert sys.getprofile() is None


@pytest.fixture(scope="module")
def traced():
    return trace("pusht-nano")


def test_the_decision_begins_where_it_is_asked_for(traced):
    assert next(iter(traced["act"])) == "agents/stateful.py"
    assert next(iter(traced["plan"])) == "planners/planner.py"
    assert "model/uva/net.py" in traced["act"] and "model/uva/net.py" in traced["plan"]


def test_a_decision_and_a_plan_do_not_go_through_more_files_than_they_do_today(traced):
    """Fewer are meant (ACT_FILES, PLAN_FILES): the network alone has 13, with an autoencoder and keypoints."""
    assert ACT_FILES < len(traced["act"]) <= 26, list(traced["act"])
    assert PLAN_FILES < len(traced["plan"]) <= 38, list(traced["plan"])
