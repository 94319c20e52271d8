"""Synthetic worlds on disk, as TFDS datasets."""

import os

from lmdyn.data.worlds.facts import World


def prepare(world: World, folder: str | os.PathLike) -> str:
    """Writes a world's splits as a TFDS dataset of array_record files, unless they are there.

    Args:
      world: which world.
      folder: a TFDS data folder; the files are written to `folder/synthetic_world/CONFIG/VERSION`.

    Returns:
      That path: `tfds:PATH:time0#text` names the texts of time 0, and `tfds:PATH:probes` the
        probes.

    Raises:
      InputError: the folder cannot be written to.

    >>> import lmdyn.data, tempfile
    >>> from lmdyn.data.worlds import World
    >>> path = prepare(World(people=5, places=4), tempfile.mkdtemp())
    >>> len(lmdyn.data.documents(f"tfds:{path}:time0#text"))
    35
    """
    from lmdyn.data.worlds.tfds_builder import prepared  # it imports tensorflow_datasets

    return str(prepared(world, os.path.expanduser(folder)).data_path)
