"""Probes: texts with a marked span, whose tokens alone are scored."""

from lmdyn.data.probes.probe import Probe, ProbeBatch, encode_probes, read_probes

__all__ = ["Probe", "ProbeBatch", "encode_probes", "read_probes"]
