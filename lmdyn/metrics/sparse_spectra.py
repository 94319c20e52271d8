"""Leading singular values of a large sparse matrix, each as often as it occurs.

Block Lanczos with full reorthogonalisation and thick restarts (Wu and Simon 2000, SIAM J. Matrix
Anal. Appl. 22) of the Gram operator of the shorter side. A Krylov space that grows from one vector
holds one copy of a multiple value (PROPACK and ARPACK lose the others), and one that grows from a
block of b vectors holds b. So directions that the space has exhausted are replaced by random
ones, and once all values have converged, another cycle starts from a random block: only if it
finds nothing above them, and what is left of the trace can be made of smaller values, is the
search over.

Shape letters: N the shorter side without empty columns, B a block, M the basis, K values.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse

from lmdyn.errors import InputError

DENSE = 4096
"""Up to this many columns (or rows) that are not empty, all values, by the dense Gram matrix."""
BLOCK = 16
"""Vectors that are multiplied at once: with more, each is quicker, but more are needed."""
ROWS = 2**16
"""Rows that are multiplied at once, which bounds the memory of a product."""
SPARE = 16
"""How many blocks the basis holds beyond the values, at least; or a quarter as many as these."""
CYCLES = 300
"""Restarts after which the search gives up."""
ROUNDING = 1e-12
"""Relative to the largest squared value: what counts as 0."""


def leading_values(
    matrix: Any, k: int, scale: np.ndarray, *, tolerance: float = 1e-5, seed: int = 0
) -> np.ndarray:
    """The leading singular values of a sparse matrix whose rows are scaled.

    Empty rows and columns do not count. All values, if at most `DENSE` rows or columns are left;
    else `k`. Beside the matrix, the basis takes `max(10 k, 8 (k + 16 BLOCK))` bytes for each of the
    columns (or rows, if these are fewer): 1 GB for k = 2,000 and 50,000 columns.

    Args:
      matrix: `[rows, columns]`, compressed by rows.
      k: how many; fewer if the matrix has fewer.
      scale: `[rows]`, what every row is multiplied by.
      tolerance: the largest residual of an eigenpair of the Gram matrix, relative to its value,
        which bounds the relative error of the squared value; most errors are its square.
      seed: of the random vectors.

    Returns:
      `[k]` values, largest first.

    Raises:
      InputError: values that do not converge.

    >>> repeated = scipy.sparse.csr_array(np.diag([2.0, 3.0, 3.0, 0.0]))
    >>> leading_values(repeated, 2, np.ones(4)).tolist()
    [3.0, 3.0, 2.0]
    """
    matrix, scale = _without_empty(matrix, scale)
    rows, columns = matrix.shape
    side = min(rows, columns)
    if side <= DENSE:
        scaled = scipy.sparse.diags_array(scale) @ matrix
        gram = scaled.T @ scaled if columns <= rows else scaled @ scaled.T
        found = np.linalg.eigvalsh(gram.toarray())[::-1]
    else:
        trace = squared_sum(matrix, scale)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            product = _gram(matrix, scale, pool)
            found = _leading(product, side, min(k, side), trace, tolerance, seed)
    return np.sqrt(np.clip(found, 0, None))


def squared_sum(matrix: Any, scale: np.ndarray) -> float:
    """The sum of the squares of all entries, which is that of all squared singular values.

    Args:
      matrix: see `leading_values`.
      scale: see `leading_values`.

    >>> squared_sum(scipy.sparse.csr_array([[3.0, 4.0], [0.0, 1.0]]), np.array([2.0, 1.0]))
    101.0
    """
    return sum(
        float(np.square(part.data, dtype=float) @ np.repeat(scale[at] ** 2, np.diff(part.indptr)))
        for at, part in _row_parts(matrix)
    )


def _without_empty(matrix: Any, scale: np.ndarray) -> tuple[Any, np.ndarray]:
    """Matrix (its numbers are not copied) and scales without empty rows and columns."""
    matrix = scipy.sparse.csr_array(matrix)
    full = np.diff(matrix.indptr) > 0
    used = np.zeros(matrix.shape[1], bool)
    used[matrix.indices] = True
    indices = matrix.indices
    if not used.all():
        indices = (np.cumsum(used) - 1).astype(indices.dtype)[indices]
    # Of the indices' own type: where these differ, SciPy copies both.
    starts = np.append(matrix.indptr[:1], matrix.indptr[1:][full])
    shape = (int(full.sum()), int(used.sum()))
    return scipy.sparse.csr_array((matrix.data, indices, starts), shape=shape), scale[full]


def _row_parts(matrix: Any) -> list[tuple[slice, Any]]:
    """Views of `ROWS` rows each, and which rows these are."""
    parts = []
    # About equal numbers of entries, so that threads have equal work.
    most = max(matrix.nnz // (4 * (os.cpu_count() or 1)), 1)
    start = 0
    while start < matrix.shape[0]:
        full = int(np.searchsorted(matrix.indptr, matrix.indptr[start] + most))
        stop = min(max(full, start + 1), start + ROWS, matrix.shape[0])
        low, high = matrix.indptr[start], matrix.indptr[stop]
        entries = (
            matrix.data[low:high],
            matrix.indices[low:high],
            matrix.indptr[start : stop + 1] - low,
        )
        shape = (stop - start, matrix.shape[1])
        parts.append((slice(start, stop), scipy.sparse.csr_array(entries, shape=shape)))
        start = stop
    return parts


def _gram(matrix: Any, scale: np.ndarray, pool: ThreadPoolExecutor) -> Callable:
    """`x [N, B] -> G x` of the shorter side, with the parts of the matrix shared among threads."""
    parts, scale = _row_parts(matrix), scale[:, None]
    threads = os.cpu_count() or 1

    def each(function):
        """`function` of every part: the sums of each thread's results."""
        total = lambda own: sum(function(at, part) for at, part in own)
        return pool.map(total, [parts[i::threads] for i in range(min(threads, len(parts)))])

    # Products with the smaller Gram matrix, S the diagonal of `scale`: M' S S M, or S M M' S.
    def tall(x_NB):
        x_NB = np.ascontiguousarray(x_NB)
        squares = scale**2
        return sum(each(lambda at, part: part.T @ (squares[at] * (part @ x_NB))))

    def wide(x_NB):
        x_NB = np.ascontiguousarray(scale * x_NB)
        back = sum(each(lambda at, part: part.T @ x_NB[at]))
        out_NB = np.empty_like(x_NB)

        def fill(at, part):
            out_NB[at] = part @ back
            return 0

        list(each(fill))
        return scale * out_NB

    return tall if matrix.shape[1] <= matrix.shape[0] else wide


