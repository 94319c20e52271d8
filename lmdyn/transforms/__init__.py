"""Pure changes: which parameters, how much, and to what."""

from lmdyn.transforms.adapters import Adapters, LowRank, low_rank
from lmdyn.transforms.groups import GROUPS
from lmdyn.transforms.localization import (
    Localized,
    layer_mask,
    layer_rates,
    localize,
    localized,
    trained,
)
from lmdyn.transforms.measured import Measured
from lmdyn.transforms.partition import Partition, partition
from lmdyn.transforms.prior import (
    GradientRMS,
    decay_to_prior,
    gradient_rms,
    load_rms,
    save_rms,
    scale_by_prior_rms,
)
from lmdyn.transforms.reactivation import (
    at_random,
    by_entropy,
    choose_coefficients,
    dormant,
    reactivate,
    reactivation,
)
from lmdyn.transforms.recall import rec_adam, recall
from lmdyn.transforms.running import adjustable_rates, group_norms, relocalize, with_rates
from lmdyn.transforms.selectors import flatten, select, unflatten

__all__ = [
    "GROUPS",
    "Adapters",
    "GradientRMS",
    "Localized",
    "LowRank",
    "Measured",
    "Partition",
    "adjustable_rates",
    "at_random",
    "by_entropy",
    "choose_coefficients",
    "decay_to_prior",
    "dormant",
    "flatten",
    "gradient_rms",
    "group_norms",
    "layer_mask",
    "layer_rates",
    "load_rms",
    "localize",
    "localized",
    "low_rank",
    "partition",
    "reactivate",
    "reactivation",
    "rec_adam",
    "recall",
    "relocalize",
    "save_rms",
    "scale_by_prior_rms",
    "select",
    "trained",
    "unflatten",
    "with_rates",
]
