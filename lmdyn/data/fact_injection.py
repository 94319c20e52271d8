"""Facts to inject while a model trains further, with the probes of them.

Chang et al. 2024, arXiv 2406.11813. A fact is a paragraph, the same in other words, and questions
of three depths: `memorisation` asks for what the text says, in its words; `paraphrase` in other
words; `composition` for what follows from several of its sentences.

"""

import dataclasses
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from lmdyn.data import worlds
from lmdyn.data.probes.probe import Probe, parse_probe
from lmdyn.data.sources.jsonl import json_records
from lmdyn.data.sources.text import read_text
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError, choose

DEPTHS = {"memorisation": "mem", "paraphrase": "gen", "composition": "hard_gen"}
"""The depths of probes, and how the published format begins their fields: `mem_input`."""
FACT_EXAMPLE = (
    '{"name": "...", "texts": ["..."], "probes": [{"prompt": "...", "target": "...", "depth":'
    ' "memorisation"}]}'
)


@dataclasses.dataclass(frozen=True)
class Fact:
    """Texts about one subject, and probes of what they say. Made by `read_facts`.

    Attributes:
      name: the subject; unique within a file.
      texts: at least one; the first is the original, the others are paraphrases of it.
      probes: at least one; their `depth` is a key of `DEPTHS`, and their `entity` is the name.
    """

    name: str
    texts: tuple[str, ...]
    probes: tuple[Probe, ...]


def parse_fact(record: dict[str, Any], where: str = "the fact", number: int = 0) -> Fact:
    """A fact from a dict.

    Args:
      record: either our form: `name`, `texts` (a list) and `probes` (a list of dicts as
        `lmdyn.data.probes.parse_probe` takes them, with a `depth`); or the published form of Chang
        et al. 2024, which Kim et al. 2024 use: `train_context`, optionally `paraphrases`, and lists
        `mem_input`, `mem_target`, `gen_input`, `gen_target`, `hard_gen_input`, `hard_gen_target`.
        There, an input that ends with an opening quotation mark is joined to its target without a
        space. Other keys are left alone.
      where: its name in error messages.
      number: which fact of its file it is, counted from 0; a fact without a name is named by it.

    Raises:
      InputError: neither form, no text or no probe, an empty text, prompt or target, lists of
        unequal length, an unknown depth, or a memorisation probe whose words occur in none of the
        texts.

    >>> told = parse_fact(
    ...     {
    ...         "train_context": "Ada Quill paints bells.",
    ...         "mem_input": ["Ada Quill paints"],
    ...         "mem_target": ["bells"],
    ...         "gen_input": ["What Ada Quill likes to paint:"],
    ...         "gen_target": ["bells"],
    ...         "hard_gen_input": [],
    ...         "hard_gen_target": [],
    ...     }
    ... )
    >>> told.name, [(probe.depth, probe.text) for probe in told.probes]
    ('subject 0: Ada Quill paints bells.', [('memorisation', 'Ada Quill paints bells'),
                                            ('paraphrase', 'What Ada Quill likes to paint: bells')])
    """
    if "train_context" in record:
        rest = _list(record, "paraphrases", where) if record.get("paraphrases") is not None else []
        texts = [record["train_context"], *rest]
        asked = list(_published(record, where))
    elif {"name", "texts", "probes"} <= set(record):
        texts, asked = _list(record, "texts", where), list(_own(record, where))
    else:
        raise InputError(
            f"{where} is not a fact: it needs name, texts and probes, or train_context, mem_input,"
            f" mem_target and so on; it has: {', '.join(sorted(map(str, record))) or 'nothing'}"
        )
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            what = "empty" if isinstance(text, str) else f"not text but {type(text).__name__}"
            raise InputError(f"{where}: text {i} is {what}; give a paragraph that tells the fact")
    if not texts or not asked:
        raise InputError(
            f"{where} has no {'probes' if texts else 'texts'}; a fact needs at least one text and"
            " one probe"
        )
    name = record["name"] if "name" in record else f"subject {number}: {_beginning(texts[0])}"
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"{where}: name={name!r}; it must be text that says whom or what the fact is about"
        )
    for found in asked:
        _check(found, texts)
    return Fact(
        name, tuple(texts), tuple(dataclasses.replace(found, entity=name) for found in asked)
    )


