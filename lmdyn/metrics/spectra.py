"""Spectra of weight matrices; natural logarithms.

Godey et al. 2024, arXiv 2404.07647, section 5; docs/methods.md#singular-entropy.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.metrics import base
from lmdyn.metrics.entropies import entropy
from lmdyn.models.heads import output_matrix
from lmdyn.models.matrices import stored
from lmdyn.params.selectors import flatten, select
from lmdyn.records import Quantity
from lmdyn.types import Array, Params

EXACT = 2**18
"""Up to this many numbers a matrix is decomposed as it is, above by its Gram matrix."""
BLOCK_ROWS = 4096


def singular_values(matrices: Array) -> np.ndarray:
    """All singular values, largest first, computed in float64.

    Small matrices (up to `EXACT` numbers) go to LAPACK as they are. A larger one goes by the
    eigenvalues of its smaller Gram matrix, `[R, R]`, summed in float64 over blocks of rows: several
    times as fast, and no float64 copy of the whole is made. The Gram matrix squares the condition:
    the relative error of a value is about `1e-15 (s_1 / s_i)^2`. Values above 1e-5 of the largest
    are good to 1e-4; those below 1e-7 of it are noise, and too small to count in an entropy.

    Args:
      matrices: `[..., M, N]`.

    Returns:
      `[..., R]` float64, R = min(M, N).

    >>> singular_values([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]).tolist()
    [4.0, 3.0]
    """
    matrices = np.asarray(matrices)
    *stack, rows, columns = matrices.shape
    if rows * columns <= EXACT:
        return np.linalg.svd(matrices.astype(np.float64), compute_uv=False)
    values = [_by_gram(matrix) for matrix in matrices.reshape(-1, rows, columns)]
    return np.stack(values).reshape(*stack, min(rows, columns))


def _by_gram(matrix):
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gram = np.zeros((tall.shape[1], tall.shape[1]))
    for start in range(0, tall.shape[0], BLOCK_ROWS):
        rows = np.asarray(tall[start : start + BLOCK_ROWS], np.float64)
        gram += rows.T @ rows
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None))


SINGULAR = Quantity(
    "singular_entropy",
    "Singular entropy",
    "nats",
    caption=(
        "How far a matrix's singular values are from equal: KL(q || uniform) in nats, with q their"
        " shares of the sum. 0 is flat; the largest value, log R, is a single direction. Godey et"
        " al. 2024."
    ),
    fields={"effective_rank": "Effective rank"},
)
HEAD_SPECTRUM = SINGULAR._replace(
    name="head_spectrum", title="Singular entropy of the head", site="head"
)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix, or of the same matrix in several layers.

    Attributes:
      values: `[R]` or `[layers, R]` float64, largest first, R = the smaller side.
      site: where it is: `head`, `attention.query`.
      layers: which layers; None for a matrix outside the blocks.

    >>> found = Spectrum(np.array([3.0, 3.0, 0.0, 0.0]))  # two of four directions
    >>> round(float(found.singular_entropy), 4), round(float(found.effective_rank), 4)
    (0.6931, 2.0)
    """

    values: np.ndarray
    site: str = "head"
    layers: tuple[int, ...] | None = None

    @property
    def singular_entropy(self) -> np.ndarray:
        """`KL(q || uniform) = sum q log(q R)` in nats, `q = s / sum s`.

        0 is flat, log R one direction (Godey et al. 2024, section 5.2).
        """
        return np.log(self.values.shape[-1]) - entropy(self.values)

    @property
    def effective_rank(self) -> np.ndarray:
        """`exp(entropy of q)`, between 1 and R (Roy and Vetterli 2007)."""
        return np.exp(entropy(self.values))

    @property
    def normalized(self) -> np.ndarray:
        """Values as shares of the largest, so that matrices of several sizes compare."""
        return self.values / self.values[..., :1]

    def rows(self) -> list[dict[str, Any]]:
        """`singular_entropy` of each layer, or of the one matrix, with its `effective_rank`."""
        parts = zip(
            self.layers or [None],
            np.atleast_1d(self.singular_entropy),
            np.atleast_1d(self.effective_rank),
            strict=True,
        )
        return [
            records.row("singular_entropy", h, "nats", self.site, layer, effective_rank=rank)
            for layer, h, rank in parts
        ]


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Spectra of several matrices. Made by `spectrum_of`.

    Attributes:
      matrices: `{site: Spectrum}`.
    """

    matrices: dict[str, Spectrum]

    def __getitem__(self, site: str) -> Spectrum:
        return self.matrices[site]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of every matrix, one after another."""
        return [row for spectrum in self.matrices.values() for row in spectrum.rows()]


