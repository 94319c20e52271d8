"""Heads by name."""

from typing import TYPE_CHECKING

from lmdyn.errors import InputError
from lmdyn.models.heads.base import Head
from lmdyn.models.heads.full import FullHead
from lmdyn.models.heads.low_rank import LowRankHead
from lmdyn.models.heads.mixture import MixtureHead
from lmdyn.models.heads.projected import ProjectedHead
from lmdyn.models.heads.sigsoftmax import SigsoftmaxHead
from lmdyn.names import resolve

if TYPE_CHECKING:
    from lmdyn.models.config import ModelConfig

HEADS: dict[str, type[Head]] = {
    "full": FullHead,
    "low_rank": LowRankHead,
    "mixture": MixtureHead,
    "sigsoftmax": SigsoftmaxHead,
    "projected": ProjectedHead,
}


def make_head(text: str, width: int, vocab: int) -> Head:
    """A head by name.

    Args:
      text: `full`, `low_rank:R`, `mixture:K`, `sigsoftmax`, `projected:P`, or the dotted name of a
        `Head` of your own, with a number behind a colon if it takes one.
      width: D.
      vocab: V.

    Raises:
      InputError: another name, a number that is missing or not wanted, or a size that the head
        cannot have.

    >>> make_head("mixture:3", 6, 11) == MixtureHead(6, 11, components=3)
    True
    >>> make_head("mixture", 6, 11)
    Traceback (most recent call last):
    lmdyn.errors.InputError: head='mixture'; write mixture:N with a number of 1 or more
    """
    name, colon, number = text.partition(":")
    made = resolve(name, HEADS, "head")
    if not (isinstance(made, type) and issubclass(made, Head)):
        raise InputError(f"head='{text}': {name} is not a subclass of lmdyn.models.heads.Head")
    if bool(made.argument) != bool(colon) or (colon and not (number.isdecimal() and int(number))):
        wanted = f"{name}:N with a number of 1 or more" if made.argument else f"'{name}' alone"
        raise InputError(f"head='{text}'; write {wanted}")
    return made(width, vocab, *([int(number)] if number else []))


def head_of(config: "ModelConfig") -> Head:
    """The head that a model's config names.

    Raises:
      InputError: as for `make_head`, or a head that cannot be tied to the embedding is.

    >>> from lmdyn.models import ModelConfig
    >>> head_of(
    ...     ModelConfig(
    ...         vocab=11,
    ...         width=6,
    ...         depth=2,
    ...         heads=3,
    ...         head_width=2,
    ...         mlp_width=10,
    ...         positions=16,
    ...         head="low_rank:2",
    ...     )
    ... ).size
    34
    """
    head = make_head(config.head, config.width, config.vocab)
    return head.tied() if config.tied_head else head


def check_head(config: "ModelConfig") -> None:
    """Raises an `InputError` for a head that a model cannot have, as `head_of`.

    >>> from lmdyn.models import ModelConfig
    >>> sizes = dict(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> ModelConfig(head="mixture", **sizes)
    Traceback (most recent call last):
    lmdyn.errors.InputError: head='mixture'; write mixture:N with a number of 1 or more
    """
    head_of(config)
