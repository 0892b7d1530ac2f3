"""What the documents name exists, links work on the site too, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.rst", *DOCS.rglob("*.md")])
PLACES = (ROOT, ROOT / "spiking_controller", ROOT / "test")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
FILE = re.compile(r"(?<![\w./:~-])(\w[\w.-]*/[\w./-]*\w\.(?:py|xml|yaml|safetensors|md|csv|png))\b")
INSTEAD = {"my_arm", "my_reach", "runs", "out", "bags", "share"}
"""Names that stand for the reader's own, and the folder that packages are installed to."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    files = [
        file
        for file in FILE.findall(text)
        if not any((place / file).exists() for place in (*PLACES, document.parent))
        and not INSTEAD & {part.partition(".")[0] for part in Path(file).parts}
    ]
    assert not links
    assert not files


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_links_of_the_site_stay_inside_it(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).resolve().is_relative_to(DOCS)]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_every_folder_of_the_package_is_in_the_reference() -> None:
    folders = {file.parent.name for file in (ROOT / "spiking_controller").glob("*/__init__.py")}
    assert folders == {page.stem for page in (DOCS / "reference").glob("*.md")} - {"top"}
