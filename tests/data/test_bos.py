"""The token that begins a text: as the model's own tokenizer puts it, or as the user says."""

import dataclasses
import json

import numpy as np
import pytest
from tokenizers import AddedToken, processors

from lmdyn import checkpoints, metrics, models, online
from lmdyn.checkpoints import runs
from lmdyn.data import Packing, Probe, batches, encode_probes, store, tokenize, tokenizers
from lmdyn.data.packing import PackedWindows
from lmdyn.errors import InputError
from tests.checkpoints.cases import random_model

BOS, EOS = 257, 256


def folder(path, template: bool, **config):
    """A tokenizer of bytes with `<s>`, as a Hugging Face folder has it."""
    backend = tokenizers.byte_tokenizer().backend
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", BOS)]
        )
    path.mkdir()
    (path / "tokenizer.json").write_text(backend.to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"} | config
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("config", [{}, {"bos_token": "<s>"}])
def test_auto_is_what_transformers_does(tmp_path, template, config):
    transformers = pytest.importorskip("transformers")
    path = folder(tmp_path / "model", template, **config)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    found = tokenizers.from_folder(path)
    [ids] = tokenize(["né <s>x"], found)
    assert ids.tolist() == theirs("né <s>x").input_ids
    assert found.first_token == (BOS if template else None)


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_add_bos_token_goes_before_the_template(tmp_path, template, adds):
    path = folder(tmp_path / "model", template, bos_token="<s>", add_bos_token=adds)
    found = tokenizers.from_folder(path)
    assert found.first_token == (BOS if adds else None)
    (tmp_path / "tokenizer.json").write_text(found.to_json())  # and it goes with the tokenizer
    again = tokenizers.from_file(tmp_path / "tokenizer.json", EOS, bos=found.bos)
    assert again.first_token == found.first_token


@pytest.fixture
def tokenizer(tmp_path):
    return tokenizers.from_folder(folder(tmp_path / "model", True, bos_token="<s>"))


@pytest.mark.parametrize("bos", ["auto", "document"])
def test_every_document_begins_with_it(tokenizer, tmp_path, bos):
    wanted = [[BOS, 97, 98], [BOS, 99]]
    none, tokenizer = tokenizer.with_bos("none"), tokenizer.with_bos(bos)
    assert [d.tolist() for d in tokenize(["ab", "", "c"], tokenizer)] == wanted
    tokens = store(["ab", "", "c"], tokenizer, cache=tmp_path)
    assert [d.tolist() for d in tokens] == wanted
    plain = store(["ab", "", "c"], none, cache=tmp_path)
    assert [d.tolist() for d in plain] == [[97, 98], [99]]
    assert plain.digest != tokens.digest
    [batch] = batches(["ab", "c"], tokenizer, length=5, batch=1)
    assert batch.inputs.tolist() == [[BOS, 97, 98, EOS, BOS]]
    assert batch.targets.tolist() == [[97, 98, EOS, BOS, 99]]


def test_every_window_begins_with_it(tokenizer):
    cut = batches(["abcde"], tokenizer.with_bos("window"), length=2, batch=2)
    assert cut.tokens == 5  # the very first token is predicted, too
    assert np.concatenate([b.inputs for b in cut]).tolist() == [
        [BOS, 97],
        [BOS, 99],
        [BOS, 0],
        [0, 0],
    ]
    assert np.concatenate([b.targets for b in cut]).tolist()[:2] == [[97, 98], [99, 100]]
    assert np.concatenate([b.mask for b in cut]).tolist()[2:] == [[True, False], [False, False]]


def test_windows_of_training_streams_and_chunks_begin_with_it(tokenizer):
    tokenizer = tokenizer.with_bos("window")
    tokens = store(["abcde"], tokenizer)
    packed = PackedWindows(tokens, Packing(2, 1, EOS, first=tokenizer.window_token), seed=0)
    assert [packed[i].inputs.tolist() for i in range(2)] == [[BOS, 98], [BOS, 100]]
    assert [packed[i].targets.tolist() for i in range(2)] == [[98, 99], [100, 101]]
    docs = tokenize(["abcde", "fg"], tokenizer)
    config = online.OnlineConfig(chunk=3, end_of_text=EOS, first=tokenizer.window_token)
    cut = online.chunk_stream(docs, config)
    # the very first token is predicted, too, and no other twice
    assert cut.targets[cut.mask].tolist() == [*b"abcde", EOS, *b"fg"]
    assert cut.inputs.tolist() == [[BOS, 97, 98], [BOS, 100, 101], [BOS, 102, 0]]
    alone = online.chunk_stream(docs, dataclasses.replace(config, reset="document", chunk=5))
    assert alone.inputs.tolist() == [[BOS, *b"abcd"], [BOS, 102, 0, 0, 0]]
    windows = dataclasses.replace(config, chunk=2, context=online.overlap(3))
    cut = online.chunk_stream(docs[:1], windows)
    assert cut.targets[cut.mask].tolist() == [*b"abcde"]
    assert cut.inputs.tolist() == [[BOS, BOS, 97], [BOS, 98, 99], [BOS, 99, 100]]
    assert cut.positions.tolist() == [[-1, 0, 1], [0, 1, 2], [0, 1, 2]]
    cached = online.chunk_stream(docs[:1], dataclasses.replace(config, context=online.cache(4)))
    assert cached.inputs.tolist() == [[BOS, 97, 98], [99, 100, 0]]  # a stream is one window


def test_random_spans_begin_as_probes_do(tokenizer):
    from lmdyn.metrics import localization

    kinds = {"new": [Probe("ab cd", 3, 5)]}
    found = localization.sequences(kinds, ["some other text"], tokenizer, spans=4)
    assert found.probes["new"].inputs[:, 0].tolist() == [BOS]
    assert found.random.inputs[:, 0].tolist() == [BOS] * 4
    assert (found.random.inputs[:, 1] != BOS).all()
    none = localization.sequences(kinds, ["other text"], tokenizer.with_bos("none"), spans=4)
    assert not (none.random.inputs == BOS).any()


@pytest.mark.parametrize("bos", ["auto", "document", "window", "none"])
def test_a_run_is_read_as_it_was_trained(tokenizer, tmp_path, bos):
    config = models.ModelConfig(
        vocab=258, width=6, depth=1, heads=3, head_width=2, mlp_width=10, positions=16
    )
    rule = tokenizer.with_bos(bos)
    runs.create(tmp_path / "run", model=config, tokenizer=rule, config={}, data={})
    found = runs.describe(tmp_path / "run").tokenizer
    assert found.special_tokens() == rule.special_tokens()
    assert (found.bos, found.eos) == (tokenizer.bos, tokenizer.eos)
    # and other programs read its export as it was trained
    model = models.LanguageModel(config)
    checkpoints.export(model, models.init(model), found, tmp_path / "out")
    again = tokenizers.from_folder(tmp_path / "out")
    assert again.first_token == found.first_token
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("ab").input_ids == [BOS] * (bos != "none") + [97, 98]


def test_the_user_names_the_end_of_text(tmp_path):
    path = folder(tmp_path / "model", True, bos_token="<s>")
    for token in ("<s>", "257"):
        assert tokenizers.from_folder(path, end_of_text=token).end_of_text == BOS
    with pytest.raises(InputError, match=r"end_of_text=</s>: .* has no such token"):
        tokenizers.from_folder(path, end_of_text="</s>")
    about = json.loads((path / "tokenizer.json").read_text())
    about["added_tokens"] = []  # no token ends a text
    (path / "tokenizer.json").write_text(json.dumps(about))
    (path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="name one with --end-of-text"):
        tokenizers.from_folder(path)
    assert tokenizers.from_folder(path, end_of_text="a").end_of_text == 97


def test_a_probe_may_then_ask_for_its_first_token(tokenizer):
    probe = Probe("Paris is big", 0, 5)
    with pytest.raises(InputError, match="begins with the first token"):
        encode_probes([probe], tokenizer.with_bos("none"))
    batch = encode_probes([probe], tokenizer)
    assert batch.inputs[0, :2].tolist() == [BOS, ord("P")]
    assert batch.targets[0][batch.span[0]].tolist() == list(b"Paris")


def test_a_model_that_has_none_gets_none():
    plain = tokenizers.byte_tokenizer()
    assert tokenize(["a"], plain)[0].tolist() == [97]
    for bos in ("document", "window"):
        with pytest.raises(InputError, match="has no beginning-of-text token"):
            plain.with_bos(bos)
    with pytest.raises(InputError, match="unknown bos 'documents'"):
        plain.with_bos("documents")


GGUF = {
    "said": (dict(add_bos_token=True), True),
    "said not": (dict(model="llama", add_bos_token=False), False),
    "sentencepiece": (dict(model="llama"), True),  # the rest: as llama.cpp does
    "llama 3": (dict(pre="llama-bpe"), True),
    "gpt-2": ({}, False),
}


@pytest.mark.parametrize("fields, adds", GGUF.values(), ids=GGUF)
def test_gguf(fields, adds):
    tokens = ["a", "b", "<s>", "</s>"]
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "merges": [],
        "token_type": [1, 1, 3, 3],
        "scores": [0.0] * 4,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "add_space_prefix": False,
    } | fields
    found = tokenizers.from_gguf({f"tokenizer.ggml.{key}": v for key, v in fields.items()})
    assert found.bos == 2
    assert found.first_token == (2 if adds else None)
    assert [d.tolist() for d in tokenize(["ab"], found)] == [[2, 0, 1] if adds else [0, 1]]


