"""The adapter of the evaluation harness, against the harness's own adapter of `transformers` on the
same files.
"""

import json
import os

import optax
import pytest

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from lmdyn import checkpoints, data, online  # noqa: E402
from lmdyn.checkpoints import exporting  # noqa: E402
from lmdyn.data import tokenizers  # noqa: E402
from lmdyn.errors import InputError  # noqa: E402
from lmdyn.harness import Harness  # noqa: E402
from lmdyn.models import LanguageModel, ModelConfig, init  # noqa: E402

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
        (
            lambda folder: Harness(f"dir:{folder}", length=LENGTH + 1),
            f"length={LENGTH + 1}; it must be at least 2 and at most the model's {LENGTH}",
        ),
        (lambda folder: Harness(f"dir:{folder}", rows=0), "rows=0; it must be at least 1"),
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


def test_texts_are_read_as_data_reads_them(ours):
    assert ours.tok_encode(TEXT) == data.tokenizers.byte_tokenizer().encode(TEXT).tolist()
