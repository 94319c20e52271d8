"""Synthetic worlds: what their texts tell is found again by reading them, template by template."""

import collections
import pickle
import subprocess
import sys

import pytest

from lmdyn.data import documents, read_probes, worlds
from lmdyn.data.worlds import words
from lmdyn.data.worlds.facts import Entity, count, hashed, kind, name, permute, value
from lmdyn.data.worlds.world import World
from lmdyn.errors import InputError

SMALL = World(people=23, places=11, seed=5, updated=0.3, new=0.25, renderings=4)
FACTS = [(sort, attribute) for sort in words.TEMPLATES for attribute in words.TEMPLATES[sort]]


def entities(world, time=1):
    return [
        Entity(sort, i) for sort in ("person", "place") for i in range(count(world, sort, time))
    ]


def told(world, text, times=(0, 1)):
    """{(entity, attribute, template, time)}: every sentence in `text`, by trying them all."""
    found = set()
    for entity in entities(world):
        who = name(world, entity)
        if who not in text:
            continue
        for attribute, templates in words.TEMPLATES[entity.sort].items():
            for time in times:
                if time == 0 and kind(world, entity, attribute) == "new":
                    continue
                what = value(world, entity, attribute, time)
                found |= {
                    (entity, attribute, i, time)
                    for i, template in enumerate(templates)
                    if template.format(name=who, object=what) in text
                }
    return found


@pytest.fixture(scope="module")
def read():
    """What each split of SMALL tells, as `told` finds it."""
    texts = {split: "\n".join(worlds.documents(SMALL, split)) for split in worlds.TEXT_SPLITS}
    return {split: told(SMALL, text) for split, text in texts.items()}


@pytest.mark.parametrize("sort, attribute", FACTS)
def test_templates_can_be_told_apart(sort, attribute):
    templates = words.TEMPLATES[sort][attribute]
    assert len(templates) == len(set(templates)) >= 8
    every = [
        t for attributes in words.TEMPLATES.values() for more in attributes.values() for t in more
    ]
    for template in templates:
        assert template.count("{name}") == template.count("{object}") == 1
        assert template.index("{name}") < template.index(" {object}")
        prompt = template.partition("{object}")[0]
        assert sum(other.partition("{object}")[0].endswith(prompt) for other in every) == 1


def test_values_are_many_and_differ():
    for values in (*words.VALUES.values(), words.places(), words.FIRST):
        assert len(values) == len(set(values)) >= 40
        assert all(v == v.strip() and v for v in values)


def test_no_name_comes_twice():
    world = World(people=20_000, places=5000, seed=1)
    names = [name(world, e) for e in entities(world)]
    assert len(set(names)) == 25_000
    assert [
        name(World(people=50, places=5000, seed=1), Entity("person", i)) for i in range(50)
    ] == names[:50]


def test_no_two_splits_tell_a_fact_in_the_same_words(read):
    pairs = {split: {fact[:3] for fact in found} for split, found in read.items()}
    by_name = {name(SMALL, e): e for e in entities(SMALL)}
    for time in (0, 1):
        pairs[f"probes {time}"] = asked = set()
        for p in worlds.probes(SMALL, time):
            if p["depth"] == "paraphrase":
                entity, before = by_name[p["entity"]], p["text"][: p["start"]]
                prompts = [
                    t.partition("{object}")[0].format(name=p["entity"])
                    for t in words.TEMPLATES[entity.sort][p["attribute"]]
                ]
                asked.add((entity, p["attribute"], prompts.index(before)))
        assert {fact[:2] for fact in asked} == {
            (e, a) for e in entities(SMALL, time) for a in words.TEMPLATES[e.sort]
        }
    assert all(pairs.values())
    assert not pairs["time0"] & pairs["time1"]
    for text in ("time0", "time1"):
        assert not pairs[text] & (pairs["probes 0"] | pairs["probes 1"])


