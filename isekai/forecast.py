"""What a run would ask and take, without asking: `isekai bench --dry-run` and `--plan`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from isekai.protocols import Foretelling
from isekai.reports.headings import PLAIN
from isekai.statistics import power
from isekai.work import Work, pictures


def preview(work: Work) -> dict[str, object]:
    """What a run would ask, and about what it would take: for `--dry-run`."""
    counts = Counter((episode.task, episode.control) for episode in work.episodes)
    questions = sum(len(episode.shots) * len(episode.queries) for episode in work.episodes)
    return {
        "tasks": [
            {"task": task, "control": control, "episodes": count}
            for (task, control), count in counts.items()
        ],
        "episodes": len(work.episodes),
        "clusters": len({episode.cluster for episode in work.episodes}),
        "predictions": dict.fromkeys(work.adapters, questions),
        "pictures": len({one.image_id for e in work.episodes for one in (*e.support, *e.queries)}),
        "most_pictures_at_once": max(pictures(episode) + 1 for episode in work.episodes),
        "about": {
            name: _foretold(adapter, work)
            for name, adapter in work.adapters.items()
            if isinstance(adapter, Foretelling)
        },
    }


def words(told: Mapping[str, Any]) -> str:
    """The preview in sentences."""
    lines = [
        f"{row['episodes']:>7,} episodes  {row['task']}"
        + ("" if row["control"] == PLAIN else f", {row['control']}")
        for row in told["tasks"]
    ]
    lines += [
        f"{told['episodes']:>7,} episodes in all, of {told['clusters']} clusters, with "
        f"{told['pictures']:,} pictures; at most {told['most_pictures_at_once']} at once"
    ]
    for model, questions in told["predictions"].items():
        about = told["about"].get(model, {})
        words = [f"{questions:,} questions to {model}"]
        if "prompt_tokens" in about:
            words.append(f"about {about['prompt_tokens']:,.0f} tokens in")
            words.append(f"{about.get('completion_tokens', 0):,.0f} out")
        if "cost" in about:
            words.append(f"about ${about['cost']:,.2f}, less what a prefix cache saves")
        elif about:
            words.append("no prices given, so no cost is known")
        lines.append(", ".join(words))
    return "\n".join(lines)


def plan(work: Work, difference: float) -> str:
    """How many episodes show a difference of two models of this size, without a pilot: sentences.

    `compare.run` and `compare.alone` plan from what a pilot run measured.
    """
    plain = [one for one in work.episodes if one.control == PLAIN]
    said = []
    for task in dict.fromkeys(episode.task for episode in plain):
        own = [episode for episode in plain if episode.task == task]
        clusters = len({episode.cluster for episode in own})
        units = len({frozenset(episode.labels) for episode in own})
        drawn = len({episode.seed for episode in own})  # the paper's protocol asks one many times
        spread = power.assumed(clusters, max(1, drawn // clusters))
        planned = power.plan(difference, spread, units=max(1, units // clusters))
        said.append(f"{task}: {power.words(planned)}")
    return "\n".join(said)


def _foretold(adapter: Foretelling, work: Work) -> dict[str, float]:
    total: Counter[str] = Counter()
    for episode in work.episodes:
        total.update(adapter.foretell(work.fold(episode)))
    return dict(total)
