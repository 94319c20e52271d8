"""What `transformers` computes, once a session and case."""

import pytest

from tests.checkpoints.cases import CASES, Reference, make


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A function from the name of a case to its `Reference`."""
    made = {}

    def get(name: str) -> Reference:
        if name not in made:
            made[name] = make(CASES[name], tmp_path_factory.mktemp(name))
        return made[name]

    return get