def test_time_0_tells_every_old_fact_in_as_many_ways_as_asked(read):
    ways = collections.Counter(fact[:2] for fact in read["time0"] if fact[3] == 0)
    expected = {(e, a) for e in entities(SMALL, 0) for a in words.TEMPLATES[e.sort]}
    assert set(ways) == expected
    assert set(ways.values()) == {SMALL.renderings}


def test_time_1_tells_what_changed_and_nothing_else(read):
    expected = {
        (e, a)
        for e in entities(SMALL)
        for a in words.TEMPLATES[e.sort]
        if kind(SMALL, e, a) != "unchanged"
    }
    assert {fact[:2] for fact in read["time1"]} == expected
    assert {fact[3] for fact in read["time1"] if kind(SMALL, *fact[:2]) == "updated"} == {1}


def test_new_entities_are_absent_from_time_0():
    text = "\n".join(worlds.documents(SMALL, "time0"))
    later = set(entities(SMALL, 1)) - set(entities(SMALL, 0))
    assert len(later) == round(23 * 0.25) + round(11 * 0.25)
    assert not [e for e in later if name(SMALL, e) in text]
    assert all(name(SMALL, e) in text for e in entities(SMALL, 0))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.37, 1.0])
def test_updated_facts_differ_and_are_as_many_as_asked(share):
    world = World(people=67, places=13, seed=2, updated=share)
    kinds = {}
    for entity in entities(world, 0):
        for attribute in words.TEMPLATES[entity.sort]:
            what = kinds[entity, attribute] = kind(world, entity, attribute)
            before, after = (value(world, entity, attribute, time) for time in (0, 1))
            assert (before != after) == (what == "updated")
    for sort, changeable in words.CHANGEABLE.items():
        changed = {a for (e, a), what in kinds.items() if e.sort == sort and what == "updated"}
        many = sum(what == "updated" for (e, _), what in kinds.items() if e.sort == sort)
        assert many == round(share * count(world, sort, 0) * len(changeable))
        assert changed == (set(changeable) if share else set())


def test_which_facts_are_updated_is_not_a_pattern():
    world = World(people=1000, updated=0.5, new=0)
    counts = collections.Counter(
        tuple(kind(world, Entity("person", i), a) == "updated" for a in words.CHANGEABLE["person"])
        for i in range(1000)
    )
    assert len(counts) == 8 and all(
        abs(n - 125) < 60 for n in counts.values()
    )  # 60: six standard deviations


def test_values_are_spread_evenly():
    world = World(people=6400)
    counts = collections.Counter(value(world, Entity("person", i), "field", 1) for i in range(6400))
    assert len(counts) == 64
    assert (
        sum((n - 100) ** 2 / 100 for n in counts.values()) < 130
    )  # chi-squared of 63 degrees: 1 in a million


def test_sentences_come_in_many_orders():
    firsts = {
        d.partition(".")[0]
        for d in worlds.documents(World(people=1, places=2, new=0, renderings=40), "time0")
    }
    assert len(firsts) > 10


