"""Every public name is documented and typed; every public function and class shows an example,
which doctest runs with the other tests.
"""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import lmdyn

ROOT = Path(lmdyn.__file__).parent
PACKAGES = (
    "checkpoints",
    "checkpoints.runs",
    "costs",
    "data",
    "metrics",
    "models",
    "online",
    "params",
    "records",
    "report",
    "studies",
    "training",
    "transforms",
)
NAMED = (
    "errors",
    "files",
    "allocator",
    "analysis.curves",
    "metrics.localization",
    "analysis.scaling_laws",
    "analysis.scaling_runs",
    "metrics.spectra",
    "metrics.targets",
    "online.meta_gradients",
    "costs.memory_use",
    "training.head_fits",
    "training.objectives",
    "transforms.running_profile",
    "types",
)
"""Modules that README or the notebooks name by themselves."""


def _special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _public(body: list[ast.stmt], prefix: str = ""):
    """`(name, node)` of public functions, classes and methods; special methods are public, too."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and (
            _special(node.name) or not node.name.startswith("_")
        ):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            yield from _public(node.body, f"{prefix}{node.name}.")


def _untyped(node: ast.FunctionDef, method: bool) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    arguments = (
        arguments[int(method and not static) :]
        + node.args.kwonlyargs
        + [a for a in (node.args.vararg, node.args.kwarg) if a]
    )
    return [a.arg for a in arguments if a.annotation is None] + (
        ["what it returns"] if node.returns is None else []
    )


def test_every_public_signature_says_its_types():
    gaps = []
    for path in sorted(ROOT.rglob("*.py")):
        for name, node in _public(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.FunctionDef) and (missing := _untyped(node, "." in name)):
                gaps.append(f"{path.relative_to(ROOT)}: {name}: {', '.join(missing)}")
    assert not gaps, "\n".join(gaps)


def test_no_public_signature_has_an_ignore():
    lines = (
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if ("type: ignore" in line or "pyright: ignore" in line)
        and line.lstrip().startswith(("def ", "class ", "@"))
    )
    assert not list(lines)


def _names():
    """`(where, object)` of what is exported, once each."""
    seen = {}
    for package in PACKAGES:
        module = importlib.import_module(f"lmdyn.{package}")
        for name in module.__all__:
            seen.setdefault(
                id(getattr(module, name)), (f"lmdyn.{package}.{name}", getattr(module, name))
            )
    for name in NAMED:
        module = importlib.import_module(f"lmdyn.{name}")
        for key, value in vars(module).items():
            if (
                not key.startswith("_")
                and callable(value)
                and getattr(value, "__module__", None) == module.__name__
            ):
                seen.setdefault(id(value), (f"lmdyn.{name}.{key}", value))
    return [found for found in seen.values() if callable(found[1])]


NAMES = _names()


@pytest.mark.parametrize("where, value", NAMES, ids=[where for where, _ in NAMES])
def test_exported_names_are_documented(where, value):
    text = value.__doc__ or ""
    assert text.strip() and not text.startswith(f"{getattr(value, '__name__', '')}("), (
        f"{where} has no docstring"
    )
    if not isinstance(
        value, type
    ):  # a function: its example runs where doctest finds it, in its module
        assert doctest.DocTestParser().get_examples(text), f"{where} shows no example"


def _members(cls: type):
    """`(name, function)` of the public methods and properties that a class itself defines."""
    for name, member in vars(cls).items():
        inner = (
            member.fget
            if isinstance(member, property)
            else getattr(member, "func", getattr(member, "__func__", member))
        )
        if (
            not name.startswith("_")
            and inspect.isfunction(inner)
            and inner.__qualname__ == f"{cls.__qualname__}.{name}"
        ):
            yield name, inner


def _shows(text: str | None) -> str:
    """The source of a docstring's example; empty where it has none."""
    return "".join(example.source for example in doctest.DocTestParser().get_examples(text or ""))


def _named(cls: type, name: str):
    """What a docstring names: something beside the class, or a full name."""
    found = sys.modules[cls.__module__]
    if name.startswith("lmdyn."):
        module, _, name = name.rpartition(".")
        found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _is_shown(cls: type) -> bool:
    """Whether the class, a method of it, what makes it, or what it is a part of shows an example;
    the last must name the class.
    """
    text = cls.__doc__ or ""
    if _shows(text) or any(_shows(member.__doc__) for _, member in _members(cls)):
        return True
    makers = re.findall(r"(?:[Mm]ade\s+by|^What|^State\s+of)\s+`([\w.]+)", text)
    wholes = re.findall(r"Part\s+of\s+`([\w.]+)`", text)
    return any(_shows(getattr(_named(cls, name), "__doc__", None)) for name in makers) or any(
        f"{cls.__name__}(" in _shows(getattr(_named(cls, name), "__doc__", None)) for name in wholes
    )


