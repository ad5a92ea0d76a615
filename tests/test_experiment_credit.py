"""What the experiment on OREAL's credit rests on: where a reward model's opinion falls, against a loop."""

import numpy as np

from experiments.tokens.oreal import largest_fall


def test_the_largest_fall_is_from_one_half_on_and_never_on_padding():
    score = np.array([[-0.4, 2.0, -9.0, 0.0], [-3.0, 1.0, 0.5, -50.0], [1.0, 0.5, -1.0, 9.0]], np.float32)
    mask = np.array([[1.0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
    wanted = []
    for scores, real in zip(score, mask, strict=True):
        likely = [0.5] + [1 / (1 + np.exp(-scores[:t].mean())) for t in range(1, int(real.sum()) + 1)]
        wanted.append(int(np.argmax(-np.diff(likely))))
    assert wanted == [2, 0, 2]
    np.testing.assert_array_equal(largest_fall(score, mask), wanted)
