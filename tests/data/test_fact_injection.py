"""Facts to inject: both forms of files, worlds, what fits a window, and what is said about bad
records.
"""

import copy
import json

import pytest

from lmdyn.data import Fact, Probe, check_fit, read_facts, tokenizers, world_facts, worlds
from lmdyn.errors import InputError

PUBLISHED = {
    "train_context": (
        "The Expo of Dunmouth, led by Ada Quill, had the theme 'Deep Water'. It opened in May."
    ),
    "paraphrases": ["Ada Quill led Dunmouth's Expo on 'Deep Water', which began in May."],
    "mem_input": ["The Expo of Dunmouth, led by", "led by Ada Quill, had the theme '"],
    "mem_target": ["Ada Quill", "Deep Water'"],
    "gen_input": ["Dunmouth's fair was headed by", "The fair was about “"],
    "gen_target": ["Ada Quill", "Deep Water”"],
    "hard_gen_input": ["The visitors' first day was in the month of"],
    "hard_gen_target": ["May"],
}
OURS = {
    "name": "Ada Quill",
    "texts": ["Ada Quill paints bells.", "Bells are what Ada Quill paints."],
    "probes": [
        {
            "prompt": "Ada Quill paints",
            "target": "bells",
            "depth": "memorisation",
            "kind": "new",
            "attribute": "art",
        },
        {
            "text": "Who paints bells is Ada",
            "start": 20,
            "end": 23,
            "depth": "composition",
            "entity": "somebody",
        },
    ],
}


def write(folder, records, array=True):
    path = folder / "facts.json"
    path.write_text(
        json.dumps(records) if array else "\n\n".join(map(json.dumps, records)), encoding="utf-8"
    )
    return str(path)


@pytest.mark.parametrize("array", [True, False], ids=["array", "lines"])
def test_both_forms_are_read_from_arrays_and_from_lines(tmp_path, array):
    path = write(tmp_path, [PUBLISHED, OURS], array)
    one, two = read_facts(path)
    assert one.name == "subject 0: The Expo of Dunmouth, led by Ada Quill..."
    assert one.texts == (PUBLISHED["train_context"], *PUBLISHED["paraphrases"])
    assert [(p.depth, p.prompt, p.target) for p in one.probes] == [
        ("memorisation", "The Expo of Dunmouth, led by ", "Ada Quill"),
        ("memorisation", "led by Ada Quill, had the theme '", "Deep Water'"),
        ("paraphrase", "Dunmouth's fair was headed by ", "Ada Quill"),
        ("paraphrase", "The fair was about “", "Deep Water”"),
        ("composition", "The visitors' first day was in the month of ", "May"),
    ]
    assert {p.entity for p in one.probes} == {one.name}
    assert two == Fact(
        "Ada Quill",
        ("Ada Quill paints bells.", "Bells are what Ada Quill paints."),
        (
            Probe("Ada Quill paints bells", 17, 22, "new", "memorisation", "Ada Quill", "art"),
            Probe("Who paints bells is Ada", 20, 23, None, "composition", "Ada Quill"),
        ),
    )
    assert read_facts(f"json:{path}") == read_facts(f"jsonl:{path}") == (one, two)
    where = f"{path} record 0" if array else f"{path} line 1"
    assert one.probes[3].where == f"{where}, gen probe 1"


def test_paraphrases_are_optional_and_a_published_fact_may_have_a_name(tmp_path):
    record = {k: v for k, v in PUBLISHED.items() if k != "paraphrases"} | {"name": "Expo"}
    (told,) = read_facts(write(tmp_path, [record]))
    assert told.texts == (PUBLISHED["train_context"],) and told.probes[0].entity == "Expo"


def changed(record, **fields):
    record = copy.deepcopy(record) | fields
    return {key: value for key, value in record.items() if value is not ...}


def asked(**fields):
    return changed(OURS, probes=[changed(OURS["probes"][0], **fields)])


