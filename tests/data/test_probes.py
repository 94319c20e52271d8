"""Probes: what files may hold, which tokens count, and what is said about bad ones."""

import json

import numpy as np
import pytest

from lmdyn.data import tokenizers
from lmdyn.data.probes import Probe, encode_probes, parse_probe, read_probes
from lmdyn.errors import InputError


def write(folder, *lines):
    path = folder / "probes.jsonl"
    path.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8"
    )
    return path


JOINED = {
    "one space": ("Paris is in", "France", "Paris is in France", "France"),
    "prompt brings it": ("Paris is in ", "France", "Paris is in France", "France"),
    "prompt brings a line": ("Paris is in\n", "France", "Paris is in\nFrance", "France"),
    "target brings it": ("Paris is in", " France", "Paris is in France", " France"),
    "no prompt": ("", "France", "France", "France"),
}


@pytest.mark.parametrize("prompt, target, text, span", JOINED.values(), ids=JOINED)
def test_prompt_and_target_are_joined(prompt, target, text, span):
    found = parse_probe({"prompt": prompt, "target": target})
    assert (found.text, found.target) == (text, span)
    assert found.prompt + found.target == text


def test_a_file_holds_every_form(tmp_path):
    path = write(
        tmp_path,
        {
            "prompt": "The capital of Perú is",
            "target": "Lima",
            "kind": "unchanged",
            "entity": "Perú",
            "id": 7,
        },
        "",
        {
            "text": "In Perú, Lima is large.",
            "start": 9,
            "end": 13,
            "time": 2019,
            "depth": "paraphrase",
        },
        {"text": "In Perú, Lima is large.", "target": "Lima", "time": "2019-05"},
    )
    one, two, three = read_probes(str(path))
    assert one == Probe("The capital of Perú is Lima", 23, 27, kind="unchanged", entity="Perú")
    assert two == Probe("In Perú, Lima is large.", 9, 13, depth="paraphrase", time=2019)
    assert three == Probe("In Perú, Lima is large.", 9, 13, time="2019-05")
    assert read_probes(f"jsonl:{path}") == (one, two, three)
    assert two.where == f"{path} line 3"


BAD = {
    "empty target": ({"prompt": "a", "target": ""}, "line 2: the target is empty"),
    "white target": ({"prompt": "a", "target": " \n"}, "line 2: the target is empty"),
    "empty target in text": ({"text": "a", "target": ""}, "line 2: the target is empty"),
    "empty span": ({"text": "abc", "start": 1, "end": 1}, "line 2: the target is empty"),
    "target not found": (
        {"text": "In Lima", "target": "Quito"},
        "line 2: the target 'Quito' is not found in the text",
    ),
    "target twice": (
        {"text": "Lima, Lima", "target": "Lima"},
        "stands 2 times in the text; give start and end",
    ),
    "target elsewhere": (
        {"text": "In Lima", "start": 0, "end": 2, "target": "Lima"},
        "has 'In' at start=0, end=2",
    ),
    "end beyond": (
        {"text": "abc", "start": 1, "end": 4},
        "start=1, end=4 is not a span of a text of 3 characters",
    ),
    "start below": ({"text": "abc", "start": -1, "end": 2}, "start=-1, end=2 is not a span"),
    "turned": ({"text": "abc", "start": 2, "end": 1}, "start=2, end=1 is not a span"),
    "half offset": (
        {"text": "abc", "start": 0.5, "end": 2},
        "start is not a whole number but float",
    ),
    "true offset": (
        {"text": "abc", "start": True, "end": 2},
        "start is not a whole number but bool",
    ),
    "no end": ({"text": "abc", "start": 1}, "has no end"),
    "no target": ({"prompt": "abc"}, "has no target"),
    "no text": ({"target": "abc"}, "line 2 is not a probe: .*; it has: target"),
    "nothing": ({}, "it has: nothing"),
    "target is a list": ({"prompt": "a", "target": ["b"]}, "target is not text but list"),
    "not json": ('{"prompt": ', "line 2 is not JSON"),
    "not an object": (
        "[1]",
        'not a JSON object but of type list; each line must be one object such as {"prompt"',
    ),
}


