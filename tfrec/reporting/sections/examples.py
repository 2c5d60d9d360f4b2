"""Some test users: what they have, what they are recommended, what they chose."""

from __future__ import annotations

from tfrec.reporting.facts import Example, RunFacts
from tfrec.reporting.html import notes, section
from tfrec.reporting.text import counted, escaped, foreign


def examples(facts: RunFacts) -> str:
    """A card for each user."""
    if not facts.examples:
        return section("examples", "Example users", notes(escaped(facts.no_examples)))
    cards = "".join(_card(example, facts.latest_by) for example in facts.examples)
    return section(
        "examples",
        "Example users",
        f'<div class="people">{cards}</div>',
        notes(
            "Test users drawn at random, the same for every model of this split. Marked: what the user really chose, "
            "which the model had not seen. Lists are ranked among all items that the user does not have."
        ),
    )


def _card(example: Example, latest_by: str) -> str:
    has = "".join(f"<li>{foreign(title)}</li>" for title in example.latest)
    best = "".join(
        f'<li class="hit">{foreign(title)}<span class="hidden"> (chosen)</span></li>'
        if hit
        else f"<li>{foreign(title)}</li>"
        for title, hit in example.recommended
    )
    hits = sum(hit for _, hit in example.recommended)
    return (
        f'<article class="person"><h3>{foreign(example.user)}</h3>'
        f"<h4>{counted(example.num_items, 'item')}, the latest by {escaped(latest_by)}</h4><ul>{has}</ul>"
        f"<h4>recommended: {hits} of {counted(example.num_targets, 'held-out item')}</h4><ol>{best}</ol></article>\n"
    )