def test_the_command_line_puts_it_and_says_so(tmp_path):
    """The rows of a text with it are those of a text that has it written out."""
    from lmdyn import cli

    tokenizer = tokenizers.from_folder(folder(tmp_path / "tokenizer", True, bos_token="<s>"))
    config = models.ModelConfig(
        vocab=258, width=6, depth=1, heads=3, head_width=2, mlp_width=10, positions=16
    )
    model = models.LanguageModel(config)
    checkpoints.export(model, models.init(model), tokenizer, tmp_path / "model")
    again = checkpoints.load(f"dir:{tmp_path}/model").tokenizer
    assert (again.bos, again.first_token) == (BOS, BOS)
    (tmp_path / "a.txt").write_text("to be or not")
    (tmp_path / "b.txt").write_text("<s>to be or not")
    found = []
    for name, bos in (("a", "auto"), ("b", "none"), ("a", "none")):
        out = tmp_path / f"{name}-{bos}.jsonl"
        words = ["--data", f"text:{tmp_path}/{name}.txt", "--length", "11", "--metrics", "nll"]
        assert cli.main(
            ["measure", f"dir:{tmp_path}/model", *words, "--bos", bos, "--out", str(out)]
        ) in (0, None)
        about = json.loads(out.with_name(out.name + ".meta.json").read_text())
        said = (
            {"bos": "document", "first": "<s>"} if bos == "auto" else {"bos": "none", "first": None}
        )
        [special] = about["special_tokens"].values()
        assert special == said | {"end_of_text": "<|endoftext|>"}
        found.append(json.loads(out.read_text().splitlines()[0])["value"])
    assert found[0] == found[1] != found[2]


