"""The main job as library calls: collect a data set, train a population and a baseline, evaluate, report, resume.

``sweep(SweepConfig(env="brax/hopper", agent="rebrac", grid={"actor_bc_coef": (0.01, 0.1)}))`` does everything and
leaves a run directory::

    config.json      everything needed to run it again, with versions and commit
    metrics.parquet  one row per member per evaluation
    summary.json     the data set's summary, plans and timings
    checkpoints/     the newest states of the population and of the baseline
    attacks.parquet  one row per member and attack, once ``attack`` has been on it
    zeroshot.parquet one row per member and task, once ``zeroshot`` has put tasks to an agent trained without any
    conduct.parquet  one row per member and measure of conduct, once ``conduct`` has watched them
    triggers.parquet one row per member and sensor that ``triggers`` has switched on and off
    explained.npz    what the best member looks at, once ``explain`` has asked it
    report.html      one self-contained page, beside table.csv, curves.png, profile.png, episode.html and rollout.html

A kind of run (``kinds``: offline, online, ...) is one module that makes a ``Job`` of its config; everything else is
shared. ``settings`` says what can be asked for, ``learners`` what that means, ``files`` what a run directory holds;
``collection``, ``training``, ``recording``, ``comparison`` and ``evaluation`` do the work and tell of it by
``progress``, ``extension`` gives a run a larger budget, ``listing`` shows what there is. The command line is a thin
skin over this package. JAX is imported inside the functions, so importing this is cheap.
"""

from jaxrl_reg.jobs import collected, kinds
from jaxrl_reg.jobs.adversaries import ATTACKS
from jaxrl_reg.jobs.attacks import attack
from jaxrl_reg.jobs.collection import collect, dataset_path, explore, summarise
from jaxrl_reg.jobs.comparison import compare, compared_agents
from jaxrl_reg.jobs.deployment import Act, load_policy
from jaxrl_reg.jobs.evaluation import evaluate, report, zeroshot
from jaxrl_reg.jobs.explaining import explain
from jaxrl_reg.jobs.exporting import export
from jaxrl_reg.jobs.files import default_directory, finished, load_config, release
from jaxrl_reg.jobs.job import Axis, Job, Score
from jaxrl_reg.jobs.kinds import kind_of
from jaxrl_reg.jobs.kinds.online import OnlineConfig
from jaxrl_reg.jobs.kinds.tokens import TokensConfig
from jaxrl_reg.jobs.learners import Learner, learner, learners, make_env, parameters
from jaxrl_reg.jobs.listing import runs
from jaxrl_reg.jobs.planning import Planned, plan
from jaxrl_reg.jobs.progress import OnTick, Say, Standing, Tick
from jaxrl_reg.jobs.prompting import Answer
from jaxrl_reg.jobs.scanning import triggers
from jaxrl_reg.jobs.settings import COLLECTED, COMPARISONS, EXPLORED, SCALES, JobConfig, SweepConfig, resolve
from jaxrl_reg.jobs.training import Outcome, finetune, resume, sweep, train
from jaxrl_reg.jobs.watching import conduct

__all__ = [
    "ATTACKS",
    "COLLECTED",
    "COMPARISONS",
    "EXPLORED",
    "SCALES",
    "Act",
    "Answer",
    "Axis",
    "Job",
    "JobConfig",
    "Learner",
    "OnTick",
    "OnlineConfig",
    "Outcome",
    "Planned",
    "Say",
    "Score",
    "Standing",
    "SweepConfig",
    "Tick",
    "TokensConfig",
    "attack",
    "collect",
    "collected",
    "compare",
    "compared_agents",
    "conduct",
    "dataset_path",
    "default_directory",
    "evaluate",
    "explain",
    "explore",
    "export",
    "finetune",
    "finished",
    "kind_of",
    "kinds",
    "learner",
    "learners",
    "load_config",
    "load_policy",
    "make_env",
    "parameters",
    "plan",
    "release",
    "report",
    "resolve",
    "resume",
    "runs",
    "summarise",
    "sweep",
    "train",
    "triggers",
    "zeroshot",
]
