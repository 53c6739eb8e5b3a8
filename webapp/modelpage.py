"""The Model tab: what compression did to the detector, from its reports, and what it is worth on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import gradio as gr

from compression.budget import FrameBudget
from detector.card import ModelCard
from detector.models import DEFAULT_MODEL, LADDER, StoredModel, available
from webapp.cardfacts import AUC_WORDS, ClipTest, clip_test, part
from webapp.heatmap import HOW_TO_READ, heat_html
from webapp.hqpreports import Block, Reports, read_reports
from webapp.measure import Bench, measure_part
from webapp.tables import note_html, table_html, table_of

_KINDS: Final = {
    "dense": "the original",
    "ptq": "the original, rounded after training",
    "hqp": "pruned and rounded jointly (HQP)",
}
_ARMS: Final = {"dense": "trained", "ptq": "then rounded", "hqp": "HQP"}
_MEASURE = (
    "How fast is it on the machine that serves this page? This runs the real benchmark there: each model judges a "
    "sample clip for a few seconds, about a quarter of a minute in all. Live sessions and videos that are being judged "
    "go first, and make it take longer."
)


def model_tab(stored: Sequence[StoredModel], budget: FrameBudget) -> None:
    """What the tab holds, inside an open gr.Tab.

    Args:
        stored: the models that the page judges with; the shipped ones are shown beside them.
        budget: that a frame is held against where it is measured.

    Raises:
        ModelError: the reports, or a card, are missing or damaged.
    """
    reports, models = read_reports(), shown_models(stored)
    cards = [model.card for model in models]
    gr.HTML(f"<h2>What compression did</h2>{story_html(reports, cards)}", elem_id="tf-story")
    gr.HTML(f"<h3>The models</h3>{models_html(cards, budget)}", elem_id="tf-models")
    gr.HTML(f"<h3>Side by side</h3>{arms_html(reports, cards)}", elem_id="tf-arms")
    gr.HTML(f"<h3>On this machine</h3><p>{escape(_MEASURE)}</p>")
    measure_part(Bench(models, budget))
    gr.HTML(
        f"<h3>What every layer bears</h3><p>{escape(HOW_TO_READ)}</p>{heat_html(reports)}"
        f"{note_html('From assets/hqp/sensitivity.csv.')}",
        elem_id="tf-sensitivity",
    )
    gr.HTML(f"<h3>What was decided for every block</h3>{policy_html(reports)}", elem_id="tf-policy")


def shown_models(stored: Sequence[StoredModel]) -> Sequence[StoredModel]:
    """The models that the tab is about: the shipped ones, the most accurate first, and those of the page's own."""
    shipped = {model.card.name: model for model in available()}
    ours = {model.card.sha256 for model in shipped.values()}
    return [
        *(shipped[name] for name in LADDER if name in shipped),
        *(model for model in stored if model.card.sha256 not in ours),
    ]


# ---------------------------------------------------------------------------------------------------- the story


def story_html(reports: Reports, cards: Sequence[ModelCard]) -> str:
    """What HQP did and what it cost, in words for everybody."""
    dense, small = reports.arm("dense"), reports.arm("hqp")
    paragraphs = (_done(reports), _won(reports, dense, small), _cost(reports, cards))
    return f'<div class="tf-prose">{"".join(f"<p>{words}</p>" for words in paragraphs if words)}</div>'


def _done(reports: Reports) -> str:
    blocks = [block for block in reports.blocks if block.name.startswith("blocks.")]
    removed = sum(block.removed for block in blocks)
    groups = [pair for block in reports.blocks if not block.removed for pair in block.channels]
    gone = 1 - sum(kept for kept, _ in groups) / sum(every for _, every in groups)
    bits = _counted(reports.report["bits"].values())
    return (
        f"The detector is a neural network of {len(reports.layers)} layers, too many for a slow or busy computer. So "
        "Tellframe has a second, smaller one that was made of it by <b>HQP</b>, which cuts and rounds a network "
        "<em>jointly</em>. It first tried what every layer bears. Then it left out what matters least: "
        f"{removed} of {len(blocks)} blocks wholly, and {gone:.0%} of the channels in the rest. What stays is written "
        f"as whole numbers of {escape(bits)} bits instead of fractions, and all the while the small network was "
        "trained to answer as the large one does."
    )


