"""Weights folders that are damaged, edited or mean harm: an error that names file and field, or the right weights."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import uva_agents as uva
from tests import hostile_files as hostile
from tests.tiny import tiny_bundle, tiny_two_frame_bundle
from tests.weights_folders import KINDS, LOADERS, edited, facts, put, same, write
from uva_agents.checkpoints import info, save_bundle, save_net, shipped_names
from uva_agents.checkpoints import load_bundle as load_uva
from uva_agents.checkpoints import load_two_frame as load_pair
from uva_agents.checkpoints.folder import SHIPPED, read_config
from uva_agents.checkpoints.limits import SCHEMA
from uva_agents.checkpoints.tensor_files import checksum
from uva_agents.cli import main
from uva_agents.errors import InputError, WeightsError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of every kind."""
    base = tmp_path_factory.mktemp("whole")
    return {kind: write(kind, base / kind) for kind in KINDS}


# -- one field -------------------------------------------------------------------------------------------------------

FIELDS: list[tuple[str, str, list[Any]]] = [
    ("uva", "model.encoder_depth", [10**9, -1, 2, 1.0, "1", True, None, [1]]),
    ("uva", "model.heads", [-2, 0, 3, 10**9, 2.0]),
    ("uva", "model.action_dim", [10**10, 0, 3]),
    ("uva", "model.image_size", [10**9, 0, 64, 100]),
    ("uva", "model.video_head.depth", [10**9, 1]),
    ("uva", "model.video_head", [None, 3, []]),
    ("uva", "model.video_head.prediction", ["velocity", 3, None]),
    ("uva", "model.vae.channels", [10**7, 0, 50]),
    ("uva", "model.vae.channel_mult", [[], 3, [1] * 1000, [1, "2", 3], [float("nan")]]),
    ("uva", "model.vae.kind", ["none", 3]),
    ("uva", "model.n_frames", [0, 3, 10**9]),
    ("uva", "model.wdith", [32]),
    ("uva", "model.predict_actions", [1, "yes"]),
    ("uva", "model", [None, [], "x", {}]),
    ("uva", "normalizer", [None, [], {}, 3]),
    ("uva", "normalizer.action.scale", [[0.0, 1.0], [float("nan"), 1.0], [1.0], [1.0] * 3, [], "x", [1, "2"], [1e300, 1]]),
    ("uva", "normalizer.agent_pos.offset", [[float("inf"), 1.0], None, [1.0] * 7, 5]),
    ("uva", "normalizer.agent_pos", [None, {"scale": [1.0, 1.0]}, {"scale": [1.0, 1.0], "offset": [0.0, 0.0], "x": 1}]),
    ("uva", "interface", [None, [], "x", {}]),
    ("uva", "interface.control_hz", [0, 1e-300, -1, "10", float("nan"), True, float("inf"), 10**400]),
    ("uva", "interface.execute", [True, 8.5, 0, 17, "8", None, 10**400]),
    ("uva", "interface.action_offset", [99, -1, 0.5]),
    ("uva", "interface.image_shape", [[0, 96], [96], [10**9, 96], "96", [96.0, 96.0]]),
    ("uva", "interface.action_low", [[0.0], [float("nan"), 0.0], [600.0, 0.0], [0.0, 512.0], [0.0, 511.99999999], "x", ["a", "b"]]),
    ("uva", "interface.action_pose", ["relative", "x", 1]),
    ("uva", "interface.action_transforms", [None, ["absolute-poses"], [{"kind": "absolute-poses"}], [{"kind": 1}], [{}]]),
    ("uva", "interface.proprio_key", [None, 3, "x" * 5000]),
    ("uva", "interface.keypoint_keys", [["keypoints"], ["nothing"], "action", [3]]),
    ("uva", "interface.exceute", [8]),
    ("uva", "name", [3, None, ["x"]]),
    ("uva", "kind", [None, 3, ["uva"], "quantum"]),
    ("uva", "format", [None, 3, "uva-agents/2", []]),
    ("unet", "model.denoiser.kind", [None, "mlp", 3]),
    ("unet", "model.denoiser.stages", [[16], [0, 32], [16, 10**9], [16] * 100]),
    ("unet", "model.denoiser.kernel", [4, 0, 3]),
    ("unet", "model.denoiser", [None, [], "unet", {"kind": "transformer"}]),
    ("unet", "model.horizon", [0, 15, 10**9, 8]),
    ("unet", "model.train_steps", [0, 10**12]),
    ("unet", "model.encoder.crop", [0, 97, 10**9]),
    ("unet", "model.encoder.stem", [[7], [7, 0], [7, 4, 1]]),
    ("unet", "model.encoder.widths", [[16], [17, 32], []]),
    ("unet", "interface.execute", [17]),
    ("points", "model.relations", [10**9, 16, 0]),
    ("points", "model.encoder.points", [1, 2, 10**9]),
    ("points", "model.max_step", [[0.1], [0, 0.1], [float("nan"), 1]]),
    ("transformer", "model.denoiser.heads", [3, 0]),
    ("transformer", "model.denoiser.depth", [10**9, 3]),
    ("pair", "model.stride", [0, 2, 10**9]),
    ("pair", "model.encoder.frames", [1, 3, 10**9]),
    ("pair", "model.width", [0, 17, 10**12]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "place", "values"), FIELDS, ids=[f"{kind}-{place}" for kind, place, _ in FIELDS])
