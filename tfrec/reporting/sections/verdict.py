"""How good it is: the test metrics next to the references, with intervals."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

import numpy as np

from tfrec.metrics import REGISTRY, Metric
from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, folded, notes, section, table
from tfrec.reporting.intervals import Interval, intervals, resamples
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale, linear
from tfrec.reporting.text import count, decimal, escaped, exact

#: What the tie rules do, in a sentence.
TIES = {
    "expected": "Tied scores: the mean over all orders of tied items, in closed form.",
    "pessimistic": "Tied scores: a target comes after every other item of its score.",
    "optimistic": "Tied scores: a target comes before every other item of its score.",
}


def verdict(facts: RunFacts) -> str:
    """The monitored metric in words, a chart and a table of all."""
    test, metrics = facts.test, list(facts.metrics["evaluation"]["metrics"])
    measured, gains = _measured(facts, metrics)
    users = test["model"].users
    left_out = test["model"].users_without_targets
    names = list(test)
    with_users = [metric for metric in metrics if metric in test["model"].per_user]
    header = ["metric", *names, "model − popularity"]
    rows = [
        [
            escaped(metric),
            *(_cell(measured[name, metric]) for name in names),
            _cell(gains[metric], sign=True),
        ]
        for metric in metrics
    ]
    caption = f"Test, {count(users)} users" + (f"; {count(left_out)} without targets left out" if left_out else "")
    return section(
        "test",
        "Test metrics",
        f'<div class="verdict"><p>{_words(facts, measured, gains)}</p></div>',
        figures(
            figure(
                "Test metrics with 95 % intervals",
                _chart(with_users, names, measured),
                names,
            )
            if with_users
            else "",
        ),
        table(caption, header, rows),
        notes(
            f"Intervals: 95 %, percentile bootstrap over users ({count(resamples(users))} resamples). They cover the "
            "choice of test users, not the seed of the training. The difference is paired by user. "
            "A metric of the whole catalogue has no interval.",
            _ranking(facts),
        ),
        folded("How the metrics are defined", _definitions(metrics)),
    )


def _measured(facts: RunFacts, metrics: list[str]) -> tuple[dict[tuple[str, str], Interval], dict[str, Interval]]:
    """(name, metric) -> its mean and interval; and metric -> those of the difference of model and popularity."""
    test = facts.test
    keys = [(name, metric) for name in test for metric in metrics]
    inside = [key for key in keys if key[1] in test[key[0]].per_user]
    of_users = [metric for metric in metrics if metric in test["model"].per_user]
    columns = [test[name].per_user[metric] for name, metric in inside]
    columns += [test["model"].per_user[m] - test["popularity"].per_user[m] for m in of_users]
    found = intervals([np.asarray(column, np.float64) for column in columns])
    measured = {key: Interval(test[key[0]].metrics[key[1]]) for key in keys}
    # The mean is the one of metrics.json, to the last digit.
    for key, interval in zip(inside, found, strict=False):
        measured[key] = Interval(measured[key].mean, interval.low, interval.high)
    gains = {metric: Interval(test["model"].metrics[metric] - test["popularity"].metrics[metric]) for metric in metrics}
    for metric, interval in zip(of_users, found[len(inside) :], strict=True):
        gains[metric] = Interval(gains[metric].mean, interval.low, interval.high)
    return measured, gains


def _words(facts: RunFacts, measured: Mapping[tuple[str, str], Interval], gains: Mapping[str, Interval]) -> str:
    """The monitored metric, in a sentence."""
    monitor = facts.metrics["evaluation"]["monitor"]
    model, gain = measured["model", monitor], gains[monitor]
    words = f"Test {escaped(monitor)}: <strong>{exact(model.mean)}</strong>{_between(model)}. "
    popularity = exact(measured["popularity", monitor].mean)
    if gain.low == gain.high == 0:
        words += "The popularity baseline reaches the same."
    elif gain.low > 0:
        words += f"That is {exact(gain.mean)}{_between(gain)} above popularity, {popularity}."
    elif gain.high < 0:
        words += f"That is {exact(-gain.mean)}{_between(Interval(-gain.mean, -gain.high, -gain.low))} "
        words += f"<strong>below popularity</strong>, {popularity}."
    elif np.isfinite(gain.low):
        words += f"Popularity reaches {popularity}; the interval of the difference{_between(gain)} includes 0."
    else:
        words += f"Popularity reaches {popularity}."
    if ("oracle", monitor) in measured:
        words += " The oracle, which ranks by the truth that the data was drawn from, reaches "
        words += f"{exact(measured['oracle', monitor].mean)}."
    if "words" in facts.metrics.get("shipped", {}):
        words += f" {escaped(facts.metrics['shipped']['words'])}"
    return words


def _between(interval: Interval) -> str:
    return f" ({decimal(interval.low)} to {decimal(interval.high)})" if np.isfinite(interval.low) else ""


def _cell(interval: Interval, sign: bool = False) -> str:
    ends = ""
    if np.isfinite(interval.low):
        ends = f"<small>{decimal(interval.low, sign=sign)}&nbsp;to {decimal(interval.high, sign=sign)}</small>"
    return exact(interval.mean, sign=sign) + ends


def _chart(metrics: list[str], names: list[str], measured: Mapping[tuple[str, str], Interval]) -> str:
    """A row for each metric, a point and an interval for each model."""
    shown = [measured[name, metric] for name in names for metric in metrics]
    top = max([interval.high for interval in shown if np.isfinite(interval.high)], default=1.0)
    rows = Scale(0, len(metrics), [(len(metrics) - i - 0.5, metric) for i, metric in enumerate(metrics)])
    height = 64 + max(26, 10 * len(names) + 8) * len(metrics)
    plot = Plot(
        "Test metrics of " + ", ".join(names), linear(0, top or 1.0), rows, "mean over users", "",
        height=height, grid=False,
    )  # fmt: skip
    for i, metric in enumerate(metrics):
        for j, name in enumerate(names):
            interval, shift = measured[name, metric], 8.0 * (j - (len(names) - 1) / 2)
            at = len(metrics) - i - 0.5
            if np.isfinite(interval.low):
                plot.whisker(name, at, interval.low, interval.high, across=True, shift=shift)
            plot.point(name, interval.mean, at, f"{name}, {metric}: {decimal(interval.mean)}", shift=shift)
    return plot.svg()


def _ranking(facts: RunFacts) -> str:
    """What targets are ranked among, and how ties are broken."""
    evaluation = facts.metrics["evaluation"]
    among = "Targets are ranked among all items that the user does not have."
    if evaluation["protocol"] != "all":
        number = facts.metrics["split"].get("negatives_per_user", evaluation["negatives"])
        among = (
            f"Each target is ranked among {count(number)} sampled items, not among all: these figures are higher than "
            f"those of a ranking of the catalogue. Protocol: {escaped(evaluation['protocol'])}."
        )
    return f"{among} {TIES[facts.test['model'].ties]}"


def _definitions(metrics: list[str]) -> str:
    """The docstring of each metric's function: formula, denominator, ties."""
    names = dict.fromkeys(Metric.parse(metric).name for metric in metrics)
    return f"<dl>{''.join(f'<dt>{escaped(name)}</dt><dd>{_definition(name)}</dd>' for name in names)}</dl>"


def _definition(name: str) -> str:
    text = inspect.getdoc(REGISTRY[name].function) or ""
    text = re.split(r"\n(?:Args|Returns|Raises|Example):", text)[0]
    text = escaped(" ".join(text.split()))
    return re.sub(r"``(.+?)``|`(.+?)`", lambda m: f"<code>{m[1] or m[2]}</code>", text)