def _leading(
    product: Callable, side: int, k: int, trace: float, tolerance: float, seed: int
) -> np.ndarray:
    """The `k` leading eigenvalues of a positive semidefinite operator, largest first."""
    rng, block = np.random.default_rng(seed), min(BLOCK, side)
    count = min(-(-k // block) * block, side)  # whole blocks
    spare = max(SPARE, count // block // 4)
    size = min(count + spare * block, side)
    basis_NM, projected_MM = np.empty([side, size], order="F"), np.zeros([size, size])
    random = lambda: rng.normal(size=[side, block])
    next_NB, filled, before = np.linalg.qr(random())[0], 0, None
    for _ in range(CYCLES):
        next_NB, left_BB = _expand(product, basis_NM, projected_MM, filled, next_NB, rng)
        # Rayleigh and Ritz: eigenpairs within the basis. Their residuals lie in the next block.
        ascending, vectors_MM = np.linalg.eigh(projected_MM)
        values, vectors_MM = ascending[::-1], vectors_MM[:, ::-1]
        residuals = np.linalg.norm(left_BB @ vectors_MM[-len(left_BB) :, :count], axis=0)
        enough = np.maximum(tolerance * values[:count], ROUNDING * values[0])
        converged = bool(np.all(residuals <= enough))
        if size == side or (
            converged
            and before is not None
            and np.all(np.abs(values[:count] - before) <= enough)
            and trace - values[:count].sum() <= (side - count) * (values[count - 1] + enough[-1])
        ):
            return values[:k]

        # Restart: from the residuals, or, once all have converged, from a random block.
        filled = count if converged else count + spare // 3 * block
        _rotate(basis_NM, vectors_MM[:, :filled])
        projected_MM[:] = 0
        projected_MM[range(filled), range(filled)] = values[:filled]
        before = values[:count].copy() if converged else None
        if converged:
            next_NB = random()
            along_MB = basis_NM[:, :filled].T @ next_NB
            next_NB, _ = _orthonormal(basis_NM[:, :filled], next_NB, along_MB, rng)
    raise InputError(
        f"{k} singular values of {side:,} have not converged after {CYCLES} restarts; ask for"
        f" fewer, or raise tolerance={tolerance:g}"
    )


def _expand(
    product: Callable,
    basis_NM: np.ndarray,
    projected_MM: np.ndarray,
    filled: int,
    next_NB: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Fills the basis, and `V' G V`, block by block: the next is what the product adds to them.

    Returns:
      The block after the last one, and the last product's coefficients in it.
    """
    size, left_BB = basis_NM.shape[1], np.zeros([0, 0])
    while filled < size:
        next_NB = next_NB[:, : size - filled]
        stop = filled + next_NB.shape[1]
        basis_NM[:, filled:stop] = next_NB
        out_NB = product(next_NB)
        # All coefficients, not only those of the last two blocks: full reorthogonalisation.
        along_MB = basis_NM[:, :stop].T @ out_NB
        projected_MM[:stop, filled:stop] = along_MB
        projected_MM[filled:stop, :stop] = along_MB.T
        next_NB, left_BB = _orthonormal(basis_NM[:, :stop], out_NB, along_MB, rng)
        filled = stop
    return next_NB, left_BB


def _orthonormal(
    basis_NM: np.ndarray, vectors_NB: np.ndarray, along_MB: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal block `Q`, orthogonal to the basis `V`, with `vectors = V C + Q R`; and `R`.

    C is `along`, `V' vectors`. Directions that the basis holds already are replaced by random ones
    (and have a row of 0).
    """
    orthogonal_NB, triangle_BB = np.linalg.qr(vectors_NB - basis_NM @ along_MB)
    turn_BB, sizes, right_BB = np.linalg.svd(triangle_BB)
    found_NB = orthogonal_NB @ turn_BB
    held = sizes <= ROUNDING * np.linalg.norm(vectors_NB)
    found_NB[:, held] = rng.normal(size=[len(found_NB), int(held.sum())])
    for _ in range(2 if held.any() else 1):  # twice is enough (Kahan and Parlett)
        found_NB = np.linalg.qr(found_NB - basis_NM @ (basis_NM.T @ found_NB))[0]
    return found_NB, np.where(held, 0, sizes)[:, None] * right_BB


def _rotate(basis_NM: np.ndarray, vectors_MK: np.ndarray) -> None:
    """`V[:, :K] = V vectors`, in place, some rows at a time."""
    for start in range(0, len(basis_NM), 4096):
        rows_RM = basis_NM[start : start + 4096]
        rows_RM[:, : vectors_MK.shape[1]] = rows_RM @ vectors_MK
