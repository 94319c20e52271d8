"""lmdyn: `pip install .`; extras cuda, tpu, hub, corpora, eval, docs, dev, bench. Tested versions:
scripts/constraints.txt.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+?)"', (HERE / "lmdyn" / "__init__.py").read_text(encoding="utf-8")
)[1]
README = HERE / "README.md"
TORCH = ["torch>=2.6", "transformers>=4.50", "accelerate>=1.0"]
EVAL = ["lm_eval>=0.4.8"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.29", "latex2mathml>=3.77"]

setup(
    name="lmdyn",
    version=VERSION,
    description=(
        "Measure and steer how a language model's knowledge changes: in pretraining, in updates, in"
        " use."
    ),
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["lmdyn", "lmdyn.*"]),
    package_data={"lmdyn": ["py.typed"], "lmdyn.report": ["assets/*"]},
    install_requires=[
        "jax>=0.6",
        "flax>=0.10.6",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11",
        "tensorflow-datasets>=4.9.7",
        "importlib_resources>=6",  # needed by tensorflow-datasets, which does not say so
        "array_record>=0.7",
        "grain>=0.2.6",
        "numpy>=2.0",
        "tokenizers>=0.21",
        "safetensors>=0.5",
        "gguf>=0.16",
        "tyro>=1.0",
        "typeguard>=4.3",
        "tensorboardX>=2.6",
        "tqdm>=4.66",
        "altair>=5.5",
        "vl-convert-python>=1.8",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "hub": ["huggingface_hub>=0.30"],
        "corpora": ["pyarrow>=15"],  # Parquet, Arrow and zstd
        "bench": TORCH,
        "eval": EVAL,
        "docs": DOCS,
        "dev": [
            *TORCH,
            "jax[tpu]; sys_platform == 'linux' and platform_machine == 'x86_64'",
            *EVAL,
            *DOCS,
            "huggingface_hub>=0.30",
            "pyarrow>=15",
            "datasets>=3",
            "sentencepiece>=0.2",
            "tiktoken>=0.7",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "import-linter>=2.6",
            "pyright[nodejs]>=1.1.400",
        ],
    },
    entry_points={"console_scripts": ["lmdyn=lmdyn.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
