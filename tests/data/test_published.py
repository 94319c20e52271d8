"""Probes in the formats of their authors: a few lines in each, what they become, and what is said
about bad ones.
"""

import json
import warnings

import pytest

from lmdyn.data import Probe, encode_probes, read_probes, tokenizers
from lmdyn.errors import InputError


def write(folder, lines, name="probes.json"):
    path = folder / name
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines),
        encoding="utf-8",
    )
    return path


def changed(record, **fields):
    return {key: value for key, value in (record | fields).items() if value is not ...}


# TempLAMA


def question(subject, query, date, *answers, relation="P54"):
    """A line of the published files; an answer is (Wikidata id, name)."""
    answers = [{"wikidata_id": key, "name": name} for key, name in answers]
    return {
        "query": query,
        "answer": (
            answers if len(answers) != 1 else answers[0]
        ),  # the script that makes them writes one alone, later files lists
        "date": date,
        "id": f"{subject}_{relation}_{date}",
        "most_frequent_answer": {"wikidata_id": "Q1", "name": "nobody"},
        "relation": relation,
    }


DUN, XEL, OLB = ("Q11", "Dunmouth"), ("Q12", "Xelton"), ("Q13", "Olbri Bank")
TEMPLAMA = [
    question("Q1", "Ada Quill plays for _X_.", "2010", DUN),
    question("Q1", "Ada Quill plays for _X_.", "2011", XEL, ("Q11", "Dunmouth FC")),
    question("Q2", "Or Sen works for _X_ in Perú.", "2010", OLB, relation="P108"),
    question("Q2", "Or Sen works for _X_ in Perú.", "2011", OLB, relation="P108"),
    question("Q3", "Ix Vale plays for _X_.", "2011", XEL),
    question("Q4", "Jo Ash plays for _X_.", "2010", DUN),
    question(
        "Q5", "_X_ is the head coach of Xelton.", "2011", ("Q1", "Ada Quill"), relation="P286"
    ),
]


def test_templama_labels_answers_by_two_dates(tmp_path):
    path = write(tmp_path, TEMPLAMA)
    with pytest.warns(UserWarning, match="1 of 5 probes begin with the blank and are left out"):
        found = read_probes(f"templama:{path}@2010,2011")
    assert found == (
        Probe("Ada Quill plays for Xelton", 20, 26, "updated", None, "Q1", "P54", 2011),
        Probe("Ada Quill plays for Dunmouth FC", 20, 31, "unchanged", None, "Q1", "P54", 2011),
        Probe("Or Sen works for Olbri Bank", 17, 27, "unchanged", None, "Q2", "P108", 2011),
        Probe("Ix Vale plays for Xelton", 18, 24, "new", None, "Q3", "P54", 2011),
    )
    assert [probe.where for probe in found] == [f"{path} line {n}" for n in (2, 2, 4, 5)]
    assert encode_probes(found, tokenizers.byte_tokenizer()).span.sum(1).tolist() == [6, 11, 10, 6]

    before = read_probes(f"templama:{path}@2011, 2010")  # what was true earlier, by what came later
    assert [(probe.target, probe.kind) for probe in before] == [
        ("Dunmouth", "unchanged"),
        ("Olbri Bank", "unchanged"),
        ("Dunmouth", "new"),
    ]


def test_dynamic_templama_has_quarters_and_any_kind_of_blank(tmp_path):
    """Names without ids, lists of names, blanks of other models, and lines without a relation."""
    bare = lambda query, date, *names: {
        "query": query,
        "answer": [{"name": name} for name in names],
        "date": date,
    }
    lines = [
        bare("Ada Quill plays for <extra_id_0>.", "2019-Q1", "Dunmouth"),
        bare("Ada Quill plays for <extra_id_0>.", "2019-Q4", "Xelton"),
        bare("Or Sen works for [MASK].", "2019-Q1", ["Bank", "Olbri Bank"]),
        bare("Or Sen works for [MASK].", "2019-Q4", ["Bank", "The Bank"]),
        changed(
            bare("Ix Vale is <mask>.", "2019-Q4"),
            answer={"name": ["A", "B"], "original_name": ["B"], "wikidata_id": "Q9"},
        ),
    ]
    found = read_probes(f"templama:{write(tmp_path, lines)}@2019-Q1,2019-Q4")
    assert found == (
        Probe("Ada Quill plays for Xelton", 20, 26, "updated", time="2019-Q4"),
        Probe("Or Sen works for Bank", 17, 21, "unchanged", time="2019-Q4"),
        Probe("Ix Vale is B", 11, 12, "new", time="2019-Q4"),
    )


