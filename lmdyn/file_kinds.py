"""What a file is, by its first bytes: for messages about files that are not what was asked for."""

import os

from lmdyn.types import PathLike

LFS_POINTER = b"version https://git-lfs"
KINDS = {
    LFS_POINTER: "a Git LFS pointer",
    b"GGUF": "a GGUF file",
    b"lmgg": "a GGML file, the format before GGUF",
    b"fmgg": "a GGML file, the format before GGUF",
    b"tjgg": "a GGML file, the format before GGUF",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive, such as PyTorch writes",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"BZh": "a bz2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}
"""Names by first bytes, of formats that one meets under another's name."""
_ANEW = "convert the model anew with llama.cpp"
_SAFE = "save the model as safetensors, with save_pretrained of transformers"
REMEDIES = {
    "a Git LFS pointer": "fetch the file itself with git lfs pull",
    "a GGUF file": "write gguf:{path}",
    "a GGML file, the format before GGUF": _ANEW,
    "a zip archive, such as PyTorch writes": _SAFE,
    "a pickle": _SAFE,
    "an HTML page": "fetch it again, logged in where the site asks for it",
}


def kind_of(path: PathLike) -> str | None:
    """What a file is; None where that is not known.

    Args:
      path: of a file that can be read.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> with open(path, "w") as file:
    ...     _ = file.write("version https://git-lfs.github.com/spec/v1")
    >>> kind_of(path)
    'a Git LFS pointer'
    """
    with open(path, "rb") as file:
        first = file.read(64)
    if not first:
        return "empty"
    page = first.lstrip().lower()
    begins = lambda magic: (page if magic.startswith(b"<") else first).startswith(magic)
    return next((kind for magic, kind in KINDS.items() if begins(magic)), None)


def mismatch(path: PathLike, wanted: str, why: str) -> str:
    """The message about a file that is not of the kind that it should be.

    Args:
      path: the file.
      wanted: the kind, with its article.
      why: how one sees that, where the file is of no known kind.

    >>> mismatch(__file__, "a GGUF file", "it does not begin with GGUF").partition(" ")[2]
    'is not a GGUF file: it does not begin with GGUF; fetch it again'
    """
    kind = kind_of(path) if os.path.isfile(path) else None
    if kind and (noun := kind.partition(" ")[2]) and noun in wanted:
        kind = None
    remedy = REMEDIES.get(str(kind), "fetch it again").format(path=path)
    found = f"is {kind}, not {wanted}" if kind else f"is not {wanted}: {why}"
    return f"{path} {found}; {remedy}"
