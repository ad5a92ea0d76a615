"""d3rlpy on PyTorch, CPU: the same sizes and data as ours; and PyTorch's own matrix product."""

from __future__ import annotations

import warnings

from worker import serve

ROWS, OBSERVATION, ACTION = 100_000, 17, 6


def offline(options):
    import d3rlpy
    import numpy as np

    generator = np.random.default_rng(0)
    ends = (np.arange(ROWS) % 1000 == 999).astype(np.float32)
    dataset = d3rlpy.dataset.MDPDataset(
        observations=generator.normal(size=(ROWS, OBSERVATION)).astype(np.float32),
        actions=generator.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32),
        rewards=generator.normal(size=ROWS).astype(np.float32),
        terminals=np.zeros(ROWS, np.float32),
        timeouts=ends,
    )
    encoder = d3rlpy.models.VectorEncoderFactory(hidden_units=list(options["hidden"]))
    if options["agent"] == "iql":
        config = d3rlpy.algos.IQLConfig(
            batch_size=options["batch_size"],
            actor_encoder_factory=encoder,
            critic_encoder_factory=encoder,
            value_encoder_factory=encoder,
        )
    else:
        config = d3rlpy.algos.TD3PlusBCConfig(
            batch_size=options["batch_size"], actor_encoder_factory=encoder, critic_encoder_factory=encoder
        )
    algo = config.create(device="cpu:0")
    algo.build_with_dataset(dataset)

    def go(count):
        for _ in range(count):
            algo.update(dataset.sample_transition_batch(options["batch_size"]))

    return go, {"unit": 1, "version": d3rlpy.__version__}


def gemm(options):
    import torch

    w = torch.randn(256, 256) / 16

    def go(count):
        x = w
        for _ in range(120 * count):
            x = x @ w

    return go, {"unit": 120, "version": torch.__version__}


def prepare(options):
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options["threads"])
    return {"offline": offline, "gemm": gemm}[options["kind"]](options)


if __name__ == "__main__":
    serve(prepare)
