"""What the rows of a metric hold, in words."""

import json

from lmdyn import records


def test_a_row_is_described_by_the_provenance_beside_it(tmp_path):
    own = records.Quantity(
        "participation", "Participation ratio", "share", "mlp", "1: all.", fields={"n": "Units"}
    )
    row = records.row("participation", 0.5, "share", model="m", site="mlp", layer=3)
    path = tmp_path / "rows.jsonl"
    records.write_rows(path, [row], {"metrics": records.describe([own])})
    assert records.quantity_of(row, records.read_meta(path)) == own


def test_rows_without_a_description_speak_for_themselves():
    row = records.row("static_nll", 0.5, "nats", model="m", site="head")
    found = records.quantity_of(row, json.loads('{"metrics": {"nll": {"name": "nll"}}}'))
    assert found == records.Quantity("static_nll", "Static nll", "nats", "head")
