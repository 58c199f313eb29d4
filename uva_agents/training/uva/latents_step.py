"""The step of a run that sends every frame through the autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import PartialState

from uva_agents.data import Episodes, LatentStore, Variant
from uva_agents.data.shards import ShardedArray
from uva_agents.training.uva.run import UVARun
from uva_agents.training.uva.stand_ins import stand_in_latents
from uva_agents.utils.progress import progress_bar


@dataclass(frozen=True)
class LatentsStep:
    """Every variant of every dataset through the autoencoder, into shards in ``latents/``."""

    of: UVARun
    name: str = "latents"
    needs: tuple[str, ...] = ("autoencoder",)
    makes: str = "latents"

    def done(self) -> bool:
        """Whether all shards are there."""
        store = self._store()
        return all(store.is_whole(episodes, variant) for episodes, variant in self._wanted())

    def begun(self) -> bool:
        """Whether some are."""
        store = self._store()
        return any(store.is_begun(episodes, variant) for episodes, variant in self._wanted())

    def load(self) -> None:
        """Open them; one that is damaged is made again."""
        run, store = self.of, self._store()
        run.latents = store
        show = run.options.progress and PartialState().is_main_process
        # Of several processes, one encodes while the others wait for its lock: without a limit, unlike at a barrier.
        run.tokens = _encoded(run, store, run.episodes, "latents", show=show)
        run.more_tokens = [
            _encoded(run, store, part.episodes, f"latents of {part.episodes.source}", show=show) for part in run.others
        ]
        if run.recipe.data.has_wrist:
            views = [run.wrist_view(part.episodes) for part in (run.main, *run.others)]
            first, *more = [
                [] if view is None else _encoded(run, store, view, "latents of the wrist camera", show=show, wrist=True)
                for view in views
            ]
            run.wrist_tokens, run.more_wrist_tokens = first, more

    def run(self) -> bool:
        """Make those that are not there."""
        self.load()
        return True

    def rehearse(self) -> int:
        """See :func:`~uva_agents.training.uva.stand_ins.stand_in_latents`."""
        self.of.latents = store = self._store()
        return stand_in_latents(self.of, store)

    def _store(self) -> LatentStore:
        model = self.of.recipe.model
        folder = self.of.options.out / "latents"
        return LatentStore(folder, self.of.vae, patch_size=model.patch_size, image_size=model.image_size)

    def _wanted(self) -> list[tuple[Episodes, Variant]]:
        run = self.of
        datasets = [run.episodes, *(part.episodes for part in run.others)]
        views = [view for view in map(run.wrist_view, datasets) if view is not None]
        return [
            (episodes, variant)
            for sources, variants in ((datasets, run.variants), (views, run.wrist_variants))
            for episodes in sources
            for variant in variants
        ]


def _encoded(
    run: UVARun, store: LatentStore, episodes: Episodes, title: str, *, show: bool, wrist: bool = False
) -> list[ShardedArray]:
    variants = run.wrist_variants if wrist else run.variants
    with progress_bar(disable=not show) as bar:
        task = bar.add_task(title, total=len(variants) * episodes.steps)
        return store.get_all(episodes, variants, lambda done, total: bar.update(task, completed=done, total=total))
