#!/usr/bin/env bash
# lm-evaluation-harness: HFLM gives a one-token continuation another request's likelihood where two
# requests are the same tokens split at different points ("a b c" + " d" and "a b" + " c d").
#
# HFLM groups requests by their tokens but the last, so that several one-token continuations of one
# context share a forward pass (`logits_cache=True`, the default). The longer split has the same
# tokens but the last, so the two share a group and the logits of the longer one's continuation,
# which begin one token earlier, are read for the shorter. Alone, and with `logits_cache=False`,
# the value is right. Prints versions and values; fails if the values begin to agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  lm_eval==0.4.13 transformers==5.23.0 accelerate==1.15.0
cat >"$folder/split.py" <<'PY'
import logging

import lm_eval
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers

logging.disable(logging.WARNING)
words = ["<unk>", "<eos>", *"abcdefgh"]
rules = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
rules.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=rules, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
)
torch.manual_seed(0)
sizes = dict(vocab_size=len(words), n_positions=32, n_embd=16, n_layer=2, n_head=2)
config = transformers.GPT2Config(bos_token_id=1, eos_token_id=1, initializer_range=1.0, **sizes)
model = transformers.GPT2LMHeadModel(config).eval()


def scores(*requests, **options):
    lm = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1, **options)
    given = [Instance("loglikelihood", {}, request, i) for i, request in enumerate(requests)]
    return [value for value, _ in lm.loglikelihood(given, disable_tqdm=True)]


def definition(context, continuation):
    ids = torch.tensor([tokenizer.encode(context + continuation)])
    n = len(tokenizer.encode(continuation))
    with torch.no_grad():
        logs = model(ids).logits.log_softmax(-1)
    return sum(logs[0, i - 1, ids[0, i]].item() for i in range(ids.shape[1] - n, ids.shape[1]))


pair = (("a b c", " d"), ("a b", " c d"))
print("lm_eval", lm_eval.__version__, "transformers", transformers.__version__)
wanted, together = [definition(*one) for one in pair], scores(*pair)
alone, uncached = [scores(one)[0] for one in pair], scores(*pair, logits_cache=False)
for name, values in dict(
    definition=wanted, alone=alone, together=together, uncached=uncached
).items():
    print(f"{name:10}", [round(value, 4) for value in values])
near = lambda a, b: all(abs(x - y) < 1e-3 for x, y in zip(a, b))
assert near(alone, wanted) and near(uncached, wanted), "the reference is off"
assert abs(together[0] - wanted[0]) > 0.1, "the values agree now: this finding has ended"
PY
HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false "$folder/venv/bin/python" "$folder/split.py" 2>"$folder/said" ||
  { code=$?; tail -n 5 "$folder/said" >&2; exit "$code"; }
