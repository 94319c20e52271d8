"""Model references, series, and the hub without a network."""

import pathlib
import sys

import pytest

from lmdyn import checkpoints
from lmdyn.checkpoints import Reference, hub, parse, series
from lmdyn.errors import InputError
from tests.checkpoints.cases import write_tiny


@pytest.mark.parametrize(
    "text, expected",
    [
        ("hf:org/name", Reference("hf", "org/name")),
        ("hf:org/name@step1000", Reference("hf", "org/name", "step1000")),
        ("gguf:/a/b@c.gguf", Reference("gguf", "/a/b@c.gguf")),
        ("run:out/run@300", Reference("run", "out/run", "300")),
        ("dir:models/x", Reference("dir", "models/x")),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "revision, step",
    [
        ("step1000", 1000),
        ("main", None),
        ("step1000-tokens4B", 1000),
        ("stage1-step150-tokens2B", 150),
        ("ckpt_100", 100),
        ("checkpoint-500", 500),
        ("global_step7", 7),
        ("300", 300),
        ("0123456789012345678901234567890123456789", None),
    ],
)
def test_step(revision, step):
    assert Reference("hf", "org/name", revision).step == step


def test_names_leave_steps_to_the_step():
    assert Reference("hf", "org/name", "step3").name == "org/name"
    assert Reference("hf", "org/name", "main").name == "org/name@main"
    assert Reference("gguf", "/x/model.Q4_1.gguf").name == "model.Q4_1"


@pytest.mark.parametrize(
    "text, words",
    [
        ("hff:org/name", "unknown kind of model reference 'hff'"),
        ("just-a-name", "'just-a-name' is not a model reference"),
        ("hf:", "names nothing"),
        ("hf:org/name@a,,b", "empty revision"),
        ("hf:org/name@a,b", "names 2 checkpoints"),
        ("hf:org/name@one..two", "'one..two' is not a range"),
        ("run:nowhere@*", "nowhere is not a run: no such folder"),
        ("run:nowhere", "nowhere is not a run: no such folder"),
        ("org/name", "write hf:org/name, or dir:PATH"),
        ("./model", "write dir:./model"),
        ("C:\\models\\tiny", "write dir:C:\\models\\tiny"),
        ("weights/model.gguf", "write gguf:weights/model.gguf"),
        ("https://huggingface.co/org/name/tree/main", "write hf:org/name"),
        ("hf:https://huggingface.co/org/name", "holds an address; write hf:org/name"),
        ("DIR:model", "did you mean 'dir'"),
        (
            "run:nowhere@latest",
            "'latest' is not a step of a run; write run:nowhere@1000, or run:nowhere for the last",
        ),
    ],
)
def test_bad_references(text, words):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def steps(tmp_path):
    for step in (0, 1000, 200):
        write_tiny(tmp_path / f"step{step}", seed=step)
    (tmp_path / "notes").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "what, expected",
    [
        ("*", ["step0", "step200", "step1000"]),
        ("step1000,step0", ["step1000", "step0"]),
        ("step0..step500", ["step0", "step200"]),
        ("step0,*", ["step0", "step200", "step1000"]),
    ],
)
def test_a_folder_of_checkpoints_is_a_series(steps, what, expected):
    found = series(f"dir:{steps}@{what}")
    assert [r.revision for r in found] == expected
    assert [r.step for r in found] == [int(name[4:]) for name in expected]
    assert checkpoints.load(found[0]).step == found[0].step


def test_a_range_without_members_says_so(steps):
    with pytest.raises(InputError, match=r"no checkpoint with a step in step5..step6"):
        series(f"dir:{steps}@step5..step6")
    with pytest.raises(
        InputError, match=r"has no folder step77; its checkpoints are: step0, step1000, step200"
    ):
        checkpoints.load(f"dir:{steps}@step77")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache as the hub's client lays it out, with two revisions, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    root = tmp_path / "models--org--name"
    for i, step in enumerate(("step1", "step2")):
        commit = str(i) * 40
        write_tiny(root / "snapshots" / commit, seed=i)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / step).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("what", ["step1,step2", "*", "step0..step9"])
def test_a_series_from_the_hubs_cache(cache, what):
    found = series(f"hf:org/name@{what}")
    assert [str(r) for r in found] == ["hf:org/name@step1", "hf:org/name@step2"]
    first, second = (checkpoints.load(r) for r in found)
    assert (first.step, second.step, first.name) == (1, 2, "org/name")
    assert float(first.params["final_norm"]["scale"][0]) != float(
        second.params["final_norm"]["scale"][0]
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("hf:org/name@step3", "hf:org/name@step3 is not in the cache"),
        ("hf:org/other", "hf:org/other is not in the cache"),
        ("hf:a/b/c", "is not the name of a repository"),
    ],
)
def test_what_is_not_in_the_cache(cache, text, words):
    with pytest.raises(InputError) as caught:
        checkpoints.load(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("holds", ["model.safetensors", "pytorch_model.bin"])
def test_the_hub_is_asked_for_pytorch_files_only_where_there_is_nothing_else(
    holds, monkeypatch, tmp_path
):
    client = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, revision, allow_patterns):
        asked.append((name, revision, *allow_patterns))
        if any(pathlib.PurePath(holds).match(pattern) for pattern in allow_patterns):
            (tmp_path / holds).touch()
        return str(tmp_path)

    monkeypatch.setattr(client, "snapshot_download", snapshot)
    assert hub.download("org/name", "step7") == tmp_path
    assert (tmp_path / holds).exists()
    assert len(asked) == (1 if holds.endswith("safetensors") else 2)
    assert all(one[:2] == ("org/name", "step7") for one in asked)


def test_errors_of_the_hub_are_one_line_each(monkeypatch):
    client = pytest.importorskip("huggingface_hub")
    from huggingface_hub import errors

    kinds = {
        "RepositoryNotFoundError": "no such repository",
        "RevisionNotFoundError": "no such revision",
        "GatedRepoError": "is gated",
        "LocalEntryNotFoundError": "not in the cache",
    }
    for kind, words in kinds.items():
        broken = getattr(errors, kind).__new__(getattr(errors, kind))

        def refuse(*args, broken=broken, **options):
            raise broken

        monkeypatch.setattr(client, "snapshot_download", refuse)
        with pytest.raises(InputError, match=words):
            hub.download("org/name", "x")
    monkeypatch.setattr(
        client,
        "snapshot_download",
        lambda *a, **k: (_ for _ in ()).throw(ConnectionError("down\nnow")),
    )
    with pytest.raises(InputError, match=r"hf:org/name could not be fetched: down now"):
        hub.download("org/name")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install lmdyn\[hub\]"):
        checkpoints.load("hf:org/name")