def spectrum_of(params: Params, selector: str) -> Spectra:
    """Spectra of every matrix that a selector names.

    Args:
      params: a model's parameters; quantised ones too.
      selector: see `lmdyn.params.selectors`. `head` is what predicts, so in a model that ties it,
        the embedding. Vectors (norms, biases) are passed over.

    Raises:
      InputError: the selector matches nothing, or vectors only; or a matrix has a number that is
        not finite, or is all zero.

    >>> params = {
    ...     "blocks": {"mlp": {"up": {"kernel": np.ones([4, 2, 3]), "bias": np.ones([4, 3])}}}
    ... }
    >>> found = spectrum_of(params, "blocks[1:3].mlp")
    >>> (
    ...     found["mlp.up"].layers,
    ...     found["mlp.up"].values.shape,
    ...     found["mlp.up"].effective_rank.round(6).tolist(),
    ... )
    ((1, 2), (2, 2), [1.0, 1.0])
    """
    if "head" not in params and re.search(r"\bhead\b", selector):
        params = {**params, "head": {"kernel": output_matrix(params)[0]}}
    leaves, found = flatten(params), {}
    for path, layers in select(params, selector).items():
        leaf = leaves[path]
        if len(leaf.shape) != (2 if layers is None else 3):
            continue
        site = ".".join(path[layers is not None : -1])
        # One layer at a time, so that no stack is ever held twice.
        parts = [
            singular_values(_finite(leaf[layer], f"layer {layer} of {site}"))
            for layer in layers or ()
        ]
        found[site] = Spectrum(
            np.stack(parts) if parts else singular_values(_finite(leaf, site)), site, layers
        )
    if not found:
        raise InputError(
            f"selector '{selector}' names vectors only, which have no spectrum; name matrices, for"
            " example 'blocks.mlp' or 'head'"
        )
    return Spectra(found)


def _finite(matrix, name) -> np.ndarray:
    matrix = np.asarray(stored(matrix)[0])
    if not np.isfinite(matrix).all() or not matrix.any():
        what = "is all zero" if np.isfinite(matrix).all() else "has a number that is not finite"
        raise InputError(
            f"{name} {what}, so it has no spectrum; was the checkpoint trained, and read whole?"
        )
    return matrix


def head_of(params: Params, vocabulary: slice | None = None) -> Spectrum:
    """The spectrum of the matrix that gives the scores of the vocabulary.

    The head, the embedding that it is tied to, or the last matrix of a head of another kind.

    Args:
      params: the model's parameters.
      vocabulary: which tokens; None takes all. A vocabulary that was padded to a round size has
        columns that are never trained.

    Raises:
      InputError: a slice without a token; or as `spectrum_of`.

    >>> head_of({"head": {"kernel": np.diag([4.0, 2.0, 1.0])}}, slice(0, 2)).values.tolist()
    [4.0, 2.0]
    """
    check_vocabulary_slice(params, vocabulary)
    head, vocab_first = output_matrix(params)
    if vocabulary is not None:
        start, stop, _ = vocabulary.indices(head.shape[0 if vocab_first else 1])
        head = head[start:stop] if vocab_first else head[:, start:stop]
    return Spectrum(singular_values(_finite(head, "head")), "head")


