"""Pure measurements: likelihood, entropies, geometry, spectra, gradients."""

from lmdyn.metrics.base import Metric, Sum, combine, merge, sums, token_sum
from lmdyn.metrics.entropies import attention_entropy, knowledge_entropy, prediction_entropy
from lmdyn.metrics.geometry import anisotropy
from lmdyn.metrics.gradients import LayerGradients, gradient_norms, layer_gradients
from lmdyn.metrics.likelihood import likelihood, span_log_probability
from lmdyn.metrics.measure import REGISTRY, accumulate, build, measure
from lmdyn.metrics.probe_scores import SpanScores, score_probes
from lmdyn.metrics.relative import (
    ProfileDifference,
    RelativeGradients,
    compare_profiles,
    relative_gradients,
)
from lmdyn.metrics.spectra import (
    Spectra,
    Spectrum,
    check_vocabulary_slice,
    head_of,
    head_spectrum,
    layer_spectra,
    singular_entropy,
    singular_values,
    spectrum_of,
)
from lmdyn.records import Quantity

__all__ = [
    "REGISTRY",
    "LayerGradients",
    "Metric",
    "ProfileDifference",
    "Quantity",
    "RelativeGradients",
    "SpanScores",
    "Spectra",
    "Spectrum",
    "Sum",
    "accumulate",
    "anisotropy",
    "attention_entropy",
    "build",
    "check_vocabulary_slice",
    "combine",
    "compare_profiles",
    "gradient_norms",
    "head_of",
    "head_spectrum",
    "knowledge_entropy",
    "layer_gradients",
    "layer_spectra",
    "likelihood",
    "measure",
    "merge",
    "prediction_entropy",
    "relative_gradients",
    "score_probes",
    "singular_entropy",
    "singular_values",
    "span_log_probability",
    "spectrum_of",
    "sums",
    "token_sum",
]
