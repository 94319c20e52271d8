"""Pure changes: which parameters, how much, and to what."""

from lmdyn.transforms.localization import (
    Localized,
    layer_mask,
    layer_rates,
    localize,
    localized,
    trained,
)
from lmdyn.transforms.measured import Measured
from lmdyn.transforms.muon import scale_by_muon
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
from lmdyn.transforms.rec_adam import rec_adam, recall
from lmdyn.transforms.running_profile import adjustable_rates, group_norms, relocalize, with_rates

__all__ = [
    "GradientRMS",
    "Localized",
    "Measured",
    "adjustable_rates",
    "at_random",
    "by_entropy",
    "choose_coefficients",
    "decay_to_prior",
    "dormant",
    "gradient_rms",
    "group_norms",
    "layer_mask",
    "layer_rates",
    "load_rms",
    "localize",
    "localized",
    "reactivate",
    "reactivation",
    "rec_adam",
    "recall",
    "relocalize",
    "save_rms",
    "scale_by_muon",
    "scale_by_prior_rms",
    "trained",
    "with_rates",
]