def test_a_field_that_is_wrong_is_named_before_anything_is_built(
    whole: dict[str, Path], tmp_path: Path, kind: str, place: str, values: list[Any]
) -> None:
    for i, value in enumerate(values):
        folder = edited(whole[kind], tmp_path / f"copy{i}", put(place, value))
        with pytest.raises(WeightsError) as caught:
            LOADERS[kind](folder, device="cpu")
        message = str(caught.value)
        assert str(folder) in message and "\n" not in message and len(message) < 1000
        if place.startswith("interface.") or (place not in ("kind", "format") and isinstance(value, str | None | bool)):
            assert place.split(".")[-1].split("_")[0] in message, (place, value, message)


def test_a_missing_field_is_named_with_close_matches(whole: dict[str, Path], tmp_path: Path) -> None:
    for entry in ("model", "normalizer", "interface"):
        with pytest.raises(WeightsError, match=f"no entry '{entry}'"):
            load_uva(edited(whole["uva"], tmp_path / entry, lambda c, e=entry: c.pop(e) and None))  # type: ignore[misc]
    with pytest.raises(WeightsError, match=r"'wdith'.*did you mean 'width'"):
        load_uva(edited(whole["uva"], tmp_path / "typo", put("model.wdith", 32)))
    with pytest.raises(WeightsError, match=r"'interfaces'.*did you mean 'interface'"):
        load_uva(edited(whole["uva"], tmp_path / "top", lambda c: c.update(interfaces=c.pop("interface"))))
    with pytest.raises(WeightsError, match="no field 'action_high'"):
        load_uva(edited(whole["uva"], tmp_path / "high", lambda c: c["interface"].pop("action_high") and None))


CONFIGS: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "a text": b'"uva-agents/1"',
    "binary": bytes(range(256)),
    "zeros": bytes(1000),
    "another encoding": '{"format": "ü"}'.encode("utf-16"),
    "half": b'{"format": "uva-agents/1", "model": {',
    "deep": b"[" * 100_000,
    "deep inside": b'{"format": "uva-agents/1", "x": ' + b"[" * 950 + b"]" * 950 + b"}",
    "a field twice": b'{"format": "uva-agents/1", "format": "uva-agents/1"}',
    "a number of 5,000 digits": b'{"format": ' + b"1" * 5000 + b"}",
    "a large file": b'{"format": "' + b"x" * (5 << 20) + b'"}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_no_configuration_is_refused_by_every_command(
    whole: dict[str, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "w"
    shutil.copytree(whole["pair"], folder)
    (folder / "config.json").write_bytes(CONFIGS[name])
    with pytest.raises(WeightsError, match=str(folder)):
        load_pair(folder)
    assert main(["info", str(folder)]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "missing"])
def test_only_regular_files_are_opened(whole: dict[str, Path], tmp_path: Path, file: str, what: str) -> None:
    folder = tmp_path / "w"
    shutil.copytree(whole["pair"], folder)
    path = folder / file
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    with pytest.raises((WeightsError, FileNotFoundError), match=str(folder)):
        load_pair(folder)
    with pytest.raises((WeightsError, FileNotFoundError), match=str(folder)):
        info(folder)


@pytest.mark.parametrize("name", ["x" * 5000, "..", ".", "no/such/folder", "pusht-mano", "a\0b", __file__])
def test_names_that_are_none_are_not_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (
        uva.Policy.from_pretrained,
        uva.DiffusionPolicy.from_pretrained,
        uva.TwoFrameInverse.from_pretrained,
        info,
    ):
        with pytest.raises(FileNotFoundError, match="weights") as caught:
            load(name)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", [7, None, b"x", "", " ", 1.5, ["pusht-nano"], b"pusht.ckpt"])
def test_what_cannot_be_a_name_is_an_input_error(name: Any) -> None:
    for load in (
        uva.Policy.from_pretrained,
        uva.DiffusionPolicy.from_pretrained,
        uva.TwoFrameInverse.from_pretrained,
        info,
    ):
        with pytest.raises(InputError, match="named by"):
            load(name)


# -- tensors ---------------------------------------------------------------------------------------------------------

