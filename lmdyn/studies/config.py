"""What the configs of all studies share.

`StudyConfig` is the base of every study's config; `SeededStudyConfig` that of a study which is
repeated over seeds. Fields are given by name.
"""

import dataclasses
from typing import Annotated, Any

import tyro

from lmdyn import checkpoints
from lmdyn.errors import check_least, check_types
from lmdyn.models import Compute
from lmdyn.training import TrainConfig
from lmdyn.types import Bos


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The settings that every study has.

    Attributes:
      out: the study's folder. The same command resumes a study that was stopped.
      small_version_of: the config file of which this one is a small version that shows how the
        study works; the report then says that its verdicts decide nothing, and names the file to
        run.
      bos: where beginning-of-text tokens go, in what is trained and read: auto: as each run or
        model has it; document; window: before each window; none.
      end_of_text: the token between documents, or its id, in place of the tokenizer's own.

    >>> StudyConfig(out="out/mine").small_version_of is None
    True
    """

    out: str
    small_version_of: Annotated[str | None, tyro.conf.Fixed] = None
    bos: Bos = "auto"
    end_of_text: str | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeededStudyConfig(StudyConfig):
    """The settings of a study that is repeated over seeds: each has its own model and data.

    Attributes:
      seeds: how many seeds.
      seed: the first seed.
      workers: processes that run side by side; 0: one per core on a CPU, one elsewhere.
      compute: dtype and attention.

    >>> list(SeededStudyConfig(out="out/mine", seeds=2, seed=3).every_seed)
    [3, 4]
    """

    seeds: int = 3
    seed: int = 0
    workers: int = 0
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, seeds=1, seed=0, workers=0)

    @property
    def every_seed(self) -> range:
        """The seeds, from the first to the last."""
        return range(self.seed, self.seed + self.seeds)


def load_model(
    config: Any, reference: str | checkpoints.Reference, packed: bool = False
) -> checkpoints.Loaded:
    """A model that a study reads, with the study's special tokens.

    Args:
      config: has the fields `compute`, `bos` and `end_of_text`.
      reference: of the model.
      packed: see `lmdyn.checkpoints.load`.

    Raises:
      InputError: whatever is wrong with the model, or no such token.

    >>> import tempfile
    >>> from lmdyn import models
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> model = models.LanguageModel(
    ...     models.ModelConfig(
    ...         vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> folder = tempfile.mkdtemp() + "/tiny"
    >>> checkpoints.export(model, models.init(model), byte_tokenizer(), folder)
    >>> study = SeededStudyConfig(out="out/mine", bos="none", end_of_text="a")
    >>> load_model(study, f"dir:{folder}").tokenizer.end_of_text
    97
    """
    loaded = checkpoints.load(reference, config.compute, packed, end_of_text=config.end_of_text)
    return loaded._replace(tokenizer=loaded.tokenizer.with_bos(config.bos))


def with_special_tokens(run: TrainConfig, config: StudyConfig) -> TrainConfig:
    """A run of a study, with the study's special tokens where it names them.

    Args:
      run: as the config file has it.
      config: of the study.

    >>> from lmdyn.training import Data, Source
    >>> run = TrainConfig(Data((Source("text:a"),)), 2, "run", start="dir:model", bos="window")
    >>> with_special_tokens(run, StudyConfig(out="out/mine")).bos
    'window'
    >>> with_special_tokens(run, StudyConfig(out="out/mine", bos="none")).bos
    'none'
    """
    bos = run.bos if config.bos == "auto" else config.bos
    return dataclasses.replace(run, bos=bos, end_of_text=config.end_of_text or run.end_of_text)


def for_seed(reference: str, seed: int) -> str:
    """A reference to a text, facts or probes with `{seed}` replaced by the seed.

    >>> for_seed("tfds:synthetic_world/seed={seed}:time0", 3)
    'tfds:synthetic_world/seed=3:time0'
    """
    return reference.replace("{seed}", str(seed))
