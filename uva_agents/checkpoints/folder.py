"""A folder of weights, of whatever kind: ``config.json``, ``*.safetensors`` and a model card."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uva_agents.checkpoints.kinds import UVA_WEIGHTS, WeightsKind, weights_kind
from uva_agents.checkpoints.schema import closest, did_you_mean, shown
from uva_agents.checkpoints.tensor_files import Verify, checksum, save_tensors
from uva_agents.errors import DataError, InputError, MachineError, WeightsError
from uva_agents.utils.files import read_regular_text, replacing, write_text

FORMAT = "uva-agents/1"
SHIPPED = Path(__file__).parent / "weights"
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth")
_MAX_CONFIG = 4 << 20
_ENTRIES = ("format", "kind", "name", "model", "normalizer", "interface", "text", "files", "checksum")


def shipped_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(p.name for p in SHIPPED.glob("*") if (p / "config.json").exists())


def check_name(name_or_path: str | Path) -> str:
    """A name or path of weights as text.

    Raises:
        InputError: it is neither, or empty.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise InputError(
            f"weights are named by a text or a path, got {shown(name_or_path)} ({type(name_or_path).__name__})"
        )
    name = os.fspath(name_or_path)
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            "weights are named by a text: a shipped name, a weights folder or a .ckpt file, got an empty one"
        )
    return name


def is_checkpoint_file(name_or_path: str | Path) -> bool:
    """Whether it names a torch file rather than a weights folder or a shipped name.

    Raises:
        InputError: it is no name.
    """
    name = check_name(name_or_path)
    return name.endswith(CHECKPOINT_SUFFIXES) and not (_exists(Path(name) / "config.json"))


