# Sourced by quickstart.sh and test.sh: finding Python, making a virtual environment, installing once.

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Prints the first Python that is 3.11 or newer; $PYTHON, if set, is the only one tried.
find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "Python 3.11 or newer is needed (tried: ${PYTHON:-python3, python3.13, python3.12, python3.11, python}); set PYTHON=/path/to/python3"
}

# One number that changes when any of the named files does.
stamp_of() { cat "$@" | cksum | tr -d ' '; }

# make_venv FOLDER: a virtual environment there, unless there is a working one.
make_venv() {
  if ! "$1/bin/python" -c 'import pip' 2>/dev/null; then
    local python
    python=$(find_python)
    say "making a virtual environment in $1 ($("$python" --version))"
    rm -rf "$1"
    "$python" -m venv "$1" || fail "$python cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv"
  fi
}
