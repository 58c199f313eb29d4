"""A run of a single network that looks at frames or numbers: data, one or more stages, weights. What a baseline is made of."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from uva_agents.checkpoints.folder import resolve
from uva_agents.checkpoints.initial import match_into
from uva_agents.checkpoints.kinds import weights_kind
from uva_agents.checkpoints.networks import NetBundle, load_net, save_net
from uva_agents.data import Episodes, FrameStore, WindowSpec
from uva_agents.data.episodes import split_by
from uva_agents.errors import InputError
from uva_agents.training.card_facts import CardFacts, dataset_facts
from uva_agents.training.data_file import write_data
from uva_agents.training.frames_step import FramesStep
from uva_agents.training.loop import Stage
from uva_agents.training.memory import Holds, check_out
from uva_agents.training.recipe import NetworkRecipe, StageConfig
from uva_agents.training.run import RunOptions, make_interface, make_normalizer, network_width, write_recipe
from uva_agents.training.saved_recipes import identity
from uva_agents.training.sources import Part, open_sources, sources_of
from uva_agents.training.steps import StageStep, Step, WeightsStep

_LOG = logging.getLogger(__name__)


class NetworkRun:
    """Data of a run, and its steps.

    >>> run = NetworkRun(recipe, options, image_size=96)                          # doctest: +SKIP
    >>> run.start(net)                                                            # doctest: +SKIP
    >>> stage = run.stage_step("policy", recipe.stage, net, lambda: MyStage(...))  # doctest: +SKIP
    >>> steps = [*run.frames_step(), stage, run.weights_step(net)]                # doctest: +SKIP

    Args:
        recipe: what is trained.
        options: from what, and where to.
        image_size: side of the frames that the network sees, and that the weights' interface has where training looks at none.
        window: that actions are cut into, for conventions that are relative to its 'now'.
        arrays: canonical names of what is loaded; by default ``pixels``, ``action`` and proprioception.

    Attributes:
        train, held_out: numbers of episodes.
        normalizer: of actions and proprioception.
        spec: saved with the weights.

    Raises:
        InputError: several datasets, or options that a single network has no use for.
        DataError, MachineError: see :func:`~uva_agents.training.sources.open_sources`.
    """

    def __init__(
        self,
        recipe: NetworkRecipe,
        options: RunOptions,
        *,
        image_size: int,
        arrays: Sequence[str] | None = None,
        window: WindowSpec | None = None,
    ) -> None:
        if options.vae_weights is not None:
            raise InputError(f"recipe {recipe.name!r} has no autoencoder: leave out --vae")
        if len(sources_of(options.data)) > 1:
            raise InputError(f"recipe {recipe.name!r} trains on one dataset: give one --data")
        self.recipe, self.options = recipe, options
        proprio = [recipe.data.proprio_key] if recipe.data.proprio_key else []
        arrays = ["action", "pixels", *proprio] if arrays is None else list(arrays)

        check_out(options.out)
        (self._part,) = open_sources(
            options.data,
            recipe,
            arrays,
            fields=options.fields,
            every=options.every,
            holds=Holds(image_size, variants=2),
            out=options.out,
            show=options.progress,
        )
        self.train, self.held_out = split_by(len(self.episodes), recipe.data.held_out, seed=42)
        width = network_width(recipe.data, "action", self.episodes.arrays["action"].shape[-1])
        self.check("action_dim", width, recipe.model.action_dim)
        write_recipe(recipe, options.out)
        write_data(options.out, recipe.data, [self._part], self.held_out, every=options.every)
        has_frames = "pixels" in arrays
        self.image_size = image_size
        self.normalizer = make_normalizer(recipe.data, self.episodes, window)
        self.spec = make_interface(recipe.data, self.episodes, image_size=None if has_frames else image_size)

    @property
    def checked(self) -> np.ndarray:
        """Episodes that validation looks at: those that are held out, or all where none are, which then says little."""
        return self.held_out if len(self.held_out) else self.train

    @property
    def episodes(self) -> Episodes:
        """Numbers in memory, frames on disk."""
        return self._part.episodes

    @property
    def pixels(self) -> np.ndarray | None:
        """uint8 (N, S, S, 3), on disk; from :meth:`frames_step` on at the network's size."""
        return self.episodes.arrays.get("pixels")

    def frames_step(self) -> list[Step]:
        """The step that decodes the frames, where some are looked at."""
        if self.pixels is None:
            return []

        def take(parts: list[Part]) -> None:
            (self._part,) = parts

        store = FrameStore(self.options.out / "frames", side=self.image_size, workers=self.options.workers)
        moving = (self.recipe.data.proprio_key or "action",)
        return [FramesStep([self._part], take, store, moving, self.options.progress)]

    def check(self, name: str, found: int, wanted: int) -> None:
        """That the data has as many numbers as the network takes.

        Raises:
            InputError: it has not.
        """
        if found != wanted:
            raise InputError(f"the data has {found} numbers where recipe {self.recipe.name!r} has {name}={wanted}")

    def start(self, net: nn.Module) -> None:
        """Continue from the finished weights that ``options.init`` names, if it does: all that matches in name and shape is taken.

        Raises:
            InputError: nothing of them matches.
        """
        init = self.options.init
        if init is None:
            return
        origin = load_net(init, weights_kind(self.recipe.kind), device="cpu").model
        match = match_into(net, origin.state_dict())
        if not match.matched:
            raise InputError(f"{resolve(init)} holds a network of which nothing has the recipe's names and sizes")
        if lines := match.lines():
            _LOG.warning("%s: %d tensors taken over, but for\n  %s", init, len(match.matched), "\n  ".join(lines))

    def stage_step(
        self,
        stage: str,
        config: StageConfig,
        net: nn.Module,
        build: Callable[[], Stage],
        *,
        name: str | None = None,
        makes: str = "network",
    ) -> Step:
        """The step that trains ``net`` in the stage that ``build`` makes.

        Args:
            stage: the stage's name, and its folder's.
            name: of the step, if it is another.
        """
        o = self.options
        return StageStep(
            name or stage,
            makes,
            stage,
            config,
            o.out,
            self.key,
            lambda: net,
            build,
            seed=self.recipe.seed,
            progress=o.progress,
            stop_after=o.stop_after,
        )

    def weights_step(self, net: nn.Module) -> Step:
        """The step that writes the weights folder."""

        def write(folder: Path, extra: Mapping[str, Any]) -> None:
            bundle: NetBundle[Any] = NetBundle(net, self.normalizer, self.spec, self.recipe.name)
            save_net(bundle, folder, extra={"recipe": self.recipe.to_dict(), **extra})

        def facts() -> CardFacts:
            init = None if self.options.init is None else Path(self.options.init).name
            datasets = (dataset_facts(self._part, self.held_out),)
            return CardFacts(
                self.recipe, self.spec, datasets, {"network": sum(p.numel() for p in net.parameters())}, init
            )

        return WeightsStep(self.options.out, write, facts=facts)

    def key(self) -> str:
        """Of all stages; see :class:`~uva_agents.training.loop.LoopOptions`."""
        values = [identity(self.recipe), self.episodes.fingerprint, _origin(self.options)]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _origin(options: RunOptions) -> str:
    used: list[str | Path] = [resolve(options.init).resolve()] if options.init is not None else []
    used += [options.detector_weights] if options.detector_weights is not None else []
    return " ".join(map(str, used))