LINE = question("Q1", "Ada Quill plays for _X_.", "2011", DUN)
BAD_TEMPLAMA = {
    "date": (changed(LINE, date="20x1"), "line 2: '20x1' is not a date; write a year such as 2019"),
    "month": (changed(LINE, date="2011-13"), "line 2: '2011-13' is not a date"),
    "day": (changed(LINE, date="2011-02-30"), "line 2: '2011-02-30' is not a date"),
    "quarter": (changed(LINE, date="2011-Q5"), "line 2: '2011-Q5' is not a date"),
    "no date": (changed(LINE, date=...), "line 2 has no date; it has: answer, id"),
    "no query": (changed(LINE, query=...), "line 2 has no query"),
    "query a number": (changed(LINE, query=3), "line 2: query is not text but int"),
    "no blank": (changed(LINE, query="Ada plays."), "line 2: no blank in 'Ada plays.'; write _X_"),
    "no answer": (changed(LINE, answer=...), "line 2 has no answer"),
    "no answers": (changed(LINE, answer=[]), "line 2: the answer is empty"),
    "empty answer": (changed(LINE, answer={"name": " "}), "line 2: the answer is empty"),
    "empty names": (changed(LINE, answer=[{"name": []}]), "line 2: the answer is empty"),
    "answer is text": (
        changed(LINE, answer="Dunmouth"),
        "line 2: an answer is not an object with a name but 'Dunmouth'",
    ),
    "not json": ('{"query":', "line 2 is not JSON"),
}


@pytest.mark.parametrize("line, said", BAD_TEMPLAMA.values(), ids=BAD_TEMPLAMA)
def test_bad_lines_of_templama_are_named(tmp_path, line, said):
    expect(f"templama:{write(tmp_path, [LINE, line])}@2011,2011", said)


# ECBD

ECBD = {
    "ex_id": "Xelton_66045029_4_0",
    "masked_sentence": "The town of Xelton has <extra_id_0>, and a port.",
    "answer_str": "<extra_id_0> two rivers <extra_id_1>",
    "answer_d": {"<extra_id_0>": "two rivers"},
    "span_type": "NP-COMMON",
    "definition": ["[ENT_START]Xelton[ENT_END] is a town."],
    "year": "2019",
    "entity_span_str": "Xelton",
    "entity_span_loc": [3, 4],
}


def test_ecbd_labels_entities_by_a_year(tmp_path):
    lines = [
        ECBD,
        changed(ECBD, year=2018, answer_d=...),
        {"masked_sentence": "In Perú [MASK] is old.", "answer_str": "Lima", "year": "2017"},
        changed(ECBD, masked_sentence="<extra_id_0> cross Xelton."),
    ]
    path = write(tmp_path, lines)
    with pytest.warns(UserWarning, match="1 of 4 probes"):
        found = read_probes(f"ecbd:{path}@2018")
    text = "The town of Xelton has two rivers"
    assert found == (
        Probe(text, 23, 33, "new", None, "Xelton", "NP-COMMON", 2019),
        Probe(text, 23, 33, "unchanged", None, "Xelton", "NP-COMMON", 2018),
        Probe("In Perú Lima", 8, 12, "unchanged", time=2017),
    )
    assert found[2].where == f"{path} line 3"


BAD_ECBD = {
    "year": (changed(ECBD, year="20190"), "line 2: '20190' is not a year; write one such as 2019"),
    "no year": (changed(ECBD, year=...), "line 2 has no year"),
    "no sentence": (changed(ECBD, masked_sentence=...), "line 2 has no masked_sentence"),
    "no blank": (changed(ECBD, masked_sentence="Xelton."), "line 2: no blank in 'Xelton.'"),
    "empty answer": (changed(ECBD, answer_d={"<extra_id_0>": ""}), "line 2: the answer is empty"),
    "no answer": (changed(ECBD, answer_d={}), "line 2: the answer is empty"),
    "blanks only": (
        changed(ECBD, answer_d=..., answer_str="<extra_id_0> <extra_id_1>"),
        "line 2: the answer is empty",
    ),
    "neither answer": (changed(ECBD, answer_d=..., answer_str=...), "line 2 has no answer_str"),
}


@pytest.mark.parametrize("line, said", BAD_ECBD.values(), ids=BAD_ECBD)
def test_bad_lines_of_ecbd_are_named(tmp_path, line, said):
    expect(f"ecbd:{write(tmp_path, [ECBD, line])}@2018", said)


# TemporalWiki

