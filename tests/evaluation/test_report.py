import html.parser
import re
import shutil
import subprocess
import urllib.parse

import numpy as np
import pandas as pd
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import report
from tests.evaluation import synthetic


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished run directory and the table that ``write`` returned."""
    about = synthetic.make_about() | {"name": "<script>alert(1)</script>"}
    directory = synthetic.make_run(tmp_path_factory.mktemp("runs") / "one", about=about)
    (directory / "episode.html").write_text('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    return directory, report.write(directory)


class Page(html.parser.HTMLParser):
    """Addresses, and the text of every row of the results table; fails on tags that do not match."""

    VOID = ("meta", "img", "source", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.addresses, self.rows, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href", "srcset") if attributes.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += " " + data.strip()


def iqm(values):
    """Independent of the package: sort, drop floor(n / 4) at either end."""
    values = np.sort(np.asarray(values, float).ravel())
    cut = len(values) // 4
    return values[cut : len(values) - cut].mean()


def bootstrap(statistic, *samples, reps=4000):
    rng = np.random.default_rng(0)
    draws = [statistic(*(rng.choice(sample, len(sample)) for sample in samples)) for _ in range(reps)]
    return np.quantile(draws, [0.025, 0.975])


def scores_of(frame, agent, setting, update):
    rows = frame[(frame.agent == agent) & (frame.setting == setting) & (frame["update"] == update)]
    return rows.sort_values("seed")["eval/score"].to_numpy()


def test_table_equals_statistics_computed_independently(written):
    _, table = written
    frame, about = synthetic.make_frame(), synthetic.make_about()
    behaviour = 100 * (np.asarray(about["returns"]) - 20.0) / 980.0
    bc = scores_of(frame, "bc", 0, 4000)
    assert table["agent"].tolist() == ["rebrac"] * 3 + ["bc", "behaviour"]
    assert table["actor_bc_coef"].tolist()[0] == 0.1  # best first
    for setting, value in enumerate((0.0, 0.1, 1.0)):
        row = table[table.actor_bc_coef == value].iloc[0]
        last = scores_of(frame, "rebrac", setting, 4000)
        expected = {
            "last_iqm": (iqm, (last,)),
            "minus_baseline": (lambda x, y: iqm(x) - iqm(y), (last, bc)),
            "p_better_than_baseline": (lambda x, y: np.mean(x[:, None] > y), (last, bc)),
            "minus_behaviour": (lambda x, y: iqm(x) - y.mean(), (last, behaviour)),
        }
        for name, (statistic, samples) in expected.items():
            np.testing.assert_allclose(row[name], statistic(*samples), rtol=1e-5, err_msg=name)
            interval = bootstrap(statistic, *samples)
            np.testing.assert_allclose(row[[f"{name}_low", f"{name}_high"]].astype(float), interval, atol=1.2)
        by_update = [iqm(scores_of(frame, "rebrac", setting, update)) for update in synthetic.UPDATES]
        assert row["best_update"] == synthetic.UPDATES[int(np.argmax(by_update))]
        np.testing.assert_allclose(row["best_iqm"], max(by_update), rtol=1e-5)
    np.testing.assert_allclose(table["last_iqm"].iloc[-1], behaviour.mean(), rtol=1e-5)


def test_page_is_well_formed_and_asks_for_nothing_outside_itself(written):
    directory, _ = written
    text = (directory / "report.html").read_text()
    page = Page(text)
    assert len(page.addresses) == 8
    assert "Expected score of the best of k policies" in text
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not re.search(r"""(src|href|srcset)\s*=\s*["']?(https?:)?//|@import|url\(""", text)
    assert 'srcdoc="&lt;svg' in text  # a recording that needs nothing else is inside
    assert "<script>alert" not in text  # names cannot inject markup


def test_page_shows_the_numbers_of_the_table(written):
    directory, table = written
    rows = Page((directory / "report.html").read_text()).rows
    heading, best, bc = rows[0], rows[1], rows[4]
    assert [cell.split()[0] for cell in heading] == [
        "actor_bc_coef",
        "last,",
        "last",
        "best",
        "P(better",
        "minus",
        "minus",
        "runs",
    ]
    first = table.iloc[0]
    assert best[0].strip() == "0.1"
    assert best[2].split() == [f"{first.last_iqm:.1f}", f"[{first.last_iqm_low:.1f},", f"{first.last_iqm_high:.1f}]"]
    assert best[5].split()[0] == f"+{first.minus_baseline:.1f}"
    assert best[5].split()[-1] == "apart"
    assert best[7].strip() == str(synthetic.SEEDS)
    assert bc[0].strip() == "bc"
    assert bc[5].strip() == ""


