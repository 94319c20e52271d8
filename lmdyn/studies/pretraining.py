"""The training runs inside a study: one model per seed, with the rows measured during training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmdyn import data, records, training
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.studies.config import for_seed
from lmdyn.training import TrainConfig
from lmdyn.training.prepare import make_tokenizer


def run_of_seed(run: TrainConfig, seed: int, out: str | Path) -> TrainConfig:
    """The run of one seed: `{seed}` in its texts replaced, and a folder of its own.

    Args:
      run: the run that all seeds share.
      seed: the seed.
      out: the run's folder.

    >>> from lmdyn.training import Data, Source
    >>> texts = Data((Source("text:world{seed}.txt"),), length=16, batch=8)
    >>> run = run_of_seed(
    ...     TrainConfig(out="out", data=texts, steps=2, start="dir:m"), 3, "out/seed3"
    ... )
    >>> run.data.sources[0].ref, run.seed, run.out
    ('text:world3.txt', 3, 'out/seed3')
    """
    sources = tuple(dataclasses.replace(s, ref=for_seed(s.ref, seed)) for s in run.data.sources)
    texts = dataclasses.replace(run.data, sources=sources)
    return dataclasses.replace(run, data=texts, seed=seed, out=str(out))


def train_run(run: TrainConfig, command: Sequence[str], tags: dict[str, Any]) -> list[dict]:
    """Trains a run, or resumes it.

    Args:
      run: the run.
      command: the words of the command line, for the record.
      tags: fields added to every row.

    Returns:
      The rows measured during training; none if the run measures nothing.

    Raises:
      KeyboardInterrupt: a signal stopped the run.
    """
    if training.train(run, list(command), say=lambda text: None).signal is not None:
        raise KeyboardInterrupt
    if run.evaluation is None:
        return []
    return [{**row, **tags} for row in records.read_rows(Path(run.out) / "rows.jsonl")]


def tokenizer_of(run: TrainConfig) -> Tokenizer:
    """The tokenizer that a run will use, made before anything is trained.

    >>> from lmdyn.training import Data, Source
    >>> texts = Data((Source("builtin:docs"),), length=16, batch=8, tokenizer="bytes")
    >>> tokenizer_of(TrainConfig(out="out", data=texts, steps=2, start="dir:m")).encode(
    ...     "hi"
    ... ).tolist()
    [104, 105]
    """
    return make_tokenizer(run, [data.documents(s.ref)[:: s.every] for s in run.data.sources])
