"""What an encoder of observations can be trained by, before there is a task: one function per objective.

Each takes an encoder ``Network [..., O] -> [..., D]`` of any kind and adds the heads that its loss needs. Train one by
``loops.pretrain`` on any data set, as a population if wanted; then ``objective.encode(params, observation)`` gives the
features. Compute them once for the data of the task: a frozen encoder inside the update is paid for at every step.

=======================  =======================  ====================================================================
objective                needs actions            what its minimiser must know of the state
=======================  =======================  ====================================================================
autoencoding             no                       whatever fills the picture, noise first where that is larger
forward_dynamics         optional                 whatever is predictable, predictable noise included
temporal_contrast(...)   no                       whatever tells one time from another, lasting noise included
augmented_contrast       no                       whatever survives the augmentation
contrastive_dynamics     optional                 as temporal_contrast; with actions, what they move
inverse_dynamics         yes                      what one action moves, and nothing else
cloning                  yes                      what the demonstrators' actions depend on, averaged over their tasks
linear_response          yes                      as autoencoding, in coordinates that actions move affinely
random_teacher           no                       what a random network says of it: little more than it had
masked_prediction        no                       what is shared by the entries of a state vector
masked_sensors           no                       what one group of entries tells of the others
sensor_alignment         no                       what two groups of entries both tell
=======================  =======================  ====================================================================

So inverse dynamics wins where actions reach the whole state and loses where they do not: with ``s' = s + B a`` it
ignores what ``B`` never moves. And no objective over videos alone can tell what an agent controls from what moves by
itself; see ``envs.exogenous``.

Sources: Brandfonbrener et al., 2023, Inverse Dynamics Pretraining Learns Good Representations for Multitask Imitation;
Misra et al., 2024, Towards Principled Representation Learning from Videos for Reinforcement Learning. Left out:
convolutions (bring an encoder), dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import mlp
from jaxrl_reg.representation.bottlenecks import Bottleneck
from jaxrl_reg.transforms import interpolate_initial
from jaxrl_reg.types import Array, Key, Metrics, Network, PyTree, Spec, Transition


class Objective(NamedTuple):
    """``init(key) -> params``, ``loss(params, batch, key) -> (scalar, metrics)`` of transitions ``[B, ...]``, and
    ``encode(params, observation [..., O]) -> features [..., D]``.

    ``advance(params, progress) -> params``, where there is one, is called after every update, with the share of
    training done: it moves what learns by no gradient. Weight decay leaves parameters under "target", "teacher" and
    "codebook" alone.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    encode: Callable[[PyTree, Array], Array]
    advance: Callable[[PyTree, Array], PyTree] | None = None


def inverse_dynamics(
    spec: Spec,
    encoder: Network,
    hidden: Sequence[int] = (256, 256),
    *,
    discrete: bool | Sequence[int] = False,
    hold_next: bool = False,
) -> Objective:
    """Which action led from one observation to the next? ``f(phi(o), phi(o'))`` against ``a``.

    Squared error, or with ``discrete`` the cross-entropy of logits against actions that are one-hot; with the sizes of
    several factors, ``discrete=(2, 2, 11)``, against one-hot numbers side by side, factors being independent given the
    observations. ``hold_next`` stops the gradient through ``phi(o')``. The k-step variant predicts the first of ``k``
    actions from the observation after the last: sample with ``samplers.n_step(k, 1.0)``; it sees what takes several
    actions to move.
    """
    head = mlp((2 * _width(encoder, spec), *hidden, spec.action_dim))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        now, then = (encoder.apply(params["encoder"], x) for x in (batch.observation, batch.next_observation))
        then = jax.lax.stop_gradient(then) if hold_next else then
        return action_loss(head.apply(params["head"], jnp.concatenate([now, then], -1)), batch.action, discrete)

    return _objective(encoder, loss, head=head)