def _won(reports: Reports, dense: Mapping[str, Any], small: Mapping[str, Any]) -> str:
    ms, device = small["score_ms"], reports.comparison["device"]
    return (
        f"<b>What that won:</b> a file of {small['bytes'] / 1e6:.1f} MB instead of {dense['bytes'] / 1e6:.1f} MB, and "
        f"an answer about a face in {ms['p50_ms']:.1f} ms instead of {dense['score_ms']['p50_ms']:.1f} ms: "
        f"{ms['ratio']:.1f} times faster ({ms['ratio_low']:.2f} to {ms['ratio_high']:.2f} with 95 % certainty), on one "
        f"core of an {escape(str(device['cpu']))}."
    )


def _cost(reports: Reports, cards: Sequence[ModelCard]) -> str:
    """What it lost, by the cards and by the bound that was set; nothing of what was not measured."""
    tests = {card.name: clip_test(card.measured) for card in cards}
    before, after = (tests.get(reports.arm(kind)["name"]) for kind in ("dense", "hqp"))
    words = []
    if before is not None and after is not None:
        words.append(
            f"of 100 pairs of a fake and a real clip, the small network gives the fake the higher score in "
            f"{_of_100(after)}, the original in {_of_100(before)}; there were {after.fakes} fake and {after.reals} "
            "real clips."
        )
    bound = part(part(reports.report, "bounds"), "max_drop")
    if bound:
        kept = "That bound was kept." if bound["met"] else "<b>That bound was missed.</b>"
        words.append(
            f"{'Against' if words else 'against'} the very network that it was made of, it was allowed to lose "
            f"{100 * bound['asked']:g} of 100 pairs and lost "
            f"{100 * bound['got']:.1f}. {kept}"
        )
    if not words:
        return ""
    use = (
        f"So {escape(DEFAULT_MODEL)} judges unless you ask for another, and the small network stands in where a live "
        "picture comes faster than this machine can judge it; the page then says so."
    )
    return f"<b>What that cost:</b> {' '.join(words)} {use}"


def _of_100(test: ClipTest) -> str:
    low, high = test.auc_interval
    return f"{100 * test.auc:.0f} ({100 * low:.0f} to {100 * high:.0f} with 95 % certainty)"


# ---------------------------------------------------------------------------------------------------- tables


def models_html(cards: Sequence[ModelCard], budget: FrameBudget) -> str:
    """The models there are, a row each, from their cards."""
    head = ("Model", "What it is", "Weights", "Input", "Bytes", "AUC (95 % interval)", "Frame p50 / p95, ms")
    rows = [
        (
            card.name,
            _KINDS[card.kind],
            _precision(card),
            f"{card.input_size} x {card.input_size} px",
            f"{card.bytes:,}",
            _auc(card),
            _frame_ms(card, budget),
        )
        for card in cards
    ]
    return table_html("The models", head, rows, "tf-wide") + note_html(
        f"{AUC_WORDS} Frame: a whole 1280x720 frame with one face, from finding it to the verdict"
        f"{_where(cards)}; ✓ and ✗: p95 inside {budget.period_ms:.1f} ms, the budget of this page, or not."
    )


def _precision(card: ModelCard) -> str:
    bits = part(card.policy, "bits")
    if card.kind == "dense":
        return "floating point"
    return f"{_counted(bits.values())} bits" if bits else "8 bits"


def _auc(card: ModelCard) -> str:
    test = clip_test(card.measured)
    return "not measured" if test is None else f"{test.auc:.3f} ({test.auc_interval[0]:.3f}-{test.auc_interval[1]:.3f})"


