// Draw the figures. The best setting and the baseline each have a colour and a shape of their own. Every figure is redrawn
// when the reader makes a choice or the window changes its width.
"use strict";
const MOST_ROWS = 25, MOST_FACETS = 9;
const colourOf = method => method.isBaseline ? "var(--baseline)" : method.best ? "var(--best)" : "var(--other)";
const symbolOf = method => method.isBaseline ? "diamond" : method.best ? "star" : "circle";
const SERIES = d3.range(8).map(i => `var(--c${i})`), DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const short = (text, most = 40) => text.length > most ? text.slice(0, most - 1) + "…" : text;

// Draw a section's figure, and hide the section if `draw` returns nothing.
function show(id, draw) {
  const section = document.getElementById(id), figure = section.tagName === "FIGURE" ? section : section.querySelector("figure");
  const width = Math.max(280, Math.min(1240, figure.parentElement.clientWidth));
  const drawn = draw(width);
  if (section !== figure) section.hidden = !drawn;
  if (!drawn) return figure.replaceChildren();
  figure.replaceChildren(named(drawn.plot, drawn.label));
  if (drawn.note !== undefined) section.querySelector("p").textContent = drawn.note;
}

// Give a plot a name and a role for screen readers. The parts of the plot get none, because the tables have the same numbers.
function named(plot, label) {
  const svg = plot.tagName === "svg" ? plot : plot.querySelector(":scope > svg:last-of-type") ?? plot;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  for (const part of svg.querySelectorAll("[aria-label], [aria-description]")) {
    part.removeAttribute("aria-label");
    part.removeAttribute("aria-description");
  }
  return plot;
}

function leftMargin(labels, width) {
  return Math.min(d3.max(labels, label => label.length) * 6.4 + 16, width * (width < 560 ? 0.42 : 0.36));
}

function drawForest({metric, methods, baseline}) {
  show("forest", width => {
    const rows = methods.filter(method => method.mean !== null).slice(0, MOST_ROWS);
    if (!rows.length) return null;
    const margin = leftMargin(rows.map(row => row.label), width), scale = scaleOf(metric), labels = new Map(rows.map(row => [row.id, row.label]));
    const points = rows.flatMap(row => row.values.map(value => ({id: row.id, value: scale * value})));
    const plot = Plot.plot({
      width, height: 26 * rows.length + 70, marginLeft: margin, marginRight: 16, marginBottom: 40, style: {fontSize: "12px"},
      x: {label: axisLabel(metric), grid: true, nice: true},
      y: {type: "point", domain: rows.map(row => row.id), label: null, tickSize: 0, tickFormat: id => short(labels.get(id), Math.floor(margin / 6.4))},
      marks: [
        baseline && baseline.mean !== null ? Plot.ruleX([scale * baseline.mean], {stroke: "var(--baseline)", strokeDasharray: "5 4"}) : null,
        Plot.dot(points, {x: "value", y: "id", r: 2.2, fill: "currentColor", fillOpacity: 0.35}),
        Plot.link(rows.filter(row => row.low !== null), {x1: row => scale * row.low, x2: row => scale * row.high, y1: "id", y2: "id",
                                                         stroke: colourOf, strokeWidth: 2.5}),
        Plot.dot(rows, {x: row => scale * row.mean, y: "id", fill: colourOf, symbol: symbolOf, r: 6, stroke: "var(--page)"}),
        Plot.tip(rows, Plot.pointerY({x: row => scale * row.mean, y: "id", title: row =>
          `${row.label}\n${meanText(row, metric)} over ${row.n} seeds\nlabels that selection reads: ${row.reads}`})),
      ],
    });
    return {plot, label: `${axisLabel(metric)} of ${rows.length} methods, best first, with 95 % intervals. The table below has the numbers`};
  });
}