def test_same_seed_same_texts_and_another_seed_others():
    text = lambda seed: [
        "\n".join(worlds.documents(World(people=9, seed=seed), s)) for s in worlds.TEXT_SPLITS
    ]
    assert text(4) == text(4)
    assert not set("\n".join(text(4)).split("\n")) & set("\n".join(text(5)).split("\n"))
    code = (
        "from lmdyn.data import worlds; print(*worlds.documents(worlds.World(people=9, seed=4),"
        " 'time1'), sep='\\n')"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert elsewhere.stdout.rstrip("\n") == text(4)[1]


def test_any_document_of_a_large_world_is_made_alone():
    docs = worlds.documents(World(people=1_000_000), "time0")
    assert len(docs) == 5 * (800_000 + 8000)
    last = docs[-1]
    assert (
        name(World(people=1_000_000), worlds.about(World(people=1_000_000), "time0", len(docs) - 1))
        in last
    )
    assert pickle.loads(pickle.dumps(docs))[len(docs) - 1] == last


def test_probes_end_with_what_is_true():
    for time in (0, 1):
        by_name = {name(SMALL, e): e for e in entities(SMALL, time)}
        seen = collections.Counter()
        for p in worlds.probes(SMALL, time):
            found, (first, _, then) = (
                p["text"][p["start"] : p["end"]],
                p["attribute"].partition("."),
            )
            entity = by_name[p["entity"]]
            assert p["time"] == time and p["end"] == len(p["text"])
            assert p["entity"] in p["text"][: p["start"]]
            truth = value(SMALL, entity, first, time)
            if then:  # the second fact is about the place that the first one names
                truth = value(SMALL, by_name[truth], then, time)
            assert found == truth
            assert (
                p["kind"] == "new"
                if entity.index >= count(SMALL, entity.sort, 0)
                else p["kind"] != "new"
            )
            seen[p["depth"], p["kind"]] += 1
        kinds = ("updated", "unchanged") + ("new",) * time
        assert set(seen) == {
            (d, k) for d in ("memorisation", "paraphrase", "composition") for k in kinds
        }


def test_memorisation_is_the_training_sentence_up_to_the_value():
    text = {split: "\n".join(worlds.documents(SMALL, split)) for split in worlds.TEXT_SPLITS}
    for time in (0, 1):
        for p in worlds.probes(SMALL, time):
            in_text = {split for split in text if p["text"] in text[split]}
            if p["depth"] == "memorisation":
                assert in_text == {"time1" if time and p["kind"] != "unchanged" else "time0"}
            else:
                assert not in_text


def test_updated_probes_ask_the_same_of_both_times():
    asked = [
        {
            (p["entity"], p["attribute"]): p
            for p in worlds.probes(SMALL, t)
            if p["depth"] == "paraphrase"
        }
        for t in (0, 1)
    ]
    for key, before in asked[0].items():
        after = asked[1][key]
        assert before["text"][: before["start"]] == after["text"][: after["start"]]
        assert before["kind"] == after["kind"]
        assert (before["text"] == after["text"]) == (before["kind"] == "unchanged")


def test_compositions_change_when_a_fact_behind_them_does():
    asked = [
        {
            (p["entity"], p["attribute"]): p
            for p in worlds.probes(SMALL, t)
            if p["depth"] == "composition"
        }
        for t in (0, 1)
    ]
    kinds = set()
    for key, before in asked[0].items():
        after = asked[1][key]
        answers = [p["text"][p["start"] :] for p in (before, after)]
        assert (answers[0] != answers[1]) == (after["kind"] == before["kind"] == "updated")
        kinds.add((key[1], after["kind"]))
    # born once, on a river that stays: but what the city is known for may change
    assert ("birth_city.river", "updated") not in kinds and ("residence.river", "updated") in kinds
    assert ("birth_city.known_for", "updated") in kinds


BAD = {
    "no people": (dict(people=0), "people=0 of a world; it must be a whole number from 1"),
    "half a person": (dict(people=2.5), "people=2.5"),
    "too many places": (dict(places=10**6), "places=1000000"),
    "share": (dict(updated=1.5), "updated=1.5 of a world; it is a share"),
    "nobody old": (dict(people=3, new=0.9), "leaves 0 of 3 person entities at time 0"),
    "one old place": (dict(places=2, new=0.5), "leaves 1 of 2 place entities"),
    "seed": (dict(seed=-1), "seed=-1"),
}


@pytest.mark.parametrize("fields, said", BAD.values(), ids=BAD)
def test_bad_worlds(fields, said):
    with pytest.raises(InputError, match=said):
        World(**fields)


def test_bad_questions():
    with pytest.raises(InputError, match="not known at time 0, when there are 17"):
        value(SMALL, Entity("person", 22), "field", 0)
    with pytest.raises(InputError, match="did you mean 'employer'"):
        value(SMALL, Entity("person", 2), "employr", 0)
    with pytest.raises(InputError, match="unknown split of texts 'time2'"):
        worlds.documents(SMALL, "time2")


def test_hash_is_splitmix64():
    """The first outputs of the generator that Java's SplittableRandom uses, published with state 0
    and 1234567.
    """
    assert hashed(0) == 0xE220A8397B1DCDAF
    assert hashed(1234567) == 6457827717110365317


@pytest.mark.parametrize("size", [1, 2, 3, 12, 257, 1000])
def test_permutations_are_permutations_and_differ_by_key(size):
    one, two = ([permute(i, size, key) for i in range(size)] for key in (11, 12))
    assert sorted(one) == sorted(two) == list(range(size))
    assert one != two or size < 4


# As a TFDS dataset


def test_prepared_splits_are_those_of_the_world(tmp_path):
    path = worlds.prepare(SMALL, tmp_path)
    assert "tensorflow" not in sys.modules
    for split in worlds.TEXT_SPLITS:
        assert list(documents(f"tfds:{path}:{split}#text")) == list(worlds.documents(SMALL, split))
    found = read_probes(f"tfds:{path}:probes")
    assert [
        (p.text, p.start, p.end, p.kind, p.depth, p.entity, p.attribute, p.time) for p in found
    ] == [tuple(p.values()) for p in worlds.probes(SMALL)]
    assert worlds.prepare(SMALL, tmp_path) == path


def test_same_seed_same_bytes(tmp_path):
    import pathlib

    world = World(people=12, places=6, renderings=2)
    one, two = (pathlib.Path(worlds.prepare(world, tmp_path / name)) for name in "ab")
    names = sorted(p.name for p in one.iterdir())
    records = [n for n in names if "array_record" in n]
    assert names == sorted(p.name for p in two.iterdir()) and len(records) == 4
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in records)