def _frame_ms(card: ModelCard, budget: FrameBudget) -> str:
    total = part(_pipeline(card), "total_ms")
    if not total:
        return "not measured"
    return f"{total['p50']:.1f} / {total['p95']:.1f} {'✓' if total['p95'] <= budget.period_ms else '✗'}"


def _pipeline(card: ModelCard) -> Mapping[str, Any]:
    """What ``tellframe bench`` left on the card."""
    return next((part(card.measured, key) for key in card.measured if "total_ms" in part(card.measured, key)), {})


def _where(cards: Sequence[ModelCard]) -> str:
    devices = {str(_pipeline(card).get("device", "")) for card in cards} - {""}
    return f", measured on {' and on '.join(sorted(devices))}" if devices else ""


def arms_html(reports: Reports, cards: Sequence[ModelCard]) -> str:
    """The models on one machine in one run, taking turns: the only way to compare times."""
    times = ("Score p50, ms", "Faster (95 % interval)")
    head = ("Model", "How it was made", *times, "MB", "Frame p50 / p95, ms", "AUC (95 % interval)")
    aucs = {card.name: _auc(card) for card in cards}
    rows = [
        (
            row["name"],
            _ARMS[row["kind"]],
            f"{row['score_ms']['p50_ms']:.1f}",
            _faster(row["score_ms"]),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['whole_frame_ms']['p50']:.1f} / {row['whole_frame_ms']['p95']:.1f}"
            if row["whole_frame_ms"]
            else "-",
            aucs.get(row["name"], "not measured"),
        )
        for row in reports.comparison["models"]
    ]
    device, settings = reports.comparison["device"], reports.comparison["settings"]
    return table_html("The models side by side", head, rows, "tf-wide") + note_html(
        f"All in one run on {device['cpu']}, {device['cores']} cores, one thread, taking turns: {settings['runs']} "
        f"scores and {settings['frames']} frames of each (assets/hqp/comparison.json). Score: the network alone, on "
        "one face. Frame: from finding the face to the verdict. AUC: from the models' cards."
    )


def _faster(ms: Mapping[str, float]) -> str:
    if ms["ratio_low"] == ms["ratio_high"] == ms["ratio"] == 1:
        return "1"
    return f"{ms['ratio']:.2f} ({ms['ratio_low']:.2f}-{ms['ratio_high']:.2f})"


def policy_html(reports: Reports) -> str:
    """What became of every block: channels kept of all, bits, or left out."""
    removed = [_block_name(block) for block in reports.blocks if block.removed]
    size = reports.policy["input_size"]
    words = (
        f"In the order in which a picture of {size} x {size} pixels passes through them. Left out whole: "
        f"{', '.join(removed) or 'none'}."
    )
    table = table_of(
        "What was decided for every block",
        ("Block", "Channels kept", "Bits"),
        [(_block_name(block), *_block_cells(block)) for block in reports.blocks],
        "tf-policy",
    )
    source = (
        "From assets/hqp/policy.json and report.json. Channels: those that may go; others hold blocks together. Bits: "
        "of the weights of each layer that is left."
    )
    return f"<p>{escape(words)}</p>{table}{note_html(source)}"


def _block_name(block: Block) -> str:
    return block.name.removeprefix("blocks.")


def _block_cells(block: Block) -> tuple[str, str]:
    bar = f'<span class="tf-bar" aria-hidden="true"><span style="width:{100 * block.kept_share:.1f}%"></span></span>'
    if block.removed:
        return f'{bar} <span class="tf-gone">none: left out</span>', "-"
    kept = ", ".join(f"{kept} of {every}" for kept, every in block.channels)
    words = f"{kept} ({block.kept_share:.0%})" if kept else "all"
    return f"{bar} <span>{words}</span>", " / ".join(map(str, block.bits)) or "float"


def _counted(bits: Iterable[int]) -> str:
    """The bit-widths there are, the most frequent first: ``8``, or ``8, 6 and 4``."""
    widths = [str(width) for width, _ in Counter(bits).most_common()]
    return " and ".join([", ".join(widths[:-1]), widths[-1]] if len(widths) > 1 else widths)
