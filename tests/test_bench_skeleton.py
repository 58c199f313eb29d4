"""What every benchmark gets from the skeleton: options, checked targets, a printed table, files."""

from __future__ import annotations

import json

import pytest

from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_seed
from uva_agents.errors import MachineError


def benchmark(**options):
    calls = []

    def run(args):
        calls.append(args)
        yield f"seed {args.seed}"
        yield "a second line"
        files = {"note.txt": lambda path: path.write_text("hello")}
        return Outcome({"rows": [1, 2]}, files if options.get("folder") else {}, status=1)

    return Benchmark("toy", "A toy.", lambda parser: add_seed(parser, 7), run, **options), calls


def test_numbers_go_where_json_says_with_options_machine_and_versions(tmp_path, capsys):
    toy, _ = benchmark(threads=False)
    path = tmp_path / "new" / "toy.json"
    assert toy.main(["--json", str(path), "--seed", "3"]) == 1
    saved = json.loads(path.read_text())
    assert saved["rows"] == [1, 2] and saved["settings"]["seed"] == 3
    assert saved["hardware"] and "numpy" in saved["versions"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["seed 3", "a second line"] and lines[2].startswith("on ") and "numpy" in lines[2]


def test_without_json_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert benchmark()[0].main([]) == 1
    assert not list(tmp_path.iterdir())


def test_files_go_into_a_folder_that_is_named_by_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy, _ = benchmark(folder="outputs/toy-{seed}")
    assert toy.main([]) == 1
    folder = tmp_path / "outputs" / "toy-7"
    assert {path.name for path in folder.iterdir()} == {"toy.json", "note.txt"}
    assert capsys.readouterr().out.splitlines()[-1] == "outputs/toy-7/toy.json, outputs/toy-7/note.txt"
    with pytest.raises(SystemExit):
        toy.main(["--help"])
    assert "default outputs/toy-SEED" in capsys.readouterr().out


def test_a_target_is_checked_before_the_work(tmp_path):
    for options, words in (({}, ["--json", str(tmp_path)]), ({"folder": "outputs"}, ["--out", str(tmp_path / "file")])):
        (tmp_path / "file").write_text("kept")
        toy, calls = benchmark(**options)
        with pytest.raises(MachineError):
            toy.main(words)
        assert not calls
