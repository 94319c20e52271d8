#!/usr/bin/env bash
# Sets up what the tests need in .venv-test, and runs them and the examples in docstrings. Arguments go to pytest:
#   bash scripts/test.sh tests/data -k windows
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

venv=.venv-test
make_venv "$venv"
needs=$(stamp_of setup.py scripts/constraints.txt)
if [ "$(cat "$venv/needs.stamp" 2>/dev/null)" != "$needs" ]; then
  say "installing lmdyn with what its tests need, pinned by scripts/constraints.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e '.[dev]'
  printf '%s' "$needs" >"$venv/needs.stamp"
fi

command -v chromium chromium-browser google-chrome >/dev/null || say "no Chromium here: tests/report/test_browser.py, which opens report pages in it, is skipped"

export JAX_PLATFORMS=cpu
# Programs compiled by one run serve the next.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lmdyn/jax-tests}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.3}
mkdir -p "$JAX_COMPILATION_CACHE_DIR"
run() { "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || { code=$?; [ $code -eq 5 ] || exit $code; }; }
run "$@"  # 5: of what was asked for, nothing belongs to this half
LMDYN_TEST_OPTIMIZED=1 run "$@"