def test_nats_are_those_of_transformers_on_the_same_tokens(tmp_path):
    """Without, as the folder's tokenizer is meant, and before every window."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    path, length = folder(tmp_path / "model", True, bos_token="<s>"), 7
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 37}
    sizes |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 16}
    model = random_model("llama", {"vocab_size": 258, "head_dim": 10, **sizes}).eval()
    model.save_pretrained(path)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    texts = ["to be or not to be", "that is the question"]

    def nats(rule):
        """The definition, written out: windows of a joined stream, each token predicted once."""
        one, two = (theirs(t, add_special_tokens=rule == "auto").input_ids for t in texts)
        stream = [BOS] * (rule == "window") + one + [EOS] + two
        found = []
        for start in range(0, len(stream) - 1, length):
            ids = torch.tensor([stream[start : start + length + 1]])
            inputs, targets = ids[:, :-1].clone(), ids[0, 1:]
            if rule == "window":
                inputs[0, 0] = BOS
            with torch.no_grad():
                logs = model(inputs).logits[0].log_softmax(-1)
            found += (-logs[torch.arange(len(targets)), targets]).tolist()
        return np.mean(found)

    loaded = checkpoints.load(f"dir:{path}")
    found = {}
    for rule in ("none", "auto", "window"):
        cut = batches(texts, loaded.tokenizer.with_bos(rule), length, 2)
        nll = metrics.measure(metrics.likelihood(), loaded.model, loaded.params, cut)
        found[rule] = nll.rows()[0]["value"]
        assert found[rule] == pytest.approx(nats(rule), rel=1e-5)
    assert len({round(value, 3) for value in found.values()}) == 3
