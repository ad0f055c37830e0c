"""The page of a study's report: one HTML file with everything in it, which asks no network for anything."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plotly.offline import get_plotlyjs

from tightwire.studies.comparison import JOULES, SECONDS, TOTAL, UP, Comparison, Panel, Variation
from tightwire.studies.findings import LEADS, findings
from tightwire.studies.outcomes import Missing, TrialResult
from tightwire_pipelines.report_figures import colour, figure, glyph, height
from tightwire_pipelines.report_look import SCRIPT, STYLE
from tightwire_pipelines.report_sections import Section
from tightwire_pipelines.units import clock, joules, megabytes

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: the browser itself sees to it that nothing is fetched."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a page shows."""

    title: str
    comparison: Comparison
    sections: tuple[Section, ...]
    missing: tuple[Missing, ...] = ()
    made_with: Mapping[str, str] | None = None
    """Versions of what made the report."""


def page(report: Report) -> str:
    """The whole page, as text."""
    comparison = report.comparison
    figures = {section.key: _figures(section, comparison.names) for section in report.sections}
    ordered = list(report.sections)
    headline = [section for section in ordered if section.key == "headline"]
    body = [
        f"<h1>{html.escape(report.title)}</h1>",
        _paragraph(findings(comparison)),
        _missing(report.missing),
        _controls(comparison),
        *(_section(section) for section in headline),
        _tables(comparison),
        *(_section(section) for section in ordered if section not in headline),
        _provenance(report),
    ]
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f'\n</main>\n<script type="application/json" id="figures">{data}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _paragraph(sentences: Sequence[str]) -> str:
    """The findings: one paragraph, a sentence a line, what each is about in bold."""
    lines = []
    for sentence in sentences:
        lead, comma, rest = sentence.partition(",")
        bold = comma and sentence.startswith(LEADS)
        text = f"<strong>{html.escape(lead)}</strong>,{html.escape(rest)}" if bold else html.escape(sentence)
        lines.append(f"<span>{text.replace(' %', '&nbsp;%').replace(' = ', '&nbsp;=&nbsp;')}</span>")
    return f'<p class="findings">{" ".join(lines)}</p>'


def _figures(section: Section, names: Sequence[str]) -> dict[str, list[dict[str, object]]]:
    return {
        f"{panel}|{choice}": [
            {"title": chart.title, "note": chart.note, "height": height(chart), **figure(chart, names)}
            for chart in charts
        ]
        for (panel, choice), charts in section.charts.items()
    }


def _controls(comparison: Comparison) -> str:
    """The legend, which is also a switch, and the choice of the point of the grid; they stay in sight."""
    chips = "".join(
        f'<button type="button" class="chip" data-variation="{html.escape(name)}" aria-pressed="true" '
        f'title="{html.escape(name)}">'
        f'<span class="swatch" style="color:{colour(order)}">{glyph(order)}</span>{html.escape(name)}</button>'
        for order, name in enumerate(comparison.names)
    )
    choice = ""
    if len(comparison.panels) > 1:
        options = "".join(
            f'<option value="{number}">{html.escape(panel.label)}</option>'
            for number, panel in enumerate(comparison.panels)
        )
        choice = f'<label class="point">Shown at <select id="panel">{options}</select></label>'
    return f'<nav class="controls" aria-label="Variations">{choice}<div class="chips">{chips}</div></nav>'


def _section(section: Section) -> str:
    choice = ""
    if len(section.choices) > 1:
        options = "".join(f"<option>{html.escape(name)}</option>" for name in section.choices)
        choice = f'<label class="choice">{html.escape(section.asks)} <select>{options}</select></label>'
    everywhere = any(panel == -1 for panel, _ in section.charts)
    return (
        f'<section id="{section.key}" data-choice="{html.escape(section.choices[0])}" '
        f'data-all="{str(everywhere).lower()}"><h2>{html.escape(section.title)}</h2>'
        f'<p class="note">{html.escape(section.text)}</p>{choice}<div class="cards"></div></section>'
    )


def _tables(comparison: Comparison) -> str:
    tables = "".join(
        f'<div class="scroll panel" data-panel="{number}"{" hidden" if number else ""}>{_table(panel)}</div>'
        for number, panel in enumerate(comparison.panels)
    )
    how = "asked for" if comparison.chosen else "97 % of what the best variation reaches, where that is least"
    return (
        f'<section id="table"><h2>Variations</h2><p class="note">Means over seeds, &plusmn; half of the 95 % interval. '
        f"The target is {100 * comparison.target:g} % test accuracy ({how}); to the target are medians, with the seeds "
        f"that reached it.</p>{tables}</section>"
    )


