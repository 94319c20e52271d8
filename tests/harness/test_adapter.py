"""The adapter of the evaluation harness, against the harness's own adapter of `transformers` on the
same files.
"""

import json
import os

import optax
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from lmdyn import checkpoints, online  # noqa: E402
from lmdyn.checkpoints import exporting  # noqa: E402
from lmdyn.data import tokenizers  # noqa: E402
from lmdyn.errors import InputError  # noqa: E402
from lmdyn.harness import Harness  # noqa: E402
from lmdyn.metrics import probe_scores  # noqa: E402
from lmdyn.models import LanguageModel, ModelConfig, init  # noqa: E402
from tests.checkpoints.cases import random_model  # noqa: E402

LENGTH = 48
TEXT = "The capital of France is Paris, and that of Italy is Rome. " * 3
PAIRS = [
    ("2 + 2 =", " 4"),
    ("", "Once upon a time"),
    ("The sky is ", "blue"),
    (TEXT, " Amen."),
    ("a", TEXT[:40]),
]


def requests(kind, arguments):
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = LanguageModel(
        ModelConfig(
            vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=LENGTH
        )
    )
    params = init(model, seed=3)
    params["head"]["kernel"] = 20 * params["head"]["kernel"]  # so that choices are clear
    out = tmp_path_factory.mktemp("harness") / "model"
    exporting.export(model, params, tokenizers.byte_tokenizer(), out)
    return out


@pytest.fixture(scope="module")
def ours(folder):
    return Harness(f"dir:{folder}", rows=3)


@pytest.fixture(scope="module")
def theirs(folder):
    return HFLM(
        pretrained=str(folder), max_length=LENGTH, batch_size=1, device="cpu", dtype="float32"
    )


def test_continuations(ours, theirs):
    found, wanted = (
        lm.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
        for lm in (ours, theirs)
    )
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], rel=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_whole_texts_beyond_the_window(ours, theirs):
    texts = [(TEXT,), ("short",), (TEXT[:LENGTH],), (TEXT[: LENGTH + 1],)]
    found, wanted = (
        lm.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
        for lm in (ours, theirs)
    )
    assert found == pytest.approx(wanted, rel=1e-5)


def test_greedy_generation(ours, theirs):
    options = {"until": ["e"], "max_gen_toks": 9, "do_sample": False}
    asked = [("2 + 2 =", options), (TEXT, options), ("x", {**options, "until": []})]
    found, wanted = (lm.generate_until(requests("generate_until", asked)) for lm in (ours, theirs))
    assert found == wanted


def test_a_local_task_and_what_adaptation_changes(folder, ours, theirs, tmp_path):
    questions = [
        {"text": f"{a} + {b} =", "choices": [" 3", " 5", " 8"], "label": (a + b) % 3}
        for a in range(4)
        for b in range(3)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    (tmp_path / "sums.yaml").write_text(f"""
task: sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path / "sums.jsonl"}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
""")
    run = lambda lm: lm_eval.simple_evaluate(
        lm, tasks=["sums"], task_manager=TaskManager(include_path=str(tmp_path)), bootstrap_iters=0
    )
    found, wanted = run(ours), run(theirs)
    assert found["results"]["sums"]["acc,none"] == wanted["results"]["sums"]["acc,none"]
    loaded = checkpoints.load(f"dir:{folder}")
    learnt = online.evaluate(
        loaded.model,
        loaded.params,
        [loaded.tokenizer.encode(" 4 4 4" * 30)],
        optax.sgd(0.3),
        online.OnlineConfig(chunk=16),
    )
    adapted = Harness(loaded, learnt.params)
    asked = requests("loglikelihood", [("4 4", " 4")])
    (before, _), (after, _) = (
        lm.loglikelihood(asked, disable_tqdm=True)[0] for lm in (ours, adapted)
    )
    assert after > before + 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda folder: Harness(f"dir:{folder}", length=1), "length=1; it must be at least 2"),
        (lambda folder: Harness(f"dir:{folder}", rows=0), "rows=0; it must be at least 1"),
        (
            lambda folder: Harness(f"dir:{folder}", prefix_token_id=257),
            "prefix_token_id=257 is outside the vocabulary; use 0 to 256",
        ),
    ],
)
def test_sizes_out_of_range(folder, make, message):
    with pytest.raises(InputError, match=message):
        make(folder)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"do_sample": True, "temperature": 0.7}, "temperature=0.7: only greedy decoding is there"),
        (
            {"max_gen_toks": LENGTH},
            f"max_gen_toks={LENGTH}; it must be at least 1 and below length={LENGTH}",
        ),
    ],
)
def test_what_generation_cannot_do(ours, options, message):
    with pytest.raises(InputError, match=message):
        ours.generate_until(requests("generate_until", [("x", options)]), disable_tqdm=True)