def test_csv_and_pictures_lie_beside_the_page(written):
    directory, table = written
    stored = pd.read_csv(directory / "table.csv")
    np.testing.assert_allclose(stored["last_iqm"], table["last_iqm"])
    assert stored["apart_from_baseline"].tolist()[:3] == [True, True, True]
    for name in ("curves.png", "profile.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")


def test_overlapping_and_lower_intervals_are_told_apart():
    assert report.Estimate(2.0, 1.0, 3.0).apart(report.Estimate(5.0, 3.5, 6.0))
    assert report.Estimate(5.0, 3.5, 6.0).apart(report.Estimate(2.0, 1.0, 3.0))
    assert not report.Estimate(2.0, 1.0, 3.0).apart(report.Estimate(5.0, 3.0, 6.0))


def test_more_episodes_of_a_checkpoint_are_averaged_in_by_their_number():
    frame = pd.DataFrame(
        {
            "agent": "iql",
            "setting": 0,
            "seed": [0, 0, 1, 1],
            "update": 100,
            "episodes": [10, 30, 10, 30],
            "eval/return": [1.0, 5.0, 2.0, np.nan],
        }
    )
    pooled = report.pool(frame, "eval/return")
    assert pooled["eval/return"].tolist()[0] == 4.0
    assert np.isnan(pooled["eval/return"].tolist()[1])  # diverged once is diverged


def test_a_diverged_run_counts_as_the_lowest_score_and_is_counted(written):
    frame = synthetic.make_frame()
    lost = (frame.agent == "rebrac") & (frame.setting == 1) & (frame.seed < 4)
    frame.loc[lost, ["eval/return", "eval/score"]] = [np.nan, np.inf]
    analysis = report.analyse(frame, synthetic.make_about(), "rebrac", ["actor_bc_coef"])
    group = analysis.groups[1]
    assert group.diverged == 4
    lowest = frame.loc[~lost, "eval/score"].min()
    np.testing.assert_allclose(group.scores[:4], lowest)
    finite = scores_of(frame, "rebrac", 1, 4000)[4:]
    np.testing.assert_allclose(group.last.value, iqm([*[lowest] * 4, *finite]), rtol=1e-5)
    assert group.last.value < written[1].iloc[0].last_iqm - 20


def test_a_data_set_without_references_is_judged_by_returns(tmp_path):
    # Nor is there a baseline to compare with. Four settings: together as many columns as in the other tests, which
    # spares compilations.
    frame = synthetic.make_frame((0.0, 0.1, 1.0, 10.0), normalised=False)
    frame = frame[frame.agent == "rebrac"]
    directory = synthetic.make_run(tmp_path / "run", frame, synthetic.make_about(normalised=False))
    for name in ("rollout.html", "episode.html"):
        (directory / name).write_text("<script src='https://cdn.example.com/viewer.js'></script>")
    table = report.write(directory)
    rows = frame[(frame.setting == 1) & (frame["update"] == 4000)]
    np.testing.assert_allclose(table["last_iqm"].iloc[0], iqm(rows["eval/return"]), rtol=1e-5)
    assert table["minus_baseline"].isna().all()
    text = (directory / "report.html").read_text()
    assert "Results: return" in text
    assert "minus bc" not in text
    assert 'href="rollout.html"' in text  # linked; nothing that asks elsewhere is embedded
    assert "cdn.example.com" not in text


def test_the_tuning_budget_goes_from_a_blind_pick_to_the_best_of_all_policies(written):
    frame, about = synthetic.make_frame(), synthetic.make_about()
    ours, baseline = report.lines(report.analyse(frame, about, "rebrac", ["actor_bc_coef"])).tuning
    scores = np.concatenate([scores_of(frame, "rebrac", setting, 4000) for setting in range(3)])
    np.testing.assert_array_equal(ours.x, np.arange(1, scores.size + 1))
    pairs = np.maximum.outer(scores, scores)[~np.eye(scores.size, dtype=bool)]
    np.testing.assert_allclose(ours.y[[0, 1, -1]], [scores.mean(), pairs.mean(), scores.max()], rtol=1e-5)
    assert baseline.baseline
    assert len(baseline.x) == len(scores_of(frame, "bc", 0, 4000))


