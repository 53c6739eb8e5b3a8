"""The look of the report: light and dark, narrow and wide, and in print."""

from typing import Final

CSS: Final = """:root {
  color-scheme: light dark;
  --back: #fff; --card: #f4f6f8; --ink: #1b2128; --soft: #55606c; --grid: #d3d9df;
}
.tf-REAL { --tone: #0072b2; } .tf-FAKE { --tone: #b34700; }
.tf-UNSURE { --tone: #7a5c00; } .tf-NO_FACE { --tone: #565d68; }
@media screen and (prefers-color-scheme: dark) {
  :root { --back: #14181d; --card: #1e242b; --ink: #e6eaee; --soft: #a3adb8; --grid: #3b444e; }
  .tf-REAL { --tone: #5ab4e8; } .tf-FAKE { --tone: #ff8a4c; }
  .tf-UNSURE { --tone: #e6b422; } .tf-NO_FACE { --tone: #a3abb8; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
p, ul, dl, figure { margin: .4rem 0; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h1 span { color: var(--soft); font-weight: 400; margin-right: .4em; }
h3 { font-size: 1.05rem; margin: 1.1rem 0 .35rem; padding-top: .55rem; border-top: 1px solid var(--grid); }
h4 { font-size: .9rem; margin: 0 0 .2rem; }
img { display: block; max-width: 100%; height: auto; }
.tf-badge { display: inline-flex; align-items: center; gap: .4em; color: var(--tone); font-weight: 700; }
.tf-icon {
  display: inline-flex; align-items: center; justify-content: center; width: 1.35em; height: 1.35em;
  border: 2px solid currentColor; border-radius: 50%; font-size: .8em; font-weight: 800; line-height: 1;
}
.tf-verdict {
  background: var(--card); border: 1px solid var(--grid); border-left: .4rem solid var(--tone); padding: .6rem 1rem;
}
.tf-verdict h2 { font-size: 1.5rem; margin: 0; }
.tf-sentence { font-size: 1.1rem; font-weight: 600; }
.tf-facts { font-variant-numeric: tabular-nums; }
.tf-limits, .tf-note { color: var(--soft); }
.tf-note { font-size: .85rem; }
.tf-cards, .tf-moments, .tf-segments { list-style: none; padding: 0; display: grid; gap: .6rem; }
.tf-cards { grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); }
.tf-card { display: flex; gap: .6rem; background: var(--card); border-left: .25rem solid var(--tone); padding: .5rem; }
.tf-card img { width: 72px; height: 72px; flex: none; }
.tf-card p { margin: 0; font-size: .8rem; }
.stretches { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; }
.tf-segments { margin: 0; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; font-variant-numeric: tabular-nums; }
.tf-moments { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr)); counter-reset: moment; }
.tf-moment { background: var(--card); padding: .5rem; counter-increment: moment; }
.tf-moment h4::before { content: counter(moment) ". "; }
.tf-moment > div { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; align-items: start; }
.tf-moment p { margin: .3rem 0 0; font-size: .85rem; }
svg { display: block; width: 100%; height: auto; background: var(--card); }
svg text {
  font: 12px system-ui, sans-serif; fill: var(--soft); paint-order: stroke; stroke: var(--card); stroke-width: 3px;
}
svg rect { fill: var(--tone); }
svg .stretch { fill: #d55e00; opacity: .18; }
.threshold { stroke: var(--soft); stroke-dasharray: 5 4; }
.line { fill: none; stroke: var(--ink); stroke-width: 1.6; stroke-linejoin: round; }
.dot { fill: var(--ink); }
.moment { stroke: var(--soft); }
figcaption { color: var(--soft); font-size: .8rem; margin-top: .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: minmax(0, 1.7fr) minmax(0, 1fr); gap: 0 1.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; }
td { white-space: nowrap; }
.misses { padding-left: 1.1rem; font-size: .9rem; }
@media screen and (max-width: 50rem) {
  .pair { display: block; }
  dl { display: block; }
  dd { margin: 0 0 .4rem; }
  svg text { font-size: 21px; }
  td { white-space: normal; }
}
@page { size: A4; margin: 8mm 12mm; }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  html { font-size: 10.5px; }
  body { font-size: 1rem; line-height: 1.3; }
  main { max-width: none; padding: 0; }
  h1 { margin-bottom: .4rem; }
  .tf-sentence { font-size: 1.05rem; }
  section, li, figure, tr { break-inside: avoid; }
  h3 { break-after: avoid; margin: .4rem 0 .2rem; padding-top: .3rem; }
  .tf-card img { width: 56px; height: 56px; }
  p, ul, dl, figure { margin: .2rem 0; }
  .tf-moments { grid-template-columns: repeat(3, 1fr); }
}
"""
