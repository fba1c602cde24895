"""What is written of attention; tests/tools/test_visualize_attention.py has the files."""

import numpy as np
import pytest

from dnl_d2.prediction.attention_writing import _peak


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([[0.25, 0.25], [0.25, 0.25]], "largest weight 0.25, 1.0 times the mean"),
        ([[0.9, 0.1], [0.0, 0.0]], "largest weight 0.9, 3.6 times the mean"),
        ([[1.0] + [0.0] * 579], "largest weight 1, 580 times the mean"),
        ([[-0.5, 2.0]], "largest weight 2"),
        ([[0.0, 0.0]], "largest weight 0"),
    ],
)
def test_the_strength_of_a_map(weights, said):
    assert _peak(np.array(weights, np.float32)) == said
