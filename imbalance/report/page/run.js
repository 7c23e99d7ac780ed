// The view of one run.
"use strict";
const dialog = document.getElementById("run");
let openedFrom = null;

function openRun(i) {
  const run = FACTS.runs[i], setting = FACTS.settings[run.setting];
  const details = JSON.parse(document.getElementById(`details-${i}`).textContent);
  document.getElementById("run-title").textContent = `${setting.label}, seed ${run.seed}`;
  if (!dialog.open) dialog.showModal(); // before its figures are drawn: they are as wide as it is
  const body = document.getElementById("run-body");
  body.replaceChildren(
    ...summaryOf(run, details),
    heading("Config: what differs between runs"), listOf(details.config),
    element("details", {}, element("summary", {}, `${Object.keys(FACTS.common).length} values that all runs share`), listOf(FACTS.common)),
    ...curvesOf(run, details), element("div", {class: "pair"}, confusionOf(details), calibrationOf(details)),
    ...errorsOf(details), ...numbersOf(details), heading("Counts"), ...countsOf(details),
    heading("Made with"), listOf({...details.made, ...details.made.versions, versions: undefined}),
    heading("Log"), element("pre", {tabindex: 0, "aria-label": "log.txt"}, details.log || "no log.txt"),
  );
  dialog.scrollTop = 0;
  document.getElementById("run-title").focus();
}

const heading = text => element("h3", {}, text);
function listOf(values) {
  const list = element("dl", {class: "settings"});
  const flat = Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, value && typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : value]));
  definitions(list, flat);
  return list;
}

function summaryOf(run, details) {
  const metric = FACTS.metrics[chosen.metric];
  const line = element("p", {}, element("span", {class: run.status}, run.status),
    run.status === "done" ? `: test ${metric.label} ${numberText(valueOf(run, chosen.metric, FACTS.rules[0].name), metric)}, score ${numberText(run.score, {percent: true})}, epoch ${run.selected} selected, ${run.seconds} s` : details.reason ? `: ${details.reason}` : "");
  const warnings = run.warnings.length ? element("ul", {class: "few"}, ...run.warnings.map(text => element("li", {}, text))) : null;
  const copy = element("button", {type: "button", onclick: () => navigator.clipboard?.writeText(details.command)}, "Copy");
  return [line, warnings, element("p", {}, element("code", {}, details.command), " ", copy)].filter(Boolean);
}

function curvesOf(run, details) {
  const plot = details.curves.epoch?.length > 1 ? curvePlot([{curves: details.curves, title: "", selected: run.selected ? [run.selected] : []}], Math.min(760, dialog.clientWidth - 40), 260) : null;
  return plot ? [heading("Learning curves"), element("figure", {}, named(plot, "Accuracy of this run by epoch")),
                 element("p", {class: "faint"}, "In %. Thin lines are val's groups; the upright line is the selected epoch.")] : [];
}

function confusionOf({confusion}) {
  if (!confusion) return element("div");
  const table = element("table", {class: "confusion"});
  if (confusion.pairs) {
    drawTable(table, "Classes that are taken for another most often", [
      {name: "class", head: true, text: pair => pair[0]}, {name: "taken for", text: pair => pair[1]}, {name: "times", number: true, text: pair => pair[2]}], confusion.pairs);
  } else {
    const rows = confusion.classes.map((name, i) => ({name, counts: confusion.counts[i], sum: d3.sum(confusion.counts[i])}));
    table.append(element("caption", {}, "Test examples by class (rows) and prediction (columns)"),
      element("thead", {}, element("tr", {}, element("td"), ...confusion.classes.map(name => element("th", {scope: "col", class: "number"}, name)))),
      element("tbody", {}, ...rows.map(row => element("tr", {}, element("th", {scope: "row"}, row.name), ...row.counts.map(count =>
        element("td", {style: `background: rgba(var(--shade), ${(0.45 * count / (row.sum || 1)).toFixed(3)})`}, String(count)))))));
  }
  return element("div", {}, heading("Confusion matrix"), element("div", {class: "scroll", role: "region", tabindex: 0, "aria-label": "Confusion matrix"}, table));
}