function drawTradeoff({methods}) {
  const indexOf = name => OVERVIEW.metrics.findIndex(metric => metric.name === name);
  const [x, y] = [indexOf("accuracy"), indexOf("worst_group_accuracy")];
  show("tradeoff", width => {
    if (x < 0 || y < 0) return null;
    const rows = methods.map(method => ({...method, x: summarised(method.setting, x), y: summarised(method.setting, y)}))
      .filter(row => row.x.mean !== null && row.y.mean !== null);
    if (rows.length < 2) return null;
    const percent = over => 100 * over.mean, named = d3.sort(rows, row => -(row.best || row.isBaseline)).slice(0, width < 560 ? 6 : 14);
    const points = rows.flatMap(row => [...row.x.bySeed].filter(([seed]) => row.y.bySeed.has(seed))
      .map(([seed, value]) => ({x: 100 * value, y: 100 * row.y.bySeed.get(seed)})));
    const labels = withoutOverlap(named.map(row => ({label: short(row.label, width < 560 ? 18 : 32), x: percent(row.x), y: percent(row.y)})));
    const middle = d3.mean(d3.extent([...points, ...labels], point => point.x));
    const textBeside = (side, texts) => Plot.text(texts, {
      x: "x", y: "y", text: "label", dx: side === "start" ? 9 : -9, textAnchor: side, stroke: "var(--page)", strokeWidth: 3, fill: "currentColor"});
    const plot = Plot.plot({
      width: Math.min(width, 760), height: Math.min(440, width), grid: true, marginRight: 24, marginBottom: 40, style: {fontSize: "12px"},
      x: {label: "test accuracy, %", nice: true}, y: {label: `test ${OVERVIEW.metrics[y].label}, %`, nice: true},
      marks: [
        Plot.dot(points, {x: "x", y: "y", r: 1.6, fill: "currentColor", fillOpacity: 0.25}),
        textBeside("start", labels.filter(label => label.x <= middle)),
        textBeside("end", labels.filter(label => label.x > middle)),
        Plot.dot(rows, {x: row => percent(row.x), y: row => percent(row.y), fill: colourOf, symbol: symbolOf, r: 6, stroke: "var(--page)"}),
        Plot.tip(rows, Plot.pointer({x: row => percent(row.x), y: row => percent(row.y), title: row =>
          `${row.label}\naverage ${meanText(row.x, OVERVIEW.metrics[x])}\nworst group ${meanText(row.y, OVERVIEW.metrics[y])}`})),
      ],
    });
    return {plot, label: "Worst-group accuracy against average accuracy of every method", note: "Large marks are means over seeds, and small marks are single seeds. Labels that would overlap are left out. ★ highest mean of the chosen metric, or lowest where lower is better, ◆ baseline."};
  });
}

// Return the labels without those that would overlap an earlier label, that is lie within 4.5 % of the height and 40 % of
// the width from it.
function withoutOverlap(labels) {
  const [low, high] = d3.extent(labels, label => label.y), [left, right] = d3.extent(labels, label => label.x), kept = [];
  for (const label of labels)
    if (kept.every(other => Math.abs(other.y - label.y) > 0.045 * (high - low) || Math.abs(other.x - label.x) > 0.4 * (right - left || 1))) kept.push(label);
  return kept;
}

