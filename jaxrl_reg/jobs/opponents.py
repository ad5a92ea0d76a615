"""Adversaries that have learnt, kept with the run that they were learnt against and put to others.

``RUN/adversaries/NAME-SIZE/PROGRAM`` is a checkpoint of all members' adversaries: networks and the box, without the
rest of the learners.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError

if TYPE_CHECKING:
    from jaxrl_reg.evaluation.attacks import Attack, Mean
    from jaxrl_reg.types import Key, Spec

FOLDER = "adversaries"
HIDDEN = (64, 64)  # widths of the networks of all that learn


@dataclasses.dataclass(frozen=True)
class Opponents:
    """Adversaries of one kind and size: leaves of ``learnt`` are ``[M, ...]``, ``box [M, O]`` is the largest
    perturbation, ``info`` what they were learnt with."""

    run: pathlib.Path
    learnt: Any
    box: Any
    info: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return self.info["kind"]

    @property
    def epsilon(self) -> float:
        return self.info["epsilon"]

    @property
    def name(self) -> str:
        return f"{self.kind} of {self.run.name}"

    @property
    def mark(self) -> str:
        """Tells these from others that were learnt against the same run, earlier or with another target."""
        return " ".join(str(self.info[key]) for key in ("attack_steps", "update", "against", "members")).strip()


def keep(run: pathlib.Path, folder: str, learnt: Any, box: Any, spec: Spec, info: Mapping[str, Any]) -> None:
    """Store adversaries in the place of earlier ones of the same kind, size and program."""
    from jaxrl_reg.io import checkpoint

    about = {**info, "hidden": list(HIDDEN), "observation_dim": spec.observation_dim, "action_dim": spec.action_dim}
    to = _folder(run, info["kind"], info["epsilon"]) / folder
    checkpoint.save(to, 0, (learnt, box), {**about, "discrete": bool(spec.discrete)})


def kept(run: pathlib.Path, kind: str, epsilon: float, folder: str) -> Opponents | None:
    """What ``keep`` has stored for a program, None where there is nothing."""
    import jax

    from jaxrl_reg.io import checkpoint
    from jaxrl_reg.loops.learnt import template
    from jaxrl_reg.types import Spec

    def like(info: Mapping[str, Any]) -> Any:
        spec = Spec(info["observation_dim"], info["action_dim"], discrete=info["discrete"])
        one = template(info["kind"], spec, tuple(info["hidden"]))
        of_all = lambda leaf: jax.ShapeDtypeStruct((info["members"], *leaf.shape), leaf.dtype)  # noqa: E731
        return jax.tree.map(of_all, (one, one.center))

    found = checkpoint.restore(_folder(run, kind, epsilon) / folder, like)
    return None if found is None else Opponents(run, *found[1], found[2])


def read(text: str, spec: Spec, flag: str = "--adversary") -> list[Opponents]:
    """The adversaries of ``RUN``, or of ``RUN:rat:0.1`` those of one kind and size.

    Raises:
      UserError: for a folder without adversaries, a kind or size that is not among them, or other observations.
    """
    import jax
    import numpy as np

    run, asked = pathlib.Path(text), None
    if not run.is_dir() and text.count(":") >= 2:
        place, *asked = text.rsplit(":", 2)
        run = pathlib.Path(place)
    there = sorted(path for path in (run / FOLDER).glob("*-*") if path.is_dir())
    if not there:
        raise UserError(
            f"{flag} {text}: {run} holds no adversary; learn one first: jaxrl-reg evaluate {run} --attack rat:0.1"
        )
    names = {path.name.replace("-", ":"): path for path in there}
    if asked is not None and ":".join(asked) not in names:
        raise UserError(f"{flag} {text}: {run} has {', '.join(names)}")
    found = []
    for name, path in names.items():
        if asked is not None and name != ":".join(asked):
            continue
        kind, size = name.split(":", 1)
        parts = [kept(run, kind, float(size), program.name) for program in sorted(path.iterdir())]
        parts = [part for part in parts if part is not None]
        learnt, box = jax.tree.map(lambda *x: np.concatenate(x), *((part.learnt, part.box) for part in parts))
        info = {**parts[0].info, "epsilon": float(size), "members": len(box)}
        _check(f"{flag} {text}", info, spec)
        found.append(Opponents(run, learnt, box, info))
    return found


def one(text: str, spec: Spec) -> Opponents:
    """The only adversaries of a run, to be trained under; they know nothing of the gradients of who learns.

    Raises:
      UserError: as ``read``, for several, or for a kind that needs the gradients of the policy.
    """
    from jaxrl_reg.loops.learnt import KNOWS

    found = read(text, spec)
    names = [f"{each.kind}:{each.epsilon:g}" for each in found]
    if len(found) > 1:
        raise UserError(f"--adversary {text} has {', '.join(names)}; say which: --adversary {text}:{names[0]}")
    if found[0].kind in KNOWS:
        raise UserError(
            f"--adversary {text}: {found[0].kind} follows the gradients of the policy that it is put to; train "
            "under rat or sa_rl, or in turn: --adversary pa_ad:0.1"
        )
    return found[0]


def drawn(opponents: Opponents, spec: Spec, key: Key) -> Attack:
    """One of the adversaries as an attack."""
    import jax
    import jax.numpy as jnp

    chosen = jax.random.randint(key, (), 0, len(opponents.box))
    learnt, box = jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], (opponents.learnt, opponents.box))
    return put_to(opponents, learnt, box, None, spec)


def put_to(opponents: Opponents, learnt: Any, box: Any, victim: Mean | None, spec: Spec) -> Attack:
    """One member's adversary as an attack on a policy."""
    from jaxrl_reg.loops.learnt import attack_of

    return attack_of(opponents.kind, learnt, victim, box, spec, tuple(opponents.info["hidden"]))


def _check(asked: str, info: Mapping[str, Any], spec: Spec) -> None:
    for key, what in (("observation_dim", "observations"), ("action_dim", "actions")):
        if info[key] != getattr(spec, key):
            raise UserError(
                f"{asked} was learnt where {what} have {info[key]} numbers; here they have {getattr(spec, key)}"
            )


def _folder(run: pathlib.Path, kind: str, epsilon: float) -> pathlib.Path:
    return run / FOLDER / f"{kind}-{epsilon:g}"
