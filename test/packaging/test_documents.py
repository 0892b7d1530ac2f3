"""What the documents name exists, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PLACES = (ROOT, ROOT / "spiking_controller", ROOT / "test")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
MODULE = re.compile(r"`([\w./]+/[\w.]+\.(?:py|xml|yaml|safetensors))`")
INSTEAD = {"my_arm", "my_reach", "runs", "out", "bags"}
"""Names that stand for the reader's own."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    files = [
        file
        for file in MODULE.findall(text)
        if not any((place / file).exists() for place in PLACES)
        and not INSTEAD & {part.partition(".")[0] for part in Path(file).parts}
    ]
    assert not links
    assert not files


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900