def resolve(name_or_path: str | Path) -> Path:
    """Folder of a shipped name or of a path.

    Raises:
        InputError: it is no name.
        FileNotFoundError: neither; names the close matches.
    """
    name = check_name(name_or_path)
    path = Path(name)
    if _exists(path / "config.json"):
        return path
    names = shipped_names()
    if name in names:
        return SHIPPED / name
    close = closest(name, names)
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"shipped weights: {', '.join(names) or 'none'}"
    )
    if _exists(path):
        if path.is_dir():
            raise FileNotFoundError(f"{path} has no config.json: it is not a weights folder; {hint}")
        raise FileNotFoundError(f"{path} is a file: give the weights folder that it is in; {hint}")
    raise FileNotFoundError(f"no weights called {shown(name)}, and no such folder; {hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than the system allows, or with a zero in it
        return False


def write_folder(
    folder: str | Path,
    kind: WeightsKind,
    modules: Mapping[str, nn.Module],
    config: Mapping[str, Any],
    *,
    card: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write ``NAME.safetensors`` for every module; the configuration is written last, so a partial folder never loads.

    Whoever reads meanwhile finds the old weights, or no configuration, or by the checksums that they do not belong together.

    Args:
        config: entries of ``config.json``; format, kind and checksums are added.
        card: text of the model card (``README.md``).
        dtype: of the tensors on disk.

    Raises:
        WeightsError: the weights are not finite, or not in ``dtype``.
        MachineError: the folder cannot be written.
    """
    folder = Path(folder)
    files = {}
    with contextlib.ExitStack() as stack:  # files take their places in reverse order: the configuration comes last
        config_partial = stack.enter_context(replacing(folder / "config.json"))
        for name, module in modules.items():
            path = stack.enter_context(replacing(folder / f"{name}.safetensors"))
            save_tensors(path, module, dtype)
            files[f"{name}.safetensors"] = checksum(path)
        values = {"format": FORMAT, "kind": kind.name, **config, "files": files}
        config_partial.write_text(_signed(values), encoding="utf-8")
        if card is not None:
            write_text(folder / "README.md", card)
        (folder / "config.json").unlink(
            missing_ok=True
        )  # what is there is about to be replaced: not loadable meanwhile
    return folder


def _signed(values: Mapping[str, Any]) -> str:
    values = json.loads(json.dumps({k: v for k, v in values.items() if k != "checksum"}))
    return json.dumps({**values, "checksum": _config_checksum(values)}, indent=1) + "\n"


def _config_checksum(values: Mapping[str, Any]) -> str:
    """Of everything but itself, however it is laid out."""
    content = {k: v for k, v in values.items() if k != "checksum"}
    return f"crc32:{zlib.crc32(json.dumps(content, sort_keys=True, separators=(',', ':')).encode()):08x}"


def read_config(folder: Path, kind: WeightsKind | None = None) -> dict[str, Any]:
    """The folder's ``config.json``, checked for format, checksum and, where given, for the kind that is wanted.

    Raises:
        WeightsError: damaged, of another version, or of another kind (then it names the class to load it with).
    """
    path = folder / "config.json"
    try:
        text = read_regular_text(path, limit=_MAX_CONFIG).removeprefix("\ufeff")  # some editors begin with one
        config = json.loads(text, object_pairs_hook=_unique)
        config_checksum = _config_checksum(config) if isinstance(config, dict) else ""
    except DataError as error:
        raise WeightsError(str(error)) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise WeightsError(f"{path} is damaged: {reason}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} holds {shown(config)}, not an object with fields: it is no weights folder's")
    if config.get("format") != FORMAT:
        raise WeightsError(f"{folder} has format {shown(config.get('format'))}, this version reads {FORMAT!r}")
    found = kind_of(config, folder)
    if kind is not None and found.name != kind.name:
        raise WeightsError(f"{folder} holds {found.name} weights, not {kind.name}: load it with {found.loaded_with}")
    for name in config:
        absent = [entry for entry in _ENTRIES if entry not in config]
        if name not in _ENTRIES and closest(name, absent, cutoff=0.75):
            raise WeightsError(f"{path} has an unknown field {shown(name)}{did_you_mean(name, absent)}")
    if config.get("checksum", config_checksum) != config_checksum:
        raise WeightsError(
            f"{path} is damaged, or was edited: its checksum is not {shown(config['checksum'])}; copy it again, or take out its "
            "entry 'checksum' if the edit was meant"
        )
    if not isinstance(config.get("name", ""), str):
        raise WeightsError(f"{path}: name is {shown(config['name'])}, not a text")
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in {n for n, _ in pairs[:i]})
        raise ValueError(f"field {shown(twice)} is there twice")
    return values


def entry(config: Mapping[str, Any], name: str, folder: Path) -> Any:
    """An entry that every configuration has.

    Raises:
        WeightsError: this one has not.
    """
    if name not in config:
        raise WeightsError(
            f"{folder / 'config.json'} has no entry {name!r}: it is damaged, or was written by something else"
        )
    return config[name]


def verifier(config: Mapping[str, Any], path: Path) -> Verify | None:
    """What compares a file with its checksum; ``None`` where the configuration, of before they were kept, has none."""
    if "files" not in config:
        return None
    return partial(_verify, config["files"], path)


def _verify(files: Any, path: Path) -> None:
    wanted = files.get(path.name) if isinstance(files, dict) else None
    found = checksum(path)
    if wanted != found:
        raise WeightsError(
            f"{path} is damaged, or not the file that was written with its config.json: its checksum is {found}, not "
            f"{shown(wanted)}; copy it again, or take the entries 'files' and 'checksum' out of config.json if this was meant"
        )


def kind_of(config: Mapping[str, Any], folder: Path) -> WeightsKind:
    """What a configuration describes; UVA's weights where it does not say: there was no other kind at first.

    Raises:
        WeightsError: a kind that neither this version nor an installed package knows.
        MachineError: see :func:`~uva_agents.checkpoints.kinds.weights_kind`.
    """
    value = config.get("kind", UVA_WEIGHTS.name)
    if not isinstance(value, str):
        raise WeightsError(f"{folder} holds {shown(value)} weights, a kind is named by a text")
    try:
        return weights_kind(value)
    except InputError as error:
        raise WeightsError(f"{folder} holds {shown(value)} weights: {error}") from error


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` -> CUDA if there is one, else CPU.

    Raises:
        InputError: no name of a device.
        MachineError: a device that this machine, or this build of torch, does not have.
    """
    if not isinstance(device, str | torch.device):
        raise InputError(f'device must be a name such as "auto", "cpu" or "cuda:0", got {type(device).__name__}')
    if isinstance(device, str) and device.strip().lower() == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'no device is called {str(device)[:80]!r}: use "auto", "cpu", "cuda" or "cuda:1"') from error
    if wanted.type == "cpu":
        if wanted.index:
            raise InputError(f'there is one CPU device, not {str(device)!r}: use "cpu"')
        return wanted
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not torch.backends.cuda.is_built():
            raise MachineError(
                f'device {str(device)!r}: this torch {torch.__version__} is built without CUDA; use device="cpu", or install '
                "a build with CUDA from pytorch.org"
            )
        if (wanted.index or 0) >= count:
            there = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
            raise MachineError(
                f'device {str(device)!r}: torch sees {there} here; use device="cpu" or another number, and check nvidia-smi '
                "and CUDA_VISIBLE_DEVICES"
            )
        return wanted
    try:
        # torch knows names of many backends, and which of them are here only by trying.
        torch.empty(1, device=wanted).cpu()
    except Exception as error:  # every backend has errors of its own
        raise MachineError(
            f'device {str(device)!r} does not work with this build of torch or on this machine; use device="cpu"'
        ) from error
    return wanted
