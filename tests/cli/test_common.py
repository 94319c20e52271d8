"""What verbs share: the lines on the terminal."""

from lmdyn import records
from lmdyn.cli import common


def test_a_metric_without_a_whole_model_value_is_shown_by_its_layers(capsys):
    rows = [
        records.row("m", "nll", 2.0, "nats", perplexity=7.389),
        records.row("m", "anisotropy", 0.5, "cosine", site="residual", layer=0),
        records.row("m", "anisotropy", 0.25, "cosine", site="final"),
        *(
            records.row("m", "participation", value, "share", site="mlp", layer=layer)
            for layer, value in enumerate([0.25, 1.0, 0.25])
        ),
    ]
    common.show(rows)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        "nll 2 nats (perplexity 7.39)".split(),
        "anisotropy final 0.25 cosine".split(),
        (
            "participation mlp 0.5 share (mean of 3 layers; lowest 0.25 in 0, highest 1 in 1)"
        ).split(),
    ]
