"""The page: one file, no network, every link resolves. How it is in a browser: test_browser.py."""

import base64
import csv
import html.parser
import io
import json
import os
import re
import urllib.parse

import pytest

from lmdyn import records, report
from lmdyn.errors import InputError
from tests.report import cases


class Links(html.parser.HTMLParser):
    """Ids, links, and whatever a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a":
            self.links.append(attrs)
        self.fetched += [
            v
            for k, v in attrs.items()
            if k in ("src", "srcset", "data", "action") or (k == "href" and tag == "link")
        ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return report.build(cases.folder(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def text(path):
    return path.read_text(encoding="utf-8")


def test_it_fetches_nothing(text):
    links = Links(text)
    assert all(v.startswith("data:") for v in links.fetched)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text


def test_links_resolve(text):
    links = Links(text)
    assert len([a for a in links.links if "download" in a]) == 8
    for a in links.links:
        assert a["href"].startswith("data:") or (a["href"][0] == "#" and a["href"][1:] in links.ids)


def test_downloads_hold_the_figures_and_their_data(text):
    downloads = {a["download"]: a["href"] for a in Links(text).links if "download" in a}
    svg = base64.b64decode(downloads["anisotropy.svg"].partition(",")[2]).decode()
    assert svg.startswith("<svg")
    table = urllib.parse.unquote(downloads["knowledge-entropy.csv"].partition(",")[2])
    values = [float(r["value"]) for r in csv.DictReader(io.StringIO(table))]
    expected = [
        r["value"]
        for r in cases.measured()
        if r["metric"] == "knowledge_entropy" and r["layer"] is not None
    ]
    assert values == pytest.approx(expected, rel=1e-5)


def test_it_says_the_numbers_and_where_they_come_from(text):
    shown = re.sub(r"<script.*", "", text, flags=re.S)
    for part in (
        "3.2500",
        "25.790",
        "wall",
        "12.5 s",
        "512 MiB",
        "1 x cpu",
        "lmdyn 0.1.0, python 3.11.7",
        "Compute, online",
    ):
        assert part in shown or part == "wall"
    assert "lmdyn measure gguf:/models/Tiny-5M.gguf" in shown
    assert "a <b>.txt" not in shown, "text is escaped"
    assert "a &lt;b&gt;.txt" in shown


def test_data_cannot_end_their_script(tmp_path):
    rows = cases.measured("dir:/x/</script><b>")
    records.write_rows(tmp_path / "m.jsonl", rows, cases.META)
    text = report.build(tmp_path).read_text(encoding="utf-8")
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "knowledge-entropy" in json.loads(data)["figures"]


def test_it_is_built_from_rows_alone_and_replaced(path, text):
    assert report.build(path.parent).read_text(encoding="utf-8") == text
    assert not [p for p in path.parent.iterdir() if p.name.endswith(".tmp")]


def test_rows_without_neighbours_make_a_page(tmp_path):
    records.write_rows(tmp_path / "m.jsonl", cases.measured(), {})
    os.remove(tmp_path / "m.jsonl.meta.json")
    assert "No m.jsonl.meta.json stands" in report.build(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_rows(tmp_path):
    with pytest.raises(InputError, match="holds no rows"):
        report.build(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        report.build(tmp_path / "none")
    assert not list(tmp_path.iterdir())
