"""Synthetic worlds: facts with a clock in many words, and probes of them.

After Allen-Zhu and Li's bioS. A world has people and places with attributes
(`lmdyn.data.worlds.facts`). At time 0, the time of pretraining, some are known; at time 1 a share
of the facts about them is *updated*, a share of entities is *new*, and the rest is *unchanged*. Any
text is made without the others. Sentences are allotted: for every (entity, attribute) the templates
are shuffled, and the text of time 0, the text of time 1 and the paraphrase probes each draw from a
part of their own.

Splits:
  time0: a biography of every entity known at time 0, `renderings` times, each time in other words.
  time1: what changed and nothing else: the updated facts of old entities and the biographies of new
    ones, `renderings` times. Unchanged facts are not repeated, so that training on this split
    shows what is forgotten.
  probes: what is true at time 1, of every entity. What an updated fact was before is in
    probes_time0.
  probes_time0: what is true at time 0, of the entities known then.
"""

import functools
import operator
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.worlds import words
from lmdyn.data.worlds.facts import (
    Entity,
    World,
    count,
    hashed,
    kind,
    name,
    permute,
    updates,
    value,
    value_index,
)
from lmdyn.errors import InputError, choose

TEXT_SPLITS = ("time0", "time1")
PROBE_SPLITS = {"probes": 1, "probes_time0": 0}
# Which of the shuffled templates of a fact each use may draw from; the three never meet.
TEMPLATES_OF = {"time0": range(0, 6), "time1": range(6, 11), "probes": range(11, 12)}

NAMED_WORLDS = {
    name: World(people=people)
    for name, people in (("small", 100), ("medium", 1000), ("large", 10_000))
}


def named(config: str) -> World:
    """The world that a reference such as `tfds:synthetic_world/CONFIG` names.

    Args:
      config: `small`, `medium` or `large` (100, 1,000, 10,000 people), or fields of `World`:
        `people=300,seed=1`.

    Raises:
      InputError: an unknown name or field, or a value out of range.

    >>> named("people=300,seed=1").seed, named("small").people
    (1, 100)
    """
    if "=" not in config:
        return NAMED_WORLDS[choose("synthetic world", config, NAMED_WORLDS)]
    kinds = typing.get_type_hints(World)
    given = {}
    for part in config.split(","):
        field, _, text = part.partition("=")
        kind = float if kinds[choose("field of a world", field, kinds)] is float else int
        try:
            given[field] = kind(text)
        except ValueError as err:
            raise InputError(
                f"{config}: {field}='{text}' is not a number; write for example people=300,seed=1"
            ) from err
    return World(**given)


def sentence(
    world: World, entity: Entity, attribute: str, time: int, use: str, rendering: int = 0
) -> tuple[str, int, int]:
    """One fact in words.

    Args:
      world: which world.
      entity: of which entity.
      attribute: which of its attributes.
      time: of the value.
      use: `time0`, `time1` or `probes`: whose templates are used.
      rendering: which of those templates, counted round.

    Returns:
      (text, start, end): the sentence, and where the value is in it.

    >>> text, start, end = sentence(World(), Entity("person", 0), "employer", 0, "time0")
    >>> text[start:end]
    'Olbri Bank'
    """
    templates = words.TEMPLATES[entity.sort][attribute]
    slots = TEMPLATES_OF[use]
    key = hashed(world.seed, "template", *entity, attribute)
    template = templates[permute(slots[rendering % len(slots)], len(templates), key)]
    return _fill(template, name(world, entity), value(world, entity, attribute, time))


def documents(world: World, split: str) -> Documents:
    """The texts of a split, one short biography each; each is generated on demand.

    They come in rounds: every entity once (people, then places), then every entity again in other
    words.

    Args:
      world: which world.
      split: `time0` or `time1`.

    Returns:
      A lazy sequence of str; empty where nothing changes.

    Raises:
      InputError: another split.

    >>> documents(World(people=10, places=4, updated=0.5), "time1")[0]
    'Colleagues ask Isil Quilona Dorby for advice about chemistry. Isil Quilona
    Dorby belongs to the staff of Duvi Press.'
    """
    choose("split of texts", split, TEXT_SPLITS)
    total = len(_subjects(world, split)) * world.renderings
    return Documents(
        f"world:{split}", range(total), functools.partial(_biography, world=world, split=split)
    )


def about(world: World, split: str, index: int) -> Entity:
    """The entity that document `index` of a text split is about.

    >>> about(World(people=10, places=4), "time0", 8)
    Entity(sort='place', index=0)
    """
    subjects = _subjects(world, split)
    subject = int(subjects[index % len(subjects)])
    return (
        Entity("person", subject)
        if subject < world.people
        else Entity("place", subject - world.people)
    )


