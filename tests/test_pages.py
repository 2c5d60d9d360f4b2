"""Every block of the README and of docs/ runs as it stands there, and prints what the page says it prints."""

import os
import re
from pathlib import Path

import pytest

from tests import pages

PAGES = sorted(
    page
    for page in {*pages.ROOT.glob("*.md"), *pages.ROOT.glob("*/*.md"), *pages.ROOT.glob("docs/**/*.md")}
    if page.relative_to(pages.ROOT).parts[0] not in ("build", "dist", "runs", "site")
)
NAMES = [str(page.relative_to(pages.ROOT)) for page in PAGES]
WITH_BLOCKS = [
    name
    for page, name in zip(PAGES, NAMES, strict=True)
    if any(block.language in pages.RUN for block in pages.blocks_of(page))
]
SLOW = [name for name in WITH_BLOCKS if any(block.slow for block in pages.blocks_of(pages.ROOT / name))]


def _read(name: str, folder: Path, slow: bool) -> None:
    page = pages.ROOT / name
    data = Path(os.environ.get("TFREC_DATA", "."))
    missing = [needed for needed in pages.needs(page) if not (data / needed).is_dir()]
    if missing:
        pytest.skip(f"{name} reads {', '.join(missing)}, which is not in $TFREC_DATA")
    pages.Reader(folder).read(page, slow=slow)


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_the_blocks_of_a_page(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _read(name, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_slow_blocks_of_a_page(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _read(name, tmp_path, slow=True)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_links_are_of_known_kinds(name):
    page = pages.ROOT / name
    text = page.read_text(encoding="utf-8")
    for block in pages.blocks_of(page):
        where = f"{name}:{block.line}"
        assert block.language in pages.RUN | pages.SHOWN_ONLY, f"{where}: {block.language or 'no language'}"
        assert block.not_run is None or len(block.not_run) > 10, f"{where}: say why it is not run"
    outside = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", outside):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{name}: no {target}"


class TestAgreement:
    def test_equal_words_and_close_numbers(self):
        assert pages.agree("NDCG .4252 in 1.3 s", "NDCG .4260  in 22.0 s") is None
        assert pages.agree("987 users", "988 users") is not None
        assert pages.agree("NDCG .4252", "NDCG .4352") is not None
        assert pages.agree("NDCG .4252", "MAP .4252") is not None

    def test_dots_stand_for_any_lines(self):
        assert pages.agree("a\n...\nd", "a\nb\nc\nd") is None
        assert pages.agree("a\n...", "a\nb\nc") is None
        assert pages.agree("a\n...\ne", "a\nb\nc\nd") is not None

    def test_a_line_more_or_less_is_a_difference(self):
        assert pages.agree("a", "a\nb") is not None
        assert pages.agree("a\nb", "a") is not None


def test_the_commands_of_a_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```sh\n# why\none \\\n    two  # so\n\nthree\n```\n\n```text\nout\n```\n")
    block, shown = pages.blocks_of(page)
    assert (block.line, shown.line) == (4, 12)
    assert pages.commands_of(block) == ["one two  # so", "three"]
