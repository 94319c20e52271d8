"""How long a text may be: positions that a model has, and those that it was made for."""

import warnings

from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig


def trained_length(config: ModelConfig) -> int:
    """The longest text that a model was made for, in tokens, scaled rotary positions included.

    `linear` and `yarn` scaling reach `factor` times as far as the unscaled model was trained;
    `llama3` models name the scaled length themselves.

    Args:
      config: the architecture.

    >>> from lmdyn.models import RotaryScaling
    >>> sizes = dict(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> trained_length(ModelConfig(**sizes))
    8
    >>> trained_length(ModelConfig(**sizes, rotary_scaling=RotaryScaling("yarn", 4.0, 8)))
    32
    """
    scaling = config.rotary_scaling
    if scaling is None or scaling.kind == "llama3":
        return config.positions
    original = scaling.original_positions or config.positions
    return max(config.positions, int(scaling.factor * original))


def check_positions(config: ModelConfig, length: int, name: str = "length") -> None:
    """Refuses a text longer than learned positions; warns of one longer than rotary ones reach.

    Warned of once, however often it is checked.

    Args:
      config: the architecture.
      length: tokens that go through the model at once.
      name: what the user calls them.

    Raises:
      InputError: more tokens than there are learned positions.

    >>> sizes = dict(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> check_positions(ModelConfig(**sizes, position="learned"), 9)
    Traceback (most recent call last):
    lmdyn.errors.InputError: length=9 exceeds the model's 8 positions; use length<=8
    """
    if config.position == "learned":
        if length > config.positions:
            raise InputError(
                f"{name}={length} exceeds the model's {config.positions} positions; use"
                f" {name}<={config.positions}"
            )
    elif length > (most := trained_length(config)):
        # Of this line, so that Python shows it once per process and not once per caller.
        warnings.warn(
            f"{name}={length} is beyond the {most} positions that the model was made for; numbers"
            f" there are those of a model out of its range (use {name}<={most})",
            stacklevel=1,
        )
