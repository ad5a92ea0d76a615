"""A policy as a folder of its own: a StableHLO program with its parameters inside, and what it takes and gives."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import refused, whole, write_bytes, write_json, write_text
from jaxrl_reg.jobs.deployment import policy_of, read_member

if TYPE_CHECKING:
    from jaxrl_reg.types import Policy, Spec

FORMAT = 1  # of the folder
PLATFORMS = ("cpu", "cuda", "tpu")
MONTHS = 6  # for which JAX promises that a later release reads the program

SCRIPT = '''\
"""Acts with the policy of this folder; needs jax (and flatbuffers) alone: carry = start(B), then at every step
action, carry = act(observations, carry), [B, O] to [B, A]; one with a memory takes the last rewards [B] too."""
import json
import pathlib

import jax
import numpy as np
from jax import export

folder = pathlib.Path(__file__).parent
about = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
try:
    program = export.deserialize(bytearray((folder / "policy.bin").read_bytes()))
except ImportError as error:  # of flatbuffers, which jax.export reads with
    raise SystemExit(str(error)) from None
except Exception as error:
    raise SystemExit(f"jax {jax.__version__} cannot read policy.bin: {about['compatibility']} ({error})") from None


def start(episodes=1):
    with np.load(folder / "memory.npz", allow_pickle=False) as memory:
        return tuple(np.repeat(memory[name][None], episodes, axis=0) for name in sorted(memory.files))


def act(observation, carry=(), reward=None, key=(0, 0)):
    observation = np.asarray(observation, np.float32)
    reward = np.zeros(len(observation), np.float32) if reward is None else np.asarray(reward, np.float32)
    action, *carry = program.call(observation, reward, np.asarray(key, np.uint32), *carry)
    return np.asarray(action), tuple(carry)


if __name__ == "__main__":
    print(act(np.zeros((1, about["observation_dim"])), start())[0])
'''


def export(
    directory: str | pathlib.Path,
    to: str | pathlib.Path,
    *,
    setting: int | None = None,
    seed: int | None = None,
    task: str | None = None,
    goal: Any = None,
) -> pathlib.Path:
    """Write the policy of one member of a run as a folder that runs without this package; returns the folder.

    ``policy.bin`` is the program, serialised by ``jax.export`` for CPU, CUDA and TPU, with parameters and normalisation
    inside; ``policy.json`` says what it takes and gives, and which releases of JAX read it; ``memory.npz`` is what a
    policy with a memory starts from; ``act.py`` runs it with JAX alone.

    Args:
      directory: a run directory.
      to: the folder to make; it must not hold anything.
      setting, seed, task, goal: as ``load_policy``.

    Raises:
      UserError: as ``load_policy``, or if ``to`` is taken.
    """
    import jax
    import numpy as np

    from jaxrl_reg.types import TokenSpec

    member, path = read_member(directory, setting, seed), pathlib.Path(to)
    if isinstance(member.spec, TokenSpec):
        raise UserError(
            f"{directory} holds a policy of tokens, which is not exported; load_policy answers prompts with it"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is not an empty folder; choose another one with --to")
    need("flatbuffers")
    program, memory = _program(policy_of(directory, member, task, goal), member.spec)
    asked = {"task": task, "goal": None if goal is None else np.asarray(goal, float).tolist()}
    facts, serialised = {**_facts(member.about, member.spec, program), **asked}, program.serialize()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error
    write_bytes(path / "policy.bin", serialised)
    with whole(path / "memory.npz") as partial, partial.open("wb") as file:
        np.savez(file, **{f"{i:03d}": leaf for i, leaf in enumerate(jax.device_get(memory))})
    write_text(path / "act.py", SCRIPT)
    write_json(path / "policy.json", facts)
    return path


def _program(policy: Policy, spec: Spec) -> tuple[Any, list[Any]]:
    """``(observation [b, O], reward [b], key uint32 [2], *memory [b, ...]) -> (action, *memory)`` for any number ``b``
    of episodes, and what the memory of one episode starts with."""
    import jax
    import jax.numpy as jnp
    from jax import export as exporting

    memory, structure = jax.tree.flatten(jax.jit(policy.start, static_argnums=0)(()))

    def step(observation: Any, reward: Any, key: Any, *carry: Any) -> tuple[Any, ...]:
        action, after = policy.step(
            jax.tree.unflatten(structure, carry), observation, reward, jax.random.wrap_key_data(key)
        )
        return action, *jax.tree.leaves(after)

    (episodes,) = exporting.symbolic_shape("b")
    arguments = (
        jax.ShapeDtypeStruct((episodes, spec.observation_dim), jnp.float32),
        jax.ShapeDtypeStruct((episodes,), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.uint32),
        *(jax.ShapeDtypeStruct((episodes, *leaf.shape), leaf.dtype) for leaf in memory),
    )
    return exporting.export(jax.jit(step), platforms=PLATFORMS)(*arguments), memory


def _facts(about: Mapping[str, Any], spec: Spec, program: Any) -> dict[str, Any]:
    """What ``policy.json`` says."""
    import jax

    today = datetime.date.today()
    year, month = divmod(today.year * 12 + today.month - 1 + MONTHS, 12)
    return {
        "format": FORMAT,
        "observation_dim": spec.observation_dim,
        "action_dim": spec.action_dim,
        "discrete": spec.discrete,
        "platforms": list(program.platforms),
        "jax": jax.__version__,
        "calling_convention": program.calling_convention_version,
        "written": today.isoformat(),
        "compatibility": f"it was written by jax {jax.__version__} on {today.isoformat()}, and jax promises to read it "
        f"in releases up to {year}-{month + 1:02d}; export the run again with a release of today",
        "member": dict(about),
    }