function calibrationOf({reliability}) {
  if (!reliability.length) return element("div");
  const plot = reliabilityPlot([{name: "this run", curve: reliability}], Math.min(400, dialog.clientWidth - 40));
  return element("div", {}, heading("Calibration"), element("figure", {}, named(plot, "How often predictions of a given confidence are right")));
}

function errorsOf(details) {
  if (!details.errors.some(group => group.wrong)) return [];
  const parts = [heading("The surest errors of each test group")];
  if (details.not_shown) parts.push(element("p", {class: "faint"}, details.not_shown));
  else if (!details.errors.some(group => group.examples.some(example => "shown" in example)))
    parts.push(element("p", {class: "faint"}, "The examples of this run are not on the page; --pictured=<runs> shows those of more runs."));
  for (const group of details.errors.filter(group => group.wrong)) {
    parts.push(element("p", {}, element("strong", {}, group.group), `: ${group.wrong} of ${group.of} wrong`),
      element("ul", {class: "errors"}, ...group.examples.map(exampleOf)));
  }
  return parts;
}

function exampleOf(example) {
  const seen = PICTURES[example.shown], said = `${example.target} taken for ${example.predicted}, ${(100 * example.confidence).toFixed(0)} % sure`;
  const picture = seen?.picture ? element("img", {src: seen.picture, alt: `row ${example.source}: ${said}`}) : null;
  const words = seen?.text ?? (seen?.row ? JSON.stringify(seen.row) + (seen.columns > 12 ? " …" : "") : null);
  return element("li", {}, picture, words ? element("code", {}, words) : null, element("div", {}, said), element("div", {class: "faint"}, `row ${example.source}`));
}

function numbersOf({metrics}) {
  const rows = d3.groups(Object.entries(metrics), ([key]) => key.slice(key.indexOf("/") + 1))
    .map(([name, of]) => ({name, ...Object.fromEntries(of.map(([key, value]) => [key.slice(0, key.indexOf("/")), value]))}));
  if (!rows.length) return [];
  const table = element("table");
  const cell = split => ({name: split, number: true, value: row => row[split], text: row => row[split] === undefined ? "–" : row[split].toFixed(4)});
  drawTable(table, "Metrics of the selected weights", [{name: "metric", head: true, text: row => row.name}, cell("val"), cell("test")], rows);
  return [element("details", {}, element("summary", {}, `${rows.length} metrics`), element("div", {class: "scroll", role: "region", tabindex: 0, "aria-label": "Metrics"}, table))];
}

function countsOf({counts}) {
  return Object.entries(counts).map(([kind, bySplit]) => {
    const splits = Object.keys(bySplit), names = [...new Set(splits.flatMap(split => Object.keys(bySplit[split])))], table = element("table");
    const column = split => ({name: split, number: true, value: name => bySplit[split][name], text: name => bySplit[split][name]?.toLocaleString("en") ?? "–",
                              classOf: name => bySplit[split][name] < FACTS.few ? "few" : null});
    drawTable(table, `Examples of all ${kind}`, [{name: kind, head: true, text: name => name}, ...splits.map(column)], names);
    return element("div", {class: "scroll", role: "region", tabindex: 0, "aria-label": `Examples of all ${kind}`}, table);
  });
}

function closeRun() {
  if (dialog.open) dialog.close();
}
dialog.addEventListener("close", () => {
  if (location.hash.startsWith("#run=")) history.replaceState(null, "", location.pathname + location.search);
  openedFrom?.focus();
});
document.getElementById("close-run").addEventListener("click", closeRun);
function followHash() {
  const i = FACTS.runs.findIndex(run => location.hash === `#run=${encodeURIComponent(run.path)}`);
  if (i >= 0) openRun(i);
  else closeRun();
}
addEventListener("hashchange", followHash);
