"""Released checkpoints that are damaged or altered: an error that names the tensor or setting, or the right weights."""

import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import hostile_files as hostile
from tests import released
from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.official.archive import UnsafeCheckpointError, read_archive
from uva_agents.checkpoints.official.load import load_official
from uva_agents.checkpoints.official.plain import plain
from uva_agents.checkpoints.store import load_bundle
from uva_agents.cli import main
from uva_agents.errors import WeightsError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A released file in both formats."""
    folder = tmp_path_factory.mktemp("whole")
    state, _, _ = released.state_of("pusht")
    path = released.write(folder / "zip.ckpt", "pusht", state)
    old = folder / "legacy.ckpt"
    torch.save({"cfg": {"model": {"policy": {"autoregressive_model_params": {"num_heads": 2}}}},
                "state_dicts": {"ema_model": state}}, old, _use_new_zipfile_serialization=False)  # fmt: skip
    return {"zip": path, "legacy": old}


def same(a: Bundle, b: Bundle) -> bool:
    for one, other in ((a.model, b.model), (a.vae, b.vae)):
        wanted = other.state_dict()
        if not all(torch.equal(tensor, wanted[name]) for name, tensor in one.state_dict().items()):
            return False
    return a.normalizer.to_dict() == b.normalizer.to_dict() and a.spec == b.spec


def begin_of_numbers(path: Path) -> int:
    """Where the older format's numbers begin, which have no checksum there."""
    tensors = torch.load(path, weights_only=True)["state_dicts"]["ema_model"].values()
    return path.stat().st_size - sum(8 + 4 * tensor.numel() for tensor in tensors)


def check_damaged_copies(whole: dict[str, Path], folder: Path, seeds: range) -> dict[str, int]:
    right = {name: load_official(path, device="cpu")[0] for name, path in whole.items()}
    content = {name: path.read_bytes() for name, path in whole.items()}
    ends = {"zip": None, "legacy": begin_of_numbers(whole["legacy"])}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {"error": 0, "right": 0}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        name = ("zip", "legacy")[seed % 2]
        # Most of a zip is numbers; half of the damage goes to where the structure is.
        near = content["zip"].index(b"FB") if seed % 4 == 0 else ends[name]
        path = folder / f"{name}.ckpt"
        path.write_bytes(hostile.damaged(content[name], rng, end=near))
        loaded, message = hostile.outcome(lambda path=path: load_official(path, device="cpu"))  # type: ignore[misc]
        if loaded is None:
            assert str(path) in message, f"seed {seed}: {message}"
            counts["error"] += 1
            continue
        assert same(loaded[0], right[name]), f"seed {seed}: other weights without a word"
        counts["right"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20, f"{grown} KiB"
    return counts


def test_damaged_checkpoints_are_errors_or_right(whole: dict[str, Path], tmp_path: Path) -> None:
    counts = check_damaged_copies(whole, tmp_path, range(60))
    assert counts["error"] > 20, counts


@pytest.mark.long
def test_five_hundred_damaged_checkpoints_are_errors_or_right(whole: dict[str, Path], tmp_path: Path) -> None:
    counts = check_damaged_copies(whole, tmp_path, range(1000, 1500))
    assert counts["error"] > 200, counts


def check_pickles(whole: Path, folder: Path, seeds: range) -> None:
    """Damage that the archive's checksum goes with, as if the file had been made so."""
    with zipfile.ZipFile(whole) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    content = records.pop("data.pkl")
    for seed in seeds:
        damaged = hostile.damaged(content, np.random.default_rng(seed))
        path = hostile.zip_file(folder / "x.ckpt", damaged, records=records)
        loaded, message = hostile.outcome(lambda path=path: load_official(path, device="cpu"))  # type: ignore[misc]
        assert loaded is not None or (str(path) in message and len(message) < 1500), f"seed {seed}: {message}"


def test_damaged_pickles_are_errors_of_one_kind(whole: dict[str, Path], tmp_path: Path) -> None:
    check_pickles(whole["zip"], tmp_path, range(40))


@pytest.mark.long
def test_many_damaged_pickles_are_errors_of_one_kind(whole: dict[str, Path], tmp_path: Path) -> None:
    check_pickles(whole["zip"], tmp_path, range(1000, 2000))


@pytest.mark.parametrize("compress", [False, True])
def test_a_flipped_bit_in_a_record_is_seen(whole: dict[str, Path], tmp_path: Path, compress: bool) -> None:
    path = hostile.rewritten(whole["zip"], tmp_path / "x.ckpt", compress=compress)
    assert same(load_bundle(path, device="cpu"), load_bundle(whole["zip"], device="cpu")), "and whole, it is the same"
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if "/data/" in i.filename and i.file_size > 4000)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_official(path, device="cpu")


