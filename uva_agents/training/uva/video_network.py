"""A network of its own for the video stage, as in the released code: without action head, proprioception and second camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uva_agents.checkpoints.initial import match_into
from uva_agents.model import UVANet
from uva_agents.training.uva.recipes import UVARecipe

if TYPE_CHECKING:
    from uva_agents.training.uva.run import UVARun


def video_network(recipe: UVARecipe, model: UVANet) -> UVANet:
    """What the video stage trains: the network itself, unless the recipe says otherwise or has no such stage.

    Both recompute their activations where the recipe asks for it.
    """
    own = recipe.network.own_video_network and recipe.network.video.will_run
    found = UVANet(recipe.video_model) if own else model
    for network in (model, found):
        network.set_gradient_checkpointing(recipe.network.gradient_checkpointing)
    return found


def begin_video_with(run: UVARun) -> None:
    """Where the run goes on from weights that the network has taken: the video stage's network takes them, too."""
    if run.video_model is not run.model:
        match_into(run.video_model, run.model.state_dict())


def take_over_video(run: UVARun) -> None:
    """What the video stage has trained, wherever name and shape match, if it has trained a network of its own."""
    if run.video_model is not run.model:
        match_into(run.model, run.video_model.cpu().state_dict())
        run.video_model = run.model
