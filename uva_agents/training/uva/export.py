"""The weights folder of a UVA run, and what its model card is written from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.store import save_bundle
from uva_agents.training.card_facts import CardFacts, dataset_facts
from uva_agents.training.uva.run import UVARun


def export(run: UVARun, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write the network as it is; see :data:`~uva_agents.training.selection.Export`."""
    text = None if run.texts is None else run.texts.module
    bundle = Bundle(run.model, run.vae, run.normalizer, run.spec, run.recipe.name, text)
    save_bundle(bundle, folder, extra={"recipe": run.recipe.to_dict(), **extra})


def card_facts(run: UVARun) -> CardFacts:
    """Of the finished run."""
    guide = run.model.guide
    keypoints = 0 if guide is None else sum(p.numel() for p in guide.parameters())
    network = sum(p.numel() for p in run.model.parameters())
    parameters = {"transformer and heads": network - keypoints, "keypoint networks": keypoints}
    parameters["autoencoder"] = sum(p.numel() for p in run.vae.parameters())
    held_out = [run.held_out, *(chosen for _, chosen in run.more_splits)]
    return CardFacts(
        run.recipe,
        run.spec,
        tuple(dataset_facts(part, chosen) for part, chosen in zip([run.main, *run.others], held_out, strict=True)),
        {name: count for name, count in parameters.items() if count},
        None if run.options.init is None else Path(run.options.init).name,
    )
