"""The look of all pages: calm, light or dark as the reader's system is, good on paper and on narrow screens.

One accent colour, the system's own fonts; text has a contrast of at least 4.5 to what is behind it, in both. Lines of a
chart differ in how they are dashed as well as in colour.
"""

LIGHT = """--paper:#fafaf8;--card:#fff;--ink:#1c2127;--soft:#57606b;--rule:#dcdfe3;--accent:#1d5fb8;--wash:#e3ecf8;
--s1:#b3541e;--s2:#1b7a4b;--s3:#7b3fa0;--s4:#8a6a00;--s5:#b3246b;--s6:#2a7f8e;--s7:#57606b"""
DARK = """--paper:#14171b;--card:#1b1f25;--ink:#e4e7ea;--soft:#a2abb6;--rule:#343b44;--accent:#86b6fa;--wash:#213149;
--s1:#f0a070;--s2:#6fd3a0;--s3:#cda2ec;--s4:#e0c060;--s5:#f291bd;--s6:#79ccd9;--s7:#a2abb6"""
RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:70rem;margin:0 auto;padding:2rem 1.25rem 3rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .4rem;font-weight:650;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:0 0 .75rem;font-weight:650}
h3{font-size:1rem;margin:1.5rem 0 .5rem;font-weight:650}
p{margin:0 0 .75rem;max-width:46rem}
.note,figcaption,footer,caption{color:var(--soft);font-size:.875rem}
section{border-top:1px solid var(--rule);padding-top:1.5rem;margin-top:2rem}
.state{display:inline-block;background:var(--wash);color:var(--accent);border-radius:1rem;padding:0 .7rem;
font-weight:600;margin-right:.4rem}
dl{margin:0}dd{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin-top:1.25rem}
.figures div{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.7rem .9rem}
.figures dt{color:var(--soft);font-size:.875rem}
.figures b{display:block;font-size:1.45rem;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}
.figures span{color:var(--soft);font-size:.875rem}
.facts div{display:grid;grid-template-columns:11rem 1fr;gap:.25rem 1rem;padding:.3rem 0;
border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft)}.facts+p{margin-top:1.25rem}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1.5rem 2rem}
.beside>div{min-width:0}
figure{margin:0 0 1rem}
.chart{max-width:36rem}
figure>svg{display:block;width:100%;height:auto}
img{display:block;max-width:100%;height:auto;border-radius:.25rem}
.wide img{min-width:44rem;background:#fff}
.pixels img{image-rendering:pixelated}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:0 0 .75rem;min-width:min(24rem,100%);overflow-wrap:normal}
caption{text-align:left;padding:.25rem 0}
th,td{text-align:left;padding:.3rem 1.25rem .3rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
thead th{color:var(--soft);font-weight:600;font-size:.875rem;vertical-align:bottom}
tbody th{font-weight:400}
.figure,.share{font-variant-numeric:tabular-nums}td.figure{white-space:nowrap}.figure{text-align:right}
.share{min-width:9rem;background:linear-gradient(var(--wash),var(--wash)) 0 50%/calc(var(--share)*.9) 70% no-repeat}
pre{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.7rem .9rem;overflow-x:auto;
font:.875rem/1.5 ui-monospace,monospace}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--accent)}
.tiles{list-style:none;margin:0;padding:0;display:grid;gap:1rem .9rem;
grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr))}
.tiles img,.gone{width:100%;aspect-ratio:1;object-fit:contain}
.gone{background:var(--wash);display:grid;place-items:center;text-align:center;border-radius:.25rem;color:var(--soft);font-size:.8rem}
.tiles span{display:block;font-size:.8rem;line-height:1.35;margin-top:.3rem}
.legend{list-style:none;margin:.4rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.875rem}
.legend svg{width:2.2rem;height:.8rem;margin-right:.4rem;vertical-align:middle}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg .grid{stroke:var(--rule)}svg .drop{stroke:var(--soft);stroke-dasharray:1 3}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round}
svg .dot{stroke:none}
.s0{stroke:var(--accent);fill:var(--accent)}.s1{stroke:var(--s1);fill:var(--s1);stroke-dasharray:7 4}
.s2{stroke:var(--s2);fill:var(--s2);stroke-dasharray:2 3}.s3{stroke:var(--s3);fill:var(--s3);stroke-dasharray:9 3 2 3}
.s4{stroke:var(--s4);fill:var(--s4);stroke-dasharray:12 4}.s5{stroke:var(--s5);fill:var(--s5);stroke-dasharray:4 4}
.s6{stroke:var(--s6);fill:var(--s6);stroke-dasharray:1 4}
.s7{stroke:var(--s7);fill:var(--s7);stroke-dasharray:9 3 2 3 2 3}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
footer{margin-top:2.5rem;border-top:1px solid var(--rule);padding-top:.75rem}
@media (max-width:36rem){main{padding:1.25rem .9rem 2rem}h1{font-size:1.4rem}.facts div{grid-template-columns:1fr;gap:0}
.tiles{grid-template-columns:repeat(auto-fill,minmax(6rem,1fr))}.figures{grid-template-columns:1fr 1fr}
.figures b{font-size:1.2rem}th,td{padding-right:.8rem}}
@media print{body{background:#fff;font-size:11pt}main{max-width:none;padding:0}section,figure,li,tr{break-inside:avoid}
.scroll{overflow:visible}pre{white-space:pre-wrap}*{print-color-adjust:exact}}
"""
STYLE = (
    f":root{{color-scheme:light dark;{LIGHT}}}\n@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}\n"
    f"@media print{{:root{{color-scheme:light;{LIGHT}}}}}{RULES}"
)
