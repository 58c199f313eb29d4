"""Damaged copies of small datasets, and what a reader makes of them.

``damages(folder or file, seed)`` damages in place and says what was done; ``outcomes`` runs a reader over many damaged copies in a
process of its own, so that a crash or a hang of a C library is a failed case and not the end of the tests.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import select
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JSON = (".zarray", ".zgroup", ".zattrs", "zarr.json", "metadata.json", "info.json")
ODD = (None, "x", "", -1, 0, 3.5, [], {}, [1], True, 2**62, {"a": 1}, float("nan"))
"""What a value of another type may be."""
SECONDS = 10


@dataclass(frozen=True)
class Damage:
    """What was done.

    Attributes:
        kind: "flip", "cut", "remove", "grow", "json key", "json value", or a name that a format's own damage has.
        where: file, relative to the dataset, or entry of an archive.
        detail: in words.
    """

    kind: str
    where: str
    detail: str


@dataclass
class Outcome:
    """What a reader made of a damaged copy.

    Attributes:
        seed: of the damage.
        kind: "same", "different", "error", "foreign error", "crash" or "hang".
        detail: the error, or what differs.
        notes: what the reader said.
    """

    seed: int
    damage: Damage | None
    kind: str
    detail: Any = ""
    notes: Sequence[str] = field(default_factory=list)


def damaged(path: Path, seed: int, more: Sequence[Callable[[Path, random.Random], Damage | None]] = ()) -> Damage:
    """Damage a dataset, file or folder, in place.

    Args:
        more: further kinds of damage, each chosen as often as any other; ``None`` from one means that it found nothing to damage.
    """
    rng = random.Random(seed)
    kinds: list[Callable[[Path, random.Random], Damage | None]] = [
        _flip,
        _flip,
        _cut,
        _remove,
        _grow,
        _json,
        _json,
        *more,
        *more,
    ]
    while True:
        done = rng.choice(kinds)(path, rng)
        if done is not None:
            return done


def files_of(path: Path) -> list[Path]:
    """Every file of a dataset, sorted."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _pick(path: Path, rng: random.Random) -> tuple[Path, str]:
    file = rng.choice(files_of(path))
    return file, "" if file == path else file.relative_to(path).as_posix()