def _published(record, where) -> Iterator[Probe]:
    for depth, short in DEPTHS.items():
        prompts, targets = (_list(record, f"{short}_{what}", where) for what in ("input", "target"))
        if len(prompts) != len(targets):
            raise InputError(
                f"{where}: {short}_input has {len(prompts)} entries and {short}_target"
                f" {len(targets)}; give every input its target"
            )
        for i, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            spot = f"{where}, {short} probe {i}"
            asked = {"prompt": prompt, "target": target}
            if isinstance(prompt, str) and isinstance(target, str) and _opens(prompt):
                asked = {"text": prompt + target, "start": len(prompt), "end": len(prompt + target)}
            yield parse_probe({**asked, "depth": depth}, spot)


def _opens(prompt: str) -> bool:
    """Whether it ends with an opening quotation mark or bracket, which no space follows.

    >>> _opens("the theme of '"), _opens("the expo's"), _opens("the hosts'")
    (True, False, False)
    """
    last, before = prompt[-1:], prompt[-2:-1]
    return last != "" and (
        unicodedata.category(last) in ("Pi", "Ps") or (last in "'\"" and not before.strip())
    )


def _own(record, where) -> Iterator[Probe]:
    for i, asked in enumerate(_list(record, "probes", where)):
        spot = f"{where}, probe {i}"
        if not isinstance(asked, dict):
            raise InputError(
                f"{spot} is not a JSON object but of type {type(asked).__name__}; write a fact as"
                f" {FACT_EXAMPLE}"
            )
        found = parse_probe(asked, spot)
        if found.depth is None:
            raise InputError(f"{spot} has no depth; it is one of {', '.join(DEPTHS)}")
        choose(f"depth of {spot}", found.depth, DEPTHS)
        yield found


def _list(record, field, where) -> list:
    if field not in record:
        raise InputError(
            f"{where} has no {field}; a fact of this form needs it, if only as an empty list"
        )
    if not isinstance(record[field], list):
        raise InputError(
            f"{where}: {field} is not a list but of type {type(record[field]).__name__}"
        )
    return record[field]


def _check(found: Probe, texts):
    if not found.prompt.strip():
        raise InputError(
            f"{found.where}: nothing stands before the target {found.target[:60]!r}; give a prompt"
        )
    told = found.text[: found.end]
    if found.depth == "memorisation" and not any(told in text for text in texts):
        raise InputError(
            f"{found.where}: {told[-60:]!r} stands in none of the fact's texts, as a memorisation"
            " probe must; correct it, or ask for it as a paraphrase"
        )


def _beginning(text: str, limit: int = 40) -> str:
    """The first words of a text."""
    text = text.strip()
    return (
        text
        if len(text) <= limit
        else text[: limit + 1].rsplit(maxsplit=1)[0].rstrip(",;:") + "..."
    )


