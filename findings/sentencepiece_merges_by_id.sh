#!/usr/bin/env bash
# transformers 5: LlamaTokenizer gives text other ids than SentencePiece where the folder holds only a
# `tokenizer.model`, even one that a lab published (Mistral 7B's): wherever spaces stand in a row, so
# in most code, and where a text begins with a space.
#
# SentencePiece's BPE joins the pair whose whole has the highest score. transformers ranks the merges
# by the id of the whole instead (`SentencePieceExtractor.extract` calls `generate_merges` without the
# scores). The two orders are the same but for the pieces that are nothing but spaces: their ids are
# low (259, 260, ...) and their scores lowest of all (-1e9), so that SentencePiece joins them last and
# transformers first. Folders that also hold `tokenizer.json` are not affected. Prints versions, ids
# and how many of the lines of a program differ; fails if none does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformers==5.23.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
"$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" \
  mistral-common==1.13.1
(cd "$folder" && python3 -m zipfile -e mistral_common-*.whl wheel)
mkdir "$folder/model"
cp "$folder/wheel/mistral_common/data/tokenizer.model.v1" "$folder/model/tokenizer.model"
echo '{"tokenizer_class": "LlamaTokenizer", "legacy": true}' >"$folder/model/tokenizer_config.json"
cat >"$folder/ids.py" <<'PY'
import argparse
import inspect
import sys

import sentencepiece
import tokenizers
import transformers

folder = sys.argv[1]
theirs = transformers.LlamaTokenizer.from_pretrained(folder)
model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
for library in (transformers, tokenizers, sentencepiece):
    print(library.__name__, library.__version__)
print("piece 259:", repr(model.id_to_piece(259)), "score", model.get_score(259))
ids = lambda text: theirs(text, add_special_tokens=False).input_ids
for text in ("hello world", "a  b", "    return x  # y", " hello"):
    print(f"{text!r:22} transformers {ids(text)} SentencePiece {model.encode(text)}")
lines = inspect.getsource(argparse).splitlines()
differ = sum(ids(line) != model.encode(line) for line in lines)
print(f"{differ} of the {len(lines)} lines of argparse.py differ")
assert ids("hello world") == model.encode("hello world"), "the files do not belong together"
assert ids("a  b") != model.encode("a  b") and differ, "the ids agree now: this finding has ended"
PY
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/ids.py" "$folder/model" 2>"$folder/said" ||
  { code=$?; tail -n 5 "$folder/said" >&2; exit "$code"; }
