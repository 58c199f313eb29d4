"""Text is read and written as UTF-8 everywhere, whatever the machine's locale is."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

_TEXT_MODES = {"read_text": 1, "write_text": 2}
"""Methods of a path, and how many arguments they have with an encoding in its place."""
_OPENERS = ("open", "fdopen", "NamedTemporaryFile", "FileHandler", "TextIOWrapper")


def unencoded(path: Path) -> Iterator[int]:
    """Lines that read or write text in the encoding of the locale."""
    text = path.read_text(encoding="utf-8")
    if not any(f"{name}(" in text for name in (*_TEXT_MODES, *_OPENERS)):
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        said = any(k.arg in ("encoding", None) for k in node.keywords)
        if name in _TEXT_MODES and isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            if not said and len(node.args) < _TEXT_MODES[name]:
                yield node.lineno
        elif name in _OPENERS and not said and _opens_text(node, name):
            yield node.lineno


def _is_module(value: ast.expr) -> bool:
    # files.write_text(path, text) is our own, which writes UTF-8.
    return isinstance(value, ast.Name) and value.id in ("files", "pictures", "results")


def _opens_text(node: ast.Call, name: str) -> bool:
    if name == "FileHandler":
        return True
    if name == "TextIOWrapper":
        return len(node.args) < 2
    method = isinstance(node.func, ast.Attribute) and not (
        isinstance(node.func.value, ast.Name) and node.func.value.id in ("io", "os", "tempfile", "builtins")
    )
    modes = [k.value for k in node.keywords if k.arg == "mode"] or node.args[
        0 if method or name == "NamedTemporaryFile" else 1 :
    ][:1]
    if not modes:
        # path.open() reads text; os.open, Image.open and the like take other things, and are not asked without arguments.
        return name == "open" and not node.args if method else name != "NamedTemporaryFile" and _is_builtin(node)
    mode = modes[0]
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
        return False
    return set(mode.value) <= set("rwaxt+") and bool(mode.value)


def _is_builtin(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name)


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    files = [*(REPOSITORY / "uva_agents").rglob("*.py"), *(REPOSITORY / "examples").rglob("*.py")]
    assert len(files) > 100
    found = [f"{path.relative_to(REPOSITORY)}:{line}" for path in sorted(files) for line in unencoded(path)]
    assert not found, f"say encoding='utf-8': {found}"


def test_what_would_depend_on_the_locale_is_found(tmp_path: Path) -> None:
    lines = {
        "path.read_text()": True,
        "path.read_text('utf-8')": False,
        "path.write_text(text)": True,
        "path.write_text(text, encoding='utf-8')": False,
        "path.open()": True,
        "path.open('a')": True,
        "path.open('wb')": False,
        "open(path)": True,
        "open(path, 'w', encoding='utf-8')": False,
        "os.fdopen(handle, 'w')": True,
        "os.open(path, flags)": False,
        "Image.open(path)": False,
        "logging.FileHandler(path)": True,
        "tempfile.NamedTemporaryFile('w')": True,
        "tempfile.NamedTemporaryFile()": False,
    }
    file = tmp_path / "lines.py"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert set(unencoded(file)) == {number for number, bad in enumerate(lines.values(), start=1) if bad}
