"""What ``uva demo`` plays: the environment says whose weights, the weights say in which environment."""

from __future__ import annotations

import pytest

from uva_agents.cli import main
from uva_agents.commands.demo import SHIPPED, chosen, film_name
from uva_agents.errors import InputError


def test_the_environment_says_which_weights_and_the_other_way_round():
    assert chosen(None, None) == ("pusht-nano", "uva/PushT-v0")
    for short, (env_id, agent) in SHIPPED.items():
        assert chosen(None, short) == chosen(None, env_id) == (agent, env_id)
        assert film_name(env_id) == short
    assert chosen("runs/mine/weights", None) == ("runs/mine/weights", None), "the weights' own environment"
    assert chosen("runs/mine/weights", "block-push") == ("runs/mine/weights", "uva/BlockPush-v0")
    assert chosen("runs/mine/weights", "other/Thing-v3") == ("runs/mine/weights", "other/Thing-v3")
    assert film_name("other/Thing-v3") == "thing"
    with pytest.raises(InputError, match="no weights ship for it"):
        chosen(None, "other/Thing-v3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "uva/PushD-v0", "--agent", "pusht-nano"], "--env uva/PushD-v0: "),
        (["--env", "CartPole-v1", "--agent", "pusht-nano"], "no get_state and set_state"),
        (["--episodes", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_shown_is_an_error(tmp_path, capsys, words, message):
    assert main(["demo", "--out", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