def test_the_byte_order_of_other_machines_is_read(whole: dict[str, Path], tmp_path: Path) -> None:
    path = hostile.rewritten(whole["zip"], tmp_path / "zip.ckpt", big=True)
    assert same(load_bundle(path, device="cpu"), load_bundle(whole["zip"], device="cpu"))


def test_numbers_that_unpack_to_far_more_than_the_file_are_refused(tmp_path: Path) -> None:
    count = 40 << 20
    state = hostile.dict_of(**{"model.z_proj_cond.weight": hostile.tensor(count, (count,), (1,))})
    path = hostile.zip_file(
        tmp_path / "x.ckpt", hostile.payload(state=state), compress=True, records={"data/0": bytes(4 * count)}
    )
    with pytest.raises(UnsafeCheckpointError, match="times its size"):
        next(iter(read_archive(path)["state_dicts"]["ema_model"].values())).load()
    with pytest.raises(WeightsError):
        load_official(path)


# -- honest files, altered -------------------------------------------------------------------------------------------

State = dict[str, torch.Tensor]


def without(name: str) -> Callable[[State], Any]:
    return lambda state: state.pop(name)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], Any]:
    return lambda state: state.update({name: change(state[name])})


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = torch.nan
    return tensor


CONV, FC1 = "vae_model.encoder.conv_in.weight", "model.encoder_blocks.0.mlp.fc1.weight"
DOWN = "vae_model.encoder.down.4.block.0.conv1.weight"
SCALE = "normalizer.params_dict.action.scale"
ALTERED: dict[str, tuple[Callable[[State], Any], str]] = {
    "no first convolution": (without(CONV), r"encoder\.conv_in"),
    "no level": (without(DOWN), r"encoder\.down\.4"),
    "no layer": (without(FC1), r"mlp\.fc1"),
    "no action layer": (without("model.action_proj_cond.weight"), r"action_proj_cond\.weight'.*closest"),
    "NaN": (changed(FC1, with_nan), r"1 of the .* numbers of 'model\.encoder_blocks\.0\.mlp\.fc1\.weight'"),
    "infinity": (changed(FC1, lambda t: t / 0), "infinite"),
    "int8": (changed(FC1, lambda t: t.to(torch.int8)), "type int8"),
    "bool": (changed(FC1, lambda t: t.bool()), "type bool"),
    "complex": (changed(FC1, lambda t: t.to(torch.complex64)), "type complex64"),
    "float8": (changed(FC1, lambda t: t.to(torch.float8_e4m3fn)), "_rebuild_tensor_v3"),
    "scale of zero": (changed(SCALE, lambda t: t * 0), r"normalizer\.action\.scale\[0\]"),
    "scale of NaN": (changed(SCALE, lambda t: t * torch.nan), "NaN"),
    "scale of another size": (changed(SCALE, lambda t: t.repeat(3)), "2 numbers"),
    "no offset": (without("normalizer.params_dict.action.offset"), "not both"),
    "a flat layer": (changed("model.z_proj_cond.weight", lambda t: t.flatten()), "2 axes"),
    "no positions": (changed("model.spatial_pos_embed", lambda t: t[:, :0]), "at least 1"),
    "positions of no square": (changed("model.spatial_pos_embed", lambda t: t[:, :-1]), "square"),
    "a billion blocks": (lambda s: s.update({"model.encoder_blocks.999999999.norm1.weight": torch.zeros(32)}), "numbered from 0"),
    "a billion levels": (lambda s: s.update({DOWN.replace("4", "9" * 11): torch.zeros(1)}), "numbered"),
    "a long name": (lambda s: s.update({"model." + "x" * 5000: torch.zeros(1)}), "characters"),
    "a number for a name": (lambda s: s.update({7: torch.zeros(1)}), "called 7"),  # type: ignore[dict-item]
    "a tensor twice": (lambda s: s.update({"model.history_proj.weight": torch.zeros(1)}), "the same tensor"),
    "a tensor twice, wrapped": (lambda s: s.update({"model.module.z_proj_cond.weight": torch.zeros(1)}), "twice"),
    "attention that is a convolution": (
        changed("vae_model.encoder.mid.attn_1.q.weight", lambda t: t.repeat(1, 1, 3, 3)), r"attn_1\.q\.weight.*3, 3",
    ),
    "text for a tensor": (lambda s: s.update({FC1: "x"}), "no tensor"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_altered_tensors_are_named(tmp_path: Path, name: str) -> None:
    state, _, _ = released.state_of("pusht")
    change, words = ALTERED[name]
    change(state)
    path = released.write(tmp_path / "x.ckpt", "pusht", state)
    with pytest.raises(WeightsError, match=words) as caught:
        load_official(path, device="cpu")
    assert "x.ckpt" in str(caught.value)


POLICY = "model.policy"
SETTINGS: dict[str, Any] = {
    f"{POLICY}.n_action_steps": ["many", 0, -1, 8.5, 99, True, [8]],
    f"{POLICY}.shift_action": ["no", 1],
    f"{POLICY}.different_history_freq": ["yes", 2],
    f"{POLICY}.autoregressive_model_params.encoder_num_heads": [-2, 0, 3, "two", 10**9],
    f"{POLICY}.autoregressive_model_params.patch_size": [0, 2, 10**9, "x"],
    f"{POLICY}.autoregressive_model_params.attn_dropout": [-1, 2, "x"],
    "task.name": [7, ["pusht"]],
    "task.shape_meta.obs": [[1], "x"],
    "task.shape_meta.obs.image.shape": [None, "x", [3, 96], [3, 0, 96], [3, 10**9, 10**9], [3, "a", "b"]],
}


def test_settings_of_wrong_types_and_sizes_are_named(tmp_path: Path, whole: dict[str, Path]) -> None:
    payload = {"state_dicts": {"ema_model": released.state_of("pusht")[0]}}
    for place, values in SETTINGS.items():
        for value in values:
            config: Any = plain(read_archive(whole["zip"])["cfg"])
            *parents, last = place.split(".")
            node = config
            for part in parents:
                node = node[part]
            node[last] = value
            torch.save({**payload, "cfg": config}, tmp_path / "x.ckpt")
            with pytest.raises(WeightsError) as caught:
                load_official(tmp_path / "x.ckpt", device="cpu")
            assert "x.ckpt" in str(caught.value), (place, value)


def test_the_commands_say_it_in_one_line(
    tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = hostile.zip_file(tmp_path / "bad.ckpt", hostile.payload(cfg=hostile.laughs()))
    assert main(["convert", str(bad), str(tmp_path / "out"), "--quiet"]) == 3
    assert main(["convert", str(tmp_path / "none.ckpt"), str(tmp_path / "out"), "--quiet"]) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    assert main(["convert", str(whole["zip"]), str(tmp_path / "mine"), "--quiet", "--force"]) == 2
    assert (tmp_path / "mine" / "thesis.txt").exists() and not (tmp_path / "out").exists()
    assert main(["info", str(whole["zip"])]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and "uva convert" in lines[-1]
    assert main(["convert", str(whole["zip"]), str(tmp_path / "out"), "--quiet"]) == 0
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").iterdir()} == {0o666 & ~_umask()}
    assert sorted(p.name for p in tmp_path.iterdir() if "partial" in p.name) == []
    assert same(load_bundle(tmp_path / "out", device="cpu"), load_bundle(whole["zip"], device="cpu"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
