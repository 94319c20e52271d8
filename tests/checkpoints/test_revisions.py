"""Names of checkpoints as the hub gives them, series by series."""

import random

import pytest

from lmdyn.checkpoints import Reference, series
from lmdyn.checkpoints.revisions import read_name
from lmdyn.errors import InputError
from tests.checkpoints.cases import write_tiny

B = 10**9
# Repository and revision, and what the series' own card or code says of it: branch, stage, seed,
# step, tokens. Where a name stands on the hub is said by its repository.
PUBLISHED = {
    ("EleutherAI/pythia-70m", "step143000"): ("", None, None, 143000, None),
    ("EleutherAI/pythia-70m-seed3", "step512"): ("", None, "3", 512, None),
    ("allenai/OLMo-1B-hf", "step1000-tokens4B"): ("", None, None, 1000, 4 * B),
    ("allenai/OLMo-2-0425-1B", "stage1-step140000-tokens294B"): (
        "stage1",
        1,
        None,
        140000,
        294 * B,
    ),
    ("allenai/OLMo-2-0425-1B", "stage2-ingredient3-step23852-tokens51B"): (
        "stage2-ingredient3",
        2,
        None,
        23852,
        51 * B,
    ),
    ("allenai/Olmo-3-1025-7B", "stage1-step1413814"): ("stage1", 1, None, 1413814, None),
    ("allenai/Olmo-3-1025-7B", "stage3-step11921"): ("stage3", 3, None, 11921, None),
    ("allenai/DataDecide-dolma1_7-1B", "step69369-seed-default"): (
        "seed-default",
        None,
        "default",
        69369,
        None,
    ),
    ("allenai/DataDecide-c4-150M", "step1250-seed-small-aux-2"): (
        "seed-small-aux-2",
        None,
        "small-aux-2",
        1250,
        None,
    ),
    ("LLM360/Amber", "ckpt_000"): ("", None, None, 0, None),
    ("LLM360/Amber", "ckpt_356"): ("", None, None, 356, None),
    ("LLM360/Crystal", "CrystalCoder_phase2_checkpoint_214387"): (
        "CrystalCoder_phase2",
        2,
        None,
        214387,
        None,
    ),
    ("HuggingFaceTB/SmolLM3-3B-checkpoints", "stage1-step-40000"): ("stage1", 1, None, 40000, None),
    ("HuggingFaceTB/SmolLM3-3B-checkpoints", "lc-4k-to-32k-step-20000"): (
        "lc-4k-to-32k",
        None,
        None,
        20000,
        None,
    ),
    ("HuggingFaceFW/ablation-model-fineweb-v1", "step-001000-2BT"): ("", None, None, 1000, 2 * B),
    ("bigscience/bloom-560m-intermediate", "global_step5000"): ("", None, None, 5000, None),
    ("swiss-ai/Apertus-8B-2509", "step50000-tokens210B"): ("", None, None, 50000, 210 * B),
    ("swiss-ai/Apertus-8B-2509", "step2627139-tokens15T"): ("", None, None, 2627139, 15000 * B),
    ("TinyLlama/tinyLlama-intermediate-checkpoints", "step-480k-token-1007B"): (
        "",
        None,
        None,
        480000,
        1007 * B,
    ),
    # The checkpoint is the repository.
    ("TinyLlama/TinyLlama-1.1B-step-50K-105b", None): (
        "TinyLlama-1.1B",
        None,
        None,
        50000,
        105 * B,
    ),
    ("TinyLlama/TinyLlama-1.1B-intermediate-step-480k-1T", None): (
        "TinyLlama-1.1B-intermediate",
        None,
        None,
        480000,
        1000 * B,
    ),
}


@pytest.mark.parametrize("repository, revision", PUBLISHED)
def test_a_published_name_says_what_its_authors_mean(repository, revision):
    says = Reference("hf", repository, revision).says
    assert tuple(says) == PUBLISHED[repository, revision]


@pytest.mark.parametrize(
    "name", ["main", "my-model", "OLMo-7B", "Seed-OSS-36B", "seedling", "steps", "v1.0-2B"]
)
def test_other_names_say_nothing(name):
    assert tuple(read_name(name))[1:4] == (
        None,
        None if name != "Seed-OSS-36B" else "OSS-36B",
        None,
    )
    assert Reference("hf", f"org/{name}", "step7").fields() == {"step": 7}


def test_all_of_a_series_goes_from_stage_to_stage(tmp_path):
    names = [
        "stage1-step0-tokens0B",
        "stage1-step900-tokens2B",
        "stage1-step10000-tokens21B",
        "stage2-ingredient1-step100-tokens1B",
        "stage2-ingredient2-step50-tokens1B",
        "stage3-step5",
        "main",
    ]
    for name in random.Random(0).sample(names, len(names)):
        write_tiny(tmp_path / name)
    assert [r.revision for r in series(f"dir:{tmp_path}@*")] == names
    within = series(f"dir:{tmp_path}@stage1-step0..stage1-step900")
    assert [r.revision for r in within] == names[:2]
    with pytest.raises(InputError, match="from branch 'stage1' to 'stage2-ingredient1'"):
        series(f"dir:{tmp_path}@stage1-step0..stage2-ingredient1-step100")
    with pytest.raises(InputError, match=r"in step0\.\.step900; its branches: stage1, stage2-ingr"):
        series(f"dir:{tmp_path}@step0..step900")


def test_repositories_that_differ_by_a_seed_are_one_series():
    found = series("hf:EleutherAI/pythia-70m-seed{8..10}@step1,step2")
    assert [str(r) for r in found][:3] == [
        "hf:EleutherAI/pythia-70m-seed8@step1",
        "hf:EleutherAI/pythia-70m-seed8@step2",
        "hf:EleutherAI/pythia-70m-seed9@step1",
    ]
    assert [r.fields() for r in found[-2:]] == [
        {"step": 1, "seed": "10"},
        {"step": 2, "seed": "10"},
    ]
    with pytest.raises(InputError, match="not a range of runs"):
        series("hf:org/name-seed{9..1}@*")
