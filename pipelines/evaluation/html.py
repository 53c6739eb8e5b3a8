"""An evaluation as one page of HTML: nothing in it is fetched from elsewhere, and whatever a file is called is text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from detector.types import Label
from pipelines.evaluation import plots
from pipelines.evaluation.results import UNCHANGED, Evaluation, Level, Part, Row, Said
from pipelines.evaluation.style import CSS
from pipelines.evaluation.words import METRICS, NONE, figure, number, share
from pipelines.text import on_one_line

_MOST_NAMES = 200  # of one kind of trouble; all of them are in the JSON
_WORST = 8


def page(evaluation: Evaluation) -> str:
    """The whole page, with a line end."""
    name = _text(evaluation.card.name)
    sections = (
        _summary(evaluation),
        _figures(evaluation),
        _parts(evaluation.methods, "method", "Each manipulation method against all reals."),
        _parts(evaluation.sources, "source", "Each source by itself; one with a single class has no AUC."),
        _tiers(evaluation),
        _robustness(evaluation),
        _wrong(evaluation),
        _troubles(evaluation),
        _notes(evaluation),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}: evaluation</title>
<style>
{CSS}</style>
</head>
<body>
<main>
{"".join(sections)}</main>
</body>
</html>
"""


def _summary(evaluation: Evaluation) -> str:
    overall, settings = evaluation.overall, evaluation.settings
    first = overall.video if overall.video.metrics or not overall.image.metrics else overall.image
    what = "clips" if first is overall.video else "pictures"
    tiles = [
        ("AUC", number(figure(first.metrics, "auc")), f"over {what}"),
        ("TPR at 5 % FPR", number(figure(first.metrics, "tpr_at_5_fpr")), f"over {what}"),
        ("real clips called FAKE", share(overall.reals.called_fake), "at the shipped thresholds"),
        ("fake clips called FAKE", share(overall.fakes.called_fake), "at the shipped thresholds"),
    ]
    data = ", ".join(on_one_line(folder) for folder in settings.data)
    return f"""<header>
<h1>{_text(evaluation.card.name)}</h1>
<p>Evaluated on {_text(data)}: {_count(overall.video, "clip")}, {_count(overall.image, "picture")}.</p>
</header>
<div class="tiles">
{"".join(_tile(*tile) for tile in tiles if tile[1] != NONE)}</div>
"""


def _tile(title: str, value: str, note: str) -> str:
    main, _, interval = value.partition(" (")
    small = f"95 %: {interval.rstrip(')')}" if interval else ""
    return (
        f'<div class="tile"><h3>{_text(title)}</h3><p class="big">{_text(main)}</p>'
        f"<p>{_text(small)}</p><p>{_text(note)}</p></div>\n"
    )


def _figures(evaluation: Evaluation) -> str:
    levels = _levels(evaluation.overall)
    rows = [
        ["fake", *(str(level.fakes) for level in levels.values())],
        ["real", *(str(level.reals) for level in levels.values())],
        ["without a face", *(str(level.without_face) for level in levels.values())],
        *([words, *(number(figure(lv.metrics, name)) for lv in levels.values())] for name, words in METRICS.items()),
    ]
    drawn = [plots.roc_plot(evaluation), plots.histogram_plot(evaluation), plots.reliability_plot(evaluation)]
    captions = (
        "ROC curves; the band is the 95 % interval of the first.",
        "Where the scores lie.",
        "Calibration: on the diagonal, p(fake) is the share of fakes. Larger marks hold more samples.",
    )
    return _section(
        "Figures",
        _table(["", *levels], rows)
        + f'<div class="plots">\n{"".join(map(_plot, drawn, captions))}</div>\n'
        + "<h3>Verdicts on clips</h3>\n"
        + _verdicts({"real": evaluation.overall.reals, "fake": evaluation.overall.fakes}),
    )


