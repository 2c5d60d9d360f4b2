"""Write examples/plays.csv: 300 invented listeners, 120 invented tracks on eight themes, and who played what, and when.

    python examples/make_plays.py

A track's title is made from words of its theme, so a reader sees whether similar tracks belong together.
Each listener likes two themes. The first tracks of a theme are played most.
"""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import numpy as np

#: Theme -> two lists of words; a title is one of each.
THEMES = {
    "sea": (["Blue", "Slow", "Open"], ["Harbour", "Tide", "Sail", "Lantern", "Strait"]),
    "night": (["Late", "Neon", "Quiet"], ["Taxi", "Moon", "Window", "Station", "Dream"]),
    "forest": (["Green", "Deep", "Old"], ["Fern", "Owl", "River", "Moss", "Path"]),
    "kitchen": (["Warm", "Sweet", "Burnt"], ["Sugar", "Coffee", "Orange", "Bread", "Jalapeño"]),
    "winter": (["White", "Long", "Frozen"], ["Snow", "Glass", "Skate", "Märchen", "Fire"]),
    "city": (["Fast", "Loud", "Grey"], ["Tram", "Bridge", "Crowd", "Café", "Tower"]),
    "space": (["Far", "Silver", "Lost"], ["Orbit", "Signal", "Comet", "Station 9", "Звезда"]),
    "summer": (["Golden", "Lazy", "Hot"], ["Field", "Swing", "Peach", "Radio", "夏"]),
}
NAMES = ["ada", "ben", "cleo", "dan", "eve", "finn", "gül", "hana", "ivo", "joy", "kai", "lea", "mo", "nia", "olga"]


def main() -> None:
    """Draw the plays and write the file."""
    random = np.random.default_rng(15)
    titles = [
        [f"{first} {second}" for second in seconds for first in firsts] for firsts, seconds in THEMES.values()
    ]  # [theme][rank]
    per_theme = len(titles[0])
    popularity = 1 / np.arange(1, per_theme + 1) ** 0.6
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    rows = []
    for listener in range(300):
        name = f"{NAMES[listener % len(NAMES)]}{listener // len(NAMES) + 1}"
        liked = random.choice(len(titles), 2, replace=False)
        weights = np.full(len(titles), 0.02)
        weights[liked] = [1.0, 0.6]
        chances = (weights[:, None] * popularity).ravel()
        count = int(random.integers(8, 28))
        for track in random.choice(len(chances), count, replace=False, p=chances / chances.sum()):
            when = start + datetime.timedelta(minutes=int(random.integers(200 * 24 * 60)))
            plays = int(random.geometric(0.3))
            title = titles[track // per_theme][track % per_theme]
            rows.append((when, name, f"t{track:03}", title, plays))
    rows.sort()
    with (Path(__file__).parent / "plays.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["listener", "track", "name", "plays", "when"])
        writer.writerows(
            (name, track, title, plays, f"{when:%Y-%m-%d %H:%M}") for when, name, track, title, plays in rows
        )


if __name__ == "__main__":
    main()
