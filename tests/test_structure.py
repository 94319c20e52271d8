"""One style and one layout: what the formatter, the linter and the import contract say of the whole
repository, and how long functions may be.

Settings are in pyproject.toml; types are checked by tests/test_types.py.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "lmdyn").rglob("*.py"))
BIN = Path(sys.executable).parent
LINES, PARAMETERS = 60, 8


def tool(*words: str) -> str:
    """What a program of the development environment says; empty where it finds nothing wrong."""
    pytest.importorskip("ruff" if words[0] == "ruff" else "importlinter")
    found = subprocess.run(
        [BIN / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if found.returncode == 0 else found.stdout + found.stderr


def test_everything_is_formatted():
    assert not (said := tool("ruff", "format", "--check", "--quiet", ".")), said


def test_the_linter_finds_nothing():
    assert not (said := tool("ruff", "check", "--output-format", "concise", ".")), said


def test_imports_go_down_only_and_in_no_circle():
    assert not (said := tool("lint-imports", "--no-logo")), said


def functions(tree: ast.AST, prefix: str = ""):
    """`(name, node)` of every function and method, also inside others."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not isinstance(node, ast.ClassDef):
                yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def length(node: ast.FunctionDef) -> int:
    """Lines from `def` to the end, without the docstring.

    >>> length(ast.parse("def f(x):\\n    '''Two\\n    lines.'''\\n    return x").body[0])
    2
    """
    first = node.body[0]
    docstring = isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)
    lines = node.end_lineno - node.lineno + 1
    return lines - (first.end_lineno - first.lineno + 1 if docstring else 0)


def parameters(node: ast.FunctionDef) -> int:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([one for one in given if one.arg not in ("self", "cls")])


def test_functions_are_short_and_take_few_parameters():
    found = set()
    for path in SOURCES:
        for name, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}: {name}"
            if (lines := length(node)) > LINES:
                found.add(f"{where} has {lines} lines")
            if (count := parameters(node)) > PARAMETERS:
                found.add(f"{where} takes {count} parameters")
    assert not found, "\n".join(sorted(found))


def module_names() -> set[str]:
    names = (path.relative_to(ROOT).with_suffix("").parts for path in SOURCES)
    return {".".join(name[:-1] if name[-1] == "__init__" else name) for name in names}


def test_no_module_is_renamed_by_all_that_import_it():
    modules = module_names()
    imported: dict[str, list[bool]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for one in node.names:
                    imported[one.name].append(one.asname is not None)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for one in node.names:
                    imported[f"{node.module}.{one.name}"].append(one.asname is not None)
    found = {name for name, renamed in imported.items() if name in modules and all(renamed)}
    assert not found, "\n".join(sorted(found))


def test_git_blame_skips_the_reformatting():
    text = (ROOT / ".git-blame-ignore-revs").read_text(encoding="utf-8")
    assert re.findall(r"^[0-9a-f]{40}$", text, re.M)
    workflow = ROOT / ".github" / "workflows" / "checks.yml"
    assert ".git-blame-ignore-revs" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert workflow.exists()
