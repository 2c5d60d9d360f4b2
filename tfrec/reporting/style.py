"""The page's style: system fonts, light and dark, phones and paper.

The colours of the series are those of Okabe and Ito (Color Universal Design, 2008), which people with any kind of
colour vision tell apart; dashes and shapes of points tell them apart on paper.
"""

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d0d7de; --fill: #f3f5f7;
  --model: #0072b2; --popularity: #b34700; --oracle: #00795a; --hit: #e3f2ea; --bar: #5a8fb8; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --ink: #e6e8eb; --soft: #a3adb8; --rule: #3a424c;
  --fill: #1e2329; --model: #56b4e9; --popularity: #f0a44b; --oracle: #3fc79a; --hit: #173527; --bar: #4f86b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--bg); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.6rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .1rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { color: var(--soft); }
.verdict { font-size: 1.15rem; line-height: 1.45; margin: 1.1rem 0 .6rem; padding: .7rem .9rem; background: var(--fill);
  border-left: 4px solid var(--model); max-width: 50rem; }
.verdict p { margin: 0; max-width: none; }
.note { color: var(--soft); font-size: .85rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: .8rem 0 0; padding: 0;
  font-size: .9rem; }
a { color: var(--model); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .9rem 0; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--model); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums lining-nums; font-size: .92rem; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding: 0 0 .3rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 500; }
th.n, td.n { text-align: right; padding: .28rem 0 .28rem 1.1rem; }
td.n, .whole { white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.25; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.2rem 2rem;
  margin: 1rem 0; }
figure { margin: 0; max-width: 34rem; min-width: 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: .95rem; }
.key { display: flex; flex-wrap: wrap; gap: 0 1rem; list-style: none; margin: .1rem 0; padding: 0; font-size: .85rem;
  color: var(--soft); }
.swatch { width: 1.6rem; height: .8rem; margin-right: .35rem; vertical-align: -.05rem; display: inline-block; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums lining-nums; }
.grid { stroke: var(--rule); stroke-width: .7; fill: none; }
.axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.marker { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; fill: none; }
.bar { fill: var(--bar); }
.line { fill: none; stroke: var(--ink); stroke-width: 1.8; stroke-linejoin: round; }
.whisker { fill: none; stroke: var(--ink); stroke-width: 1.6; }
.point { fill: var(--ink); }
.line.model, .whisker.model { stroke: var(--model); } .point.model { fill: var(--model); }
.line.popularity, .whisker.popularity { stroke: var(--popularity); } .point.popularity { fill: var(--popularity); }
.line.popularity { stroke-dasharray: 6 3; }
.line.oracle, .whisker.oracle { stroke: var(--oracle); } .point.oracle { fill: var(--oracle); }
.line.oracle { stroke-dasharray: 2 3; }
.line.targets { stroke: var(--soft); stroke-dasharray: 8 2 2 2; } .point.targets { fill: var(--soft); }
.line.even { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.people { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.person { border: 1px solid var(--rule); border-radius: 6px; padding: .8rem .9rem; min-width: 0; break-inside: avoid;
  font-size: .9rem; overflow-wrap: anywhere; }
.person h4 { font-size: .8rem; font-weight: 600; margin: .6rem 0 .1rem; color: var(--soft); }
.person ol, .person ul { margin: 0; padding-left: 1.9rem; }
.person ul { padding-left: 1.1rem; }
.person li { padding: .04rem .25rem; }
.person li.hit { background: var(--hit); font-weight: 600; }
.person li.hit::after { content: " ✓"; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
details { margin: .7rem 0; }
summary { cursor: pointer; font-weight: 600; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; max-width: 50rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 30rem) { body { padding: 1rem .8rem 3rem; } th.n, td.n { padding-left: .7rem; }
  table { font-size: .85rem; } td.n small { white-space: normal; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  section { break-inside: auto; } h2 { break-after: avoid; } .person, tr { break-inside: avoid; } }
"""
