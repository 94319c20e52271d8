"""Chats and what ends a text, against `transformers` and the harness's own adapter of it."""

import dataclasses
import json
import os

import pytest
from tokenizers import AddedToken

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
lm_eval = pytest.importorskip("lm_eval")
transformers = pytest.importorskip("transformers")

from lm_eval.tasks import TaskManager  # noqa: E402

from lmdyn import checkpoints, data  # noqa: E402
from lmdyn.data import tokenizers  # noqa: E402
from lmdyn.errors import InputError  # noqa: E402
from lmdyn.harness import Harness  # noqa: E402
from lmdyn.harness.chat import chat_templates, render_chat, role_tokens  # noqa: E402
from lmdyn.metrics import probe_scores  # noqa: E402
from tests.checkpoints.cases import random_model  # noqa: E402
from tests.harness.test_adapter import answers, bpe, hflm, requests  # noqa: E402

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES = (
    "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'system' %}\n"
    "{{ raise_exception('no system') }}{% endif %}\n{{ m.content }}{{ eos_token }}{% endfor %}"
)
USES = (
    "{%- for m in messages if m.content %}{% if loop.index > 8 %}{% break %}{% endif %}"
    "{% generation %}{{ m | tojson }}{% endgeneration %}{{ m.content.strip() }}\n"
    "  {%- set last = namespace(x=m.role) %}{% endfor %}"
    "{{ thinking | default('none') }}{{ strftime_now('%Y') | length }}{{ pad_token }}"
)
CHATS = {
    "question": [{"role": "user", "content": " Where is “Zoë”? "}],
    "turns": [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "It is 4 ", "tool_calls": None},
        {"role": "user", "content": "sure?\n"},
    ],
}


def tokenizer_folder(path, template, **roles):
    """The folder of a tokenizer with a chat template, as `transformers` writes it."""
    backend = bpe(SPECIAL, first=True)
    backend.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        pad_token="</s>",
        **{"eos_token": "</s>", **roles},
    )
    made.chat_template = template
    made.save_pretrained(path)
    return path


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("template", [CHATML, REFUSES, USES], ids=["chatml", "refuses", "uses"])
def test_chats_are_written_as_transformers_writes_them(tmp_path, template, chat):
    path = tokenizer_folder(tmp_path / "m", template)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    ours = tokenizers.from_folder(path)
    given = role_tokens(ours) | {"thinking": True}
    write = lambda **options: theirs.apply_chat_template(
        chat, tokenize=False, thinking=True, **options
    )
    if template == REFUSES and chat[0]["role"] == "system":
        with pytest.raises(InputError, match="the chat template: no system"):
            render_chat(template, chat, **given)
        chat = chat[1:]
    assert render_chat(chat_templates(ours)["default"], chat, **given) == write(
        add_generation_prompt=True
    )
    if template != USES:  # which writes the last message twice
        assert render_chat(template, chat, add_generation_prompt=False, **given) == write(
            continue_final_message=True
        )


