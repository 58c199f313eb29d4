"""Small weights folders of every kind, and copies of them that say something else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny import tiny_bundle, tiny_dp_bundle, tiny_points_config, tiny_two_frame_bundle
from uva_agents.checkpoints import Bundle, NetBundle, save_bundle, save_net
from uva_agents.checkpoints import load_bundle as load_uva
from uva_agents.checkpoints import load_diffusion_policy as load_dp
from uva_agents.checkpoints import load_two_frame as load_pair
from uva_agents.checkpoints.folder import _signed
from uva_agents.model import DiffusionPolicyNet

Load = Callable[..., Any]
LOADERS: dict[str, Load] = {
    "uva": load_uva,
    "unet": load_dp,
    "transformer": load_dp,
    "points": load_dp,
    "pair": load_pair,
}
KINDS = list(LOADERS)


def write(kind: str, folder: Path) -> Path:
    if kind == "uva":
        return save_bundle(tiny_bundle(), folder)
    if kind == "pair":
        return save_net(tiny_two_frame_bundle(), folder)
    bundle = tiny_dp_bundle("unet" if kind == "points" else kind)
    if kind == "points":
        torch.manual_seed(0)
        bundle = NetBundle(DiffusionPolicyNet(tiny_points_config()), bundle.normalizer, bundle.spec, "points")
    return save_net(bundle, folder)


def facts(bundle: Any) -> dict[str, Any]:
    modules: dict[str, nn.Module] = {"model": bundle.model}
    if isinstance(bundle, Bundle):
        modules["vae"] = bundle.vae
    tensors = {f"{m}.{k}": v for m, module in modules.items() for k, v in module.state_dict().items()}
    return {"tensors": tensors, "said": (bundle.normalizer.to_dict(), bundle.spec, bundle.model.config, bundle.name)}


def same(a: dict[str, Any], b: dict[str, Any], *, said: bool = True) -> bool:
    if said and a["said"] != b["said"]:
        return False
    return a["tensors"].keys() == b["tensors"].keys() and all(
        torch.equal(v, b["tensors"][k]) for k, v in a["tensors"].items()
    )


def edited(folder: Path, out: Path, edit: Callable[[Any], Any], *, signed: bool = True) -> Path:
    """A copy with another configuration, which carries the right checksum as if it had been written so."""
    if out != folder:
        shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config = edit(config) or config
    text = _signed(config) if signed and isinstance(config, dict) else json.dumps(config)
    (out / "config.json").write_text(text, encoding="utf-8")
    return out


def put(place: str, value: Any) -> Callable[[Any], None]:
    def edit(config: Any) -> None:
        *parents, last = place.split(".")
        for part in parents:
            config = config[part]
        config[last] = value

    return edit
