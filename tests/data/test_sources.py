"""Text references: what each kind reads, and what it says when it cannot."""

import bz2
import gzip
import json
import lzma
import pickle

import pytest

from lmdyn.data import documents, store, tokenize, tokenizers
from lmdyn.data.sources import Documents
from lmdyn.errors import InputError


def test_text_is_one_document_a_file_in_order_of_names(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text {name} \u00e9", encoding="utf-8")
    (tmp_path / "d.md").write_text("not this")
    assert list(documents(f"text:{tmp_path}/*.txt")) == [
        "text a \u00e9",
        "text b \u00e9",
        "text c \u00e9",
    ]


def test_text_crosses_folders_and_reads_line_ends_as_python_does(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert list(documents(f"text:{tmp_path}/**/*.txt")) == ["one\ntwo\nthree\n"]


def test_jsonl_reads_any_line_by_index_and_skips_blank_ones(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [{"body": f"number {i} \u00e9", "id": i} for i in range(5)]
    path.write_text(
        "\n\n".join(json.dumps(line, ensure_ascii=i % 2 == 0) for i, line in enumerate(lines)),
        encoding="utf-8",
    )
    docs = documents(f"jsonl:{path}#body")
    assert len(docs) == 5
    assert [docs[i] for i in (4, 0, -2)] == [
        "number 4 \u00e9",
        "number 0 \u00e9",
        "number 3 \u00e9",
    ]
    assert list(docs[1:3]) == ["number 1 \u00e9", "number 2 \u00e9"]


@pytest.mark.parametrize("ref", ["builtin:docs", "builtin:code"])
def test_builtin_is_the_same_every_time_and_book_length(ref):
    docs, again = documents(ref), documents(ref)
    assert docs[0] == again[0] != docs[1]
    assert sum(len(docs[i]) for i in range(0, len(docs), 5)) > 100_000
    assert all(docs[i].strip() for i in range(0, len(docs), 7))


def test_builtin_domains_differ():
    docs, code = (documents(f"builtin:{name}") for name in ("docs", "code"))
    share = lambda text: text.count("self.") / len(text)
    assert share("".join(code[:20])) > 5 * share("".join(docs[:20]))


def test_documents_pickle_for_workers(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"t": "x"}\n')
    for ref in (f"jsonl:{tmp_path}/a.jsonl#t", "builtin:code"):
        docs = documents(ref)
        assert pickle.loads(pickle.dumps(docs))[0] == docs[0]


def test_documents_end():
    docs = Documents("test:x", ("a", "b"), str)
    assert list(docs) == ["a", "b"]
    with pytest.raises(IndexError):
        docs[2]


BAD = {
    "no kind": ("corpus.txt", "has no kind; write text:corpus.txt"),
    "no kind, records": ("a/b.jsonl.gz", "has no kind; write jsonl:a/b.jsonl.gz#FIELD"),
    "no kind, Windows": ("C:\\a.txt", r"write text:C:\\a.txt"),
    "address": ("https://example.com/a.txt", "addresses are not fetched"),
    "hub": ("hf:wikitext", "write arrow:FOLDER#FIELD"),
    "unknown kind": ("txt:a", "did you mean 'text'"),
    "missing file": ("text:{d}/none.txt", "is not there"),
    "no match": ("text:{d}/*.none", "no file matches"),
    "a folder": ("text:{d}", "is a folder"),
    "empty file": ("text:{d}/empty.txt", "empty.txt is empty"),
    "no field": ("jsonl:{d}/a.jsonl", "names no field"),
    "missing jsonl": ("jsonl:{d}/none.jsonl#text", "is not there"),
    "empty jsonl": ("jsonl:{d}/empty.txt#text", "is empty"),
    "unknown builtin": ("builtin:doc", "did you mean 'docs'"),
    "tfds without split": ("tfds:wiki#text", "names no split"),
    "tfds without field": ("tfds:wiki:train", "names no field"),
    "unknown tfds": ("tfds:no_such_dataset_here:train#text", "no dataset 'no_such_dataset_here'"),
}


@pytest.mark.parametrize("ref, said", BAD.values(), ids=BAD)
def test_bad_reference_is_one_clear_line(tmp_path, monkeypatch, ref, said):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InputError, match=said) as caught:
        documents(ref.format(d=tmp_path))
    assert "\n" not in str(caught.value)


LINES = {
    "not utf-8": (
        b'{"text": "ok"}\n{"text": "\xff"}',
        1,
        "line 2 is not UTF-8: byte 0xff at offset 25",
    ),
    "not json": (b'{"text": "ok"}\n\n{"text": ', 1, "line 3 is not JSON"),
    "not an object": (b'{"text": "ok"}\n[1]', 1, "line 2 is not a JSON object but of type list"),
    "lacks the field": (b'{"body": "x", "id": 1}', 0, "has no field 'text'; it has: body, id"),
    "not text": (b'{"text": 3}', 0, "field 'text' is not text but int"),
}


@pytest.mark.parametrize("raw, index, said", LINES.values(), ids=LINES)
def test_bad_line_is_named(tmp_path, raw, index, said):
    (tmp_path / "a.jsonl").write_bytes(raw)
    docs = documents(f"jsonl:{tmp_path}/a.jsonl#text")
    with pytest.raises(InputError, match=said):
        docs[index]


def test_bytes_that_are_not_utf8_are_located(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abcde\xe9f")
    with pytest.raises(InputError, match="is not UTF-8: byte 0xe9 at offset 5"):
        documents(f"text:{tmp_path}/a.txt")[0]


def compress(raw: bytes, kind: str) -> bytes:
    """Bytes as others pack them: Python's own modules, and Arrow's zstd."""
    if kind == "zstd":
        return pytest.importorskip("pyarrow").compress(raw, codec="zstd", asbytes=True)
    return {"gzip": gzip, "bz2": bz2, "xz": lzma}[kind].compress(raw)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lmdyn" / "unpacked"


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bz2", "xz"])
def test_packed_files_are_known_by_their_first_bytes(tmp_path, cache, kind):
    lines = [json.dumps({"text": f"line {i}\u00e9" * 50}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "packed").write_bytes(compress((tmp_path / "a.jsonl").read_bytes(), kind))
    plain, packed = (documents(f"jsonl:{tmp_path}/{name}#text") for name in ("a.jsonl", "packed"))
    assert len(packed) == 40
    assert [packed[i] for i in (17, 3, -1)] == [plain[i] for i in (17, 3, -1)]
    whole = documents(f"text:{tmp_path}/packed")[0]
    assert whole == (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert len(list(cache.iterdir())) == 1  # unpacked once
    (tmp_path / "packed").write_bytes(compress(b'{"text": "new"}', kind))
    assert list(documents(f"jsonl:{tmp_path}/packed#text")) == ["new"]


def test_a_packed_file_that_is_cut_short_is_named(tmp_path, cache):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    with pytest.raises(InputError, match=r"a\.txt\.gz is a damaged gzip file"):
        documents(f"text:{tmp_path}/*.gz")[0]
    assert not list(cache.iterdir())


OTHERS = {
    "parquet": (b"PAR1", "is a Parquet file; write parquet:"),
    "zip": (b"PK\x03\x04", "is a zip archive; unpack it"),
    "utf-16": ("text".encode("utf-16"), "is UTF-16; convert it"),
    "pdf": (b"%PDF-1.7", "is a PDF"),
}


@pytest.mark.parametrize("raw, said", OTHERS.values(), ids=OTHERS)
def test_what_is_no_text_is_called_what_it_is(tmp_path, raw, said):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(InputError, match=said):
        documents(f"text:{tmp_path}/a.txt")[0]


def test_lists_of_patterns_and_arrays_of_objects(tmp_path):
    (tmp_path / "part-1.jsonl").write_text('{"t": "one"}\n')
    (tmp_path / "part-0.jsonl").write_text('{"t": "zero"}\n')
    (tmp_path / "all.json").write_text('[{"t": "two"}, {"t": "three"}]')
    found = documents(f"jsonl:{tmp_path}/part-*.jsonl,{tmp_path}/all.json#t")
    assert list(found) == ["zero", "one", "two", "three"]
    (tmp_path / "with,comma.jsonl").write_text('{"t": "four"}\n')
    assert list(documents(f"jsonl:{tmp_path}/with,comma.jsonl#t")) == ["four"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"t": "one"}\r\n{"t": "two"}')
    assert list(documents(f"text:{tmp_path}/a.txt")) == ["one\ntwo"]
    assert list(documents(f"jsonl:{tmp_path}/a.jsonl#t")) == ["one", "two"]


DOCUMENTS = {
    "null": ("null", "line 2: field 'text' is not text but null"),
    "number": ("3.5", "line 2: field 'text' is not text but float"),
    "half of a surrogate pair": (r'"a\ud800"', r"line 2 has half of a surrogate pair, U\+D800"),
}


@pytest.mark.parametrize("value, said", DOCUMENTS.values(), ids=DOCUMENTS)
def test_bad_documents_are_errors_or_skipped_and_counted(tmp_path, value, said):
    lines = ['{"text": "good"}', f'{{"text": {value}}}', r'{"text": "nul \u0000 is text"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    ref, tokenizer = f"jsonl:{tmp_path}/a.jsonl#text", tokenizers.byte_tokenizer()
    with pytest.raises(InputError, match=said):
        tokenize(ref, tokenizer)
    for run in (tokenize, store):
        options = {"cache": tmp_path / "cache"} if run is store else {}
        with pytest.warns(UserWarning, match=f"1 of 3 documents are skipped; the first: .*{said}"):
            found = run(ref, tokenizer, on_bad_document="skip", **options)
        assert [tokenizer.decode(ids) for ids in found] == ["good", "nul \0 is text"]
    with pytest.raises(InputError, match="unknown on_bad_document 'skp'"):
        documents(ref, "skp")


def reversed_lines(ref, rest):
    """A kind of source that somebody else wrote."""
    return Documents(ref, rest.split(","), lambda line: line[::-1])


def test_a_kind_of_source_by_its_dotted_name():
    assert list(documents("tests.data.test_sources.reversed_lines:ab,cd")) == ["ba", "dc"]
    with pytest.raises(InputError, match="has no attribute 'reversed_line'"):
        documents("tests.data.test_sources.reversed_line:ab")
