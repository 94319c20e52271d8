"""Studies by name, and the settings that all of them share."""

import sys

import pytest

from lmdyn import studies
from lmdyn.errors import InputError
from lmdyn.studies import registry
from lmdyn.studies.config import SeededStudyConfig, StudyConfig

CONFIG = """
import dataclasses

from lmdyn.studies.config import StudyConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(StudyConfig):
    text: str = "builtin:docs"
"""
PACKAGE = """
from my_own_studies.mine.config import Mine

CONFIG, run, PAGE = Mine, None, None
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A study of somebody else's package, which lmdyn does not know."""
    folder = tmp_path / "my_own_studies" / "mine"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "config.py").write_text(CONFIG)
    (folder / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_own_studies.mine"
    for name in [name for name in sys.modules if name.startswith("my_own_studies")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", registry.SHIPPED)
def test_every_shipped_study_exports_what_a_study_does(name):
    package = registry.find(name)
    assert issubclass(package.CONFIG, StudyConfig) and callable(package.run)
    assert package.PAGE.config == f"configs/{name}.py"
    assert package.PAGE.title.lower() == name.replace("_", " ")
    assert registry.find(package.__name__) is package


def test_a_package_of_ones_own_is_found_by_its_dotted_name(own_package):
    package = registry.find(own_package)
    assert package.__name__ == own_package
    assert registry.package_of(package.CONFIG(out="out/mine")) is package


def test_what_is_no_study_is_one_line():
    with pytest.raises(InputError, match="did you mean 'saturation'"):
        registry.find("saturate")
    with pytest.raises(InputError, match=r"lacks CONFIG, run, PAGE; a study's package exports"):
        registry.find("lmdyn.studies.claims")
    with pytest.raises(InputError, match="StudyConfig is not a study's config"):
        registry.package_of(StudyConfig(out="out/x"))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(seeds=0), "seeds=0; it must be at least 1"),
        (dict(seed=-1), "seed=-1"),
        (dict(workers=-1), "workers=-1"),
        (dict(out=3), "SeededStudyConfig.out=3 is of type int, not str"),
    ],
)
def test_shared_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        SeededStudyConfig(**{"out": "out/x", **settings})


def test_seeds_are_counted_from_the_first():
    assert list(SeededStudyConfig(out="x", seeds=3, seed=4).every_seed) == [4, 5, 6]
    assert issubclass(studies.KnowledgeEntropy, SeededStudyConfig)
