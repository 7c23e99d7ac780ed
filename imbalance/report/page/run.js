// Show the details of one run in a dialog.
"use strict";
const dialog = document.getElementById("run");
let openedFrom = null;

function openRun(i) {
  const run = OVERVIEW.runs[i], setting = OVERVIEW.settings[run.setting];
  const details = detailsOf(i);
  document.getElementById("run-title").textContent = `${setting.label}, seed ${run.seed}`;
  if (!dialog.open) dialog.showModal(); // before the figures are drawn, because their width is that of the dialog
  const body = document.getElementById("run-body");
  body.replaceChildren(
    ...summaryOf(run, details),
    heading("Config values that differ between runs"), listOf(details.config),
    element("details", {}, element("summary", {}, `${Object.keys(OVERVIEW.common).length} config values that all runs share`), listOf(OVERVIEW.common)),
    ...curvesOf(run, details), element("div", {class: "pair"}, confusionOf(details), calibrationOf(details)),
    ...errorsOf(details), ...numbersOf(details), heading("Numbers of examples"), ...countsOf(details),
    heading("Hardware, code and versions"), listOf({...details.made, ...details.made.versions, versions: undefined, seconds: run.seconds ?? undefined}),
    heading("Log"), element("pre", {tabindex: 0, "aria-label": "log.txt"}, details.log || "The run has no log.txt."),
  );
  dialog.scrollTop = 0;
  document.getElementById("run-title").focus();
}

function detailsOf(i) {
  const details = JSON.parse(document.getElementById(`details-${i}`).textContent);
  const made = Object.fromEntries(Object.entries(entries(details.made)).map(([key, index]) => [key, shared(index)]));
  const reliability = details.reliability.map(([confidence, accuracy, count]) => ({confidence, accuracy, count}));
  return {...details, made, reliability, metrics: entries(details.metrics), curves: entries(details.curves), counts: shared(details.counts)};
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
  const metric = OVERVIEW.metrics[chosen.metric];
  const line = element("p", {}, element("span", {class: run.status}, run.status),
    run.status === "done" ? `: test ${metric.label} ${numberText(valueOf(run, chosen.metric, OVERVIEW.rules[0].name), metric)}, score ${numberText(run.score, {percent: true})}, epoch ${run.selected} selected, ${run.seconds} s` : details.reason ? `: ${details.reason}` : "");
  const warnings = run.warnings.length ? element("ul", {class: "few"}, ...run.warnings.map(text => element("li", {}, text))) : null;
  const copy = element("button", {type: "button", onclick: () => navigator.clipboard?.writeText(details.command)}, "Copy");
  return [line, warnings, element("p", {}, element("code", {}, details.command), " ", copy)].filter(Boolean);
}

function curvesOf(run, details) {
  const plot = details.curves.epoch?.length > 1 ? curvePlot([{curves: details.curves, title: "", selected: run.selected ? [run.selected] : []}], Math.min(760, dialog.clientWidth - 40), 260) : null;
  const groups = Object.keys(details.curves).some(key => key.startsWith("val/group_accuracy/")) ? " Thin lines are the groups of val." : "";
  return plot ? [heading("Learning curves"), element("figure", {}, named(plot, "Accuracy of this run by epoch")),
                 element("p", {class: "faint"}, `In %.${groups} The vertical line is the selected epoch.`)] : [];
}

function confusionOf({confusion}) {
  if (!confusion) return element("div");
  const table = element("table", {class: "confusion"});
  if (confusion.pairs) {
    drawTable(table, "The most frequent errors", [
      {name: "class", head: true, text: pair => pair[0]}, {name: "predicted as", text: pair => pair[1]}, {name: "examples", number: true, text: pair => pair[2]}], confusion.pairs);
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
  return element("div", {}, heading("Calibration"), element("figure", {}, named(plot, "Accuracy of the predictions by their confidence")));
}

function errorsOf(details) {
  if (!details.errors.some(group => group.wrong)) return [];
  const parts = [heading("The most confident errors in each test group")];
  if (details.not_shown) parts.push(element("p", {class: "faint"}, details.not_shown));
  else if (!details.errors.some(group => group.examples.some(example => "shown" in example)))
    parts.push(element("p", {class: "faint"}, "The page shows no examples of this run. Type imbalance report --pictured=<number> to show examples of more runs."));
  for (const group of details.errors.filter(group => group.wrong)) {
    parts.push(element("p", {}, element("strong", {}, group.group), `: ${group.wrong} of ${group.of} predictions are wrong`),
      element("ul", {class: "errors"}, ...group.examples.map(exampleOf)));
  }
  return parts;
}

function exampleOf(example) {
  const shown = EXAMPLES[example.shown], source = shown?.file ?? `row ${example.source}`, caption = `${example.target} predicted as ${example.predicted}, confidence ${(100 * example.confidence).toFixed(0)} %`;
  const picture = shown?.picture ? element("img", {src: shown.picture, alt: `${source}: ${caption}`}) : null;
  const text = shown?.text ? element("q", {}, shown.text) : null;
  const cells = shown?.cells ? element("span", {}, Object.entries(shown.cells).map(([name, value]) => `${name} ${value}`).join(", ") + (shown.columns > Object.keys(shown.cells).length ? " …" : "")) : null;
  const values = shown?.row ? JSON.stringify(shown.row) + (shown.columns > 12 ? " …" : "") : null;
  return element("li", {}, picture, text, cells, values ? element("code", {}, values) : null, element("div", {}, caption), element("div", {class: "faint"}, source));
}

function numbersOf({metrics}) {
  const rows = d3.groups(Object.entries(metrics), ([key]) => key.slice(key.indexOf("/") + 1))
    .map(([name, entries]) => ({name, ...Object.fromEntries(entries.map(([key, value]) => [key.slice(0, key.indexOf("/")), value]))}));
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
                              classOf: name => bySplit[split][name] < OVERVIEW.few ? "few" : null});
    drawTable(table, `Examples by ${kind === "classes" ? "class" : "group"} and split`, [{name: kind === "classes" ? "class" : "group", head: true, text: name => name}, ...splits.map(column)], names);
    return element("div", {class: "scroll", role: "region", tabindex: 0, "aria-label": `Numbers of examples of the ${kind}`}, table);
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
  const i = OVERVIEW.runs.findIndex(run => location.hash === `#run=${encodeURIComponent(run.path)}`);
  if (i >= 0) openRun(i);
  else closeRun();
}
addEventListener("hashchange", followHash);
