"""Style and behaviour of a report's page."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 16px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 12px 0; }
h2 { font-size: 21px; margin: 40px 0 4px; }
h3 { font-size: 15px; margin: 0 0 6px; }
.findings { max-width: 92ch; }
.findings span { display: block; margin: 0 0 6px; }
.findings span:last-child { color: #4a4a4a; font-size: 14px; }
.note { max-width: 85ch; color: #4a4a4a; font-size: 14px; margin: 0 0 10px; }
.missing { border-left: 4px solid #D55E00; padding: 2px 14px; font-size: 14px; margin: 12px 0;
  overflow-wrap: anywhere; }
.missing p, .missing ul { margin: 6px 0; }
.controls { position: sticky; top: 0; z-index: 5; background: #fff; border-bottom: 1px solid #d8d8d8; padding: 8px 0; }
.chips { display: flex; flex-wrap: wrap; gap: 6px; }
.chip { display: inline-flex; align-items: center; gap: 6px; max-width: 320px; border: 1px solid #c4c4c4;
  border-radius: 14px; background: #fff; color: inherit; font: inherit; font-size: 13px;
  padding: 2px 10px; cursor: pointer; }
.chip[aria-pressed="false"] { opacity: 0.45; text-decoration: line-through; }
.chip .swatch { flex: none; font-size: 14px; line-height: 1; }
.chip:focus-visible, select:focus-visible, summary:focus-visible { outline: 2px solid #0072B2; outline-offset: 1px; }
.point, .choice { display: inline-block; font-size: 14px; margin: 0 0 8px; }
select { font: inherit; font-size: 14px; padding: 3px 6px; max-width: 100%;
  border: 1px solid #8a8a8a; border-radius: 4px;  background: #fff; color: inherit; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 18px; }
.card { border: 1px solid #e0e0e0; border-radius: 6px; padding: 12px 12px 8px; min-width: 0; }
.card p { font-size: 13px; color: #4a4a4a; margin: 4px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 12px; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
thead th { font-weight: 600; color: #4a4a4a; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody th { font-weight: 600; white-space: normal; min-width: 130px; overflow-wrap: anywhere; }
.facts td, details td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
details td { white-space: nowrap; }
details .facts td { white-space: normal; }
.facts tbody th { min-width: 110px; font-weight: 500; vertical-align: top; }
details { margin: 12px 0; }
summary { cursor: pointer; }
code { font-size: 12px; }
[hidden] { display: none; }
@media (max-width: 600px) {
  body { font-size: 15px; }
  main { padding: 8px 14px 48px; }
  h1 { font-size: 23px; }
  h2 { font-size: 19px; margin-top: 30px; }
  .card { padding: 10px 6px 6px; }
  .card h3 { padding-left: 4px; }
  .controls { padding: 6px 0; }
  .chips { flex-wrap: nowrap; overflow-x: auto; padding-bottom: 4px; }
  .chip { flex: none; max-width: 220px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  th, td { padding: 5px 8px; }
  tbody th { max-width: 140px; }
}
@media print { .controls { position: static; } .card { break-inside: avoid; } }
"""

SCRIPT = r"""
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const hidden = new Set();
  const panel = document.getElementById("panel");
  const sections = [...document.querySelectorAll("section")].filter((section) => figures[section.id]);
  const shown = (figure) => figure.data.filter((trace) => !hidden.has(trace.meta.variation));
  const config = { displayModeBar: false };

  const widths = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const plot = entry.target.querySelector(".plot");
      if (plot.data && plot.clientWidth !== plot._fullLayout.width) Plotly.Plots.resize(plot);
    }
  });

  function chosen(section) {
    const at = section.dataset.all === "true" ? "-1" : panel ? panel.value : "0";
    return figures[section.id][at + "|" + section.dataset.choice] || [];
  }
  function fitted(annotations, width) {  // names of rows give way to the words beside them
    return annotations.map((one, number) => {
      const next = annotations[number + 1];
      if (!one.text.startsWith("<b>") || !next || one.text.includes("&")) return one;
      const room = Math.floor((width - 6.2 * next.text.length - 40) / 7.3);
      const name = one.text.slice(3, -4);
      return name.length <= room ? one : { ...one, text: "<b>" + name.slice(0, Math.max(room - 1, 8)) + "\u2026</b>" };
    });
  }
  function draw(section) {
    if (!section.dataset.seen) return;
    const cards = section.querySelector(".cards");
    const wanted = chosen(section);
    while (cards.children.length > wanted.length) {
      widths.unobserve(cards.lastChild);
      Plotly.purge(cards.lastChild.querySelector(".plot"));
      cards.lastChild.remove();
    }
    while (cards.children.length < wanted.length) {
      const card = document.createElement("div");
      card.className = "card";
      for (const [tag, name] of [["h3", ""], ["div", "plot"], ["p", ""]]) {
        const part = document.createElement(tag);
        part.className = name;
        card.append(part);
      }
      cards.append(card);
      widths.observe(card);
    }
    wanted.forEach((figure, number) => {
      const card = cards.children[number];
      const plot = card.querySelector(".plot");
      card.querySelector("h3").textContent = figure.title;
      card.querySelector("p").textContent = figure.note;
      plot.style.height = figure.height + "px";
      const layout = { ...figure.layout, height: figure.height };
      layout.annotations = fitted(layout.annotations || [], plot.clientWidth);
      Plotly.react(plot, shown(figure), layout, config);
    });
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.seen) {
        entry.target.dataset.seen = "yes";
        draw(entry.target);
      }
    }
  }, { rootMargin: "800px" });
  const all = () => sections.forEach(draw);
  for (const section of sections) {
    const choice = section.querySelector(".choice select");
    if (choice) choice.addEventListener("change", () => { section.dataset.choice = choice.value; draw(section); });
    near.observe(section);
  }
  if (panel) panel.addEventListener("change", () => {
    document.querySelectorAll("[data-panel]").forEach((one) => { one.hidden = one.dataset.panel !== panel.value; });
    all();
  });
  document.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", () => {
    const name = chip.dataset.variation;
    if (!hidden.delete(name)) hidden.add(name);
    chip.setAttribute("aria-pressed", String(!hidden.has(name)));
    for (const row of document.querySelectorAll("tr[data-variation]")) row.hidden = hidden.has(row.dataset.variation);
    all();
  }));
  window.addEventListener("beforeprint", () => { sections.forEach((s) => { s.dataset.seen = "yes"; }); all(); });
})();
"""