def _table(panel: Panel) -> str:
    heads = ("variation", "accuracy", "up", "up and down", "time", "energy", "time to target", "up to target", "seeds")
    rows = "".join(_table_row(panel, variation) for variation in panel.variations)
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _table_row(panel: Panel, variation: Variation) -> str:
    accuracy = variation.accuracy
    share = "&ndash;" if accuracy.n == 0 else f"{100 * accuracy.mean:.2f} %"
    if accuracy.n > 1:
        share = f"{100 * accuracy.mean:.2f} &plusmn; {100 * accuracy.half:.2f} %"
    time, up = (variation.to_target(cost, panel.target) for cost in (SECONDS, UP))
    cells = [
        share,
        megabytes(variation.bill(UP).mean),
        megabytes(variation.bill(TOTAL).mean),
        clock(variation.bill(SECONDS).mean),
        joules(variation.bill(JOULES).mean),
        "&ndash;" if time.median is None else clock(time.median),
        "&ndash;" if up.median is None else megabytes(up.median),
        f"{time.reached} of {len(time.costs)}",
    ]
    name = f'<th scope="row">{html.escape(variation.name)}</th>'
    return (
        f'<tr data-variation="{html.escape(variation.name)}">{name}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    )


def _missing(missing: Sequence[Missing]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li><b>{html.escape(one.name)}</b>: {html.escape(one.why)}</li>" for one in missing)
    noun = "trial is" if len(missing) == 1 else "trials are"
    return f'<div class="missing"><p>{len(missing)} {noun} not in this report:</p><ul>{items}</ul></div>'


def _provenance(report: Report) -> str:
    trials = [t for panel in report.comparison.panels for variation in panel.variations for t in variation.trials]
    experiments = sorted({trial.experiment for trial in trials if trial.experiment})
    shown = ", ".join(experiments[:3]) + (f" and {len(experiments) - 3} more" if len(experiments) > 3 else "")
    facts = {
        "runs": str(len(trials)),
        "seeds": ", ".join(str(seed) for seed in report.comparison.seeds),
        "experiment": shown,
        "rounds": ", ".join(sorted({str(len(trial.curve.rounds)) for trial in trials})),
        "runs made with": _versions([trial.versions for trial in trials]),
        "report made with": _versions([report.made_with or {}]),
    }
    rows = "".join(
        f'<tr><th scope="row">{key}</th><td>{html.escape(value)}</td></tr>' for key, value in facts.items() if value
    )
    return (
        f'<section id="provenance"><h2>Provenance</h2><table class="facts"><tbody>{rows}</tbody></table>'
        f"{_digests(trials)}{_config(trials)}</section>"
    )


def _digests(trials: Sequence[TrialResult]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(trial.variation)}</td><td>{html.escape(_point(trial))}</td><td>{trial.seed}</td>"
        f"<td><code>{html.escape(trial.digest or 'unknown')}</code></td></tr>"
        for trial in trials
    )
    head = "<tr><th>variation</th><th>at</th><th>seed</th><th>digest of model, ledger and decisions (SHA-256)</th></tr>"
    return (
        f'<details><summary>Digests</summary><div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody>'
        "</table></div></details>"
    )


def _config(trials: Sequence[TrialResult]) -> str:
    """What all trials have in common, and which keys differ."""
    keys = dict.fromkeys(key for trial in trials for key in trial.config)
    values = {key: list(dict.fromkeys(trial.config.get(key, "") for trial in trials)) for key in keys}
    rows = "".join(
        f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(" / ".join(found[:12]))}'
        f"{' and more' if len(found) > 12 else ''}</td></tr>"
        for key, found in values.items()
        if key != "name"
    )
    if not rows:
        return ""
    return (
        '<details><summary>Configuration</summary><div class="scroll"><table class="facts">'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _versions(found: Sequence[Mapping[str, str]]) -> str:
    pairs = dict.fromkeys((key, value) for versions in found for key, value in sorted(versions.items()))
    return ", ".join(f"{key} {value[:12]}" for key, value in pairs)


def _point(trial: TrialResult) -> str:
    return ", ".join(f"{key.split('.')[-1]} = {value}" for key, value in trial.axes.items())