def test_where_templates_lie(tmp_path):
    path = tokenizer_folder(tmp_path / "m", {"default": CHATML, "short": REFUSES})
    assert chat_templates(tokenizers.from_folder(path)) == {"default": CHATML, "short": REFUSES}
    about = json.loads((path / "tokenizer_config.json").read_text())
    (path / "chat_template.jinja").unlink()
    (path / "additional_chat_templates" / "short.jinja").unlink()
    assert chat_templates(tokenizers.from_folder(path)) == {}
    named = [{"name": "default", "template": CHATML}, {"name": "rag", "template": USES}]
    for said, found in ((CHATML, {"default": CHATML}), (named, {"default": CHATML, "rag": USES})):
        (path / "tokenizer_config.json").write_text(json.dumps(about | {"chat_template": said}))
        assert chat_templates(tokenizers.from_folder(path)) == found
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["a", "</s>"],
        "merges": [],
        "eos_token_id": 1,
    }
    fields = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    gguf = tokenizers.from_gguf(fields | {"tokenizer.chat_template": CHATML})
    assert chat_templates(gguf) == {"default": CHATML}
    assert role_tokens(gguf) == {"eos_token": "</s>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama for chats, whose texts end at several tokens, with a repetition penalty."""
    out = tokenizer_folder(
        tmp_path_factory.mktemp("chats") / "model", CHATML, eos_token="<|im_end|>"
    )
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 37}
    sizes |= {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
    sizes |= {"max_position_embeddings": 300, "bos_token_id": 0, "eos_token_id": 3}
    random_model("llama", {"vocab_size": 302, **sizes}).save_pretrained(out)
    return out


ASKED = [
    ("The sky is", {"max_gen_toks": 24}),
    ("The capital of", {"max_new_tokens": 9, "until": []}),
    ("2 + 2 =", {"max_tokens": 30, "until": ["e", "st"], "temperature": 0.0, "top_p": 0.9}),
    ("once " * 80, {"max_gen_toks": 20, "until": " the", "do_sample": False, "temperature": 0.7}),
    ("a", {"max_gen_toks": 12, "repetition_penalty": 1.5}),
]


@pytest.mark.parametrize("settings", ["plain", "several ends", "penalty"])
def test_texts_end_where_hflm_ends_them(folder, settings):
    config = {"bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 1}
    free = answers(hflm(folder), "generate_until", [("The sky is", {"max_gen_toks": 24})])[0]
    if settings == "several ends":  # one of them is what would be written
        tokenizer = tokenizers.from_folder(folder)
        config["eos_token_id"] = [3, int(tokenizer.encode(free)[2])]
    if settings == "penalty":
        config["repetition_penalty"] = 1.3
    (folder / "generation_config.json").write_text(json.dumps(config))
    ours, theirs = Harness(f"dir:{folder}", rows=2), hflm(folder)
    found = answers(ours, "generate_until", ASKED)
    assert found == answers(theirs, "generate_until", ASKED)
    assert (found[0] == free) == (settings == "plain")


def test_other_ways_to_decode_are_refused(folder):
    ours = Harness(f"dir:{folder}")
    with pytest.raises(InputError, match="num_beams=4 in the request: only plain greedy"):
        answers(ours, "generate_until", [("a", {"num_beams": 4})])


def test_chats_as_hflm_writes_them(folder):
    ours, theirs = Harness(f"dir:{folder}"), hflm(folder)
    for chat in CHATS.values():
        for prompt in (True, False):
            given = (chat, prompt)
            assert ours.apply_chat_template(*given) == theirs.apply_chat_template(*given)
    assert ours.chat_template(True) == theirs.chat_template(True) == CHATML
    assert (ours.tokenizer_name, ours.chat_template(False)) == ("model", None)
    files = {**ours.tokens.files, "chat_template.jinja": REFUSES.encode()}
    tokens = dataclasses.replace(ours.tokens, files=files)
    loaded = checkpoints.Loaded(ours.model, ours.params, tokens, "model", None)
    theirs.tokenizer.chat_template = REFUSES  # without the system's messages, then
    assert Harness(loaded).apply_chat_template(CHATS["turns"]) == theirs.apply_chat_template(
        CHATS["turns"]
    )
    plain = loaded._replace(tokenizer=dataclasses.replace(tokens, files={}))
    with pytest.raises(InputError, match="has no chat template 'default'; it has: none"):
        Harness(plain).apply_chat_template(CHATS["turns"])


def test_a_task_as_a_chat_with_examples(folder, tmp_path):
    """System prompt, examples as turns, a prefilled answer: `lm_eval`'s calls and their results."""
    questions = [{"text": f"{a} + {b}?", "answer": f" {a + b}"} for a in range(3) for b in range(2)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    for kind in ("generate_until", "loglikelihood"):
        (tmp_path / f"{kind}.yaml").write_text(f"""
task: sums_{kind}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path / "sums.jsonl"}}}
output_type: {kind}
test_split: test
fewshot_split: test
num_fewshot: 2
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{answer}}}}"
gen_prefix: "It is"
metric_list:
  - metric: {"exact_match" if kind == "generate_until" else "perplexity"}
""")
    run = lambda lm: lm_eval.simple_evaluate(
        lm,
        tasks=["sums_generate_until", "sums_loglikelihood"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        system_instruction="Add.",
        gen_kwargs={"max_gen_toks": 8},
        bootstrap_iters=0,
    )
    found, wanted = run(Harness(f"dir:{folder}")), run(hflm(folder))
    for task, theirs in wanted["samples"].items():
        ours = found["samples"][task]
        assert [s["arguments"] for s in ours] == [s["arguments"] for s in theirs]
        assert "<|im_start|>system\nAdd.<|im_end|>" in ours[0]["arguments"][0][0]
        for mine, other in zip(ours, theirs, strict=True):
            if task == "sums_generate_until":
                assert mine["resps"] == other["resps"]
            else:
                [[(value, greedy)]], [[(expected, also)]] = mine["resps"], other["resps"]
                assert (value, greedy) == (pytest.approx(expected, abs=1e-4), also)


def test_fifty_lengths_share_few_programs(folder):
    ours = Harness(f"dir:{folder}", rows=4)
    probe_scores._step.cache_clear()
    text = "once upon a time there was a model of words " * 20
    pairs = [(text[: 5 * n], text[5 * n : 5 * n + 1 + n % 7]) for n in range(1, 51)]
    assert len({len(ours.tok_encode("".join(pair))) for pair in pairs}) > 40
    ours.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    # lengths 32, 64, 128, 256 and 300; 4 rows, or 1 or 2 in the last group of a length
    assert probe_scores._step(ours.model)._cache_size() <= 8
    asked = [(text[: 7 * n], {"max_gen_toks": 2}) for n in range(1, 51, 5)]
    answers(ours, "generate_until", asked)
    assert ours._advance._cache_size() <= 10  # a piece or a token, in caches of 5 lengths


def test_a_model_read_with_another_rule_begins_so(folder):
    loaded = checkpoints.load(f"dir:{folder}")
    none = loaded._replace(tokenizer=loaded.tokenizer.with_bos("none"))
    assert Harness(loaded).tok_encode("a")[0] == 0
    assert Harness(none).tok_encode("a") == Harness(loaded, add_bos_token=False).tok_encode("a")
    assert Harness(none, add_bos_token=True).tok_encode("a")[0] == 0
    assert data.tokenize(["a"], none.tokenizer)[0].tolist() == Harness(none).tok_encode("a")