def _flip(path: Path, rng: random.Random) -> Damage | None:
    file, name = _pick(path, rng)
    content = bytearray(file.read_bytes())
    if not content:
        return None
    places = [rng.randrange(len(content)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return Damage("flip", name, f"bytes {places} of {len(content)}")


def _cut(path: Path, rng: random.Random) -> Damage | None:
    file, name = _pick(path, rng)
    size = file.stat().st_size
    if not size:
        return None
    kept = rng.choice((0, rng.randrange(size), size - 1))
    os.truncate(file, kept)
    return Damage("cut", name, f"{kept} of {size} bytes left")


def _grow(path: Path, rng: random.Random) -> Damage | None:
    file, name = _pick(path, rng)
    extra = rng.randbytes(rng.choice((1, 100)))
    with file.open("ab") as opened:
        opened.write(extra)
    return Damage("grow", name, f"{len(extra)} bytes more")


def _remove(path: Path, rng: random.Random) -> Damage | None:
    if path.is_file():
        return None
    everything = sorted(path.rglob("*"))
    victim = rng.choice(everything)
    name = victim.relative_to(path).as_posix()
    if victim.is_dir():
        shutil.rmtree(victim)
    else:
        victim.unlink()
    return Damage(
        "remove", name, "folder" if not victim.suffix and not name.rpartition("/")[2].startswith(".") else "file"
    )


def _json(path: Path, rng: random.Random) -> Damage | None:
    """A key of some JSON removed, or its value nulled or made another type; in archives, too."""
    if path.is_file():
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        names = sorted(name for name in contents if name.rpartition("/")[2] in JSON)
        if not names:
            return None
        name = rng.choice(names)
        done = change_json(json.loads(contents[name]), rng)
        if done is None:
            return None
        contents[name] = json.dumps(done[0]).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in contents.items():
                archive.writestr(each, content)
        return Damage(done[1], name, done[2])
    found = [file for file in files_of(path) if file.name in JSON]
    if not found:
        return None
    file = rng.choice(found)
    done = change_json(json.loads(file.read_text(encoding="utf-8")), rng)
    if done is None:
        return None
    file.write_text(json.dumps(done[0]), encoding="utf-8")
    return Damage(done[1], file.relative_to(path).as_posix(), done[2])


def change_json(value: Any, rng: random.Random) -> tuple[Any, str, str] | None:
    """One place of a JSON value removed, nulled or retyped; what came of it, the kind, and where."""
    if rng.random() < 0.05:
        odd = rng.choice([v for v in ODD if v == v])
        return odd, "json value", f". = {odd!r}"
    places = list(_places(value, ()))
    if not places:
        return None
    place = rng.choice(places)
    holder = value
    for step in place[:-1]:
        holder = holder[step]
    old = holder[place[-1]]
    where = ".".join(map(str, place))
    if rng.random() < 0.4:
        del holder[place[-1]]
        return value, "json key", f"{where} removed (it was {old!r:.40})"
    new = rng.choice([v for v in ODD if type(v) is not type(old)])
    holder[place[-1]] = new
    return value, "json value", f"{where} = {new!r}"


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


def outcomes(
    make: Callable[[Path, int], tuple[Path, Damage | None]],
    read: Callable[[Path], Any],
    compare: Callable[[Any], str],
    seeds: Sequence[int],
    folder: Path,
    *,
    right: tuple[type[BaseException], ...],
) -> list[Outcome]:
    """Read damaged copies, one after another, in a process of its own.

    Args:
        make: (empty folder, seed) -> path of a damaged copy in it, and what was done.
        read: what is tried.
        compare: what was read -> what differs from what it should be, empty for nothing.
        right: the errors that may come.
    """
    found: list[Outcome] = []
    waiting = list(seeds)
    while waiting:
        folder.mkdir(parents=True, exist_ok=True)
        source, sink = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            os.close(source)
            _work(make, read, compare, waiting, folder, right, sink)
        os.close(sink)
        more = _follow(source, child, waiting)
        found += more
        waiting = waiting[len(more) :]
    return found


def _work(make: Any, read: Any, compare: Any, seeds: Any, folder: Path, right: Any, sink: int) -> None:
    """In the child: a pickled outcome per seed."""

    def say(*message: Any) -> None:
        content = pickle.dumps(message)
        os.write(sink, len(content).to_bytes(8, "little"))
        while content:
            content = content[os.write(sink, content) :]

    try:
        for seed in seeds:
            place = folder / str(seed)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            path, damage = make(place, seed)
            say("begin", damage)
            try:
                difference = compare(read(path))
                outcome = Outcome(seed, damage, "different" if difference else "same", difference)
            except right as error:
                outcome = Outcome(seed, damage, "error", f"{type(error).__name__}: {error}")
            except BaseException as error:
                import traceback

                last = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
                outcome = Outcome(seed, damage, "foreign error", text)
            say("end", outcome)
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os._exit(0)


def _follow(source: int, child: int, seeds: Sequence[int]) -> list[Outcome]:
    """In the parent: outcomes until the child is done, has died, or takes too long over one."""
    found: list[Outcome] = []
    begun: Damage | None = None
    try:
        while len(found) < len(seeds):
            size = _receive(source, 8, child)
            content = _receive(source, int.from_bytes(size, "little"), child) if size else size
            if not content:
                kind = "hang" if content is None else "crash"
                os.kill(child, signal.SIGKILL)
                found.append(Outcome(seeds[len(found)], begun, kind))
                break
            what, value = pickle.loads(content)
            if what == "begin":
                begun = value
            else:
                found.append(value)
    finally:
        os.close(source)
    deadline = time.monotonic() + SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return found


def _receive(source: int, size: int, child: int) -> bytes | None:
    """So many bytes; none if the other end is gone, ``None`` if it hangs: works too long for them, or waits for ever."""
    content = b""
    worked, waited = _worked(child), 0
    while len(content) < size:
        if not select.select([source], [], [], SECONDS)[0]:
            waited += 1
            # On a busy machine a second is little work: what counts is the child's own time.
            if _worked(child) - worked > SECONDS or waited > 12:
                return None
            continue
        piece = os.read(source, size - len(content))
        if not piece:
            return b""
        content += piece
    return content


def _worked(child: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