def test_a_continuation_longer_than_the_window(ours):
    with pytest.raises(InputError, match=f"a window holds {LENGTH}; use a larger length"):
        ours.loglikelihood(requests("loglikelihood", [("x", TEXT)]), disable_tqdm=True)


SPECIAL = {
    "llama-bos": ("<s>", "</s>"),  # put first by the post-processor
    "llama-bos-off": ("<s>", "</s>"),  # by the post-processor, and add_bos_token is false
    "llama-roles": ("<s>", "</s>"),  # named, and nothing puts it first
    "gpt2": ("<|endoftext|>", "<|im_end|>"),  # no beginning of text; a turn's end that is no text's
}


def bpe(special, first: bool):
    """A byte-level tokenizer that was trained a little, `first` with the first special token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [TEXT, "2 + 2 = 4, once upon a time; the sky is blue."],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=list(special),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    if first:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{special[0]} $A", pair=f"{special[0]} $A $B", special_tokens=[(special[0], 0)]
        )
    return backend


@pytest.fixture(scope="module", params=SPECIAL)
def published(request, tmp_path_factory):
    """A folder as `transformers` writes it: a small Llama or GPT-2 with a tokenizer of its own."""
    transformers = pytest.importorskip("transformers")
    name, special = request.param, SPECIAL[request.param]
    out = tmp_path_factory.mktemp("published") / name
    roles = {"bos_token": special[0]} if name.startswith("llama") else {}
    roles |= {"add_bos_token": False} if name == "llama-bos-off" else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe(special, name.startswith("llama-bos")), eos_token=special[1], **roles
    ).save_pretrained(out)
    if name == "gpt2":
        sizes = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": LENGTH}
        # as in Qwen 2's folders, a role that the model's config names and the tokenizer's does not
        sizes |= {"bos_token_id": 0, "eos_token_id": 1}
    else:
        sizes = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 37}
        sizes |= {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
        sizes |= {"max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": 1}
    family = name.split("-")[0]
    random_model(family, {"vocab_size": 300, **sizes}).save_pretrained(out)
    return out


def answers(lm, kind, arguments):
    return getattr(lm, kind)(requests(kind, arguments), disable_tqdm=True)


def agree(ours, theirs, folder):
    """Every request's answer, ours against theirs."""
    first = Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token(0)
    long = TEXT * 3
    pairs = [
        *PAIRS,
        ("The sky is  ", " blue"),
        (first + "The sky", " is blue"),
        ("", first + "The sky"),
        (long, " Rome" + first),
        (long, TEXT[:70]),
        ("Once", TEXT[:60]),
    ]
    # what the model itself would write, so that some are greedy
    begun = [(text, more) for text, more in pairs if text]  # theirs generates from no empty text
    asked = [(text, {"max_gen_toks": 5}) for text, _ in begun]
    made = answers(theirs, "generate_until", asked)
    first_tokens = answers(
        theirs, "generate_until", [(text, {"max_gen_toks": 1}) for text, _ in begun]
    )
    for more in (made, first_tokens):
        pairs += [(text, new) for (text, _), new in zip(begun, more, strict=True) if new]
    found, wanted = (answers(lm, "loglikelihood", pairs) for lm in (ours, theirs))
    assert [v for v, _ in found] == pytest.approx([v for v, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert {greedy for _, greedy in wanted} == {True, False}
    texts = [(TEXT,), (long,), ("a",), ("",), (first + "The sky is blue.",), (TEXT[:LENGTH],)]
    found, wanted = (answers(lm, "loglikelihood_rolling", texts) for lm in (ours, theirs))
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-4)
    assert answers(ours, "generate_until", asked) == made


def hflm(folder, **options):
    # The cache of logits of lm_eval 0.4.13 mixes up requests of the same tokens that are split
    # elsewhere (findings/hflm_logits_cache.sh).
    options |= {"device": "cpu", "dtype": "float32", "logits_cache": False}
    return HFLM(pretrained=str(folder), batch_size=1, **options)


def test_a_published_folder_is_read_as_hflm_reads_it(published):
    agree(Harness(f"dir:{published}", rows=4), hflm(published), published)


@pytest.mark.parametrize(
    "options",
    [{"add_bos_token": True}, {"add_bos_token": False}, {"prefix_token_id": 7}, {"max_length": 20}],
    ids=str,
)
def test_what_the_user_says(published, options):
    ours = {"length" if key == "max_length" else key: value for key, value in options.items()}
    ours, theirs = Harness(f"dir:{published}", rows=4, **ours), hflm(published, **options)
    pairs = [("", "Once upon"), ("The sky", " is blue"), (TEXT, " Amen.")]
    found, wanted = (answers(lm, "loglikelihood", pairs) for lm in (ours, theirs))
    assert [v for v, _ in found] == pytest.approx([v for v, _ in wanted], abs=1e-4)
    found, wanted = (answers(lm, "loglikelihood_rolling", [(TEXT,)]) for lm in (ours, theirs))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("published", ["gpt2"], indirect=True)
def test_beyond_learned_positions(published):
    with pytest.raises(InputError, match="length=49 exceeds the model's 48 positions"):
        Harness(f"dir:{published}", length=LENGTH + 1)


@pytest.mark.parametrize("published", ["llama-bos"], indirect=True)
def test_an_adapted_model_is_read_as_its_export_is(published, tmp_path):
    loaded = checkpoints.load(f"dir:{published}")
    learnt = online.evaluate(
        loaded.model,
        loaded.params,
        [loaded.tokenizer.encode(TEXT)],
        optax.sgd(0.01),
        online.OnlineConfig(chunk=16),
    )
    checkpoints.export(loaded.model, learnt.params, loaded.tokenizer, tmp_path / "adapted")
    ours, theirs = Harness(loaded, learnt.params, rows=4), hflm(tmp_path / "adapted")
    agree(ours, theirs, published)
    static, adapted = (
        answers(lm, "loglikelihood_rolling", [(TEXT,)])[0] for lm in (Harness(loaded, rows=4), ours)
    )
    assert adapted > static + 1


def test_few_lengths_are_compiled(ours):
    probe_scores._step.cache_clear()
    for n in range(1, 30):
        ours.loglikelihood(
            requests("loglikelihood", [(TEXT[:n], TEXT[n : n + 1 + k]) for k in range(n % 3 + 1)]),
            disable_tqdm=True,
        )
    # 32 and 48 tokens, and 1, 2 or 3 rows
    assert probe_scores._step(ours.model)._cache_size() <= 6


@pytest.mark.parametrize("published", ["llama-roles"], indirect=True)
def test_beyond_the_trained_positions(published):
    with pytest.warns(UserWarning, match="length=64 is beyond the 48 positions"):
        ours = Harness(f"dir:{published}", length=64, rows=4)
    found, wanted = (
        answers(lm, "loglikelihood_rolling", [(TEXT * 3,)])
        for lm in (ours, hflm(published, max_length=64))
    )
    assert found == pytest.approx(wanted, rel=1e-6)
