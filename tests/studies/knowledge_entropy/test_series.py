"""The numbers that are made of rows."""

import numpy as np

from lmdyn.studies.knowledge_entropy.series import Series, at_equal_loss, combined


def test_equal_loss_lies_between_checkpoints():
    table = Series(
        [1, 2, 3],
        *(
            np.array([x])
            for x in ([1.0, 2.0, 3.0], [5.0, 4.0, 2.0], [0.0, 1.0, 5.0], [0.1, 0.2, 0.3])
        ),
    )
    assert at_equal_loss(table, "acquisition", [3.0]).tolist() == [3.0]
    assert at_equal_loss(table, "acquisition", [9.0]).tolist() == [0.0]
    assert np.allclose(combined(table), [[1 / 3, (1 / 3 + 0.2 + 0.5) / 3, 2 / 3]])