def check_vocabulary_slice(params: Params, vocabulary: slice | None) -> None:
    """Checks that a slice of the vocabulary holds a token.

    Args:
      params: the model's parameters.
      vocabulary: as for `head_of`.

    Raises:
      InputError: it holds none.

    >>> check_vocabulary_slice({"head": {"kernel": np.eye(3)}}, slice(3, None))
    Traceback (most recent call last):
    lmdyn.errors.InputError: vocabulary 3: holds no token of the head's 3; use 0:3, or a part of it
    """
    if vocabulary is None:
        return
    head, vocab_first = output_matrix(params)
    size = head.shape[0 if vocab_first else 1]
    start, stop, _ = vocabulary.indices(size)
    if start >= stop:
        asked = ":".join(
            "" if end is None else str(end) for end in (vocabulary.start, vocabulary.stop)
        )
        raise InputError(
            f"vocabulary {asked} holds no token of the head's {size}; use 0:{size}, or a part of it"
        )


def singular_entropy() -> base.Metric:
    """Singular entropy and effective rank of the output head.

    Reads parameters only, so it costs no forward pass.

    >>> found = singular_entropy()
    >>> found.taps  # of parameters alone: no text is read
    {}
    >>> equal = found.finish(found.init({}), {"head": {"kernel": np.eye(4)}})
    >>> [
    ...     abs(round(float(value), 6))
    ...     for value in (equal.singular_entropy, equal.effective_rank)
    ... ]
    [0.0, 4.0]
    """
    return base.sums({}, lambda sums, count, params: head_of(params), SINGULAR)


@dataclasses.dataclass(frozen=True)
class HeadSpectrum:
    """A head's spectrum whose row holds the values themselves. Made by `head_spectrum`.

    So it can be drawn from the row.

    Attributes:
      spectrum: all of them.
      kept: how many a row holds at most.
    """

    spectrum: Spectrum
    kept: int

    def rows(self) -> list[dict[str, Any]]:
        """One row, `head_spectrum`: singular entropy, with some of the singular values.

        They are shares of the largest (`values`, at `index`, counted from 1).
        """
        size = len(self.spectrum.values)
        half, index = self.kept // 2, np.arange(size)
        if size > self.kept:  # half of them close together at the largest, half evenly over all
            index = np.unique(
                np.round(
                    np.concatenate([np.geomspace(1, size, half), np.linspace(1, size, half)])
                ).astype(int)
                - 1
            )
        values = [float(f"{v:.5g}") for v in self.spectrum.normalized[index]]
        return [
            records.row(
                "head_spectrum",
                self.spectrum.singular_entropy,
                "nats",
                "head",
                directions=size,
                index=(index + 1).tolist(),
                values=values,
                largest=self.spectrum.values[0],
                effective_rank=self.spectrum.effective_rank,
            )
        ]


def head_spectrum(vocabulary: slice | None = None, kept: int = 64) -> base.Metric:
    """`singular_entropy`, with the singular values in the row.

    They are shares of the largest (`values`, at `index` counted from 1): every one of them, or
    `kept`, half of them close together at the largest and half evenly over all.

    Args:
      vocabulary: see `head_of`.
      kept: how many values the row holds at most.

    >>> metric = head_spectrum()
    >>> found = metric.finish(metric.init({}), {"head": {"kernel": np.diag([2.0, 1.0])}})
    >>> found.spectrum.values.tolist()
    [2.0, 1.0]
    """
    return base.sums(
        {},
        lambda sums, count, params: HeadSpectrum(head_of(params, vocabulary), kept),
        HEAD_SPECTRUM,
    )


def layer_spectra(selector: str = "blocks") -> base.Metric:
    """Singular entropy and effective rank of the matrices that a selector names, by layer.

    Reads parameters only, so it costs no forward pass.

    Rows have the metric `singular_entropy`, the site (`mlp.up`, `attention.query`, `embed`) and the
    layer.

    >>> kernel = np.stack([np.eye(3), np.diag([1.0, 0.0, 0.0])])
    >>> metric = layer_spectra("blocks.mlp.up")
    >>> found = metric.finish(metric.init({}), {"blocks": {"mlp": {"up": {"kernel": kernel}}}})
    >>> [round(row["effective_rank"], 6) for row in found.rows()]  # three equal directions; one
    [3.0, 1.0]
    """
    return base.sums({}, lambda sums, count, params: spectrum_of(params, selector), SINGULAR)
