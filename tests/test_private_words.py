"""Names, docstrings and pages speak the field's language: no private word is left, no class name means two things."""

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "uva_agents"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(
    [
        *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
        *(PACKAGE / "checkpoints" / "weights").glob("*/README.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / "examples").glob("*.py"),
    ]
)

# What is wrong as a part of any name, and in prose -> what the field says.
COMPONENTS = {
    "sketch": "rendered prior, or planar simulator",
    "guess": "modes of a mixture prior, or estimate",
    "point_reader": "keypoint detector",
    "point_writer": "renderer",
    "point_dynamics": "keypoint dynamics",
    "step_dynamics": "recurrent dynamics",
    "readout": "auxiliary state head",
    "warmth": "noise scale",
    "hungry": "needs_replan",
    "look_ahead": "prefetch encoding",
    "last_seen": "camera freshness probe",
    "judgement": "costs and validity mask",
    "governor": "trajectory filter",
    "fence": "safety envelope",
    "chunker": "chunk source",
    "rig": "arm system",
    "limp": "damped, or passive",
    "streamline": "optimise for inference",
}
# What says nothing as a name: a name says what the thing is.
IDENTIFIERS = {"told", "some", "mine", "said", "early", "doing", "fresh", "following", "untouched", "turned"}
# Words with an ordinary meaning too: wrong in the name of a class ...
IN_CLASSES = {
    "points", "point", "share", "spread", "turns", "things", "early", "following", "looks", "look", "bound", "body", "account",
    "room", "course", "burst", "tight", "firm", "slots", "films", "moment", "wanted", "reader", "geometry", "driver", "stage",
    "reach",
}  # fmt: skip
# ... and as any name in the folders where they meant something private.
IN_FOLDERS = {
    "envs/arx_x5": {"course", "room", "burst", "tight", "firm", "look", "body", "account", "refused"},
    "realtime": {"body", "account", "course", "burst"},
    "benchmarks": {"slots", "driver", "films", "film", "moment"},
    "model/keypoints": {"points", "reach", "course", "writer", "reader"},
    "model/baselines": {"points", "share", "spread", "turns", "things", "geometry"},
    "model/uva": {"points", "spread", "reader", "writer"},
    "agents": {"points", "look", "body"},
    "training": {"points"},
    "planners": {"looks", "bound"},
}
ALLOWED = {
    "gripper_open_readout": "a field of ARX's SDK",
    "Stage": "of a training run, as in 'two-stage training'",
    "Reach": "the reaching task of robot learning",
    "Driver": "of a device",
    "EarlyStopping": "of training, as in every other trainer",
    "FilmBlock": "feature-wise linear modulation (FiLM)",
}
"""Names, or the last words of class names, that are the field's after all."""
OF_THEN = {"old_names.py", "saved_recipes.py"}
"""Tables of the names in files that earlier versions saved."""
NOTEBOOK = ROOT / "docs" / "experiments.md"
"""What was tried, under the names of the time; the page begins with what they are called now."""

PROSE = re.compile(
    r"\b(sketch(?:e[sd])?|guesses|point[- ](?:reader|writer|dynamics)s?|read-?outs?|warmth|hungry|look_ahead|last_seen|judgements?"
    r"|governors?|fences?|chunkers?|rigs?|limp|streamlin\w+)\b",
    re.IGNORECASE,
)
LONGEST = 350
TABLES_OF_DATA: set[str] = set()
"""Files that may be longer. None is, so far."""


def words(name: str) -> str:
    """CamelCase and snake_case as ``snake_case``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def names(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Every name in a module, its line, and whether it is a class's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, node.lineno, True
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, False
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno, False
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno, False
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno, False
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno, False


def prose(source: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Docstrings, messages (texts of several words) and comments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value, node.lineno
    for number, line in enumerate(source.splitlines(), 1):
        if comment := re.search(r"(?:^|\s)#\s.*", line):
            yield comment[0], number


def private(name: str, is_class: bool, folder: str) -> str | None:
    """Why this name is wrong; ``None`` if it is not."""
    plain = words(name)
    if name in ALLOWED or plain in ALLOWED:
        return None
    for word, term in COMPONENTS.items():
        if re.search(rf"(?:^|_){word}(?:s|es|ed|d)?(?:_|$)", plain):
            return term
    if plain in IDENTIFIERS:
        return "what the thing is"
    if is_class and IN_CLASSES & set(plain.split("_")) and not name.endswith(tuple(ALLOWED)):
        if any(word in name for word in ("Stage", "Driver")):  # StageConfig, DriverError
            return None
        return "a class says what it is"
    for where, those in IN_FOLDERS.items():
        if folder.startswith(where) and plain in those:
            return "what it is here"
    return None


@functools.cache
def modules() -> list[tuple[Path, str, ast.Module]]:
    sources = [(path, path.read_text(encoding="utf-8")) for path in SOURCES]
    return [(path, source, ast.parse(source)) for path, source in sources]


def test_no_name_is_a_private_word() -> None:
    found = []
    for path, _, tree in modules():
        folder = path.relative_to(PACKAGE).parent.as_posix()
        for name, line, is_class in names(tree):
            if term := private(name, is_class, folder):
                found.append(f"{path.relative_to(ROOT)}:{line}: {name} ({term})")
    assert not found, "\n".join(found)


def test_no_docstring_message_comment_or_page_has_a_private_word() -> None:
    found = []
    for path, source, tree in modules():
        if path.name not in OF_THEN:
            for text, line in prose(source, tree):
                found += [f"{path.relative_to(ROOT)}:{line}: {word}" for word in PROSE.findall(text)]
    for path in PAGES:
        if path != NOTEBOOK:
            for number, row in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in PROSE.findall(row)]
    assert not found, "\n".join(found)


def test_the_notebook_says_what_its_words_are_called_now() -> None:
    beginning = NOTEBOOK.read_text(encoding="utf-8")[:2000].lower()
    for word in ("sketch", "point reader", "guesses", "read-out"):
        assert word in beginning, word


def test_a_private_word_is_found() -> None:
    assert (
        private("PointReader", True, "model") and private("n_guesses", False, "model") and private("_Rig", True, "envs")
    )
    assert (
        private("told", False, "agents")
        and private("slots", False, "benchmarks/paper")
        and private("Looks", True, "planners")
    )
    assert (
        private("gripper_open_readout", False, "envs") is None and private("keypoint_dynamics", False, "model") is None
    )
    assert private("trigger", False, "envs") is None and private("StageConfig", True, "training") is None
    assert PROSE.findall("a Rig, the read-out and limping guesswork") == ["Rig", "read-out"]


def test_no_public_class_name_means_two_things() -> None:
    places = defaultdict(list)
    for path, _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST and path not in TABLES_OF_DATA}
    assert lengths["uva_agents/model/uva/net.py"] <= 250
