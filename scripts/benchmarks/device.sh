#!/usr/bin/env bash
# lmdyn against PyTorch on one GPU in at most 8 minutes; arguments go to device.py:
#   bash scripts/benchmarks/device.sh --out results/device
#   bash scripts/benchmarks/device.sh --small          # on a CPU, to see that all of it runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lmdyn/jax}
python=${PYTHON:-python3}
case " $* " in *" --small "*) export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES= ;; esac
# The flags that the command line sets where nobody set others.
XLA_FLAGS=$("$python" -c 'import os; from lmdyn.cli.gpu_flags import set_gpu_flags; e = dict(os.environ); set_gpu_flags(e); print(e.get("XLA_FLAGS", ""))')
export XLA_FLAGS
exec timeout 480 "$python" scripts/benchmarks/device.py "$@"