function drawGroups({methods}) {
  show("groups", width => {
    const rows = methods.slice(0, 15), sizes = new Map();
    const points = rows.flatMap(method => {
      const names = new Set(method.runs.flatMap(run => Object.keys(run.groups)));
      return [...names].map(group => {
        sizes.set(group, Math.min(sizes.get(group) ?? Infinity, d3.min(method.runs, run => run.examples[group]) ?? Infinity));
        const over = meanOf(method.runs.map(run => run.groups[group]), OVERVIEW.t, 0, 1);
        return {...method, ...over, group, colour: colourOf(method), symbol: symbolOf(method)};
      });
    }).filter(row => row.mean !== null && row.mean !== undefined);
    if (!points.length || sizes.size > 24) return null;
    const labels = new Map(rows.map(row => [row.id, row.label])), margin = leftMargin(rows.map(row => row.label), width);
    const across = Math.max(1, Math.min(sizes.size, Math.floor((width - margin) / (width < 560 ? 150 : 210))));
    const groups = [...sizes.keys()], indexOf = new Map(groups.map((group, i) => [group, i]));
    const head = group => `${short(group, 26)}, n = ${sizes.get(group)}${sizes.get(group) < OVERVIEW.few ? " ⚠" : ""}`;
    const down = Math.ceil(groups.length / across);
    const at = {fx: row => indexOf.get(row.group) % across, fy: row => Math.floor(indexOf.get(row.group) / across)};
    const plot = Plot.plot({
      width, height: down * (20 * rows.length + 48) + 50, marginLeft: margin, marginTop: 28, marginBottom: 40, marginRight: 14, style: {fontSize: "12px"},
      x: {label: "test accuracy, %", domain: [0, 100], grid: true, ticks: [0, 25, 50, 75, 100], tickFormat: value => value % 50 ? "" : String(value)}, y: {type: "point", domain: rows.map(row => row.id), label: null, tickSize: 0,
        tickFormat: id => short(labels.get(id), Math.floor(margin / 6.4))},
      fx: {axis: null, padding: 0.12}, fy: {axis: null, padding: 0.3},
      marks: [
        Plot.text(groups.map(group => ({group})), {...at, text: row => head(row.group), frameAnchor: "top-left", dy: -18, fontWeight: 600, fill: "currentColor"}),
        Plot.link(points.filter(row => row.low !== null), {...at, x1: row => 100 * row.low, x2: row => 100 * row.high, y1: "id", y2: "id", stroke: "colour", strokeWidth: 2}),
        Plot.dot(points, {...at, x: row => 100 * row.mean, y: "id", fill: "colour", symbol: "symbol", r: 4}),
        Plot.tip(points, Plot.pointer({...at, x: row => 100 * row.mean, y: "id", title: row => `${row.label}\n${row.group}: ${meanText(row, {percent: true})}`})),
      ],
      color: {type: "identity"},
    });
    const few = groups.filter(group => sizes.get(group) < OVERVIEW.few);
    return {plot, label: `Test accuracy of ${groups.length} groups by method`,
            note: "Mean over seeds with its 95 % interval, for the weights that each run selected itself." + (few.length ? ` ⚠ These groups have fewer than ${OVERVIEW.few} test examples: ${few.join(", ")}.` : "")};
  });
}

// The lines of a learning curve: a column of metrics.jsonl and its label.
const LINES = [["train/worst_group_accuracy", "train worst group"], ["val/worst_group_accuracy", "val worst group"],
               ["val/balanced_accuracy", "val balanced"], ["test/worst_group_accuracy", "test worst group"]];

