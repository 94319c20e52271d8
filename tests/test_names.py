"""Things by name."""

import math
import sys

import pytest

from lmdyn import metrics, names
from lmdyn.errors import InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's own, with a module that cannot be imported."""
    folder = tmp_path / "own_measures"
    folder.mkdir()
    (folder / "__init__.py").write_text("nothing = None\n\ndef double(x=1):\n    return 2 * x\n")
    (folder / "inner.py").write_text("value = 7\n")
    (folder / "broken.py").write_text("import own_measures.inner\nraise RuntimeError('on purpose')")
    (folder / "needy.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_measures"
    for name in [name for name in sys.modules if name.startswith("own_measures")]:
        del sys.modules[name]


def test_the_registry_comes_first_and_a_dotted_name_needs_no_entry(package):
    assert names.resolve("math.log", {"math.log": max}, "x") is max
    assert names.resolve("math.log", {}, "x") is math.log
    assert names.resolve(f"{package}.inner", {}, "x").value == 7  # a module, not yet imported
    assert names.resolve(f"{package}.nothing", {}, "x") is None
    assert names.make(f"{package}.double", {"x": 4}, {}, "x") == 8


@pytest.mark.parametrize(
    "name, message",
    [
        ("dubble", "unknown rule 'dubble'; did you mean 'double'.* my_package.dubble"),
        ("", "unknown rule ''"),
        (".", "unknown rule '.'"),
        ("own_measures.dubble", "no attribute 'dubble'; did you mean 'own_measures.double'"),
        ("own_measures.none.at_all", "there is no module 'own_measures.none'"),
        ("nowhere.at_all", "there is no module 'nowhere'; install it"),
        ("own_measures.broken.x", "failed with RuntimeError: on purpose"),
        ("own_measures.needy.x", "ModuleNotFoundError: No module named 'surely_not_installed'"),
    ],
)
def test_what_cannot_be_resolved_is_said_in_one_line(package, name, message):
    with pytest.raises(InputError, match=message) as caught:
        names.resolve(name, {"double": max}, "rule")
    assert "\n" not in str(caught.value)


def test_a_metric_by_its_dotted_name_is_measured_beside_the_others():
    found = metrics.build("nll,lmdyn.metrics.knowledge_entropy")
    assert set(found.taps) == {"nll", "mlp.coefficients"}
    with pytest.raises(InputError, match=r"'builtins.dict' made dict, not a lmdyn.metrics.Metric"):
        metrics.build("builtins.dict")
