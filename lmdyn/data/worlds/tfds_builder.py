"""Synthetic worlds as a TFDS builder: generated, not downloaded, and without TensorFlow.

Importing this module imports `tensorflow_datasets`; `lmdyn.data` imports it when a reference asks
for it.
"""

import contextlib
import dataclasses
import os
import sys
from typing import ClassVar

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from lmdyn.data.worlds.facts import World, name
from lmdyn.data.worlds.world import (
    NAMED_WORLDS,
    PROBE_SPLITS,
    TEXT_SPLITS,
    about,
    documents,
    named,
    probes,
)
from lmdyn.errors import InputError
from lmdyn.types import present

DATASET_NAME = "synthetic_world"


@dataclasses.dataclass
class WorldConfig(tfds.core.BuilderConfig):
    """A builder config that holds a world.

    >>> WorldConfig(name="mine", world=World(people=8)).world.people
    8
    """

    world: World = dataclasses.field(default_factory=World)


class SyntheticWorld(tfds.core.GeneratorBasedBuilder):
    """Texts and probes of a synthetic world: splits time0, time1, probes, probes_time0.

    See `lmdyn.data.worlds.world`. An empty split (time1, where nothing changes) is left out. Texts
    have `start` = `end` = 0 and an empty `kind`, `depth` and `attribute`.

    >>> sorted(SyntheticWorld.builder_configs)
    ['large', 'medium', 'small']
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        WorldConfig(name=name, description=f"{world.people} people", world=world)
        for name, world in NAMED_WORLDS.items()
    ]
    DEFAULT_CONFIG_NAME = "small"

    def _info(self):
        strings = ("text", "kind", "depth", "entity", "attribute")
        numbers = {key: tfds.features.Scalar(np.int32) for key in ("start", "end", "time")}
        features = tfds.features.FeaturesDict(
            {**{key: tfds.features.Text() for key in strings}, **numbers}
        )
        description = (self.__doc__ or "").splitlines()[0]
        return tfds.core.DatasetInfo(
            builder=self, features=features, description=description, disable_shuffling=True
        )

    def _split_generators(self, manager):
        world = present(self.builder_config).world
        texts = {
            split: self._texts(world, split) for split in TEXT_SPLITS if documents(world, split)
        }
        asked = {split: probes(world, time) for split, time in PROBE_SPLITS.items()}
        return texts | {split: enumerate(_bar(found, split)) for split, found in asked.items()}

    def _generate_examples(self):
        raise NotImplementedError  # the generators of the splits are given above

    def _texts(self, world, split):
        time = TEXT_SPLITS.index(split)
        blank = dict(start=0, end=0, kind="", depth="", attribute="", time=time)
        for i, text in enumerate(_bar(documents(world, split), split)):
            yield (i, {**blank, "text": text, "entity": name(world, about(world, split, i))})


def world_builder(name: str, data_dir: str | None = None) -> SyntheticWorld:
    """The builder of a named world, prepared if it was not.

    Args:
      name: `synthetic_world/CONFIG`, see `lmdyn.data.worlds.world.named`; `small` where no config
        is given.
      data_dir: where TFDS keeps its data; None is its default.

    Raises:
      InputError: an unknown config or field, or a value out of range.

    >>> import tempfile
    >>> world_builder("synthetic_world/people=5,places=4", tempfile.mkdtemp()).info.splits[
    ...     "time0"
    ... ]
    <SplitInfo num_examples=35, num_shards=1>
    """
    return prepared(named(name.partition("/")[2] or SyntheticWorld.DEFAULT_CONFIG_NAME), data_dir)


def prepared(world: World, data_dir: str | os.PathLike | None = None) -> SyntheticWorld:
    """The builder of any world, with its texts and probes written under `data_dir`.

    Args:
      world: which world.
      data_dir: where TFDS keeps its data; None is its default. What is there is kept.

    Raises:
      InputError: the folder cannot be written to.

    >>> import tempfile
    >>> prepared(World(people=5, places=4), tempfile.mkdtemp()).info.splits[
    ...     "time0"
    ... ].num_examples
    35
    """
    known = [config for config in SyntheticWorld.BUILDER_CONFIGS if config.world == world]
    fields = "-".join(f"{key}{value}" for key, value in dataclasses.asdict(world).items())
    config = (
        known[0].name if known else WorldConfig(name=fields, world=world)
    )  # a name, so that builders pickle
    with _quiet():
        made = SyntheticWorld(data_dir=data_dir, config=config, file_format="array_record")
        if made.data_path.exists():
            return made
        try:
            made.download_and_prepare()
        except OSError as err:
            if not made.data_path.exists():  # else another process was quicker
                why = err.strerror or err
                raise InputError(
                    f"cannot write the synthetic world to {made.data_path}: {why}; choose another"
                    " folder"
                ) from err
        return SyntheticWorld(data_dir=data_dir, config=config, file_format="array_record")


@contextlib.contextmanager
def _quiet():
    """Silence: TFDS announces a download, warns about own configs, and draws bars of its own."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _bar(items, split):
    """A bar on the terminal, from two seconds on."""
    return tqdm(
        items,
        desc=f"making {split}",
        unit="text",
        delay=2,
        leave=False,
        disable=None,
        file=sys.__stderr__,
    )
