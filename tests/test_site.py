"""The site of the documentation: every page has its place, every link leads somewhere, what is written is whole."""

import dataclasses
import importlib.util
import pathlib
import posixpath
import re

import pytest

from jaxrl_reg import agents, losses

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def pages():
    """The module that writes pages; MkDocs is not needed for it."""
    spec = importlib.util.spec_from_file_location("pages", DOCS / "_site" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(pages):
    return pages.written()


def leaves(nav):
    for one in nav:
        if isinstance(one, dict):
            (one,) = one.values()
        yield from [one] if isinstance(one, str) else leaves(one)


def test_every_page_has_its_place(pages, written):
    placed = list(leaves(pages.navigation()))
    here = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(placed) == len(set(placed))
    assert set(placed) == here | set(written)


def test_links_of_written_pages_stay_among_them(pages, written):
    known = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.*")} | set(written) | set(pages.pictures())
    for name, text in written.items():
        if name not in pages.AT_ROOT:
            targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
            lost = [t for t in targets if posixpath.normpath(posixpath.join(posixpath.dirname(name), t)) not in known]
            assert lost == [], name


@pytest.mark.parametrize("name", agents.names())
def test_an_agents_page_names_all_there_is_to_set(name, written):
    module, text = agents.load(name), written[f"agents/{name}.md"]
    fields = [f.name for cls in (module.Config, module.Hyper) for f in dataclasses.fields(cls)]
    assert [field for field in fields if f"| `{field}` |" not in text] == []
    assert module.PAPER.url in text


def test_an_agents_page_has_the_rate_of_all_members_as_it_was_estimated(pages, written):
    for members in (1, 64):
        rate = pages.measured()[f"h100 {members} iql"]["updates_per_second"]
        row = next(line for line in written["agents/iql.md"].splitlines() if line.startswith(f"| H100 | {members} |"))
        assert row.endswith(f"| {rate:,.0f} |")


def test_every_loss_is_on_one_page_with_what_it_is(pages, written):
    for name in pages.public_losses():
        found = [
            page for page in written if page.startswith("losses/") and f"::: jaxrl_reg.losses.{name}\n" in written[page]
        ]
        assert len(found) == 1, name
        assert pages.first_line(getattr(losses, name)), name


def test_a_pipe_does_not_end_a_cell(pages):
    assert pages.cell("a | b `c | d` <e>") == "a &#124; b `c | d` &lt;e>"
    assert pages.literal("``a_b`` of c_d * 2") == r"`a_b` of c\_d \* 2"