TENSORS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "NaN": (lambda t: t * torch.nan, "NaN"),
    "infinity": (lambda t: t.float() / 0, "infinite"),
    "int8": (lambda t: t.to(torch.int8), "type int8"),
    "bool": (lambda t: t.bool(), "type bool"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "type F8"),
    "complex": (lambda t: t.to(torch.complex64), "type C64"),
    "doubled": (lambda t: t.repeat(2, 1), r"head\.0\.weight"),
    "flat": (lambda t: t.flatten(), r"head\.0\.weight"),
    "empty": (lambda t: t[:0].clone(), r"head\.0\.weight"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_other_kinds_are_named(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    change, words = TENSORS[name]
    folder = tmp_path / "w"
    shutil.copytree(whole["pair"], folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["head.0.weight"] = change(tensors["head.0.weight"])
    save_file(tensors, folder / "model.safetensors")
    edited(folder, folder, lambda c: c.pop("files") and None)  # as an older version wrote it: without checksums
    with pytest.raises(WeightsError, match=words) as caught:
        load_pair(folder)
    assert "head.0.weight" in str(caught.value) and str(folder) in str(caught.value)


def test_weights_that_are_not_finite_or_too_large_for_their_type_are_not_written(tmp_path: Path) -> None:
    bundle = tiny_two_frame_bundle()
    with torch.no_grad():
        bundle.model.head[0].weight[0, 0] = 1e5
    with pytest.raises(WeightsError, match=r"'head\.0\.weight' has numbers beyond float16"):
        save_net(bundle, tmp_path / "w")
    assert not list((tmp_path / "w").iterdir()), "nothing of it is left"
    assert load_pair(save_net(bundle, tmp_path / "w", dtype=torch.float32)).model.head[0].weight[0, 0] == 1e5
    with torch.no_grad():
        bundle.model.head[0].weight[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="not written"):
        save_net(bundle, tmp_path / "w", dtype=torch.float32)
    assert load_pair(tmp_path / "w").name == "tiny-pair", "what was there is still there"


def test_a_changed_byte_is_seen_and_older_folders_load(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "w"
    shutil.copytree(whole["pair"], folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors.*checksum"):
        load_pair(folder)
    with pytest.raises(WeightsError, match="checksum"):
        info(folder)
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"control_hz": 10.0', '"control_hz": 18.0'), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json.*checksum"):
        load_pair(folder)
    plain = {k: v for k, v in json.loads(text).items() if k not in ("files", "checksum")}
    config.write_text(json.dumps(plain), encoding="utf-8")
    assert load_pair(folder).name == "tiny-pair"


def test_a_configuration_that_an_editor_began_with_a_mark_is_read(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = edited(whole["uva"], tmp_path / "marked", lambda c: None)
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert same(facts(load_uva(folder)), facts(load_uva(whole["uva"])))


def test_a_header_that_names_a_tensor_twice_is_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "w"
    shutil.copytree(whole["pair"], folder)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    first = header.index(b'"head.0.bias":')
    entry = header[first : header.index(b"}", first) + 1]
    other = header[:1] + entry.replace(b"[16]", b"[1]") + b"," + header[1:]
    other += b" " * (-len(other) % 8)
    path.write_bytes(len(other).to_bytes(8, "little") + other + content[8 + length :])
    edited(folder, folder, lambda c: c.pop("files") and None)
    found, _ = hostile.outcome(lambda: facts(load_pair(folder, device="cpu")))
    assert found is None or same(found, facts(load_pair(whole["pair"], device="cpu")))


def test_deviations_of_zero_are_refused_as_scales_of_zero_are(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    bundle.model.token_std[0, 0] = 0
    with pytest.raises(WeightsError, match="token_std"):
        load_uva(save_bundle(bundle, tmp_path / "w"))


def test_whoever_reads_while_weights_are_replaced_gets_the_one_or_the_other(tmp_path: Path) -> None:
    bundles = [tiny_two_frame_bundle(seed) for seed in (0, 1)]
    right = [facts(load_pair(save_net(b, tmp_path / f"w{i}"), device="cpu")) for i, b in enumerate(bundles)]
    folder, done = save_net(bundles[0], tmp_path / "w"), threading.Event()

    def write_again() -> None:
        for turn in range(40):
            save_net(bundles[turn % 2], folder)
        done.set()

    writer = threading.Thread(target=write_again)
    writer.start()
    while not done.is_set():
        found, _ = hostile.outcome(lambda: facts(load_pair(folder, device="cpu")))
        if found is not None:
            matches = [same(found, wanted) for wanted in right]
            assert any(matches), "parts of both"
    writer.join()
    assert same(facts(load_pair(folder, device="cpu")), right[1])


def test_every_shipped_file_has_its_checksum() -> None:
    for name in shipped_names():
        config = read_config(SHIPPED / name)
        assert "checksum" in config
        assert config["files"] == {p.name: checksum(p) for p in (SHIPPED / name).glob("*.safetensors")}


def test_weights_are_written_for_everybody_who_may_read(whole: dict[str, Path]) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for folder in whole.values():
        assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o666 & ~mask}


def test_loading_draws_no_random_numbers(whole: dict[str, Path]) -> None:
    before = torch.random.get_rng_state()
    for kind, folder in whole.items():
        LOADERS[kind](folder, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_number_of_every_configuration_has_a_range() -> None:
    import dataclasses
    from typing import get_type_hints

    for cls, ranges in SCHEMA.ranges.items():
        hints = get_type_hints(cls)
        numbers = {f.name for f in dataclasses.fields(cls) if any(t in str(hints[f.name]) for t in ("int", "float"))}  # type: ignore[arg-type]
        assert numbers == set(ranges), cls
