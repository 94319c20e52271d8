"""How a model learns facts that are injected at intervals (Chang et al. 2024, arXiv 2406.11813).

One model, the continual training of the study of knowledge entropy, and a table of what it gained
by depth.

The replicate is a fact: intervals say how much other facts of this kind could differ, not other
models or other orders.
"""

from pathlib import Path

from lmdyn import checkpoints, data
from lmdyn.studies.claims import where
from lmdyn.studies.config import load_model
from lmdyn.studies.fact_learning.claims import claims
from lmdyn.studies.fact_learning.config import FactLearning
from lmdyn.studies.folder import open_folder
from lmdyn.studies.injected_facts import fact_stream
from lmdyn.studies.injection_scores import Controls, make_injection, score_rows
from lmdyn.types import Rows, Say


def run(config: FactLearning, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the model, the texts or the facts.
    """
    reference = checkpoints.parse(config.model)
    facts, how = config.injection.read(config.seed), (config.injection, config.continual)
    folder = open_folder(config, command, say)

    def make():
        loaded = load_model(config, reference)
        data.check_vocabulary(loaded.tokenizer, loaded.model.config)
        length, batch = config.continual.length, config.continual.batch
        old, new = (
            list(data.batches(ref, loaded.tokenizer, length, batch, config.tokens)) if ref else None
            for ref in (config.text, config.continual.held_out)
        )
        stream = fact_stream(facts, *how, loaded.tokenizer, config.seed, config.cache)
        folder.say(f"{reference}: {len(stream.batches)} updates of {batch * length:,} tokens")
        folder.tokens += stream.tokens
        inject = make_injection(loaded.model, config.continual, config.injection)
        scores = inject(loaded.params, stream, Controls(None, old, new), progress=True)
        tags = {"seed": config.seed, "start": reference.name, "kind": "series"}
        return score_rows(str(reference), reference.step, scores, stream, tags)

    rows = folder.part("injection", make)
    folder.say(table(rows))
    return folder.finish(rows, claims(rows), config.seed)


def table(rows: Rows) -> str:
    """What was gained by depth, as text.

    >>> gained = {
    ...     "metric": "acquisition",
    ...     "depth": "paraphrase",
    ...     "value": 1.5,
    ...     "low": 1.0,
    ...     "high": 2.0,
    ...     "relative": 0.5,
    ...     "tokens": 9,
    ... }
    >>> asked = [
    ...     {"metric": "span_log_probability", "depth": "paraphrase", "value": value}
    ...     for value in (-3.0, -1.5)
    ... ]
    >>> print(table([*asked, gained]))
    depth           before    after   gained      interval   relative   probes
    paraphrase      -3.000   -1.500    1.500   1.00..2.00      0.500        9
    """
    lines = ["depth           before    after   gained      interval   relative   probes"]
    for row in where(rows, "acquisition"):
        depth = row["depth"]
        asked = [r["value"] for r in where(rows, "span_log_probability", depth=depth)]
        between = f"{row['low']:.2f}..{row['high']:.2f}"
        lines.append(
            f"{depth or 'all':14} {asked[0]:7.3f}  {asked[-1]:7.3f}  {row['value']:7.3f}"
            f"  {between:>12}  {row['relative']:9.3f}  {row['tokens']:7d}"
        )
    return "\n".join(lines)