def test_verdict_names_setting_numbers_and_that_the_best_was_chosen(written):
    frame, about = synthetic.make_frame(), synthetic.make_about()
    analysis = report.analyse(frame, about, "rebrac", ["actor_bc_coef"])
    sentences = report.verdict(analysis)
    assert sentences[0].startswith("rebrac with actor_bc_coef=0.1 reaches a normalised score of 85.5 [")
    assert "intervals apart" in sentences[1]
    worst = min(analysis.groups, key=lambda group: group.last.value)
    assert sentences[3].startswith(f"The setting that does worst, {worst.label}, reaches {worst.last.value:.1f} [")
    assert sentences[3].endswith("intervals apart.")
    assert "best of 3" in sentences[-1]
    assert "--seed-offset" in sentences[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "does not exist"),
        ("summary.json", b"{", "is damaged"),
        ("metrics.parquet", None, "no metrics yet"),
        ("metrics.parquet", b"PAR1 nonsense", "not a readable parquet file"),
        ("summary.json", b"{}", "lack 'dataset'"),
    ],
)
def test_missing_and_damaged_files_are_one_line(tmp_path, name, content, message):
    directory = synthetic.make_run(tmp_path / "run")
    (directory / name).unlink() if content is None else (directory / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        report.write(directory)
    assert "\n" not in str(error.value)


def test_numbers_are_readable():
    assert report.number(1234.56, 0) == "1,235"
    assert report.number(-3.25, 1) == "\N{MINUS SIGN}3.2"
    assert report.number(3.0, 1, sign=True) == "+3.0"
    assert [report.decimals([value]) for value in (5000.0, 45.0, 3.0, 0.2, float("nan"))] == [0, 1, 2, 3, 3]
    assert [report.seconds(value) for value in (0.42, 12.34, 245, 7380)] == [
        "0.42 s",
        "12.3 s",
        "4 min 05 s",
        "2 h 03 min",
    ]


def test_members_are_listed_with_what_they_reached_and_what_became_of_them():
    frame = synthetic.make_frame()
    frame = frame[~((frame.agent == "rebrac") & (frame.setting == 2) & (frame["update"] > 2000))]
    sick = (frame.agent == "rebrac") & (frame.setting == 0) & (frame.seed == 3) & (frame["update"] == 4000)
    frame.loc[sick, "eval/score"] = np.nan
    table = report.members(frame, "eval/score", ["actor_bc_coef"])
    rows = [dict(zip(table.columns, (value for value, _ in row), strict=True)) for row in table.rows]
    assert len(rows) == 4 * synthetic.SEEDS
    lasts = [row["last"] for row in rows]
    assert lasts[-1] == ""
    assert lasts[:-1] == sorted(lasts[:-1], reverse=True)
    for row in rows:
        mine = frame[(frame.agent == row["agent"]) & (frame.setting == row["setting"]) & (frame.seed == row["seed"])]
        assert row["updates"] == mine["update"].max()
        assert row["best"] == pytest.approx(mine["eval/score"].max())
        assert row["best_at"] == mine.loc[mine["eval/score"].idxmax(), "update"]
        assert row["actor_bc_coef"] == ("" if row["agent"] == "bc" else (0.0, 0.1, 1.0)[row["setting"]])
    assert [(row["setting"], row["seed"]) for row in rows if row["state"] == "diverged"] == [(0, 3)]
    assert {(row["agent"], row["setting"]) for row in rows if row["state"] == "stopped"} == {("rebrac", 2)}


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no browser to look with")
@pytest.mark.parametrize(
    ("words", "rows", "note"),
    [
        ("agent=rebrac actor_bc_coef>=0.1 seed<2", 4, "4 of 32 members"),
        ("agent!=rebrac", 8, "8 of 32 members"),
        ("sed=2", 32, "no column of this name: sed=2"),
    ],
)
def test_members_are_filtered_and_sorted_in_a_browser(written, tmp_path, words, rows, note):
    directory, _ = written
    click = "<script>document.querySelector('#members th[data-name=seed] button').click()</script></body>"
    page = tmp_path / "page.html"
    page.write_text((directory / "report.html").read_text().replace("</body>", click))
    address = f"{page.as_uri()}#filter={urllib.parse.quote(words)}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [BROWSER, *options, "--virtual-time-budget=3000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert note in done.stdout
    body = re.search(r'<table id="members">.*?<tbody>(.*?)</tbody>', done.stdout, re.DOTALL)[1]
    shown = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    seeds = [int(re.findall(r'data-value="([^"]*)"', row)[3]) for row in shown]
    assert len(shown) == rows
    assert seeds == sorted(seeds, reverse=True)


def test_a_terminal_shows_first_that_a_setting_diverged(written):
    _, table = written
    assert all("diverged" not in cell for row in report.brief(table) for cell in row)
    some = table.copy()
    some.loc[0, "diverged"] = 2
    rows = report.brief(some)
    assert [row[2] for row in rows] == ["diverged", f"2 of {some.loc[0, 'runs']}", *[""] * (len(rows) - 2)]
    assert [row[:2] + row[3:] for row in rows] == report.brief(table)
