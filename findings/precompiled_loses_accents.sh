#!/usr/bin/env bash
# tokenizers: `normalizers.Precompiled`, by which the fast tokenizers of SentencePiece's unigram models
# (T5, mT5, XLM-R, ALBERT, ...) normalise text, loses accents of decomposed text and does not compose
# Hangul, where SentencePiece with the same map does both.
#
# Text is decomposed (NFD) in file names of macOS and in many corpora of Vietnamese and Korean. The
# normaliser looks at one grapheme at a time. Of a grapheme below six bytes it takes the *first*, that
# is the shortest, entry of the map that is a prefix, and drops the rest: the last mark of a letter
# with two. A longer grapheme it reads character by character, so that the jamo of a syllable stay
# apart. "\r\n" is one grapheme too, and becomes one space instead of two. Prints versions and both
# results; fails if they begin to agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
cat >"$folder/marks.py" <<'PY'
import io
import unicodedata

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

made = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a b c d e f g"] * 50),
    model_writer=made,
    vocab_size=20,
    hard_vocab_limit=False,
    minloglevel=2,
)
spec = sentencepiece_model_pb2.ModelProto.FromString(made.getvalue()).normalizer_spec
fast = tokenizers.normalizers.Precompiled(spec.precompiled_charsmap).normalize_str
own = sentencepiece.SentencePieceNormalizer(
    rule_name=spec.name,
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    escape_whitespaces=False,
).normalize
print("tokenizers", tokenizers.__version__, "sentencepiece", sentencepiece.__version__, spec.name)
words = ["Việt", "tiếng", "phở", "안녕", "ắ", "café"]
for word in words:
    text = unicodedata.normalize("NFD", word)
    print(f"{word}: SentencePiece {ascii(own(text))} tokenizers {ascii(fast(text))}")
print("CRLF: SentencePiece", ascii(own("a\r\nb")), "tokenizers", ascii(fast("a\r\nb")))
decomposed = [unicodedata.normalize("NFD", word) for word in words]
assert [own(text) for text in decomposed] == words, "the reference is off"
assert fast(decomposed[-1]) == "café", "one mark was composed before"
lost = [word for word, text in zip(words, decomposed) if fast(text) != word]
print(len(lost), "of", len(words), "words come out as others")
assert lost, "the words agree now: this finding has ended"
PY
"$folder/venv/bin/python" "$folder/marks.py"
