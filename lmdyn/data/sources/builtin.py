"""Text that every machine with Python has: the standard library's own documentation and source.

Two domains with a real shift between them: `docs` is English prose about Python, `code` is Python.
Both are read from the source files (nothing is imported), in a fixed order, so that one version of
Python always gives the same text.
"""

import ast
import functools
import inspect
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmdyn.data.lazy_documents import Documents
from lmdyn.errors import InputError, choose

# Modules with much to say, in every Python since 3.11 on every system, pure Python.
_MODULES = """
    argparse ast asyncio.base_events asyncio.events asyncio.streams asyncio.tasks base64 bdb
    bisect calendar cmd code codecs collections.__init__ concurrent.futures._base configparser
    contextlib copy csv dataclasses datetime difflib dis doctest email.message email.policy enum
    filecmp fileinput fnmatch fractions ftplib functools getopt gettext glob gzip heapq
    html.parser http.client http.cookiejar http.server imaplib inspect ipaddress json.decoder
    json.encoder linecache locale logging.__init__ logging.config logging.handlers mailbox
    mimetypes multiprocessing.managers multiprocessing.pool numbers optparse os pathlib pdb
    pickle pickletools plistlib poplib pprint profile pstats queue quopri random re.__init__
    sched selectors shelve shutil smtplib socket socketserver sqlite3.dump statistics string
    subprocess symtable tarfile tempfile textwrap threading timeit tokenize trace traceback
    turtle types typing unittest.case unittest.mock urllib.parse urllib.request
    urllib.robotparser uuid warnings wave weakref webbrowser xml.dom.minidom xml.sax.handler
    xmlrpc.client zipfile
"""
MODULES = tuple(_MODULES.split())
SPLITS = ("train", "test")


def builtin_documents(ref: str, name: str) -> Documents:
    """The documents of a built-in text.

    Args:
      ref: the whole reference, for errors.
      name: as for `corpus`.

    >>> builtin_documents("builtin:docs", "docs")[0].splitlines()[0]
    'The "assert" statement'
    """
    return Documents(ref, *corpus(name))


def corpus(name: str) -> tuple[tuple, Callable[[Any], str]]:
    """The items of a built-in text and the function that reads one of them.

    Args:
      name: `docs` (prose: the language reference's topics, then module documentation) or `code`
        (source); or one split of it, such as `docs:test`: `test` holds every tenth topic and every
        tenth module, `train` the rest. A module that is held out of one text is held out of the
        other too.

    Returns:
      (items, read): a tuple, and item -> str.

    Raises:
      InputError: an unknown name or split (lists the known), or a Python that came without its
        library's source.

    >>> items, read = corpus("code")
    >>> read(items[0]).startswith("# Author: Steven J. Bethard")
    True
    """
    name, colon, split = name.partition(":")
    choose("built-in text", name, ("docs", "code"))
    if colon:
        choose(f"split of builtin:{name}", split, SPLITS)
    modules = tuple(("module", m) for m in _present_modules())
    if name == "code":
        return _part(modules, split), read_source
    topics = tuple(("topic", t) for t in sorted(_topics(), key=str.casefold))
    return _part(topics, split) + _part(modules, split), read_docstrings


def _part(items: tuple, split: str) -> tuple:
    """One of SPLITS, or with "" everything."""
    test = lambda i: i % 10 == 9
    return tuple(item for i, item in enumerate(items) if not split or test(i) == (split == "test"))


def read_source(item: tuple[str, str]) -> str:
    """The source text of a standard-library module.

    >>> "class JSONDecoder" in read_source(("module", "json.decoder"))
    True
    """
    return _path(item[1]).read_text(encoding="utf-8")


def read_docstrings(item: tuple[str, str]) -> str:
    """One topic of the language reference, or a module's docstrings in the order of its source.

    >>> read_docstrings(("topic", "assert")).splitlines()[0]
    'The "assert" statement'
    """
    kind, name = item
    if kind == "topic":
        return _topics()[name].strip("\n") + "\n"
    found = []
    for node in _walk(ast.parse(read_source(item))):
        text = ast.get_docstring(node, clean=False)
        if text and len(text) > 80:  # prose, not labels
            found.append(inspect.cleandoc(text))
    return "\n\n".join(found) + "\n" if found else ""


def _walk(node):
    """Module, classes and functions, depth first in the order of the source."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node
        for child in node.body:
            yield from _walk(child)


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some systems ship Python without it
        return {}
    return topics


@functools.cache
def _present_modules() -> tuple[str, ...]:
    present = tuple(m for m in MODULES if _path(m).is_file())
    if not present:
        raise InputError(
            f"builtin: this Python has no library source in {_library()}; use text:GLOB"
        )
    return present


def _path(module: str) -> Path:
    path = _library() / (module.replace(".", "/"))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))
