"""The part of the site that is written from the code: agents, losses, systems, and where each page stands.

MkDocs calls ``on_config``, ``on_files`` and ``on_page_markdown``; ``pages.py`` says what is on a page.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
import sys

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import pages  # noqa: E402

LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
ELSEWHERE = {"SYSTEMS.md": "systems.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_config(config):
    config.nav = pages.navigation()
    return config


def on_files(files, config):
    for name, text in pages.written().items():
        files.append(File.generated(config, name, content=text))
    for name, path in pages.pictures().items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links that leave ``docs`` lead to their page here, to their picture, or to the file in the repository."""
    src = page.file.src_uri
    if src == "systems.md":  # its table needs the column of the contents
        page.meta["hide"] = ["toc"]
    folder = "" if src in pages.AT_ROOT else posixpath.join("docs", posixpath.dirname(src))

    def moved(match):
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        here = posixpath.dirname(src)
        if target.startswith("docs/"):
            name = target.removeprefix("docs/")
        elif target in ELSEWHERE:
            name = ELSEWHERE[target]
        elif target.endswith(".png"):
            name = f"figures/{posixpath.basename(target)}"
        elif (ROOT / target).exists():
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            return f"{match[1]}{config.repo_url.rstrip('/')}/{kind}/main/{target}{match[3]}"
        else:
            return match[0]
        return f"{match[1]}{posixpath.relpath(name, here or '.')}{match[3]}"

    return markdown if src.startswith(("agents/", "losses/")) else LINK.sub(moved, markdown)