def _verdicts(said: Mapping[str, Said]) -> str:
    rows = [
        [words, *(str(of.counts.get(label, 0)) for label in Label), share(of.called_fake)] for words, of in said.items()
    ]
    return _table(["clips", *(label.value for label in Label), "called FAKE"], rows)


def _parts(parts: Mapping[str, Part], what: str, words: str) -> str:
    if not parts:
        return ""
    rows = []
    for name, part in parts.items():
        for level_name, level in _levels(part).items():
            if level_name != "frames" and (level.fakes or what != "method"):
                called = (part.fakes.called_fake, part.reals.called_fake) if level_name == "clips" else (None, None)
                rows.append(
                    [
                        on_one_line(name),
                        level_name,
                        str(level.fakes),
                        str(level.reals),
                        *(number(figure(level.metrics, m)) for m in ("auc", "average_precision", "tpr_at_5_fpr")),
                        *map(share, called),
                    ]
                )
    head = [what, "over", "fake", "real", "AUC", "average precision", "TPR at 5 % FPR", "fakes called FAKE"]
    plot = _plot(plots.parts_plot(parts, what), "")
    return _section(
        f"By {what}", f"<p>{_text(words)}</p>\n{_plots(plot)}" + _table([*head, "reals called FAKE"], rows, texts=2)
    )


def _tiers(evaluation: Evaluation) -> str:
    if not evaluation.tiers:
        return ""
    rows = []
    for tier in evaluation.tiers:
        levels = _levels(tier.part)
        aucs = [number(figure(level.metrics, "auc")) for level in levels.values()]
        rows.append([tier.name, *aucs, share(tier.part.reals.called_fake), share(tier.part.fakes.called_fake)])
    head = ["tier", *(f"AUC, {name}" for name in _levels(evaluation.tiers[0].part))]
    plot = _plots(_plot(plots.tiers_plot(evaluation), ""))
    words = (
        "What platforms do to a clip: it is shrunk to a longer side of at most so many pixels, then compressed as JPEG."
    )
    return _section(
        "Quality tiers",
        f"<p>{words}</p>\n{plot}" + _table([*head, "real clips called FAKE", "fake clips called FAKE"], rows),
    )


def _robustness(evaluation: Evaluation) -> str:
    if not evaluation.robustness:
        return ""
    settings = evaluation.settings
    levels = [name for name in _levels(evaluation.robustness[0].part) if name != "frames"]
    rows = []
    for row in evaluation.robustness:
        means = "as it is" if row.perturbation == UNCHANGED else f"{row.value:g}"
        aucs = [number(figure(_levels(row.part)[name].metrics, "auc")) for name in levels]
        kind = row.perturbation if row.parameter is None else f"{row.perturbation} ({row.parameter})"
        rows.append([kind, str(row.level), means, *aucs])
    words = (
        f"The first {settings.robustness_frames} frames of each clip, every {settings.robustness_stride}th judged. "
        "Dotted: the same frames as they are. The first seven kinds and their levels are those of DeeperForensics-1.0."
    )
    table = _table(["perturbation", "level", "value", *(f"AUC, {name}" for name in levels)], rows)
    plot = _plots(_plot(plots.robustness_plot(evaluation), ""))
    return _section("Robustness", f"<p>{words}</p>\n{plot}<details><summary>All levels</summary>\n{table}</details>\n")


def _wrong(evaluation: Evaluation) -> str:
    """What is furthest on the wrong side: the first to look at."""
    tables = []
    for what, rows in (("clips", evaluation.judged.clips), ("pictures", evaluation.judged.stills)):
        scored = [(row.p_fake, row) for row in rows if row.p_fake is not None]
        reals = sorted(((p, row) for p, row in scored if not row.fake), key=lambda each: -each[0])
        fakes = sorted(((p, row) for p, row in scored if row.fake), key=lambda each: each[0])
        for words, worst in ((f"Real {what} with the highest p(fake)", reals), (f"Fake {what} with the lowest", fakes)):
            if worst:
                lines = [[_name(row), row.method, row.source, f"{p:.3f}"] for p, row in worst[:_WORST]]
                tables.append(f"<h3>{words}</h3>\n" + _table(["name", "method", "source", "p(fake)"], lines, texts=3))
    return _section("Most wrong", "".join(tables)) if tables else ""