function curvePlot(items, width, height) {
  const across = Math.max(1, Math.min(items.length, Math.floor(width / 300)));
  const points = items.flatMap(({curves, title}, i) => LINES.filter(([key]) => curves[key]).flatMap(([key, name]) =>
    curves.epoch.map((epoch, j) => ({i, title, name, epoch, value: curves[key][j]})).filter(point => point.value !== null)));
  if (!points.length) return null;
  const faint = items.flatMap(({curves}, i) => Object.keys(curves).filter(key => key.startsWith("val/group_accuracy/")).slice(0, 12)
    .flatMap(key => curves.epoch.map((epoch, j) => ({i, key, epoch, value: curves[key][j]}))));
  const at = {fx: row => row.i % across, fy: row => Math.floor(row.i / across)}, names = LINES.map(([, name]) => name);
  return Plot.plot({
    width, height: Math.ceil(items.length / across) * height + 40, marginTop: 26, marginLeft: 44, marginBottom: 40, style: {fontSize: "12px"},
    x: {label: "epoch", ticks: 5}, y: {label: null, domain: [0, 100], ticks: 5, grid: true}, fx: {axis: null, padding: 0.08}, fy: {axis: null, padding: 0.2},
    color: {domain: names, range: SERIES, legend: true},
    marks: [
      Plot.line(faint, {...at, x: "epoch", y: row => row.value === null ? NaN : 100 * row.value, z: row => `${row.i}${row.key}`, stroke: "currentColor", strokeOpacity: 0.22}),
      ...LINES.map(([, name], n) => Plot.line(points.filter(point => point.name === name), {...at, x: "epoch", y: row => 100 * row.value, z: "i", stroke: "name",
        strokeWidth: 1.8, strokeDasharray: DASHES[n]})),
      Plot.ruleX(items.flatMap(({selected}, i) => (selected ?? []).map(epoch => ({i, epoch}))), {...at, x: "epoch", stroke: "currentColor", strokeOpacity: 0.5}),
      Plot.text(items.map(({title}, i) => ({i, title})), {...at, text: row => short(row.title, 44), frameAnchor: "top-left", dy: -16, fontWeight: 600, fill: "currentColor"}),
      Plot.tip(points, Plot.pointer({...at, x: "epoch", y: row => 100 * row.value, title: row => `${row.name}, epoch ${row.epoch}\n${(100 * row.value).toFixed(1)} %`})),
    ],
  });
}

function drawCurves({methods}) {
  show("curves", width => {
    const items = methods.filter(method => method.setting.curves.epoch?.length > 1).slice(0, MOST_FACETS).map(method =>
      ({curves: method.setting.curves, title: method.label, selected: [d3.median(method.runs, run => run.selected)].filter(epoch => epoch !== undefined)}));
    const plot = items.length ? curvePlot(items, width, 190) : null;
    return plot && {plot, label: "Accuracy by epoch", note:
      `Means over seeds, in %, of the first ${items.length} methods. Thin lines are the groups of val. The vertical line is the median of the epochs that the runs selected.`};
  });
}

function drawRates() {
  show("rates", width => {
    const settings = OVERVIEW.settings.filter(setting => setting.task === chosen.task && matches(setting));
    const points = settings.flatMap(setting => (runsOf.get(setting.i) ?? []).map(run => ({
      name: setting.method.replaceAll("_", " "), rate: setting.columns["optim.lr"], score: run.score, status: run.status})))
      .filter(point => typeof point.rate === "number" && point.rate > 0);
    const shown = d3.groups(points, point => point.name).filter(([, group]) => new Set(group.map(point => point.rate)).size > 1).slice(0, 8);
    if (!shown.length) return null;
    const done = shown.flatMap(([, group]) => group.filter(point => point.score !== null)), names = shown.map(([name]) => name);
    const means = d3.rollups(done, group => d3.mean(group, point => point.score), point => point.name, point => point.rate)
      .flatMap(([name, rates]) => rates.map(([rate, score]) => ({name, rate, score}))).sort((a, b) => a.rate - b.rate);
    const best = d3.groups(means, point => point.name).map(([, group]) => d3.greatest(group, point => point.score));
    const lost = shown.flatMap(([, group]) => group.filter(point => point.status === "diverged"));
    const plot = Plot.plot({
      width: Math.min(width, 760), height: 340, grid: true, marginBottom: 40, style: {fontSize: "12px"}, x: {type: "log", label: "learning rate", tickFormat: "~g"},
      y: {label: "score on val, %", nice: true}, color: {domain: names, range: SERIES, legend: true}, symbol: {domain: names},
      marks: [
        Plot.dot(done, {x: "rate", y: row => 100 * row.score, fill: "name", r: 2.2, fillOpacity: 0.5}),
        Plot.line(means, {x: "rate", y: row => 100 * row.score, stroke: "name", strokeWidth: 1.8}),
        Plot.dot(means, {x: "rate", y: row => 100 * row.score, fill: "name", symbol: "name", r: 4}),
        Plot.dot(best, {x: "rate", y: row => 100 * row.score, stroke: "currentColor", strokeWidth: 1.6, r: 9}),
        lost.length ? Plot.text(lost, {x: "rate", text: () => "✕", frameAnchor: "bottom", fill: "name"}) : null,
        Plot.tip(means, Plot.pointer({x: "rate", y: row => 100 * row.score, title: row => `${row.name}, ${row.rate}\n${(100 * row.score).toFixed(1)} %`})),
      ],
    });
    return {plot, label: "Score on val against learning rate", note: "Lines connect the means over seeds. The ring marks the learning rate with the best mean score on val. ✕ marks a diverged run."};
  });
}