def cloning(
    spec: Spec, encoder: Network, hidden: Sequence[int] = (256, 256), *, discrete: bool | Sequence[int] = False
) -> Objective:
    """Which action does the data take? ``pi(phi(o))`` against ``a``; losses as in ``inverse_dynamics``.

    The minimiser is the mean over everybody who might be acting: where their intentions cancel, it knows nothing.
    """
    head = mlp((_width(encoder, spec), *hidden, spec.action_dim))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        features = encoder.apply(params["encoder"], batch.observation)
        return action_loss(head.apply(params["head"], features), batch.action, discrete)

    return _objective(encoder, loss, head=head)


def autoencoding(
    spec: Spec, encoder: Network, hidden: Sequence[int] = (256, 256), *, bottleneck: Bottleneck | None = None
) -> Objective:
    """The observation back from its features, by squared error; from what passes the ``bottleneck`` if there is one."""
    head = mlp((_width(encoder, spec), *hidden, spec.observation_dim))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        features, cost, metrics = _through(bottleneck, params, encoder.apply(params["encoder"], batch.observation), key)
        error = losses.prediction_loss(head.apply(params["head"], features), batch.observation)
        return _named(error + cost, metrics)

    return _objective(encoder, loss, bottleneck, head=head)


def linear_response(
    spec: Spec,
    encoder: Network,
    hidden: Sequence[int] = (256, 256),
    *,
    weight: float = 10.0,
    bandwidth: float = 1.0,
) -> Objective:
    """The NEXT observation back from its features, which move affinely with the action (``linear_invariance_loss``).

    An encoder whose response to actions is affine where the data have actions goes on so where they have none;
    ``representation.control_function`` uses that. Metrics ``reconstruction`` and ``invariance``.

    Source: Saengkyongam et al., 2024, Identifying Representations for Intervention Extrapolation (Rep4Ex).
    """
    head = mlp((_width(encoder, spec), *hidden, spec.observation_dim))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        features = encoder.apply(params["encoder"], batch.next_observation)
        error = losses.prediction_loss(head.apply(params["head"], features), batch.next_observation).mean()
        penalty = losses.linear_invariance_loss(features, batch.action, bandwidth)
        total = error + weight * penalty
        return total, {"loss": total, "reconstruction": error, "invariance": penalty}

    return _objective(encoder, loss, head=head)


def random_teacher(
    spec: Spec, encoder: Network, hidden: Sequence[int] = (256,), *, projection: int = 1024, start: float = 1.0
) -> Objective:
    """What a network with its first weights says of an observation, as a soft label over ``projection`` classes.

    The student begins at ``start`` of the way from the teacher to weights of its own. On pictures of digits its
    features are read a little better than the teacher's; on frames of moving balls the gain is below 0.01 and not due
    to the data: probe before you use it.

    Source: Sarnthein et al., 2023, Random Teachers are Good Teachers.
    Raises ``UserError`` for ``start=0``: a copy of its teacher has nothing to learn.
    """
    if not 0.0 < start <= 1.0:
        raise UserError(f"random_teacher: start={start:g} must be above 0: a copy of its teacher has nothing to learn")
    head = mlp((_width(encoder, spec), *hidden, projection))

    def draw(key: Key) -> PyTree:
        first, second = jax.random.split(key)
        return {"encoder": encoder.init(first), "head": head.init(second)}

    def init(key: Key) -> PyTree:
        teacher, own = map(draw, jax.random.split(key))
        return {**interpolate_initial(teacher, own, start), "teacher": teacher}

    def logits(params: PyTree, observation: Array) -> Array:
        return _unit(head.apply(params["head"], encoder.apply(params["encoder"], observation)))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        teacher = jax.lax.stop_gradient(logits(params["teacher"], batch.observation))
        return _named(losses.categorical_kl(teacher, logits(params, batch.observation)))

    return Objective(init, loss, lambda params, observation: encoder.apply(params["encoder"], observation))


