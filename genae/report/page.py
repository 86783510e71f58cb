"""A report as one HTML file: pictures inside it, its own small style sheet, light and dark, nothing fetched from anywhere."""

import base64
from collections.abc import Sequence
from html import escape

from genae.claims import Verdict
from genae.report.beside import BESIDE, KEY, beside
from genae.report.build import Picture, Report
from genae.report.grid import (
    LIKELIHOODS,
    PROVENANCE,
    Grid,
    Printed,
    caption,
    caption_of,
    claims_key,
    facts,
    grid,
    order_key,
    orders,
    protocols,
    provenance,
)
from genae.report.text import order_chart

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #ffffff; --ink: #1d2127; --soft: #626b76; --line: #e3e1dc;
  --accent: #1f5fae; --best: #e6f0fb; --word: #a3600c; --theirs: #f5f3ee;
  --holds: #1d7a4f; --fails: #b3362b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e4e7eb; --soft: #98a1ac;
  --line: #2f353d; --accent: #7fb2f0; --best: #1d3350; --word: #e0a458; --theirs: #20252c;
  --holds: #6cc79a; --fails: #f08a7e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 48px 28px 72px; }
header .eyebrow { color: var(--accent); font-weight: 600; font-size: .84rem; letter-spacing: .02em; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .25rem 0 .5rem; letter-spacing: -.015em; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.8rem 0 .6rem; }
.lead, .soft, figcaption, footer { color: var(--soft); }
.lead { margin: 0; max-width: 70ch; }
.facts { display: flex; flex-wrap: wrap; gap: 10px 30px; margin: 1.4rem 0 1.6rem; padding: 0; }
.facts div { display: flex; flex-direction: column; }
.facts dt { color: var(--soft); font-size: .78rem; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 12px; text-align: right; white-space: nowrap; }
th { font-weight: 600; font-size: .84rem; vertical-align: bottom; }
thead th { border-bottom: 1px solid var(--line); white-space: normal; min-width: 4.5rem; max-width: 15rem; }
thead tr.groups th { color: var(--soft); text-align: center; border-bottom-width: 1px; padding-bottom: 5px; font-size: .78rem; }
tbody th { font-size: .95rem; white-space: normal; min-width: 8.5rem; position: sticky; left: 0; background: var(--card); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.start { border-left: 1px solid var(--line); }
td.paper, th.paper { background: var(--theirs); color: var(--soft); }
td.difference { color: var(--soft); }
td.word { color: var(--word); font-size: .88rem; }
td.dash { color: var(--soft); }
td.best { font-weight: 700; background: var(--best); }
sup { font-size: .68em; line-height: 0; margin-left: 2px; color: var(--word); font-weight: 400; }
.under { font-size: .88rem; color: var(--soft); margin: .9rem 0 0; max-width: 90ch; }
.under p { margin: .3rem 0; }
.orders { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(350px, 100%), 1fr)); gap: 16px; }
.orders .soft { font-size: .84rem; margin-bottom: .5rem; }
.orders > div { padding: 16px 18px; }
.orders h3 { margin: 0 0 .3rem; font-size: .95rem; }
.orders p { margin: .5rem 0 0; font-size: .9rem; }
.orders img { width: 100%; max-width: 430px; }
table.beside td { font-size: .88rem; }
table.beside td:nth-last-child(-n+2) { text-align: left; white-space: normal; min-width: 10rem; }
table.claims th, table.claims td { text-align: left; vertical-align: top; white-space: normal; font-size: .88rem; }
table.claims tbody th { min-width: 0; font-size: .88rem; white-space: nowrap; }
table.claims td { width: 32%; min-width: 13rem; font-size: .88rem; }
table.claims code { font-size: .78rem; color: var(--soft); overflow-wrap: anywhere; }
.holds { color: var(--holds); }
.fails { color: var(--fails); }
.undecided { color: var(--soft); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 22px 24px; }
figure { margin: 0; }
.gallery img { display: block; max-width: 100%; border-radius: 6px; border: 1px solid var(--line); }
.gallery img.small { image-rendering: pixelated; }
figcaption { font-size: .84rem; margin-top: .45rem; max-width: 64ch; }
.curves { padding: 14px 18px; margin-top: 16px; }
.curves img { max-width: 100%; }
img { height: auto; }
dl.protocol { margin: 0; padding: 4px 18px; }
dl.protocol div { padding: 10px 0; }
dl.protocol div + div { border-top: 1px solid var(--line); }
dl.protocol dt { font-weight: 600; font-size: .92rem; }
dl.protocol dd { margin: .15rem 0 0; color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
details > summary { cursor: pointer; font-weight: 600; margin: .2rem 0 .8rem; }
details table { font-size: .84rem; }
details td, details th { text-align: left; padding: 7px 11px; font-weight: 400; }
details thead th { font-weight: 600; min-width: 0; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .88em; }
pre { padding: 14px 18px; margin: 0; overflow-x: auto; }
footer { margin-top: 3rem; font-size: .84rem; }
@media print { body { background: none; } main { max-width: none; padding: 0; } .card { border-radius: 0; } }
"""

GALLERY_WIDTH = 440


def html(report: Report) -> str:
    """The page."""
    table = grid(report)
    parts = [
        _header(report),
        _table(table) if report.measures or table.footnotes else "",
        _under(report, table),
        _beside(report),
        _orders(report),
        _claims(report),
        _pictures(report),
        _protocols(report),
        _provenance(report),
        f'<h2>Run it again</h2><div class="card"><pre>{escape(report.command)}</pre></div>',
        _footer(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    lead = "".join(f'<p class="lead">{escape(text)}</p>' for text in (report.source, report.caption) if text)
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts(report))
    return (
        f'<header><div class="eyebrow">{escape(report.table)}</div><h1>{escape(report.title)}</h1>{lead}'
        f'<dl class="facts">{shown}</dl></header>'
    )


def _table(table: Grid) -> str:
    starts = {0}
    for _, width in table.groups:
        starts.add(max(starts) + width)
    theirs = [cell.kind == "paper" for cell in table.lines[0]] if table.lines else []
    groups = ""
    if any(title for title, _ in table.groups):
        spans = [
            f'<th colspan="{width}" class="{"start" if index else ""}" scope="colgroup">{_header_text(title)}</th>'
            for index, (title, width) in enumerate(table.groups)
        ]
        groups = f'<tr class="groups">{"".join(spans)}</tr>'
    headers = "".join(
        f'<th scope="col" class="{_classes(index in starts and index, index < len(theirs) and theirs[index] and "paper")}">'
        f"{_header_text(header)}</th>"
        for index, header in enumerate(table.headers)
    )
    lines = "".join(
        f"<tr>{''.join(_cell(cell, index in starts) for index, cell in enumerate(line))}</tr>" for line in table.lines
    )
    return f'<div class="card"><table><thead>{groups}<tr>{headers}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(cell: Printed, start: bool) -> str:
    marks = "".join(f"<sup>{mark}</sup>" for mark in cell.marks)
    if cell.kind == "label":
        return f'<th scope="row">{escape(cell.text)}{marks}</th>'
    hint = f' title="{escape(cell.hint)}"' if cell.hint else ""
    return f'<td class="{_classes(start, cell.kind, cell.best and "best")}"{hint}>{escape(cell.text)}{marks}</td>'


def _header_text(text: str) -> str:
    """Escaped, the arrow kept on the line of the last word."""
    return escape(text).replace(" ↓", "&nbsp;↓").replace(" ↑", "&nbsp;↑")


def _classes(start: object, *names: str | bool) -> str:
    return " ".join([*(["start"] if start else []), *(name for name in names if isinstance(name, str))])


def _under(report: Report, table: Grid) -> str:
    said = [f"<p>{escape(' '.join(caption(report)))}</p>"] if caption(report) else []
    said += [f"<p><sup>{letter}</sup> {_with_code(text)}</p>" for letter, text in table.footnotes.items()]
    said += [f"<p>{escape(note)}</p>" for note in report.notes]
    return f'<div class="under">{"".join(said)}</div>' if said else ""


def _beside(report: Report) -> str:
    lines = beside(report)
    if not lines:
        return ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in BESIDE)
    body = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th>{"".join(f"<td>{escape(value)}</td>" for value in line[1:])}</tr>'
        for line in lines
    )
    return (
        f'<h2>Beside the scores</h2><div class="card"><table class="beside"><thead><tr>{heads}</tr></thead>'
        f'<tbody>{body}</tbody></table></div><div class="under"><p>{escape(KEY)}</p></div>'
    )


def _orders(report: Report) -> str:
    if not orders(report):
        return ""
    cards = [
        f'<div class="card"><h3>{escape(measure.header)}</h3><div class="soft">paper: {escape(measure.id)}</div>'
        f'<img alt="Ranks of the rows, the paper\'s and ours" src="{_uri(order_chart(report, measure.id), "svg+xml")}">'
        f"<p>{escape(said)}</p></div>"
        for measure, said in orders(report)
    ]
    return (
        f'<h2>Order of rows, ours against the paper\'s</h2><div class="orders">{"".join(cards)}</div>'
        f'<div class="under"><p>{escape(order_key(report))} Rows of swapped pairs are in colour.</p></div>'
    )


def _claims(report: Report) -> str:
    if not report.claims:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(judged.claim.id)}</th><td>{escape(judged.claim.text)} '
        f'<span class="soft">({escape(judged.claim.where)})</span><br><code>{escape(judged.claim.expression)}</code></td>'
        f"{_verdict(judged.ours)}{_verdict(judged.paper)}</tr>"
        for judged in report.claims
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("", "the paper says", "by our numbers", "by the paper's own"))
    return (
        f'<h2>Claims</h2><div class="card"><table class="claims"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
        f'</div><div class="under"><p>{escape(claims_key(report))}</p></div>'
    )


def _verdict(verdict: Verdict) -> str:
    return f'<td><strong class="{verdict.outcome}">{verdict.words}</strong><br>{escape(verdict.reason)}</td>'


def _pictures(report: Report) -> str:
    parts = []
    if report.likelihoods:
        drawn = _uri(report.likelihoods, "svg+xml")
        parts.append(
            f'<figure class="card curves"><img alt="Held-out log likelihood against seconds" src="{drawn}">'
            f"<figcaption>{escape(LIKELIHOODS)}</figcaption></figure>"
        )
    for row, label in report.rows.items():
        mine = [_figure(picture) for picture in report.pictures if picture.row == row]
        if mine or row in report.curves:
            parts.append(f"<h3>{escape(label)}</h3>")
        if mine:
            parts.append(f'<div class="gallery">{"".join(mine)}</div>')
        if row in report.curves:
            said = "Loss terms, as weighted in the sum, against images seen. The axes cover 98 % of the values."
            drawn = _uri(report.curves[row], "svg+xml")
            parts.append(
                f'<figure class="card curves"><img alt="Loss terms of {escape(label)}" src="{drawn}">'
                f"<figcaption>{said}</figcaption></figure>"
            )
    return f"<h2>Pictures and loss curves</h2>{''.join(parts)}" if parts else ""


def _figure(picture: Picture) -> str:
    said = escape(caption_of(picture))
    factor = max(1, GALLERY_WIDTH // picture.width)  # whole, so that small pictures keep square pixels
    kind = ' class="small"' if factor > 1 else ""
    return (
        f'<figure><img{kind} alt="{said}" width="{picture.width * factor}" src="{_uri(picture.png, "png")}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _protocols(report: Report) -> str:
    listed = "".join(f"<div><dt>{escape(header)}</dt><dd>{escape(said)}</dd></div>" for header, said in protocols(report))
    return f'<h2>Protocol</h2><dl class="card protocol">{listed}</dl>' if listed else ""


def _provenance(report: Report) -> str:
    lines: Sequence[tuple[str, ...]] = provenance(report)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in PROVENANCE)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{f'<code>{escape(value)}</code>' if name in ('identity', 'checkpoint') else escape(value)}</td>"
            for name, value in zip(PROVENANCE, line, strict=True)
        )
        + "</tr>"
        for line in lines
    )
    return (
        f"<h2>Provenance</h2><details><summary>{len(lines)} runs: identity, checkpoint, code, machine</summary>"
        f'<div class="card"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _footer(report: Report) -> str:
    published = f"Published numbers: {escape(report.source)}. " if report.source and report.has_published else ""
    return f"<footer>{published}Every number of ours is a view of a record, drawn by genae.</footer>"


def _uri(contents: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(contents).decode()}"


def _with_code(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    return "".join(f"<code>{escape(part)}</code>" if index % 2 else escape(part) for index, part in enumerate(text.split("`")))
