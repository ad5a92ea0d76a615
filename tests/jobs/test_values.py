import dataclasses

import pytest

from jaxrl_reg import agents, jobs
from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.values import coerce, column, looks_like, word


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (float | None, "none", None),
        (float | None, None, None),
        (float | None, "-1", -1.0),
        (int | None, "3", 3),
        (float, "1e-3", 0.001),
        (bool, "False", False),
        (str, "none", "none"),  # a word among others, such as the normalisation layer of that name
        (tuple[int, ...], "64,64", (64, 64)),
        (tuple[int, ...], "64x32", (64, 32)),
        (tuple[int, ...], 64.0, (64,)),
        (tuple[int, ...], [64, 64], (64, 64)),
        (tuple[float, ...], "0.5,2", (0.5, 2.0)),
        (tuple, "8x8", (8, 8)),
    ],
)
def test_words_become_what_the_field_holds(kind, value, wanted):
    read = coerce("x", kind, value)
    assert (read, type(read)) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float | None, "low", "x='low' is not a number or none"),
        (float, "none", "x='none' is not a number"),
        (float, "nan", "x='nan' is not a number"),
        (int, "1.5", "x='1.5' is not a whole number"),
        (bool, 2.0, "x='2' is not true or false"),
        (tuple[int, ...], "8x1.5", "x='8x1.5' is not numbers such as 64,64 or 64x64"),
    ],
)
def test_another_kind_is_refused_with_what_may_be_typed(kind, value, message):
    with pytest.raises(UserError) as caught:
        coerce("x", kind, value)
    assert str(caught.value) == message


def test_a_word_of_no_known_kind_is_what_it_looks_like():
    read = [looks_like(word) for word in ("4", "2.5", "1e3", "true", "False", "mjx", 3, 0.5, "nan")]
    assert read == [4, 2.5, 1000, True, False, "mjx", 3, 0.5, "nan"]
    assert [type(one) for one in read[:4]] == [int, float, int, bool]


def test_what_a_word_says_is_read_back():
    for kind, value in ((float | None, None), (tuple[int, ...], (64, 8)), (bool, True), (float, 0.25), (str, "mlp")):
        assert coerce("x", kind, word(value)) == value


def test_a_column_is_of_numbers_or_of_words_never_of_both():
    assert column([1, 2.5]) == [1.0, 2.5]
    assert column([None, 5.0]) == ["none", "5"]
    assert column([(64,), (64, 64)]) == ["64", "64x64"]


def test_every_setting_of_every_agent_that_can_be_none_takes_a_number_and_none():
    found = 0
    for name in agents.names():
        module = agents.load(name)
        for key, kind in agents.kinds(module.Config).items():
            if "None" in str(kind):
                found += 1
                for text, wanted in (("2", 2.0), ("none", None)):
                    config = jobs.resolve(jobs.SweepConfig(agent=name, settings={key: text}))
                    assert getattr(module.Config(**{key: coerce(key, kind, text)}), key) == wanted
                    if module.KIND != "on_policy":
                        assert getattr(jobs.learners(name, config)[0].config, key) == wanted
    assert found >= 7


def test_kinds_of_an_agent_whose_annotations_cannot_be_read_are_those_of_its_defaults():
    cls = dataclasses.make_dataclass("Config", [("width", "Missing", 8)], frozen=True)
    assert agents.kinds(cls) == {"width": int}


def test_a_list_of_widths_is_one_setting_each_and_a_fixed_one_is_one():
    config = jobs.resolve(jobs.SweepConfig(agent="cql", grid={"hidden": (64.0, 128.0)}, settings={"target_gap": "5"}))
    students = jobs.learners("cql", config)
    assert [student.config.hidden for student in students] == [(64,), (128,)]
    assert [student.swept["hidden"] for student in students] == [("64",), ("128",)]
    (student,) = jobs.learners("cql", jobs.resolve(jobs.SweepConfig(agent="cql", settings={"hidden": "64,128"})))
    assert student.config.hidden == (64, 128)


def test_settings_with_and_without_a_number_share_a_column():
    config = jobs.resolve(jobs.SweepConfig(agent="cql", grid={"target_gap": ("none", 5.0)}))
    students = jobs.learners("cql", config)
    assert [student.config.target_gap for student in students] == [None, 5.0]
    assert [student.swept["target_gap"] for student in students] == [("none",), ("5",)]