def forward_dynamics(
    spec: Spec,
    encoder: Network,
    hidden: Sequence[int] = (256, 256),
    *,
    with_action: bool = True,
    reach: int = 1,
    bottleneck: Bottleneck | None = None,
) -> Objective:
    """A later observation from the features of an earlier one, or what passes the ``bottleneck``, by squared error.

    With ``with_action`` the decoder is told the action; without, this is forward modelling of videos. ``reach`` > 1:
    batches from ``samplers.future(reach)``, the decoder being told how many steps lie between.
    """
    width = _width(encoder, spec) + with_action * spec.action_dim + (reach if reach > 1 else 0)
    head = mlp((width, *hidden, spec.observation_dim))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        features, cost, metrics = _through(bottleneck, params, encoder.apply(params["encoder"], batch.observation), key)
        parts = [features]
        parts += [batch.action] if with_action else []
        parts += [_steps(batch, reach)] if reach > 1 else []
        seen = head.apply(params["head"], jnp.concatenate(parts, -1))
        return _named(losses.prediction_loss(seen, batch.next_observation) + cost, metrics)

    return _objective(encoder, loss, bottleneck, head=head)


def contrastive_dynamics(
    spec: Spec,
    encoder: Network,
    hidden: Sequence[int] = (256,),
    *,
    with_action: bool = True,
    projection: int = 64,
    temperature: float = 1.0,
) -> Objective:
    """Which next observation of the batch belongs to this observation and action?

    Unit vectors ``P1([phi(o), a])`` and ``P2(phi(o'))``, cross-entropy from the former to the latter. Rows of one
    episode are no negatives of each other where the batch says which those are (``samplers.future``).
    """
    width = _width(encoder, spec)
    ask = mlp((width + with_action * spec.action_dim, *hidden, projection))
    answer = mlp((width, *hidden, projection))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        now, then = (encoder.apply(params["encoder"], x) for x in (batch.observation, batch.next_observation))
        query = ask.apply(params["ask"], jnp.concatenate([now, batch.action], -1) if with_action else now)
        key_vector = answer.apply(params["answer"], then)
        return _named(losses.info_nce_loss(_unit(query), _unit(key_vector), temperature, batch.extras.get("episode")))

    return _objective(encoder, loss, ask=ask, answer=answer)


def temporal_contrast(spec: Spec, encoder: Network, *, temperature: float = 1.0, normalise: bool = False) -> Objective:
    """Which observation of the batch lies a few steps ahead of this one? No actions, no heads: NT-Xent on features.

    Sample with ``samplers.future(reach)``; then rows of one episode are no negatives of each other. ``normalise``
    puts features on the unit sphere first; without, a temperature of 1 is usual.
    """

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        now, then = (encoder.apply(params["encoder"], x) for x in (batch.observation, batch.next_observation))
        now, then = (_unit(now), _unit(then)) if normalise else (now, then)
        return _named(losses.nt_xent_loss(now, then, temperature, batch.extras.get("episode")))

    return _objective(encoder, loss)


def augmented_contrast(
    spec: Spec,
    encoder: Network,
    augment: Callable[[Array, Key], Array],
    hidden: Sequence[int] = (256,),
    *,
    projection: int = 64,
    temperature: float = 1.0,
) -> Objective:
    """SimCLR: two augmentations of one observation, ``augment(observation [B, O], key)``, must find each other."""
    head = mlp((_width(encoder, spec), *hidden, projection))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        views = (augment(batch.observation, view_key) for view_key in jax.random.split(key))
        first, second = (_unit(head.apply(params["head"], encoder.apply(params["encoder"], view))) for view in views)
        return _named(losses.nt_xent_loss(first, second, temperature))

    return _objective(encoder, loss, head=head)


