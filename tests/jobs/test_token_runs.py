"""Runs of token agents from the command line: rows, report with samples, going on after a stop, answering prompts."""

import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxrl_reg import cli, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.sinks import read_parquet
from jaxrl_reg.jobs.kinds.tokens import page_of

SWEEP = (
    "sweep --env tokens/styles --env-set longest=3 --env-set format=0.25 "
    "--agent grpo --seeds 2 --seed-offset 3 --updates 6 --segments 3 --prompts 4 --group 3 "
    "--warm-up 2 --warm-up-batch 4 --hidden 8 --eval-episodes 4 --samples 2 --set heads=2 --grid clip_high=0.2,0.28"
)


def command(line):
    return cli.main(line.split())


@pytest.fixture(autouse=True)
def quietly(monkeypatch):
    monkeypatch.setattr(cli, "prepare", lambda: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tokens"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare", lambda: None)
        assert command(f"{SWEEP} --out {directory}") == 0
    return directory


def rows(directory):
    frame = read_parquet(directory / "metrics.parquet").drop(columns=["seconds", "updates_per_second"])
    return frame.sort_values(["agent", "member", "update", "evaluation"]).reset_index(drop=True)


def test_a_run_has_its_rows_its_rival_and_its_report(whole):
    frame = rows(whole)
    assert set(frame["agent"]) == {"grpo", "warm start"}
    own, before = (frame[frame["agent"] == name] for name in ("grpo", "warm start"))
    assert own.groupby("member")["update"].unique().map(list).tolist() == [[2, 4, 6]] * 4
    wanted = ["eval/return", "eval/sampled", "eval/length", "eval/pass_at_k", "entropy", "train/return", "train/length"]
    wanted += ["train/uninformative", "train/reward/format", "train/reward/right", "eval/reward/format", "kl"]
    assert np.isfinite(own[wanted]).all(axis=None)
    parts = own["train/reward/format"] + own["train/reward/right"]
    np.testing.assert_allclose(parts, own["train/return"], atol=1e-6)
    assert own["train/reward/format"].max() <= 0.25  # as --env-set asks
    assert set(frame["environment"]) == {"tokens/styles format=0.25 longest=3"}
    assert before["train/return"].isna().all()
    assert np.isfinite(before["eval/return"]).all()
    facts = json.loads((whole / "summary.json").read_text())
    assert (facts["kind"], facts["score"]["name"], facts["score"]["baseline"]) == (
        "tokens",
        "verified reward",
        "warm start",
    )
    assert facts["score"]["metric"] == "eval/sampled"  # a warm start may have all greedy completions right
    assert facts["spec"] == {"vocabulary": 11, "prompt": 5, "completion": 6}
    assert "actions" not in facts
    page = (whole / "report.html").read_text()
    for words in ("prompts and what it answers", "[think]", "before training", "minus warm start"):
        assert words in page
    samples = json.loads((whole / "samples.json").read_text())
    assert len(samples) == 12
    assert samples[0]["prompt"].startswith("[think]")
    assert set(samples[0]["before"]) == {"completion", "reward"} == set(samples[0]["after"])
    table = pd.read_csv(whole / "table.csv")
    assert table["agent"].tolist() == ["grpo", "grpo", "warm start"]


def test_a_run_stopped_and_resumed_is_bit_identical(whole, tmp_path, monkeypatch):
    from jaxrl_reg.cli.display import Display

    shown = Display.tick

    def stopping(self, tick):
        shown(self, tick)
        if tick.stage == "grpo" and tick.done == 2:
            signal.raise_signal(signal.SIGINT)

    directory = tmp_path / "run"
    monkeypatch.setattr(Display, "tick", stopping)
    assert command(f"{SWEEP} --out {directory}") == 130
    assert rows(directory).query("agent == 'grpo'")["update"].max() < 6
    monkeypatch.setattr(Display, "tick", shown)
    assert command(f"resume {directory}") == 0
    pd.testing.assert_frame_equal(rows(directory), rows(whole), check_exact=True)
    np.testing.assert_equal(*(json.loads((one / "samples.json").read_text()) for one in (directory, whole)))
    prompt = [9, 4, 5, 6, 2]
    answers = [jobs.load_policy(one, setting=1, seed=4)(prompt) for one in (directory, whole)]
    np.testing.assert_array_equal(*answers)


