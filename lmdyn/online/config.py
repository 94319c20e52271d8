"""How a text is adapted to: one frozen config for the command line, the library and the studies."""

import dataclasses

from lmdyn.errors import InputError, check_least, choose
from lmdyn.online.change_detection import ChangeDetector
from lmdyn.online.contexts import Context, check_context, none
from lmdyn.params import Adapters, LowRank, Partition, partition
from lmdyn.transforms import Localized
from lmdyn.types import Params

RESETS = ("never", "document")


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """How `evaluate` reads a text and adapts to it.

    Attributes:
      chunk: C, predictions between two updates.
      context: what a chunk looks back on: `none()`, `cache(window)` or `overlap(window)`.
      adapt: what adapts: a selector of parameters, e.g. `"blocks[10:20].mlp"`,
        `lmdyn.params.low_rank(...)`, or `lmdyn.transforms.localized(profile, mode)`. The backward
        pass stops at the lowest block of them.
      steps: optimizer steps on every chunk.
      every: k; the model changes after every k chunks only, by the mean of their gradients (of each
        of their steps). What is left at the end of a document or stream is not learned from.
      reset: `never`; `document`: every document starts from the parameters passed in, a fresh
        optimizer state and no context; or a `ChangeDetector`: at an alarm the model returns to
        these parameters, or part of the way, with a fresh optimizer state and its context.
      guard: nats, summed over tokens, that may be lost against the static model before adaptation
        stops for good. From then on the static model's nll is reported. An nll that is not a
        number also stops it, and counts as the static one.
      parallel: with `reset="document"`, this many documents are read side by side, each with its
        own copy of what adapts and one shared body. The same numbers to rounding, and small chunks
        go much faster.
      end_of_text: token that joins documents, unless `reset="document"`.
      first: token before the text (with `reset="document"`, before every document) and
        takes the place of the first input of every chunk or overlap window, as
        `Tokenizer.window_token` says; with a cache, which has no windows, it goes there only.
      tokens: stop after this many predictions; None reads everything.
      piece: chunks per run of the compiled program, which then serves texts of any length, with the
        same numbers; None runs the whole text at once.

    Raises:
      InputError: a value out of range, or values that exclude each other.

    >>> OnlineConfig(chunk=64, adapt="blocks.mlp").context
    Context(kind='none', window=0, keep=0)
    """

    chunk: int = 512
    context: Context = none()
    adapt: str | LowRank | Localized = "all"
    steps: int = 1
    every: int = 1
    reset: str | ChangeDetector = "never"
    guard: float | None = None
    parallel: int = 1
    end_of_text: int | None = None
    first: int | None = None
    tokens: int | None = None
    piece: int | None = None

    def __post_init__(self) -> None:
        check_least(self, chunk=1, steps=1, every=1, parallel=1, tokens=1, piece=1)
        check_context(self.context, self.chunk)
        if self.detector is None:
            choose("reset", str(self.reset), RESETS)
        if self.parallel > 1 and (self.reset != "document" or self.guard is not None):
            raise InputError(
                f"parallel={self.parallel} with reset={self.reset!r}, guard={self.guard}: documents"
                " side by side need reset='document' and no guard"
            )
        if self.guard is not None and not self.guard >= 0:
            raise InputError(f"guard={self.guard}: the nats that may be lost are 0 or more")

    @property
    def detector(self) -> ChangeDetector | None:
        """The detector of changes, where `reset` is one."""
        return self.reset if isinstance(self.reset, ChangeDetector) else None

    @property
    def compares(self) -> bool:
        """Whether the adapted model is compared with the static one on the way."""
        return self.guard is not None or self.detector is not None

    def partition(self, params: Params) -> Partition | Adapters:
        """The parameters of one model that adapt.

        Args:
          params: the model's.

        Raises:
          InputError: `adapt` matches nothing.
        """
        if isinstance(self.adapt, str):
            return partition(params, self.adapt)
        return self.adapt.partition(params)
