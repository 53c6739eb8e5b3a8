"""The Limits tab: what the detector catches and misses, and what its words mean, for people who quote it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from detector.card import ModelCard
from detector.types import Label
from webapp.cardfacts import AUC_WORDS, HELP, MISSES, SAID, WHY_UNSURE, ClipTest, clip_test, real_rule, tested
from webapp.job import Limits
from webapp.tables import note_html, table_html
from webapp.view import WORDS, badge_html

_KEPT_S = Limits().keep_s


def limits_html(card: ModelCard, keep_s: float = _KEPT_S) -> str:
    """The whole tab.

    Args:
        card: of the model that judges.
        keep_s: results are deleted after this time.
    """
    sections = (
        ("What the words mean", _words(card)),
        ("Why it may not be sure", _reasons()),
        ("What it catches", _catches(card)),
        ("What it misses", _listed(MISSES)),
        ("What a verdict is not", _is_not(card)),
        ("What happens to your video", _listed(_uploads(keep_s))),
    )
    body = "".join(f"<section><h3>{escape(title)}</h3>{text}</section>" for title, text in sections)
    return (
        '<div class="tf-prose"><h2>How far a verdict goes</h2><p class="tf-lead">A verdict is a hint for a person who '
        f"looks further. It is no proof, of either.</p>{body}</div>"
    )


def _words(card: ModelCard) -> str:
    real, fake = card.thresholds.real_below, card.thresholds.fake_above
    meanings = {
        Label.REAL: f"No sign of manipulation was found: p(fake) is below {real:.2f}. A manipulation that this model "
        "does not know looks the same.",
        Label.FAKE: f"The face bears traces like those that changing a face leaves: p(fake) is above {fake:.2f}. "
        "Ordinary causes can leave them too.",
        Label.UNSURE: "The scores, or the picture of the face, do not allow a word either way. The reason is given.",
        Label.NO_FACE: "No face was found. Nothing was judged.",
    }
    entries = "".join(
        f'<dt class="tf-{label.value}">{badge_html(label)} <code>{label.value}</code></dt><dd>{escape(meaning)}</dd>'
        for label, meaning in meanings.items()
    )
    scale = (
        "p(fake) is the score, from 0 to 1. It is no probability that this video is a forgery: that depends on how "
        "many forgeries there are where it comes from. A face is never judged by one frame. A video gets the word of "
        "its most suspicious face."
    )
    return f'<dl class="tf-words">{entries}</dl><p>{escape(scale)}</p>'


def _reasons() -> str:
    rows = [(_capital(reason), f"The face {why}.", _capital(HELP[reason])) for reason, why in WHY_UNSURE.items()]
    intro = f"“{WORDS[Label.UNSURE]}” is an answer, and often the right one. It always comes with its reason:"
    head = ("Reason", "What it means", "What would help")
    return f"<p>{escape(intro)}</p>{table_html('Reasons', head, rows, 'tf-stack')}"


def _catches(card: ModelCard) -> str:
    rows = [(_capital(what), *rest) for what, *rest in tested(card.measured)]
    if not rows:
        return f"<p>The card of {escape(card.name)} holds no test: how well it detects is not known.</p>"
    test = clip_test(card.measured)
    words = "" if test is None else f"<p>{escape(_in_words(card, test))}</p>"
    said = " / ".join(WORDS[label] for label in SAID)
    head = ("Tested on", "Fake / real", f"Said {said}", "AUC (95 % interval)")
    return f"{words}{table_html('Tests', head, rows)}{note_html(AUC_WORDS)}"


def _in_words(card: ModelCard, test: ClipTest) -> str:
    return (
        f"{card.name}, which judges here, was tried on {test.fakes} forged and {test.reals} real clips that it had not "
        f"learnt from. Of the forged ones it called {_counts(test.fakes_said)}. Of the real ones it called "
        f"{_counts(test.reals_said)}."
    )


def _counts(said: Mapping[str, int]) -> str:
    fake, unsure, real = (said.get(label, 0) or "none" for label in SAID)
    return f"{fake} fake and {real} real, and of {unsure} it was not sure"


def _is_not(card: ModelCard) -> str:
    lines = [
        "No proof that a video is forged: ordinary causes leave such traces too. No proof that it is real: a good "
        "forgery leaves few.",
        *_alarms(card),
        "Not about what is said or shown: a real face may speak words that were cut, translated or never said there.",
        "Not a verdict on a person, and not on who made the video or why.",
    ]
    last = (
        "Before you publish: look for the original and who first showed it, ask somebody who was there, and have an "
        "expert look. Quote the words with their score and their limits."
    )
    return f"{_listed(lines)}<p>{escape(last)}</p>"


def _alarms(card: ModelCard) -> Iterable[str]:
    """How many false alarms the threshold allows, as far as the card says."""
    rule = real_rule(card.measured)
    if rule is not None:
        passes, reals = rule
        yield (
            f"Not an alarm to trust by itself: the threshold was set so that at most {1 - passes:.0%} of {reals} real "
            f"test clips are called fake. Of 1,000 real videos that may be {1000 * (1 - passes):.0f}: where forgeries "
            "are rare, most alarms are false."
        )


def _uploads(keep_s: float) -> Iterable[str]:
    return (
        "A video goes to the computer that runs this page, and nowhere else. Nothing is sent to any other server, and "
        "nobody else who uses this page can see it.",
        "It is deleted there soon after it was judged. What was made of it (pictures, annotated video, tables, report) "
        f"is deleted when you judge another or close the page, and after {keep_s / 60:.0f} minutes in any case. Save "
        "what you want to keep.",
        "Live pictures of your camera are judged and forgotten, one by one. None is stored.",
    )


def _listed(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