def test_more_prompts_are_answered_from_the_checkpoints(whole, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(whole, directory)
    assert command(f"evaluate {directory} --episodes 5") == 0
    frame = rows(directory)
    fresh = frame[frame["evaluation"] == 1]
    assert fresh.groupby("agent").size().to_dict() == {"grpo": 4, "warm start": 2}
    assert (fresh["update"] == 6).all()
    assert (fresh["episodes"] == 5).all()
    assert np.isfinite(fresh[["eval/return", "eval/sampled", "eval/pass_at_k"]]).all(axis=None)
    assert fresh["train/return"].isna().all()  # nothing was trained
    pd.testing.assert_frame_equal(rows(whole), frame[frame["evaluation"] == 0].reset_index(drop=True))


def test_a_policy_answers_prompts(whole):
    answer = jobs.load_policy(whole)
    assert answer.about["kind"] == "tokens"
    one = answer([4, 5, 6, 2])
    assert (one.shape, one.dtype) == ((6,), np.int32)
    np.testing.assert_array_equal(answer([[0, 4, 5, 6, 2], [9, 4, 5, 6, 2]])[0], one)  # padded on the left
    for prompt, words in [([4.5], "whole numbers from 0 to 10"), ([11], "0 to 10"), ([4] * 6, "1 to 5 ids")]:
        with pytest.raises(UserError, match=words):
            answer(prompt)
    with pytest.raises(UserError, match="load_policy answers prompts"):
        jobs.export(whole, whole / "there")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--agent grpo --env pendulum", "grpo answers prompts, which pendulum does not ask"),
        ("--agent ppo --env tokens/reverse", "tokens/reverse asks for whole completions, which ppo does not give"),
        ("--agent grpo --dataset medium", "cannot be trained on a data set"),
        ("--agent grpo --group 1", "group=1 leaves a completion without others"),
        ("--agent grpo --updates 7 --segments 3", "nearest: --updates 6, or keep it with --segments 1"),
        ("--agent grpo --steps 5", "--steps belongs to training in the environment"),
        ("--agent grpo --set surrogate=gpso", "did you mean 'gspo'"),
        ("--agent grpo --env tokens/revers", "tokens/reverse"),
        ("--agent grpo --backend mjx", "a task of tokens has none"),
        ("--agent grpo --env-set longst=4", "unknown setting of tokens/reverse 'longst'; did you mean 'longest'?"),
        ("--agent grpo --env-set longest=4.5", "longest='4.5' is not a whole number"),
        ("--agent grpo --env-set longest=2", "longest=2 must be a whole number of at least 3"),
        ("--agent ppo --env pendulum --env-set backend=mjx", "given as --backend"),
        ("--env none --dataset random.hdf5 --env-set longest=4", "environment 'none' takes no settings"),
        ("--agent ppo --group 4", "--group belongs to training on verified completions"),
    ],
)
def test_what_cannot_be_run_is_one_line(line, words, tmp_path, capsys):
    assert command(f"sweep {line} --out {tmp_path / 'none'}") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_presets_know_who_samples_more():
    assert jobs.resolve(jobs.TokensConfig(agent="dapo")).oversample == 2
    config = jobs.resolve(jobs.TokensConfig())
    assert (config.oversample, config.env, config.agent, config.hidden) == (1, "tokens/reverse", "grpo", (32, 32))
    assert jobs.resolve(jobs.TokensConfig(scale="full")).hidden is None


def test_the_page_of_samples_escapes_what_is_written():
    rows = [{"prompt": "1 >", "after": {"completion": "<eos>", "reward": 0.5}}]
    page = page_of(rows, "a & b")
    assert "&lt;eos&gt;" in page
    assert "a &amp; b" in page
    assert "before" not in page


def test_a_policy_of_two_turns_shows_both_and_answers_what_follows():
    from jaxrl_reg import envs
    from jaxrl_reg.jobs.kinds.tokens import samples_of
    from jaxrl_reg.jobs.prompting import Answer
    from jaxrl_reg.types import memoryless

    task = envs.make("tokens/copy", shortest=2, longest=2)

    def act(prompt, key):
        """Wrong at first, right when it is asked again."""
        right = jnp.concatenate([prompt[..., :2], jnp.ones_like(prompt[..., :1])], axis=-1)
        return right if prompt.shape[-1] == 7 else right.at[..., 0].set(0)

    pages = samples_of(task, "twice", 2)(lambda state, hyper: memoryless(act), (), None, jax.random.key(0))
    samples = json.loads(pages["samples.json"])
    assert [(one["after"]["reward"], one["second"]["reward"]) for one in samples] == [(0.0, 1.0)] * 12
    assert "asked again" in pages["episode.html"]
    answer = Answer(memoryless(act), task.spec, {}, turns=2)
    first = answer([4, 5, 2])
    assert first.tolist() == [0, 5, 1]
    assert answer(task.follow(jnp.array([4, 5, 2]), jnp.asarray(first))).tolist() == [4, 5, 1]
    with pytest.raises(UserError, match="1 to 3 ids"):
        answer([4] * 6)


def test_token_agents_are_compared_on_one_budget(tmp_path, monkeypatch):
    from jaxrl_reg.jobs import comparison

    begun = []
    monkeypatch.setattr(comparison, "sweep", lambda config, **options: begun.append(config))
    monkeypatch.setattr("jaxrl_reg.evaluation.comparison.write", lambda *arguments: None)
    asked = jobs.TokensConfig(updates=20, segments=2)
    jobs.compare(asked, agents=("grpo", "dapo"), envs=("tokens/copy",), directory=tmp_path)
    assert [(one.agent, one.env, one.updates, one.oversample) for one in begun] == [
        ("grpo", "tokens/copy", 20, 1),
        ("dapo", "tokens/copy", 20, 2),
    ]
    with pytest.raises(UserError, match="pendulum does not ask"):
        jobs.compare(asked, agents=("grpo",), envs=("pendulum",), directory=tmp_path)