def probes(world: World, time: int = 1) -> Iterator[dict[str, Any]]:
    """Cloze questions about every entity known at a time.

    Three depths: `memorisation` is the sentence of the training text, up to the value; `paraphrase`
    asks for the same value in words that no training text uses for this fact; `composition` needs
    two facts (the river of the city where somebody lives). Where a fact behind a composition is
    updated and its answer stays the same by chance, there is none.

    Args:
      world: which world.
      time: 1 probes what is true at time 1, 0 what is true at time 0.

    Yields:
      dicts: `text`; `start`, `end` (characters of the value, which the text ends with); `kind`
      (updated, new, unchanged: between the times, whichever is asked for); `depth`; `entity` (its
      name); `attribute`; `time`.

    >>> probe = next(probes(World(people=10, places=4), time=1))
    >>> probe["text"], probe["text"][probe["start"] : probe["end"]]
    ('Isil Quilona Dorby came into the world on 24 February 1973', '24 February 1973')
    """
    if time not in (0, 1):
        raise InputError(f"time={time} of a world; it is 0 or 1")
    for sort in ("person", "place"):
        for index in range(count(world, sort, time)):
            yield from entity_probes(world, Entity(sort, index), time)


def entity_probes(world: World, entity: Entity, time: int) -> Iterator[dict[str, Any]]:
    """The probes about one entity; see `probes`.

    >>> world = World(people=10, places=4)
    >>> [probe["depth"] for probe in entity_probes(world, Entity("place", 0), 0)][:2]
    ['memorisation', 'paraphrase']
    """
    who = name(world, entity)
    for attribute in words.TEMPLATES[entity.sort]:
        what = kind(world, entity, attribute)
        told = (
            "time0" if what == "unchanged" or time == 0 else "time1"
        )  # the split that states this value
        for depth, use in (("memorisation", told), ("paraphrase", "probes")):
            yield _probe(
                *sentence(world, entity, attribute, time, use), what, depth, who, attribute, time
            )
    if entity.sort == "person":
        for relation in words.CITY:
            for attribute in words.QUESTIONS:
                yield from _composition(world, entity, who, relation, attribute, time)


def _composition(world, entity, who, relation, attribute, time):
    place = lambda t: Entity("place", value_index(world, entity, relation, t))
    what = kind(world, entity, relation)
    if what == "unchanged" and kind(world, place(time), attribute) == "updated":
        what = "updated"
    answer = value(world, place(time), attribute, time)
    if what == "updated" and answer == value(world, place(1 - time), attribute, 1 - time):
        return
    pick = lambda options, tag: options[
        hashed(world.seed, tag, *entity, relation, attribute) % len(options)
    ]
    template = pick(words.QUESTIONS[attribute], "question").replace(
        "{place}", pick(words.PLACE_OF[relation], "phrase")
    )
    yield _probe(
        *_fill(template + " {object}", who, answer),
        what,
        "composition",
        who,
        f"{relation}.{attribute}",
        time,
    )


def _probe(text, start, end, kind, depth, entity, attribute, time):
    return dict(
        text=text[:end],
        start=start,
        end=end,
        kind=kind,
        depth=depth,
        entity=entity,
        attribute=attribute,
        time=time,
    )


def _fill(template: str, who: str, what: str) -> tuple[str, int, int]:
    before, after = template.split("{object}")
    before = before.replace("{name}", who)
    return before + what + after, len(before), len(before) + len(what)


def _biography(item: int, world: World, split: str) -> str:
    entity, rendering = (
        about(world, split, item),
        operator.index(item) // len(_subjects(world, split)),
    )
    attributes = list(words.TEMPLATES[entity.sort])
    if split == "time1" and entity.index < count(world, entity.sort, 0):
        attributes = [a for a in attributes if kind(world, entity, a) == "updated"]
    order = lambda attribute: hashed(world.seed, "order", split, rendering, *entity, attribute)
    told = sorted(attributes, key=order)
    return " ".join(
        sentence(world, entity, a, TEXT_SPLITS.index(split), split, rendering)[0] for a in told
    )


@functools.lru_cache(maxsize=16)
def _subjects(world: World, split: str) -> np.ndarray:
    """[n] int64: the entities of a split, people as their index and places as `people` + index."""
    found = []
    for sort, offset in (("person", 0), ("place", world.people)):
        old = np.arange(count(world, sort, 0))
        if split == "time1":
            old = old[updates(world, sort).any(axis=1)]
            old = np.concatenate([old, np.arange(count(world, sort, 0), count(world, sort, 1))])
        found.append(old + offset)
    return np.concatenate(found)
