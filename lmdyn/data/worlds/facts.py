"""The facts of a synthetic world: who is there, and what is true of them at time 0 and at time 1.

Nothing is stored: every fact is a hash of (seed, entity, what is asked), so that any of them can be
had without the others, at any size, and one seed always gives the same world. See
`lmdyn.data.worlds.world` for texts and probes.
"""

import dataclasses
import functools
import zlib
from typing import Any, NamedTuple

import numpy as np

from lmdyn.data.worlds import words
from lmdyn.errors import InputError, choose

_MASK = 2**64 - 1


@dataclasses.dataclass(frozen=True)
class World:
    """The size and the seed of a world.

    Args:
      people: how many people there are at time 1, new ones included.
      places: how many places; default one for every ten people, at least 10 and at most 10,000.
      seed: which world of that size.
      updated: share of the changeable facts of old entities that have another value at time 1.
        Where people were born and which river a city lies on cannot change;
        `lmdyn.data.worlds.words.CHANGEABLE` lists what can.
      new: share of the people, and of the places, that are known at time 1 only.
      renderings: how many texts about each entity, in other words (up to 6 at time 0 and 5 at time
        1; beyond, templates come again in another order of sentences).

    Raises:
      InputError: a number out of range; no person or fewer than two places at time 0.

    >>> World(people=100)
    World(people=100, places=10, seed=0, updated=0.2, new=0.2, renderings=5)
    """

    people: int = 1000
    places: int | None = None
    seed: int = 0
    updated: float = 0.2
    new: float = 0.2
    renderings: int = 5

    def __post_init__(self) -> None:
        if self.places is None:
            object.__setattr__(self, "places", min(max(self.people // 10, 10), 10_000))
        limits = {
            "people": (1, _names()),
            "places": (2, len(words.places())),
            "renderings": (1, 10**6),
            "seed": (0, _MASK),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(
                    f"{field}={value} of a world; it must be a whole number from {low} to {high}"
                )
        for field in ("updated", "new"):
            value = getattr(self, field)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value <= 1
            ):
                raise InputError(
                    f"{field}={value} of a world; it is a share and must be from 0 to 1"
                )
        for sort, least in (("person", 1), ("place", 2)):
            if count(self, sort, 0) < least:
                raise InputError(
                    f"new={self.new} leaves {count(self, sort, 0)} of {count(self, sort, 1)} {sort}"
                    f" entities at time 0, which needs {least}; give a smaller new"
                )


class Entity(NamedTuple):
    """A person or a place of a world; the last ones of a sort are the new ones.

    >>> name(World(), Entity("person", 3)) == name(World(), Entity("person", 4))
    False
    """

    sort: str
    """person or place"""
    index: int
    """its number, from 0"""


def count(world: World, sort: str, time: int) -> int:
    """How many entities of a sort (`person` or `place`) are known at a time.

    >>> count(World(people=50), "person", 0), count(World(people=50), "person", 1)
    (40, 50)
    """
    total = (world.people if sort == "person" else world.places) or 0
    return total - (0 if time else round(total * world.new))


@functools.lru_cache(maxsize=4096)
def name(world: World, entity: Entity) -> str:
    """The entity's name; no two entities of a world have the same.

    >>> len({name(World(people=300), Entity("person", i)) for i in range(300)})
    300
    """
    key = hashed(world.seed, "name", entity.sort)
    if entity.sort == "place":
        return words.places()[permute(entity.index, len(words.places()), key)]
    rest, first = divmod(permute(entity.index, _names(), key), len(words.FIRST))
    last, middle = divmod(rest, len(words.FIRST))
    return f"{words.FIRST[first]} {words.FIRST[middle]} {words.LAST[last]}"


def value(world: World, entity: Entity, attribute: str, time: int) -> str:
    """What is true of an entity at a time.

    Args:
      world: which world.
      entity: of which entity.
      attribute: one of `lmdyn.data.worlds.words.TEMPLATES[entity.sort]`.
      time: 0 or 1.

    Raises:
      InputError: an unknown attribute, or an entity that is new, at time 0.

    >>> value(World(), Entity("person", 0), "employer", 0)
    'Olbri Bank'
    """
    found = value_index(world, entity, attribute, time)
    return (
        name(world, Entity("place", found))
        if attribute in words.CITY
        else words.VALUES[attribute][found]
    )


def kind(world: World, entity: Entity, attribute: str) -> str:
    """`new` (the entity is), `updated` (the value differs between the times) or `unchanged`.

    >>> kind(World(people=100), Entity("person", 99), "field")
    'new'
    """
    if entity.index >= count(world, entity.sort, 0):
        return "new"
    changeable = words.CHANGEABLE[entity.sort]
    if (
        attribute in changeable
        and updates(world, entity.sort)[entity.index, changeable.index(attribute)]
    ):
        return "updated"
    return "unchanged"


@functools.lru_cache(maxsize=16)
def updates(world: World, sort: str) -> np.ndarray:
    """Which facts change: `[old entities, changeable attributes]` bool.

    It is exactly the share given: those with the smallest hashes.

    >>> found = updates(World(people=100), "person")
    >>> found.shape, int(found.sum())
    ((80, 3), 48)
    """
    shape = count(world, sort, 0), len(words.CHANGEABLE[sort])
    draws = hashed(world.seed, "updated", sort, np.arange(shape[0] * shape[1], dtype=np.uint64))
    chosen = np.zeros(len(draws), bool)
    chosen[np.argsort(draws, kind="stable")[: round(len(draws) * world.updated)]] = True
    return chosen.reshape(shape)


def value_index(world: World, entity: Entity, attribute: str, time: int) -> int:
    """The number of an attribute's value among the values that there are.

    Args:
      world: which world.
      entity: of which entity.
      attribute: one of `lmdyn.data.worlds.words.TEMPLATES[entity.sort]`.
      time: 0 or 1.

    Raises:
      InputError: as for `value`.

    >>> 0 <= value_index(World(), Entity("person", 0), "residence", 0) < 100
    True
    """
    choose(f"attribute of a {entity.sort}", attribute, words.TEMPLATES[entity.sort])
    if not 0 <= entity.index < count(world, entity.sort, time):
        raise InputError(
            f"{entity.sort} {entity.index} is not known at time {time}, when there are"
            f" {count(world, entity.sort, time)}"
        )
    many = lambda t: (
        count(world, "place", t) if attribute in words.CITY else len(words.VALUES[attribute])
    )
    what = kind(world, entity, attribute)
    first = hashed(world.seed, "value", *entity, attribute) % many(1 if what == "new" else 0)
    if time == 0 or what != "updated":
        return first
    step = hashed(world.seed, "update", *entity, attribute) % (many(1) - 1)
    return (first + 1 + step) % many(1)  # any value but the first


def _names() -> int:
    return len(words.FIRST) ** 2 * len(words.LAST)


def hashed(*parts: Any) -> Any:
    """64 bits from integers, strings and (last) a uint64 array.

    It is SplitMix64's mixer (Steele et al. 2014), chained.

    >>> hashed(1234567)  # the generator's first output from this state
    6457827717110365317
    """
    state = 0
    for part in parts:
        part = zlib.crc32(part.encode()) if isinstance(part, str) else part
        mixed = (state ^ part) + 0x9E3779B97F4A7C15 & _MASK
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
        state = mixed ^ (mixed >> 31)
    return state


def permute(index: int, size: int, key: int) -> int:
    """Where a shuffle of `size` things by `key` puts number `index`, without shuffling the others.

    A Feistel network is a permutation of an even number of bits; walking on until the result is
    below `size` makes it one of `size` things (Black and Rogaway 2002).

    >>> sorted(permute(i, 7, key=3) for i in range(7))
    [0, 1, 2, 3, 4, 5, 6]
    """
    bits = max(1, -(-(size - 1).bit_length() // 2))
    half = (1 << bits) - 1
    while True:
        left, right = index >> bits, index & half
        for turn in range(4):
            left, right = right, left ^ (hashed(key, turn, right) & half)
        index = left << bits | right
        if index < size:
            return index