XELTON = ("Xelton head of government Ada Quill", 26, 35)
LIMA = ("Perú capital Lima, the old", 13, 26)
TRIPLES = [["Xelton", "head of government", "Ada Quill"], ["Perú", "capital", "Lima, the old"]]
TABLES = {
    "csv": [
        "subject,relation,objective",
        "Xelton,head of government,Ada Quill",
        'Perú,capital,"Lima, the old"',
        "",
    ],
    "numbered csv": [
        ",subject,relation,object",
        "0,Xelton,head of government,Ada Quill",
        '1,Perú,capital,"Lima, the old"',
    ],
    "triples": [TRIPLES],
    "dicts": [[dict(zip(("subject", "relation", "object"), row, strict=True)) for row in TRIPLES]],
    "json lines": [
        dict(zip(("subject", "relation", "objective"), row, strict=True)) for row in TRIPLES
    ],
}


@pytest.mark.parametrize("lines", TABLES.values(), ids=TABLES)
def test_temporalwiki_joins_subject_relation_and_object(tmp_path, lines):
    path = write(tmp_path, lines, "0801-0901_unchanged.csv")
    label = lambda kind: (
        Probe(*XELTON, kind, None, "Xelton", "head of government"),
        Probe(*LIMA, kind, None, "Perú", "capital"),
    )
    assert read_probes(f"temporalwiki:{path}") == label("unchanged")
    assert read_probes(f"temporalwiki:{path}@new") == label("new")
    assert read_probes(f"temporalwiki:{path}@changed") == label("updated")


def test_temporalwiki_rows_may_say_their_kind_themselves(tmp_path):
    path = write(
        tmp_path, ["subject,relation,object,kind", "a,b,c,changed", "d,e,f,unchanged"], "all.csv"
    )
    assert [(found.text, found.kind) for found in read_probes(f"temporalwiki:{path}")] == [
        ("a b c", "updated"),
        ("d e f", "unchanged"),
    ]


BAD_TABLES = {
    "no kind": (
        "all.csv",
        ["subject,relation,object", "a,b,c"],
        "",
        "line 2: neither the file's name .* @unchanged",
    ),
    "two kinds": (
        "new_unchanged.csv",
        ["subject,relation,object", "a,b,c"],
        "",
        "line 2: neither the file's name",
    ),
    "unknown kind": (
        "all.csv",
        ["subject,relation,object", "a,b,c"],
        "@update",
        "unknown kind of facts .*'updated'",
    ),
    "empty object": (
        "new.csv",
        ["subject,relation,object", "a,b,c", "a,b,"],
        "",
        "line 3: object is empty",
    ),
    "short row": (
        "new.csv",
        ["subject,relation,objective", "a,b"],
        "",
        "line 2: objective is empty",
    ),
    "no header": ("new.csv", ["a,b,c", "d,e,f"], "", "line 2 has no subject; it has: a, b, c"),
    "empty": ("new.csv", ["subject,relation,object"], "", "has no probes: there is nothing in it"),
    "pair": ("new.json", [[["a", "b"]]], "", "record 0 is not a fact"),
    "number": ("new.json", [[["a", "b", 3]]], "", "record 0: object is not text but int"),
    "half": ("new.json", ['[["a", "b"'], "", "new.json is not JSON"),
}


@pytest.mark.parametrize("name, lines, kind, said", BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables_are_named(tmp_path, name, lines, kind, said):
    expect(f"temporalwiki:{write(tmp_path, lines, name)}{kind}", said)


# References


def expect(ref, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=said) as caught:
            read_probes(ref)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ref, said",
    [
        ("templama:{}", "cannot be read; write templama:PATH@OLD,NEW"),
        ("templama:{}@2010", "cannot be read; write templama:PATH@OLD,NEW"),
        ("templama:{}@2010,yesterday", "'yesterday' is not a date"),
        ("templama:{}@2010,2020", "has no question of 2020; it has: 2010, 2011"),
        ("templama:none@2010,2020", "cannot read none: No such file"),
        ("ecbd:{}", "cannot be read; write ecbd:PATH@YEAR"),
        ("ecbd:{}@now", "'now' is not a year"),
        ("temporalwiki:{}@new,old", "cannot be read; write temporalwiki:PATH"),
    ],
)
def test_bad_references_say_how_to_write_them(tmp_path, ref, said):
    expect(ref.format(write(tmp_path, TEMPLAMA)), said)


def test_a_file_of_nothing_but_leading_blanks_is_an_error(tmp_path):
    expect(
        f"ecbd:{write(tmp_path, [changed(ECBD, masked_sentence='<extra_id_0> is old.')])}@2018",
        "all 1 begin with the blank",
    )
