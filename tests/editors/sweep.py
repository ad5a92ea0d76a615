"""A user's script as README shows it, for type checkers: ``make types`` reads it and nothing runs it."""
# pyright: reportUnnecessaryTypeIgnoreComment=error

import jax.numpy as jnp

import jaxrl_reg as jr
from jaxrl_reg.agents import ppo, rebrac, td3_bc
from jaxrl_reg.evaluation import returns
from jaxrl_reg.losses import expectile_loss
from jaxrl_reg.types import Spec

value_loss = expectile_loss(jnp.ones(3), expectile=0.7).mean()

hyper = rebrac.Hyper()
changed = rebrac.Hyper(actor_bc_coef=0.1, discount=0.995)
config = td3_bc.Config(hidden=(64, 64))
wrong = rebrac.Hyper(discont=0.995)  # pyright: ignore[reportCallIssue]  # a wrong name is still reported
agent = ppo.make(ppo.Config(), Spec(3, 1))

env = jr.envs.make("brax/hopper", backend="spring")
data = jr.data.load("brax-hopper-spring/medium-replay")
run = jr.loops.offline(td3_bc.make(config, data.spec), updates=4, evaluate=returns.evaluator(env, episodes=1))
result = jr.population.sweep(run, seeds=2, hypers=jr.population.grid(hyper, discount=[0.9, 0.99]), data=data)
mean = result.metrics["eval/return"].mean()

act = jr.load_policy("runs/hopper")
action = act(jnp.zeros(11))
sweep_config = jr.jobs.SweepConfig(env="pointnav", agent="iql", seeds=2)
