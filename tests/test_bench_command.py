"""``uva bench NAME``."""

import pytest

from uva_agents import cli
from uva_agents.commands.bench import BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself_under_the_name_it_is_called_by(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: uva bench {name} ")


def test_an_unknown_benchmark_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "latencies"]) == 2
    assert "did you mean latency" in capsys.readouterr().err
