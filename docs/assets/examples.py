"""An extension of mkdocstrings' reader: examples become blocks of code.

An example is what a docstring shows after `>>>`, with or without a heading "Examples".
"""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n(?:^(?!\s*$).*(?:\n|\Z))*)+", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with fences around its examples.

    >>> fenced("Adds.\\n\\n>>> 1 + 1\\n2\\n").splitlines()
    ['Adds.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text + "\n")


class Examples(griffe.Extension):
    """Puts fences around examples before a docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once per module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value).rstrip()