def test_a_world_is_made_when_its_name_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    other = documents("tfds:synthetic_world/people=20,seed=3,new=0:time0#text")
    assert len(pickle.loads(pickle.dumps(other))) == 5 * 30
    docs = documents("tfds:synthetic_world/small:time0#text")
    assert list(docs[:3]) == list(worlds.documents(World(people=100), "time0")[:3])
    assert pickle.loads(pickle.dumps(docs))[-1] == docs[-1]
    stamp = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert documents("tfds:synthetic_world/small:time1#text")[0]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == stamp
    assert capsys.readouterr() == ("", "")


NAMES = {
    "config": (
        "synthetic_world/tiny:time0",
        "unknown synthetic world 'tiny'; known: large, medium, small",
    ),
    "field": ("synthetic_world/peeple=3:time0", "did you mean 'people'"),
    "number": ("synthetic_world/people=x:time0", "people='x' is not a number"),
    "range": ("synthetic_world/people=0:time0", "people=0 of a world"),
    "split": ("synthetic_world/people=9:time2", "unknown split 'time2'"),
    "split with nothing in it": (
        "synthetic_world/people=9,new=0,updated=0:time1",
        "unknown split 'time1'",
    ),
}


@pytest.mark.parametrize("ref, said", NAMES.values(), ids=NAMES)
def test_bad_names(tmp_path, monkeypatch, ref, said):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=said) as caught:
        documents(f"tfds:{ref}#text")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write the synthetic world"):
        worlds.prepare(World(people=9), tmp_path / "file")


def test_importing_the_data_package_imports_no_tfds():
    code = (
        "import sys, lmdyn.data, lmdyn.data.worlds.world, lmdyn.data.probes.probe;"
        " print('tensorflow_datasets' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "False\n"
    )
    code = (
        "import sys; from lmdyn.data.worlds.tfds_builder import SyntheticWorld;"
        " print('tensorflow' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "False\n"
    )