@pytest.mark.parametrize("line, said", BAD.values(), ids=BAD)
def test_bad_lines_are_named(tmp_path, line, said):
    path = write(tmp_path, {"prompt": "a", "target": "b"}, line)
    with pytest.raises(InputError, match=said) as caught:
        read_probes(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    path = write(tmp_path, "", "  ")
    with pytest.raises(InputError, match="has no probes"):
        read_probes(str(path))
    with pytest.raises(InputError, match="No such file"):
        read_probes(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="Is a directory"):
        read_probes(str(tmp_path))
    path.write_bytes(b'{"prompt": "a", "target": "b"}\n{"prompt": "\xff"}')
    with pytest.raises(InputError, match="line 2 is not UTF-8: byte 0xff at offset 43"):
        read_probes(str(path))
    with pytest.raises(InputError, match="names a field"):
        read_probes("tfds:synthetic_world/small:probes#text")
    with pytest.raises(InputError, match="names no split"):
        read_probes("tfds:synthetic_world/small")


# Encoding

TEXTS = [
    "The capital of Perú is Lima.",
    "né à Fès",
    "東京は日本の首都です",
    "a 👩‍🚀 b, and then some more to be cut into pieces",
    "x y",
]
BPE = tokenizers.train_bpe([*TEXTS, "the capital of the capital of the capital"] * 3, vocab=300)


@pytest.mark.parametrize("tokenizer", [tokenizers.byte_tokenizer(), BPE], ids=["bytes", "bpe"])
def test_span_tokens_are_those_that_overlap_the_span(tokenizer):
    """Every span of every text, against the bytes that each token decodes to."""
    for text in TEXTS:
        ids = tokenizer.encode(text)
        sizes = [
            len(tokenizer.backend.id_to_token(int(i))) for i in ids
        ]  # byte-level BPE writes one letter a byte
        ends = np.cumsum(sizes)
        starts = ends - sizes
        for start in range(1, len(text)):
            for end in (start + 1, min(start + 3, len(text))):
                low, high = len(text[:start].encode()), len(text[:end].encode())
                if low < ends[0]:
                    continue  # in the first token, which nothing predicts
                expected = ((starts < high) & (ends > low))[1:]
                batch = encode_probes([Probe(text, start, end)], tokenizer)
                np.testing.assert_array_equal(
                    batch.span[0], expected, f"{text[start:end]!r} of {text!r}"
                )
                np.testing.assert_array_equal(batch.targets[0], ids[1:])
                np.testing.assert_array_equal(batch.inputs[0], ids[:-1])


def test_padding_does_not_count():
    tokenizer = tokenizers.byte_tokenizer()
    probes = [Probe("abc", 1, 2), Probe("abcdefg", 3, 7), Probe("ab", 1, 2)]
    for length in (None, 6, 9):
        batch = encode_probes(probes, tokenizer, length)
        assert {x.shape for x in batch} == {(3, length or 6)}
        assert [x.dtype for x in batch] == [np.int32, np.int32, bool, bool]
        assert batch.mask.sum(1).tolist() == [2, 6, 1]
        assert batch.span.sum(1).tolist() == [1, 4, 1]
        assert not (batch.span & ~batch.mask).any()
        assert not batch.inputs[~batch.mask].any() and not batch.targets[~batch.mask].any()
        spans = [
            bytes(row[hit].tolist()).decode()
            for row, hit in zip(batch.targets, batch.span, strict=True)
        ]
        assert spans == ["b", "defg", "b"]


def test_what_follows_the_span_may_be_cut_and_the_span_may_not():
    tokenizer = tokenizers.byte_tokenizer()
    batch = encode_probes([Probe("abcdefg", 2, 4)], tokenizer, length=3)
    assert bytes(batch.targets[0].tolist()) == b"bcd" and batch.span[0].tolist() == [
        False,
        True,
        True,
    ]
    with pytest.raises(
        InputError, match=r"'cd' ends at token 3, beyond length=2; give a length of at least 3"
    ):
        encode_probes([Probe("abcdefg", 2, 4)], tokenizer, length=2)


def test_probes_that_cannot_be_encoded(tmp_path):
    tokenizer = tokenizers.byte_tokenizer()
    with pytest.raises(InputError, match="no probes"):
        encode_probes([], tokenizer)
    with pytest.raises(InputError, match="length=0"):
        encode_probes([Probe("abc", 1, 2)], tokenizer, length=0)
    path = write(tmp_path, {"prompt": "ok", "target": "x"}, {"prompt": "", "target": "Lima"})
    with pytest.raises(InputError, match=r"line 2: the target 'Lima' begins with the first token"):
        encode_probes(read_probes(str(path)), tokenizer)


def sums(path, least, most="9"):
    """A format of probes that somebody else wrote."""
    numbers = range(int(least), int(most) + 1)
    return tuple(
        parse_probe({"prompt": f"{path}: {n} + 1 =", "target": str(n + 1)}) for n in numbers
    )


def test_a_format_by_its_dotted_name():
    name = "tests.data.test_probes.sums"
    assert [found.target for found in read_probes(f"{name}:a@2,4")] == ["3", "4", "5"]
    assert len(read_probes(f"{name}:a@2")) == 8
    with pytest.raises(InputError, match=f"cannot be read; write {name}:PATH@LEAST,MOST"):
        read_probes(f"{name}:a")