def _troubles(evaluation: Evaluation) -> str:
    if not evaluation.failures:
        return _section("Trouble with the data", "<p>None: every file was read, and a face found in it.</p>\n")
    lists = []
    for reason, names in evaluation.failures.items():
        items = "".join(f"<li>{_text(on_one_line(name))}</li>\n" for name in names[:_MOST_NAMES])
        rest = f"<li>and {len(names) - _MOST_NAMES} more</li>\n" if len(names) > _MOST_NAMES else ""
        lists.append(
            f"<details><summary>{len(names)} × {_text(on_one_line(reason))}</summary>\n<ul>\n{items}{rest}</ul>\n"
            "</details>\n"
        )
    return _section("Trouble with the data", "".join(lists))


def _notes(evaluation: Evaluation) -> str:
    card, settings = evaluation.card, evaluation.settings
    limit = "all its frames" if settings.max_frames is None else f"its first {settings.max_frames} frames"
    pace = "each" if settings.stride == 1 else f"one in {settings.stride}"
    notes = (
        f"A clip is judged as tellframe video judges it: {limit}, {pace} looked at; its p(fake) is that of its most "
        "suspicious face. A frame or picture has the score of its most suspicious face that can be judged.",
        "Without a face, p(fake) counts as 0.5: leaving it out would reward a finder that misses faces.",
        f"Intervals hold 95 % of {settings.draws} draws of a bootstrap: fakes and reals are drawn apart, the frames of "
        "a clip together. They are about these kinds of fakes and reals, not about generators that are not here. "
        "Shares of clips have Wilson's interval.",
        "TPR at 1 % FPR: the share of fakes flagged where at most 1 % of the reals are: of fewer than 100 reals, none.",
        "Equal error rate: where as many reals are flagged as fakes are missed. Calibration error: 15 bins of equal "
        "width (Guo et al. 2017); it depends on the share of fakes, and its interval lies high, as noise adds to it.",
        f"Below {card.thresholds.real_below:g} a clip is REAL, above {card.thresholds.fake_above:g} FAKE, else UNSURE; "
        "so is one whose faces cannot be judged, or whose scores disagree.",
        f"Model: {card.name}, {card.kind}, SHA-256 {card.sha256}. Layout of the data: {settings.layout}.",
    )
    return _section(
        "How it was measured", "<ul>\n" + "".join(f"<li>{_text(note)}</li>\n" for note in notes) + "</ul>\n"
    )


# ------------------------------------------------------------------------------------------------------- elements


def _levels(part: Part) -> dict[str, Level]:
    """The levels that hold anything."""
    levels = {"clips": part.video, "frames": part.frame, "pictures": part.image}
    return {name: level for name, level in levels.items() if level.fakes + level.reals}


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{body}</section>\n"


def _plot(svg: str, caption: str) -> str:
    if not svg:
        return ""
    below = f"<figcaption>{_text(caption)}</figcaption>\n" if caption else ""
    return f"<figure>\n{svg}\n{below}</figure>\n"


def _plots(plot: str) -> str:
    return f'<div class="plots">\n{plot}</div>\n' if plot else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table that scrolls sideways where it does not fit; the first ``texts`` columns are text, the others numbers."""
    kinds = ["" if i < texts else ' class="number"' for i in range(len(head))]
    top = "".join(f"<th{kind}>{_text(cell)}</th>" for kind, cell in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'


def _count(level: Level, what: str) -> str:
    total = level.fakes + level.reals
    if not total:
        return f"no {what}s"
    return f"{total} {what}{'s' if total > 1 else ''} ({level.fakes} fake, {level.reals} real)"


def _name(row: Row) -> str:
    return on_one_line(row.name)


def _text(text: str) -> str:
    return escape(text)
