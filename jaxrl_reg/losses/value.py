"""Targets and losses for value functions.

No function here stops a gradient unless it says so: a semi-gradient method computes its targets with target parameters
or wraps them in ``jax.lax.stop_gradient``; a residual or orthogonal-gradient method does neither.

``discount`` is 0 at a true termination and 1 otherwise, time-outs included; ``gamma`` is never folded into it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(reward="...", discount="...", next_value="...", gamma="")
def td_target(reward: Array, discount: Array, next_value: Array, gamma: Array | float) -> Array:
    """One-step target ``r + gamma d V(s')``.

    Args:
      reward: ``[...]``.
      discount: ``[...]``, 0 at a termination; a time-out keeps its bootstrap.
      next_value: ``[...]``, value of the observation that the action led to, in units of summed reward.
      gamma: scalar in [0, 1].
    Returns:
      ``[...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ.
    Edges: ``next_value`` must be finite also where ``discount`` is 0.
    Source: Sutton and Barto, Reinforcement Learning (2nd ed.), section 6.1.
    """
    return reward + gamma * discount * next_value


@shapes(reward="...", discount="...", next_q="N ...", gamma="")
def clipped_double_q_target(reward: Array, discount: Array, next_q: Array, gamma: Array | float) -> Array:
    """Target ``r + gamma d min_i Q_i(s', a')`` with the smallest of ``N`` critics.

    Args:
      reward: ``[...]``.
      discount: ``[...]``, 0 at a termination only.
      next_q: ``[N, ...]``, target critics at the next action.
      gamma: scalar in [0, 1].
    Returns:
      ``[...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ.
    Edges: critics that tie share the gradient equally, should one be taken.
    Source: Fujimoto et al., 2018, Addressing Function Approximation Error in Actor-Critic Methods, section 4.2; with
      N > 2, SAC-N (An et al., 2021).
    """
    return reward + gamma * discount * next_q.min(0)


@shapes(reward="...", discount="...", next_q="N ...", next_log_prob="...", gamma="", temperature="")
def soft_td_target(
    reward: Array,
    discount: Array,
    next_q: Array,
    next_log_prob: Array,
    gamma: Array | float,
    temperature: Array | float,
) -> Array:
    """Entropy-regularised target ``r + gamma d (min_i Q_i(s', a') - alpha log pi(a'|s'))``, ``a'`` from the policy.

    Args:
      reward: ``[...]``.
      discount: ``[...]``, 0 at a termination only.
      next_q: ``[N, ...]``, target critics at the sampled next action.
      next_log_prob: ``[...]``, nats.
      gamma: scalar in [0, 1].
      temperature: scalar alpha >= 0, reward units per nat; 0 gives ``clipped_double_q_target``.
    Returns:
      ``[...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ.
    Edges: ``next_log_prob`` must be finite, also where ``discount`` or the temperature is 0.
    Source: Haarnoja et al., 2018, Soft Actor-Critic Algorithms and Applications (arXiv 1812.05905), eq. 3 and 5.
    """
    return reward + gamma * discount * (next_q.min(0) - temperature * next_log_prob)


@shapes(
    reward="...",
    discount="...",
    next_q="N ...",
    next_action="... A",
    next_data_action="... A",
    gamma="",
    coefficient="",
)
def rebrac_target(
    reward: Array,
    discount: Array,
    next_q: Array,
    next_action: Array,
    next_data_action: Array,
    gamma: Array | float,
    coefficient: Array | float,
) -> Array:
    """Target ``r + gamma d (min_i Q_i(s', a') - beta ||a' - a'_data||^2)``.

    The squared norm SUMS over action dimensions (``behaviour_cloning_loss`` averages).

    Args:
      reward: ``[...]``.
      discount: ``[...]``, 0 at a termination only.
      next_q: ``[N, ...]``, target critics at ``next_action``.
      next_action: ``[..., A]``, of the target policy, with its smoothing noise.
      next_data_action: ``[..., A]``, what the behaviour did at ``s'``.
      gamma: scalar in [0, 1].
      coefficient: scalar beta >= 0, reward units per squared action unit; 0 gives ``clipped_double_q_target``.
    Returns:
      ``[...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Tarasov et al., 2023, Revisiting the Minimalist Approach to Offline RL (ReBRAC), critic objective.
    """
    penalty = jnp.square(next_action - next_data_action).sum(-1)
    return reward + gamma * discount * (next_q.min(0) - coefficient * penalty)


@shapes(prediction="...", target="...")
def squared_td_error(prediction: Array, target: Array) -> Array:
    """``(prediction - target)^2``, without a factor 1/2.

    Args:
      prediction: ``[...]``.
      target: ``[...]``, not detached here.
    Returns:
      ``[...]``, squared units of the arguments.
    Raises:
      ValueError: shapes differ; ``[B, 1]`` against ``[B]`` never becomes ``[B, B]``.
    Edges: finite while the difference is below 1e19.
    Source: Sutton and Barto, Reinforcement Learning (2nd ed.), section 9.2.
    """
    return jnp.square(prediction - target)


@shapes(predictions="N ...", target="...")
def ensemble_td_error(predictions: Array, target: Array) -> Array:
    """Squared TD error SUMMED over the members of an ensemble that share one target.

    Args:
      predictions: ``[N, ...]``, one row per critic.
      target: ``[...]``, not detached here.
    Returns:
      ``[...]``, ``sum_i (Q_i - target)^2``.
    Raises:
      ValueError: shapes differ.
    Edges: finite while each difference is below 1e18.
    Source: the critic losses of TD3, IQL, ReBRAC, SAC-N and EDAC, which all sum, not average, over critics.
    """
    return jnp.square(predictions - target).sum(0)


@shapes(prediction="...", target="...", delta="")
def huber_loss(prediction: Array, target: Array, delta: Array | float) -> Array:
    """``u^2 / 2`` for ``|u| <= delta``, else ``delta (|u| - delta / 2)``, with ``u = prediction - target``.

    Args:
      prediction: ``[...]``.
      target: ``[...]``, not detached here.
      delta: scalar > 0, finite, units of the arguments; where the loss turns from quadratic to linear.
    Returns:
      ``[...]``, squared units of the arguments.
    Raises:
      ValueError: shapes differ.
    Edges: the gradient stays within ``[-delta, delta]``; ``delta = 0`` gives 0. Finite while ``delta |u|`` is.
    Source: Huber, 1964, Robust Estimation of a Location Parameter; XQL uses it for Q with ``delta = 20``.
    """
    size = jnp.abs(prediction - target)
    near = jnp.minimum(size, delta)
    return 0.5 * jnp.square(near) + delta * (size - near)


@shapes(difference="...", expectile="")
def expectile_loss(difference: Array, expectile: Array | float) -> Array:
    """Asymmetric squared error ``|tau - 1[u < 0]| u^2``.

    Sign: ``difference`` is TARGET MINUS PREDICTION, for IQL ``Q(s, a) - V(s)``. With ``expectile`` above 1/2 a
    prediction that is too low (u > 0) costs ``tau``, one that is too high costs ``1 - tau``, so V rises towards the
    best actions in the data. The other way round, V falls towards the worst.

    Args:
      difference: ``[...]``, target minus prediction.
      expectile: scalar tau in (0, 1); 1/2 gives half the squared error.
    Returns:
      ``[...]``, squared units of ``difference``.
    Raises:
      ValueError: ``expectile`` is not a scalar.
    Edges: value and gradient are 0 at ``u = 0``.
    Source: Kostrikov et al., 2021, Offline Reinforcement Learning with Implicit Q-Learning, eq. 5.
    """
    return jnp.where(difference < 0, 1.0 - expectile, expectile) * jnp.square(difference)


@shapes(difference="B", temperature="", clip="")
def gumbel_loss(difference: Array, temperature: Array | float, clip: Array | float) -> Array:
    """Gumbel regression ``(e^z - z - 1) e^-m``, ``z = min(u / beta, clip)``, whose minimum in V is a soft maximum.

    ``m``, the larger of -1 and the largest ``z`` in the batch, is detached: it rescales the whole batch's loss so that
    no gradient explodes. The batch is therefore coupled: take it as one ``[B]``, do not map over it.

    Args:
      difference: ``[B]``, target minus prediction, ``Q(s, a) - V(s)``.
      temperature: scalar beta > 0, units of ``difference``; smaller is greedier.
      clip: scalar, upper bound of ``z`` (5 to 7); an example above it has no gradient.
    Returns:
      ``[B]``, without unit; the caller takes the mean.
    Raises:
      ValueError: ``difference`` is not ``[B]`` or a hyperparameter is not a scalar.
    Edges: no overflow upwards however large ``u``; downwards the loss is linear in ``u`` and finite while
      ``u / beta`` is.
    Source: Garg et al., 2023, Extreme Q-Learning: MaxEnt RL without Entropy (XQL), section 3.
    """
    z = jnp.minimum(difference / temperature, clip)
    m = _batch_scale(z)
    return jnp.exp(z - m) - (z + 1.0) * jnp.exp(-m)


@shapes(q="...", value="...", alpha="")
def sparse_value_loss(q: Array, value: Array, alpha: Array | float) -> Array:
    """Value loss of SQL: ``max(1 + (q - v) / (2 alpha), 0)^2 + v / alpha``.

    Actions worth less than ``v - 2 alpha`` drop out altogether.

    Args:
      q: ``[...]``, target critics at the data action; detach it or compute it with target parameters.
      value: ``[...]``, the prediction that is trained.
      alpha: scalar > 0, units of value; larger stays closer to the data.
    Returns:
      ``[...]``, without unit; can be negative.
    Raises:
      ValueError: shapes differ.
    Edges: value and gradient are finite while ``(q - v) / alpha`` is below 1e19; no jump where an action drops out.
    Source: Xu et al., 2023, Offline RL with No OOD Actions: In-Sample Learning via Implicit Value Regularization (SQL).
    """
    return jnp.square(jax.nn.relu(1.0 + (q - value) / (2.0 * alpha))) + value / alpha


@shapes(q="B", value="B", alpha="", clip="")
def exponential_value_loss(q: Array, value: Array, alpha: Array | float, clip: Array | float = 5.0) -> Array:
    """Value loss of EQL: ``e^(z - m) + e^-m v / alpha``, ``z = min((q - v) / alpha, clip)``.

    ``m`` is the detached rescaling of ``gumbel_loss``, so the batch is coupled here too.

    Args:
      q: ``[B]``, target critics at the data action; detach it or compute it with target parameters.
      value: ``[B]``, the prediction that is trained.
      alpha: scalar > 0, units of value.
      clip: scalar, upper bound of ``z``; the published code uses 5.
    Returns:
      ``[B]``, without unit; can be negative.
    Raises:
      ValueError: shapes differ or are not ``[B]``.
    Edges: no overflow however far apart ``q`` and ``value`` are, while ``v / alpha`` is finite.
    Source: Xu et al., 2023, Offline RL with No OOD Actions: In-Sample Learning via Implicit Value Regularization (EQL).
    """
    z = jnp.minimum((q - value) / alpha, clip)
    m = _batch_scale(z)
    return jnp.exp(z - m) + jnp.exp(-m) * value / alpha


def _batch_scale(z: Array) -> Array:
    return jax.lax.stop_gradient(jnp.maximum(z.max(), -1.0))


@shapes(rewards="T ...", next_values="T ...", discounts="T ...", last="T ...", gamma="")
def n_step_return(
    rewards: Array, next_values: Array, discounts: Array, last: Array, gamma: Array | float, n: int
) -> Array:
    """``n``-step returns of every step of a trajectory, bootstrapped with ``next_values``.

    ``r_t + gamma d_t (r_{t+1} + ... gamma d V(s_{t+n}))``. A return that reaches the end of its episode (``last``) or
    of the trajectory before ``n`` steps bootstraps there: with V at a time-out, with 0 at a termination.

    Args:
      rewards: ``[T, ...]``, time first.
      next_values: ``[T, ...]``, V of the observation that step ``t`` led to, before any reset.
      discounts: ``[T, ...]``, 0 at a termination only.
      last: ``[T, ...]``, 1 where the episode ends either way.
      gamma: scalar in [0, 1].
      n: Python int >= 1; 1 gives ``td_target``, ``T`` or more the Monte Carlo return.
    Returns:
      ``[T, ...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ, or ``n < 1``.
    Edges: nothing leaks over an episode's end, whatever follows it in the arrays, so long as it is finite.
    Source: Sutton and Barto, Reinforcement Learning (2nd ed.), section 7.1.
    """
    if n < 1:
        raise ValueError(f"n_step_return: n is {n}; expected at least 1")

    def longer(_, returns):
        following = jnp.concatenate([returns[1:], next_values[-1:]])
        return rewards + gamma * discounts * jnp.where(last > 0, next_values, following)

    # A return over more than T steps is no longer than one over T.
    return jax.lax.fori_loop(0, min(n, rewards.shape[0]) - 1, longer, rewards + gamma * discounts * next_values)


@shapes(rewards="T ...", next_values="T ...", discounts="T ...", last="T ...", gamma="", lam="")
def lambda_return(
    rewards: Array,
    next_values: Array,
    discounts: Array,
    last: Array,
    gamma: Array | float,
    lam: Array | float,
) -> Array:
    """``G_t = r_t + gamma d_t ((1 - lam) V(s_{t+1}) + lam G_{t+1})``, the mixture of all n-step returns.

    At the end of an episode (``last``) or of the trajectory ``G_{t+1}`` is ``V(s_{t+1})``, the value before any reset.

    Args:
      rewards: ``[T, ...]``, time first.
      next_values: ``[T, ...]``, V of the observation that step ``t`` led to, before any reset.
      discounts: ``[T, ...]``, 0 at a termination only.
      last: ``[T, ...]``, 1 where the episode ends either way.
      gamma: scalar in [0, 1].
      lam: scalar in [0, 1]; 0 gives ``td_target``, 1 the Monte Carlo return.
    Returns:
      ``[T, ...]``, in units of summed reward.
    Raises:
      ValueError: shapes differ.
    Edges: nothing leaks over an episode's end, so long as all values are finite.
    Source: Sutton and Barto, Reinforcement Learning (2nd ed.), section 12.1.
    """

    def back(following, step):
        reward, next_value, discount, end = step
        following = jnp.where(end > 0, next_value, following)
        following = reward + gamma * discount * ((1.0 - lam) * next_value + lam * following)
        return following, following

    steps = (rewards, next_values, discounts, last)
    return jax.lax.scan(back, next_values[-1], steps, reverse=True)[1]


@shapes(rewards="T ...", values="T ...", next_values="T ...", discounts="T ...", last="T ...", gamma="", lam="")
def generalised_advantage_estimation(
    rewards: Array,
    values: Array,
    next_values: Array,
    discounts: Array,
    last: Array,
    gamma: Array | float,
    lam: Array | float,
) -> Array:
    """Advantages ``A_t = delta_t + gamma lam d_t (1 - last_t) A_{t+1}`` (GAE).

    ``delta_t = r_t + gamma d_t V(s_{t+1}) - V(s_t)``.
    A time-out still bootstraps (``delta`` keeps its ``V(s_{t+1})``) while the recursion stops at every episode's end.
    The value target is ``advantages + values``.

    Args:
      rewards: ``[T, ...]``, time first.
      values: ``[T, ...]``, V of the observation acted on.
      next_values: ``[T, ...]``, V of the observation that step ``t`` led to, before any reset: at an episode's end this
        is not ``values[t + 1]``.
      discounts: ``[T, ...]``, 0 at a termination only.
      last: ``[T, ...]``, 1 where the episode ends either way.
      gamma: scalar in [0, 1].
      lam: scalar in [0, 1]; 0 gives the TD error.
    Returns:
      ``[T, ...]``, in units of summed reward; not detached.
    Raises:
      ValueError: shapes differ.
    Edges: nothing leaks over an episode's end, so long as all values are finite.
    Source: Schulman et al., 2015, High-Dimensional Continuous Control Using Generalized Advantage Estimation, eq. 16.
    """
    errors = rewards + gamma * discounts * next_values - values
    decay = gamma * lam * discounts * (1.0 - last)

    def back(following, step):
        error, rate = step
        following = error + rate * following
        return following, following

    return jax.lax.scan(back, jnp.zeros_like(errors[-1]), (errors, decay), reverse=True)[1]