CLASSES = [
    (where, value)
    for where, value in NAMES
    if isinstance(value, type) and value.__module__.startswith("lmdyn.")
]


@pytest.mark.parametrize("where, cls", CLASSES, ids=[where for where, _ in CLASSES])
def test_exported_classes_are_shown_and_their_methods_documented(where, cls):
    bare = [name for name, member in _members(cls) if not (member.__doc__ or "").strip()]
    assert not bare, f"{where}: no docstring: {', '.join(bare)}"
    assert _is_shown(cls), (
        f"{where} shows no example, nor does what it says it is made by or part of"
    )


def test_modules_say_what_they_are_for():
    bare = [
        m.name
        for m in pkgutil.walk_packages(lmdyn.__path__, "lmdyn.")
        if not ast.get_docstring(
            ast.parse(Path(importlib.util.find_spec(m.name).origin).read_text(encoding="utf-8"))
        )
    ]
    assert not bare


# --- examples of every public name, exported or not

WITHOUT_EXAMPLE = {
    "cli/*": "a verb: the docs show its commands, which tests/test_commands.py runs",
    "studies/*/*": "a part of one experiment: its config shows an example, tests/studies runs it",
    "studies/injection_scores.py": "trains models: tests/studies runs it",
    "studies/pretraining.py": "trains models: tests/studies runs it",
    "studies/injected_facts_figures.py": "draws charts of a study",
    "report/exports.py": "writes a page's figures: see `lmdyn.report.build`",
    "report/figure_blocks.py": "HTML of a page's figures: see `lmdyn.report.build`",
    "report/folder_names.py": "names of several folders on one page: see `lmdyn.report.build`",
    "report/gradient_profiles.py": "draws charts of `lmdyn gradients`",
    "report/highlights.py": "chooses what a page opens with",
    "report/metric_figures.py": "draws charts of metrics: see `lmdyn.report.figures`",
    "report/page.py": "the page itself: see `lmdyn.report.build`",
    "report/claims_table.py": "HTML of claims",
    "report/provenance_section.py": "HTML of provenance",
    "report/scaling_figures.py": "draws charts of `lmdyn scaling`",
    "report/stream_figures.py": "draws charts of `lmdyn online`",
    "report/tables.py": "HTML of tables",
}
"""Files (patterns) in which a public name may go without an example, and why."""
MAKERS = re.compile(r"(?:[Mm]ade\s+by|Part\s+of)\s+(?:the\s+`\w+`\s+of\s+)?`([\w.]+)")


def _example_of(path: Path) -> dict[str, bool]:
    """Public functions and classes of a file, and whether one or what it names has an example."""
    nodes = {
        n.name: n
        for n in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(n, (ast.FunctionDef, ast.ClassDef))
    }
    module = ".".join(("lmdyn", *path.relative_to(ROOT).with_suffix("").parts))
    shown = {
        name: any(
            _shows(ast.get_docstring(part))
            for part in [node, *node.body]
            if isinstance(part, (ast.FunctionDef, ast.ClassDef))
        )
        for name, node in nodes.items()
    }

    def elsewhere(name: str) -> bool:
        text = ast.get_docstring(nodes[name]) or ""
        found = importlib.import_module(module)
        makers = [_named(getattr(found, name), maker) for maker in MAKERS.findall(text)]
        return any(
            _shows(inspect.getdoc(maker)) or (inspect.isclass(maker) and _is_shown(maker))
            for maker in makers
            if maker is not None
        )

    return {
        name: shown[name] or (isinstance(node, ast.ClassDef) and elsewhere(name))
        for name, node in nodes.items()
        if not name.startswith("_")
    }


def test_every_public_name_shows_an_example():
    bare, needed = [], set()
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT)
        excused = [pattern for pattern in WITHOUT_EXAMPLE if file.match(pattern)]
        for name, shown in _example_of(path).items():
            if shown:
                continue
            needed.update(excused)
            if not excused:
                bare.append(f"{file}: {name}")
    assert not bare, "no example in:\n" + "\n".join(bare)
    assert needed == set(WITHOUT_EXAMPLE), f"not needed: {set(WITHOUT_EXAMPLE) - needed}"
