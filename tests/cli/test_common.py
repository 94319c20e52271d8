"""What verbs share: the lines on the terminal."""

from lmdyn import records
from lmdyn.cli import common


def test_a_metric_without_a_whole_model_value_is_shown_by_its_layers(capsys):
    rows = [
        records.row("nll", 2.0, "nats", model="m", perplexity=7.389),
        records.row("anisotropy", 0.75, "cosine", model="m", site="residual", layer=0),
        records.row("anisotropy", 0.25, "cosine", model="m", site="residual", layer=1),
        records.row("anisotropy", 0.25, "cosine", model="m", site="final"),
        *(
            records.row("participation", value, "share", model="m", site="mlp", layer=layer)
            for layer, value in enumerate([0.25, 1.0, 0.25])
        ),
    ]
    described = records.describe([records.Quantity("nll", "Likelihood", "nats")])
    common.show(rows, described)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "Likelihood 2 nats (perplexity 7.39)",
        "Anisotropy, residual 0.5 cosine (mean of 2 layers; 0.25 in layer 1 to 0.75 in layer 0)",
        "Anisotropy, final 0.25 cosine",
        "Participation, mlp 0.5 share (mean of 3 layers; 0.25 in layer 0 to 1 in layer 1)",
    ]
