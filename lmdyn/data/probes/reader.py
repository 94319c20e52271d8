"""All probes of a file or dataset, by a reference."""

import inspect
import os
from collections.abc import Callable

import numpy as np

from lmdyn.data.probes.ecbd import ecbd
from lmdyn.data.probes.probe import PROBE_EXAMPLE, Probe, parse_probe
from lmdyn.data.probes.templama import templama
from lmdyn.data.probes.temporalwiki import temporalwiki
from lmdyn.data.sources.jsonl import json_lines
from lmdyn.data.sources.tfds import tfds_source
from lmdyn.errors import InputError
from lmdyn.names import resolve

FORMATS: dict[str, Callable[..., tuple[Probe, ...]]] = {
    "templama": templama,
    "ecbd": ecbd,
    "temporalwiki": temporalwiki,
}
"""By the prefix of a reference: `(path, *values after the @) -> probes`."""


def read_probes(ref: str) -> tuple[Probe, ...]:
    """All probes of a file or dataset.

    Args:
      ref: the path of a JSON Lines file (or `jsonl:PATH`), one dict per line, see
        `lmdyn.data.probes.probe.parse_probe`; or `tfds:NAME[/CONFIG]:SPLIT`, whose features have
        those names: `tfds:synthetic_world/small:probes`. Or a published file:
        `templama:PATH@OLD,NEW`: TempLAMA and dynamic TempLAMA, what is true at one date by what was
        true at another; `ecbd:PATH@YEAR`: Entity Cloze By Date, new if the entity is younger than
        the year; `temporalwiki:PATH[@KIND]`: TWiki-Probes, of the kind that is given or that the
        file's name holds. Or `my_pkg.my_format:PATH[@A,B]`: what `my_format(path, a, b)` returns.

    Raises:
      InputError: no such file, nothing in it, or a line that is not a probe; it names the file and
        the line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as file:
    ...     _ = file.write('{"prompt": "2 + 2 =", "target": "4"}')
    >>> [found.target for found in read_probes(file.name)]
    ['4']
    """
    kind, colon, rest = ref.partition(":")
    if kind in FORMATS or (colon and "." in kind and not os.path.exists(ref)):
        return _read_format(ref, kind, rest)
    path = os.path.expanduser(rest if kind == "jsonl" else ref)
    records = _tfds(ref, rest) if kind == "tfds" else json_lines(path, PROBE_EXAMPLE)
    found = tuple(parse_probe(record, where) for record, where in records)
    if not found:
        raise InputError(f"{ref} has no probes; give at least one line such as {PROBE_EXAMPLE}")
    return found


def _read_format(ref, kind, rest) -> tuple[Probe, ...]:
    """The probes of a published format: `KIND:PATH@A,B` calls its reader with PATH, A and B."""
    reader = resolve(kind, FORMATS, "format of probes")
    path, _, values = rest.rpartition("@") if "@" in rest else (rest, "", "")
    given = [value.strip() for value in values.split(",")] if values else []
    signature = inspect.signature(reader)
    _, *names = signature.parameters.values()
    needed = sum(name.default is name.empty for name in names)
    if not path or not needed <= len(given) <= len(names):
        values = f"@{','.join(name.name.upper() for name in names)}" if names else ""
        raise InputError(
            f"'{ref}' cannot be read; write {kind}:PATH{values if needed else f'[{values}]'}"
        )
    return reader(os.path.expanduser(path), *given)


def _tfds(ref, rest):
    if "#" in rest:
        raise InputError(
            f"'{ref}' names a field; probes take several: write tfds:NAME[/CONFIG]:SPLIT"
        )
    source = tfds_source(ref, rest, "tfds:NAME[/CONFIG]:SPLIT")
    for i in range(len(source)):
        yield {key: _plain(value) for key, value in source[i].items()}, f"{rest} example {i}"


def _plain(value):
    value = (
        value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value
    )
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