def temporal_classification(
    spec: Spec, encoder: Network, hidden: Sequence[int] = (256,), *, reach: int = 1
) -> Objective:
    """Do these two observations lie ``k`` steps apart, or is the second from elsewhere? The theory's temporal contrast.

    Foreign seconds are those of the batch, moved on by one row; where that row is of the same episode (by
    ``extras["episode"]``, of ``samplers.future``) the pair does not count.
    """
    head = mlp((2 * _width(encoder, spec) + (reach if reach > 1 else 0), *hidden, 1))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        now, then = (encoder.apply(params["encoder"], x) for x in (batch.observation, batch.next_observation))
        more = [_steps(batch, reach)] if reach > 1 else []
        real, other = (
            head.apply(params["head"], jnp.concatenate([now, second, *more], -1))[..., 0]
            for second in (then, jnp.roll(then, 1, axis=0))
        )
        episode = batch.extras.get("episode")
        counts = jnp.ones_like(real) if episode is None else (episode != jnp.roll(episode, 1)).astype(real.dtype)
        error = losses.temporal_classification_loss(real, other)
        return _named(counts * error * len(real) / jnp.maximum(counts.sum(), 1.0))

    return _objective(encoder, loss, head=head)


def _objective(encoder: Network, loss: Callable, bottleneck: Bottleneck | None = None, **heads: Network) -> Objective:
    networks = {"encoder": encoder, **heads, **({} if bottleneck is None else {"bottleneck": bottleneck})}

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, len(networks))
        return {name: network.init(key) for (name, network), key in zip(networks.items(), keys, strict=True)}

    def encode(params: PyTree, observation: Array) -> Array:
        features = encoder.apply(params["encoder"], observation)
        return features if bottleneck is None else bottleneck.read(params["bottleneck"], features)

    return Objective(init, loss, encode)


def _through(bottleneck: Bottleneck | None, params: PyTree, features: Array, key: Key) -> tuple[Array, Array, Metrics]:
    """What passes, what that costs ``[B]``, and the bottleneck's metrics."""
    if bottleneck is None:
        return features, jnp.zeros(features.shape[0]), {}
    return bottleneck.apply(params["bottleneck"], features, key)


def _width(encoder: Network, spec: Spec) -> int:
    """How many features an encoder gives; nothing is computed."""
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    return jax.eval_shape(encoder.apply, params, jax.ShapeDtypeStruct((1, spec.observation_dim), jnp.float32)).shape[-1]


def action_loss(prediction: Array, action: Array, discrete: bool | Sequence[int]) -> tuple[Array, Metrics]:
    """Mean error of predicted actions ``[B, A]``: squared, or the cross-entropy of logits against one-hot ones, summed
    over the factors if ``discrete`` gives their sizes. ``accuracy`` counts actions of which every factor is right."""
    if not discrete:
        return _named(losses.behaviour_cloning_loss(prediction, action))
    pairs = list(zip(factors(prediction, discrete), factors(action, discrete), strict=True))
    right = jnp.stack([guess.argmax(-1) == taken.argmax(-1) for guess, taken in pairs]).all(0).astype(jnp.float32)
    loss, metrics = _named(jnp.stack([losses.cross_entropy_loss(guess, taken) for guess, taken in pairs]).sum(0))
    return loss, {**metrics, "accuracy": right.mean()}


def factors(action: Array, discrete: bool | Sequence[int]) -> list[Array]:
    """The factors ``[..., size]`` of actions, or of their logits, ``[..., A]``; one if ``discrete`` is True.

    Raises ``UserError`` if the sizes do not add up to ``A``.
    """
    sizes = [action.shape[-1]] if isinstance(discrete, bool) else list(discrete)
    if sum(sizes) != action.shape[-1]:
        raise UserError(f"discrete={sizes} makes {sum(sizes)} numbers, actions have {action.shape[-1]}")
    return jnp.split(action, np.cumsum(sizes)[:-1].tolist(), axis=-1)


def _named(error: Array, metrics: Metrics | None = None) -> tuple[Array, Metrics]:
    return error.mean(), {**(metrics or {}), "loss": error.mean()}


def _steps(batch: Transition, reach: int) -> Array:
    """``[B, reach]``, one-hot number of steps between a row's two observations."""
    return jax.nn.one_hot(batch.extras["ahead"] - 1, reach)


def _unit(x: Array) -> Array:
    return losses.project_sphere(x) / x.shape[-1] ** 0.5
