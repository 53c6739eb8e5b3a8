"""How the page of an evaluation looks: light or dark as the reader's system is, one column on a phone."""

from __future__ import annotations

CSS = """:root {
  color-scheme: light dark;
  --back: #ffffff; --card: #f4f6f8; --ink: #1b2128; --soft: #55606c; --grid: #d9dee4;
  --real: #0072b2; --fake: #d55e00; --clips: #00785a; --frames: #b0528a; --pictures: #b97a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14181d; --card: #1e242b; --ink: #e6eaee; --soft: #a3adb8; --grid: #37404a;
    --real: #56b4e9; --fake: #ff8c42; --clips: #2fc79a; --frames: #e79ac4; --pictures: #e69f00;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
header p { margin: .25rem 0 1.25rem; color: var(--soft); overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem; }
.tile { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; }
.tile h3 { margin: 0; font-size: .875rem; font-weight: 600; }
.tile p { margin: 0; color: var(--soft); font-size: .8125rem; }
.tile .big { color: var(--ink); font-size: 1.75rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem; }
figure { margin: 1rem 0; max-width: 40rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: system-ui, sans-serif !important; }
figcaption { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.number { text-align: right; white-space: nowrap; }
th.number { white-space: normal; }
td:not(.number) { overflow-wrap: anywhere; min-width: 6rem; }
@media (max-width: 40rem) { .number { white-space: normal; } th, td { padding-right: .6rem; } }
details { margin: .5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
li { margin: .25rem 0; overflow-wrap: anywhere; }
"""
