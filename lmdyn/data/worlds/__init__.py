"""Synthetic worlds: facts with a clock, in many words, and probes of them."""

from lmdyn.data.worlds.facts import Entity, World, count, name
from lmdyn.data.worlds.prepare import prepare
from lmdyn.data.worlds.world import (
    NAMED_WORLDS,
    PROBE_SPLITS,
    TEXT_SPLITS,
    about,
    documents,
    entity_probes,
    named,
    probes,
)

__all__ = [
    "NAMED_WORLDS",
    "PROBE_SPLITS",
    "TEXT_SPLITS",
    "Entity",
    "World",
    "about",
    "count",
    "documents",
    "entity_probes",
    "name",
    "named",
    "prepare",
    "probes",
]
