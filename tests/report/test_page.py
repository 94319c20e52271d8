"""The page: one file, no network, every link resolves; in a browser, figures at phone and desktop width."""

import base64
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import urllib.parse

import pytest

from lmdyn import report
from lmdyn.errors import InputError
from tests.report import cases

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--hide-scrollbars", "--virtual-time-budget=20000"),
]


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
            v for k, v in attrs.items() if k in ("src", "srcset", "data", "action") or (k == "href" and tag == "link")
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
    expected = [r["value"] for r in cases.measured() if r["metric"] == "knowledge_entropy" and r["layer"] is not None]
    assert values == pytest.approx(expected, rel=1e-5)


def test_it_says_the_numbers_and_where_they_come_from(text):
    shown = re.sub(r"<script.*", "", text, flags=re.S)
    for part in (
        "3.2500",
        "25.79",
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
    report.write_rows(tmp_path / "m.jsonl", rows, cases.META)
    text = report.build(tmp_path).read_text(encoding="utf-8")
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "knowledge-entropy" in json.loads(data)["figures"]


def test_it_is_built_from_rows_alone_and_replaced(path, text):
    assert report.build(path.parent).read_text(encoding="utf-8") == text
    assert not [p for p in path.parent.iterdir() if p.name.endswith(".tmp")]


def test_rows_without_neighbours_make_a_page(tmp_path):
    report.write_rows(tmp_path / "m.jsonl", cases.measured(), {})
    os.remove(tmp_path / "m.jsonl.meta.json")
    assert "No m.jsonl.meta.json stands" in report.build(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_rows(tmp_path):
    with pytest.raises(InputError, match="holds no rows"):
        report.build(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        report.build(tmp_path / "none")
    assert not list(tmp_path.iterdir())


PROBE = """<script>(() => {
  const frame = document.createElement("iframe");
  frame.style.cssText = "border:0;width:%dpx;height:900px";
  frame.onload = function wait() {
    const d = frame.contentDocument;
    if (!d.documentElement.dataset.drawn) { setTimeout(wait, 100); return; }
    const boxes = [...d.querySelectorAll("[data-figure] svg")].map(s => s.getBoundingClientRect());
    const chart = d.querySelector("[data-figure=stream] svg"), r = chart.getBoundingClientRect();
    for (const share of [0.5, 0.6]) {
      const x = r.left + r.width * share, y = r.top + r.height / 2;
      frame.contentWindow.scrollTo(0, y - 300);
      const b = chart.getBoundingClientRect(), at = [b.left + b.width * share, b.top + b.height / 2];
      const hit = d.elementFromPoint(...at), W = frame.contentWindow;
      const told = {bubbles: true, clientX: at[0], clientY: at[1], view: W};
      for (const kind of ["pointerover", "pointermove"]) hit.dispatchEvent(new W.PointerEvent(kind, told));
      for (const kind of ["mouseover", "mousemove"]) hit.dispatchEvent(new W.MouseEvent(kind, told));
    }
    setTimeout(() => {
      const tip = d.querySelector(".vg-tooltip.visible");
      const seen = JSON.stringify({
        width: d.documentElement.clientWidth, reach: d.documentElement.scrollWidth,
        figures: boxes.map(b => [b.left, b.right, b.height]), tip: tip && tip.innerText,
        right: tip && tip.getBoundingClientRect().right,
      });
      document.body.innerHTML = "<pre id=probe></pre>";
      document.getElementById("probe").textContent = seen;
    }, 400);
  };
  frame.src = "report.html";
  document.body.append(frame);
})();</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(path, tmp_path, width):
    shutil.copy(path, tmp_path / "report.html")
    (tmp_path / "probe.html").write_text(f"<!doctype html><body>{PROBE % width}</body>")
    command = [
        CHROMIUM,
        *FLAGS,
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}/profile",
        f"--window-size={width + 100},1000",
        "--dump-dom",
    ]
    run = subprocess.run(
        [*command, f"file://{tmp_path}/probe.html"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.S)[1]))
    assert seen["reach"] <= seen["width"] == width, "nothing sticks out sideways"
    assert len(seen["figures"]) == 4
    for left, right, height in seen["figures"]:
        assert 0 <= left < right <= width
        assert right - left > width * 0.35
        assert height > 200
    assert "online" in seen["tip"]
    assert seen["right"] <= width
