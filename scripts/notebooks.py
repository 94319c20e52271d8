"""Runs notebooks from top to bottom, each in a fresh process, and stores what their cells show.

    python scripts/notebooks.py                                all of notebooks/, stored executed
    python scripts/notebooks.py notebooks/sharding.ipynb       one of them

A notebook sees the names of its own cells alone, as in a kernel that was just started; the value of
a cell's last line is shown. No kernel is needed, so the tests run notebooks by the same function
(`run`) on any machine that has lmdyn.
"""

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"


def read(path) -> dict[str, Any]:
    """A notebook, as the dict that its JSON holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def code(notebook: dict) -> list[dict]:
    """Its code cells."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def fingerprint(notebook: dict) -> str:
    """Of the code of all cells: outputs that are stored under another one are not of this code."""
    return hashlib.sha256(
        "\0".join("".join(cell["source"]) for cell in code(notebook)).encode()
    ).hexdigest()[:16]


def run(path) -> tuple[dict[str, Any], list[list[dict]]]:
    """Executes the cells of a notebook in this process.

    Returns:
      The names that its cells left, and each code cell's outputs, as a notebook stores them. What a
      cell writes to standard error (progress) is not an output.
    """
    main = types.ModuleType("__main__")  # what a cell defines is found there, as in a kernel
    sys.modules["__main__"], names, outputs = main, main.__dict__, []
    for number, cell in enumerate(code(read(path)), 1):
        source = "".join(cell["source"])
        tree = ast.parse(source, f"{Path(path).name}, cell {number}")
        shown = (
            tree.body.pop()
            if tree.body
            and isinstance(tree.body[-1], ast.Expr)
            and not source.rstrip().endswith(";")
            else None
        )
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            exec(compile(tree, f"{Path(path).name}, cell {number}", "exec"), names)
            value = (
                None
                if shown is None
                else eval(
                    compile(
                        ast.Expression(shown.value), f"{Path(path).name}, cell {number}", "eval"
                    ),
                    names,
                )
            )
        found = []
        if written.getvalue():
            found.append(
                {
                    "name": "stdout",
                    "output_type": "stream",
                    "text": written.getvalue().splitlines(keepends=True),
                }
            )
        if value is not None:
            found.append(
                {
                    "data": display(value),
                    "execution_count": number,
                    "metadata": {},
                    "output_type": "execute_result",
                }
            )
        outputs.append(found)
    return names, outputs


def display(value) -> dict[str, Any]:
    """A value as a front end shows it: a picture where the value draws itself as one, and text."""
    bundle = getattr(value, "_repr_mimebundle_", None)
    drawn = bundle(include=None, exclude=None) if bundle else {}
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn
    if "image/png" in drawn:
        png = drawn["image/png"]
        png = png if isinstance(png, bytes) else base64.b64decode(png)
        return {
            "image/png": base64.b64encode(packed(png)).decode(),
            "text/plain": [f"<{type(value).__name__}>"],
        }
    html = getattr(value, "_repr_html_", None)
    more = {"text/html": html().splitlines(keepends=True)} if html and html() else {}
    return {**more, "text/plain": repr(value).splitlines(keepends=True)}


def packed(png: bytes) -> bytes:
    """The same picture, pixel for pixel, with its data compressed as far as zlib can: half the size
    of what a renderer in a hurry writes.
    """
    chunks, at = [], 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks.append((kind, png[at + 8 : at + 8 + size]))
        at += 12 + size
    pixels = zlib.compress(
        zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")), 9
    )
    place = [kind for kind, _ in chunks].index(b"IDAT")
    chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    chunks.insert(place, (b"IDAT", pixels))
    whole = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    return png[:8] + b"".join(whole(*chunk) for chunk in chunks)


def store(path) -> dict[str, Any]:
    """Runs a notebook in this process and writes it again, with its outputs. Returns the names that
    its cells left.
    """
    notebook = read(path)
    names, outputs = run(path)
    for number, (cell, found) in enumerate(zip(code(notebook), outputs, strict=True), 1):
        cell["execution_count"], cell["outputs"] = number, found
    notebook["metadata"]["lmdyn"] = {"ran": fingerprint(notebook)}
    Path(path).write_text(
        json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return names


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.here:
        for path in given.notebooks:
            store(path)
        return
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    for path in given.notebooks or sorted(FOLDER.glob("*.ipynb")):
        print(f"running {path.name}", flush=True)
        subprocess.run([sys.executable, __file__, "--here", str(path)], check=True, env=environment)


if __name__ == "__main__":
    main()