def read_facts(ref: str) -> tuple[Fact, ...]:
    """All facts of a file, or the new entities of a synthetic world.

    Args:
      ref: the path of a file (or `json:PATH`, `jsonl:PATH`) that holds a JSON array of dicts, or
        one dict a line; see `parse_fact`. Or `tfds:synthetic_world/CONFIG`, see
        `lmdyn.data.worlds.world.named` and `world_facts`.

    Raises:
      InputError: no such file, nothing in it, two facts of one name, or a record that is not a
        fact; it names the file and the line, or the record of an array, counted from 0.

    >>> [told.name for told in read_facts("tfds:synthetic_world/people=10,places=5")][:2]
    ['Jorona Perona Nasher', 'Loria Kelor Marlcombe']
    """
    kind, _, rest = ref.partition(":")
    if kind == "tfds":
        name, _, config = rest.partition("/")
        if name != "synthetic_world" or ":" in config:
            raise InputError(
                f"'{ref}' names no facts; write tfds:synthetic_world/CONFIG, without a split, or a"
                " JSON file"
            )
        return world_facts(worlds.named(config or "small"))
    path = os.path.expanduser(rest if kind in ("json", "jsonl") else ref)
    found = tuple(parse_fact(record, where, i) for i, (record, where) in enumerate(_records(path)))
    if not found:
        raise InputError(f"{ref} has no facts; give at least one such as {FACT_EXAMPLE}")
    first: dict[str, int] = {}
    for i, told in enumerate(found):
        if first.setdefault(told.name, i) != i:
            raise InputError(
                f"{ref}: facts {first[told.name]} and {i} are both named '{told.name}'; give each"
                " its own name"
            )
    return found


def _records(path) -> Iterator[tuple[dict, str]]:
    """Each dict and its name in errors: of an array if the file begins as one, else of lines."""
    for record, where in json_records(path, read_text(path), FACT_EXAMPLE, "objects"):
        if not isinstance(record, dict):
            raise InputError(
                f"{where} is not a JSON object but of type {type(record).__name__}; write a fact as"
                f" {FACT_EXAMPLE}"
            )
        yield record, where


def world_facts(world: worlds.World) -> tuple[Fact, ...]:
    """Every entity that is new at time 1: its biographies, and the probes about it.

    The texts are those of split `time1`, one for each of the world's renderings. A composition
    probe also needs a fact about a city, which may be an old one that only split `time0` mentions.

    Raises:
      InputError: nothing is new.

    >>> told = world_facts(worlds.World(people=10, places=5, renderings=3))
    >>> len(told), len(told[0].texts), sorted({probe.depth for probe in told[0].probes})
    (3, 3, ['composition', 'memorisation', 'paraphrase'])
    """
    texts = worlds.documents(world, "time1")
    round_ = len(texts) // world.renderings  # documents come in rounds of all subjects
    found = []
    for i in range(round_):
        entity = worlds.about(world, "time1", i)
        if entity.index < worlds.count(world, entity.sort, 0):
            continue
        asked = tuple(
            parse_probe(record, f"the world's probe of {record['entity']}")
            for record in worlds.entity_probes(world, entity, 1)
        )
        found.append(Fact(worlds.name(world, entity), tuple(texts[i::round_]), asked))
    if not found:
        raise InputError(
            f"nothing is new in {world}; give a larger share of new entities, such as new=0.2"
        )
    return tuple(found)


def check_fit(facts: Sequence[Fact], tokenizer: Tokenizer, length: int) -> None:
    """Raises an `InputError` that names the longest text, if it has more tokens than a window.

    A text of `length` tokens fits: all of them are predicted after an end-of-text token.

    Args:
      facts: what is to be injected.
      tokenizer: the model's.
      length: T, the inputs of one window.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> check_fit([Fact("Ada", ("Ada sings.",), ())], byte_tokenizer(), length=9)
    Traceback (most recent call last):
    lmdyn.errors.InputError: text 0 of fact 'Ada' has 10 tokens, and a window holds 9; give a length
    of at least 10, or shorter texts
    """
    texts = (
        (len(tokenizer.encode(text)) + (tokenizer.document_token is not None), i, told.name)
        for told in facts
        for i, text in enumerate(told.texts)
    )
    size, i, name = max(texts, key=lambda found: found[0], default=(0, 0, ""))
    if size > length:
        raise InputError(
            f"text {i} of fact '{name}' has {size} tokens, and a window holds {length}; give a"
            f" length of at least {size}, or shorter texts"
        )