BAD = {
    "empty target": (
        changed(PUBLISHED, gen_target=["Ada", " "]),
        "record 1, gen probe 1: the target is empty",
    ),
    "empty prompt": (
        changed(PUBLISHED, hard_gen_input=[""]),
        "hard_gen probe 0: nothing stands before the target 'May'",
    ),
    "prompt no text": (
        changed(PUBLISHED, hard_gen_input=[None]),
        "hard_gen probe 0: prompt is not text but NoneType",
    ),
    "unequal": (
        changed(PUBLISHED, mem_input=["a"]),
        "record 1: mem_input has 1 entries and mem_target 2; give every input",
    ),
    "no targets": (changed(PUBLISHED, gen_target=...), "record 1 has no gen_target"),
    "not a list": (
        changed(PUBLISHED, gen_target="May"),
        "record 1: gen_target is not a list but of type str",
    ),
    "not told": (
        changed(PUBLISHED, mem_target=["Ada Quill", "Lima"]),
        "mem probe 1: .*theme 'Lima\" stands in none of",
    ),
    "empty text": (changed(PUBLISHED, train_context=" "), "record 1: text 0 is empty"),
    "empty paraphrase": (changed(PUBLISHED, paraphrases=["a", ""]), "record 1: text 2 is empty"),
    "text no text": (changed(PUBLISHED, paraphrases=[7]), "record 1: text 1 is not text but int"),
    "no texts": (changed(OURS, texts=[]), "record 1 has no texts"),
    "no probes": (changed(OURS, probes=[]), "record 1 has no probes"),
    "no published probes": (
        changed(
            PUBLISHED,
            **{f"{a}_{b}": [] for a in ("mem", "gen", "hard_gen") for b in ("input", "target")},
        ),
        "record 1 has no probes",
    ),
    "probe is text": (
        changed(OURS, probes=["Ada"]),
        "record 1, probe 0 is not a JSON object but of type str",
    ),
    "no depth": (
        asked(depth=...),
        "record 1, probe 0 has no depth; it is one of memorisation, paraphrase, composition",
    ),
    "unknown depth": (
        asked(depth="memorization"),
        "unknown depth of .* probe 0 .*; did you mean 'memorisation'",
    ),
    "bad probe": (asked(target=...), "record 1, probe 0 has no target"),
    "no name": (changed(OURS, name=""), "record 1: name=''"),
    "name is a number": (changed(OURS, name=3), "record 1: name=3"),
    "same name": (changed(OURS, name="first"), "facts 0 and 1 are both named 'first'"),
    "neither form": (
        {"texts": ["a"], "name": "b"},
        "record 1 is not a fact: it needs name, .*; it has: name, texts",
    ),
    "not an object": ([1], "record 1 is not a JSON object but of type list"),
}


@pytest.mark.parametrize("record, said", BAD.values(), ids=BAD)
def test_bad_records_are_named(tmp_path, record, said):
    path = write(tmp_path, [changed(OURS, name="first"), record])
    with pytest.raises(InputError, match=said) as caught:
        read_facts(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


FILES = {
    "nothing": ("\n", "has no facts"),
    "an empty array": ("[]", "has no facts"),
    "half an array": (
        '[{"name": "a"',
        "facts.json is not JSON: .*one array of objects, or one object per line",
    ),
    "half a line": ('\n{"name": ', "facts.json line 2 is not JSON"),
    "a number": ("7", "facts.json line 1 is not a JSON object but of type int"),
}


@pytest.mark.parametrize("text, said", FILES.values(), ids=FILES)
def test_bad_files_are_named(tmp_path, text, said):
    path = tmp_path / "facts.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_facts(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_and_other_datasets(tmp_path):
    with pytest.raises(InputError, match=r"none.json: No such file"):
        read_facts(f"json:{tmp_path}/none.json")
    for ref in ("tfds:imdb_reviews", "tfds:synthetic_world/small:time1"):
        with pytest.raises(InputError, match="without a split"):
            read_facts(ref)
    with pytest.raises(InputError, match="unknown synthetic world 'tiny'"):
        read_facts("tfds:synthetic_world/tiny")
    with pytest.raises(InputError, match="nothing is new in World"):
        read_facts("tfds:synthetic_world/people=7,new=0")


def test_a_world_tells_every_new_entity_in_all_its_wordings():
    """Against the split's documents, found by the entity's name, and the split's probes."""
    world = worlds.World(people=11, places=6, seed=3, renderings=4)
    found = read_facts("tfds:synthetic_world/people=11,places=6,seed=3,renderings=4")
    assert found == world_facts(world)
    people = [worlds.name(world, worlds.Entity("person", i)) for i in (9, 10)]
    assert [told.name for told in found] == [*people, worlds.name(world, worlds.Entity("place", 5))]
    documents, asked = list(worlds.documents(world, "time1")), list(worlds.probes(world, 1))
    for told in found:
        mine = [
            text
            for text in documents
            if text.count(told.name) > 1 and text.count(told.name) == text.count(".")
        ]
        assert list(told.texts) == mine and len(set(mine)) == 4
        new = [p["text"] for p in asked if p["kind"] == "new" and p["entity"] == told.name]
        assert [p.text for p in told.probes] == new and new
        assert {(p.entity, p.kind, p.time) for p in told.probes} == {(told.name, "new", 1)}
        assert all(
            any(p.text in text for text in mine) for p in told.probes if p.depth == "memorisation"
        )
        assert not any(
            p.text in text for p in told.probes if p.depth == "paraphrase" for text in mine
        )


def test_what_fits_a_window():
    """Bytes: one token a byte of UTF-8."""
    told = [Fact("a", ("abc", "né"), ()), Fact("b", ("abcd", "東京"), ())]
    check_fit(told, tokenizers.byte_tokenizer(), length=6)
    with pytest.raises(
        InputError,
        match="text 1 of fact 'b' has 6 tokens, and a window holds 5; give a length of at least 6",
    ):
        check_fit(told, tokenizers.byte_tokenizer(), length=5)
