"""The runs that a scaling law is fitted to: their sizes, tokens and losses, from a table."""

import csv
import math
import os
from typing import NamedTuple

import numpy as np

from lmdyn.errors import InputError
from lmdyn.types import ArrayLike

LEAST_RUNS = 4
COLUMNS = ("N", "T", "loss")


class Runs(NamedTuple):
    """Finished runs; `[n]` float64 each: parameters N, training tokens T, loss in nats per token.

    Made by `read_runs`.
    """

    parameters: np.ndarray
    tokens: np.ndarray
    losses: np.ndarray


def checked_runs(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike) -> Runs:
    """Runs that a law can be fitted to.

    Args:
      parameters: `[n]`, N.
      tokens: `[n]`, T.
      losses: `[n]`, nats per token.

    Raises:
      InputError: fewer than 4 runs, only one N or one T, or a number that is not positive.

    >>> runs = checked_runs([1e7, 1e8, 1e7, 1e8], [1e9, 1e9, 1e10, 1e10], [4.0, 3.5, 3.8, 3.1])
    >>> runs.losses.tolist()
    [4.0, 3.5, 3.8, 3.1]
    """
    runs = Runs(*(np.asarray(x, np.float64) for x in (parameters, tokens, losses)))
    if runs.losses.ndim != 1 or len({x.shape for x in runs}) > 1:
        raise InputError(
            f"shapes {', '.join(str(list(x.shape)) for x in runs)} of N, T and loss; give three"
            " lists of one length"
        )
    if len(runs.losses) < LEAST_RUNS:
        raise InputError(
            f"{len(runs.losses)} runs are too few for a scaling law; give {LEAST_RUNS} or more"
        )
    for name, values in zip(COLUMNS, runs, strict=True):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise InputError(
                f"{name}={values[bad[0]]:g} of run {bad[0]} is not a positive number; correct it or"
                " leave the run out"
            )
        if name != "loss" and np.ptp(values) == 0:
            raise InputError(
                f"all {len(values)} runs have {name}={values[0]:g}; a law in {name} needs two"
                " values of it or more"
            )
    return runs


def read_runs(path: str | os.PathLike) -> Runs:
    r"""Runs from a CSV file.

    Its first line names at least the columns `N`, `T` and `loss`; others are left alone. N is
    the number of parameters, T that of training tokens, the loss in nats per token. Numbers are
    plain or scientific (`70e6`).

    Raises:
      InputError: no such file, a column is missing, or a line lacks a number; it names the file and
        the line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False) as file:
    ...     _ = file.write("model,N,T,loss\nsmall,70e6,3e11,2.8\n")
    >>> read_runs(file.name).tokens.tolist()
    [300000000000.0]
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                there = ", ".join(lines.fieldnames or ()) or "nothing"
                raise InputError(
                    f"{path} has no column {', '.join(missing)}; its first line is '{there}' and"
                    f" must name {', '.join(COLUMNS)} (parameters, tokens of training, nats)"
                )
            found = [
                [_number(line[name], f"{path} line {lines.line_num}: {name}") for name in COLUMNS]
                for line in lines
            ]
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}; name a CSV file") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"{path} is not CSV in UTF-8 ({err}); save the table as CSV") from err
    if not found:
        raise InputError(f"{path} has a heading and no run; add a line for each run")
    return Runs(*np.array(found).T)


def _number(text, where) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}='{text or ''}' is not a positive number; write for example 70e6")
    return value