function drawTuning() {
  show("tuning", width => {
    const points = OVERVIEW.tuning.filter(point => point.task === chosen.task);
    if (!points.length) return null;
    const names = [...new Set(points.map(point => point.name))].slice(0, 8);
    const plot = Plot.plot({
      width: Math.min(width, 760), height: 300, grid: true, marginBottom: 40, style: {fontSize: "12px"}, x: {label: "settings tried", tickFormat: "d", interval: 1},
      y: {label: "expected best score on val, %", nice: true}, color: {domain: names, range: SERIES, legend: true},
      marks: [
        ...names.map((name, n) => Plot.line(points.filter(point => point.name === name), {x: "k", y: row => 100 * row.score,
          stroke: () => name, strokeWidth: 1.8, strokeDasharray: DASHES[n % 4], marker: "dot"})),
        Plot.tip(points, Plot.pointer({x: "k", y: row => 100 * row.score, title: row => `${row.name}, best of ${row.k}: ${(100 * row.score).toFixed(1)} %`})),
      ],
    });
    return {plot, label: "Expected best score by number of settings tried",
            note: "For every config file with at least three settings: the mean, over all subsets of k settings, of their best score on val (an unbiased form of Dodge et al., 2019). Compare methods at the same number of settings: a method that was tuned over more settings has a longer line."};
  });
}

function reliabilityPlot(curves, width) {
  const points = curves.flatMap(({name, curve}) => curve.map(point => ({...point, name})));
  return Plot.plot({
    width: Math.min(width, 520), height: Math.min(width, 440), grid: true, marginBottom: 40, style: {fontSize: "12px"},
    x: {label: "confidence, %", domain: [0, 100]}, y: {label: "accuracy, %", domain: [0, 100]},
    color: {domain: curves.map(curve => curve.name), range: SERIES, legend: curves.length > 1}, r: {range: [2, 9]},
    marks: [
      Plot.line([[0, 0], [100, 100]], {stroke: "currentColor", strokeOpacity: 0.4, strokeDasharray: "4 4"}),
      ...curves.map(({name}, n) => Plot.line(points.filter(point => point.name === name), {x: row => 100 * row.confidence, y: row => 100 * row.accuracy, stroke: "name", strokeDasharray: DASHES[n % 4]})),
      Plot.dot(points, {x: row => 100 * row.confidence, y: row => 100 * row.accuracy, r: "count", fill: "name"}),
      Plot.tip(points, Plot.pointer({x: row => 100 * row.confidence, y: row => 100 * row.accuracy, title: row =>
        `${row.name}\nconfidence ${(100 * row.confidence).toFixed(1)} %, accuracy ${(100 * row.accuracy).toFixed(1)} %\n${row.count} examples`})),
    ],
  });
}

function drawCalibration({methods}) {
  show("calibration", width => {
    const curves = methods.filter(method => method.setting.reliability.length).slice(0, 6)
      .map(method => ({name: short(method.label), curve: method.setting.reliability}));
    return curves.length ? {plot: reliabilityPlot(curves, width), label: "Accuracy of the predictions by their confidence",
      note: `Test predictions of all seeds, in ten bins, of the first ${curves.length} methods. On the dashed line, confidence equals accuracy. The list of metrics has ECE, Brier score and NLL too.`} : null;
  });
}
