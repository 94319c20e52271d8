"""Probes: texts with a marked span, whose tokens alone are scored; one module per benchmark."""

from lmdyn.data.probes.encoding import ProbeBatch, encode_probes
from lmdyn.data.probes.probe import Probe, parse_probe
from lmdyn.data.probes.reader import FORMATS, read_probes

__all__ = ["FORMATS", "Probe", "ProbeBatch", "encode_probes", "parse_probe", "read_probes"]
