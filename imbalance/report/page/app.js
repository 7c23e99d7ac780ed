// Read the reader's choices, and redraw the page after each of them.
"use strict";
const MOST_RUNS = 100;
const control = name => document.getElementById(name);
let mostRuns = MOST_RUNS;

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element("option", {value: key, selected: key === value}, text)));
}

function setUp() {
  const tasks = d3.groups(OVERVIEW.settings, setting => setting.task);
  chosen.task = d3.greatest(tasks, ([, settings]) => settings.length)[0];
  control("task-field").hidden = tasks.length < 2;
  fill(control("task"), tasks.map(([task]) => [task, task]), chosen.task);
  fill(control("metric"), OVERVIEW.metrics.map((metric, i) => [i, `test ${metric.label}`]), 0);
  const known = OVERVIEW.rules.filter(rule => OVERVIEW.runs.some(run => run.values[rule.name]?.some(value => value !== null)));
  fill(control("rule"), known.map(rule => [rule.name, rule.labels ? `${rule.name} (reads: ${rule.labels})` : rule.name]), chosen.rule);
  fillBaselines();
  definitions(control("common"), OVERVIEW.common);
  control("common-summary").textContent = `${Object.keys(OVERVIEW.common).length} values`;
  const on = (name, change, event = "change") => control(name).addEventListener(event, () => { change(control(name).value); draw(); });
  on("task", value => { chosen.task = value; fillBaselines(); });
  on("metric", value => chosen.metric = Number(value));
  on("rule", value => chosen.rule = value);
  on("baseline", value => chosen.baseline = Number(value));
  control("every-field").hidden = !OVERVIEW.settings.some(hasSeveral);
  on("every", value => chosen.every = value === "all");
  on("filter", value => chosen.words = value.toLowerCase().split(/\s+/).filter(Boolean), "input");
  control("controls").addEventListener("submit", event => event.preventDefault());
  control("more-runs").addEventListener("click", () => { mostRuns = Infinity; drawRuns(); });
  control("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  let width = innerWidth, later;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(later);
    later = setTimeout(draw, 150);
  });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  control("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

// Offer all settings of the task as baselines, and choose ERM or cross-entropy if there is one.
function fillBaselines() {
  const here = OVERVIEW.settings.filter(setting => setting.task === chosen.task);
  const crossEntropy = here.filter(setting => /(^|_)(erm|ce)$/.test(setting.name));
  const erm = crossEntropy.filter(setting => setting.name.endsWith("erm"));
  const first = (erm.length ? erm : crossEntropy.length ? crossEntropy : here).find(setting => setting.chosen);
  chosen.baseline = first.i;
  fill(control("baseline"), here.map(setting => [setting.i, setting.label]), chosen.baseline);
}

function draw() {
  const ranking = rankedMethods();
  drawAnswer(ranking);
  drawForest(ranking);
  drawMethods(ranking);
  drawAggregates(ranking);
  for (const figure of [drawTradeoff, drawGroups, drawCurves, drawRates, drawTuning, drawCalibration]) figure(ranking);
  drawRuns();
  drawWarnings();
}

function drawAnswer({metric, methods, baseline}) {
  const valued = methods.filter(method => method.mean !== null), [best] = valued;
  if (!best) return void (control("answer").textContent = "No finished run matches the filter.");
  const level = levelWithBest(valued), names = level.slice(0, 4).map(({method, p}) => `${method.label}${p === null ? "" : ` (p = ${pText(p)})`}`);
  const value = `${meanText(best, metric)}${metric.percent ? " %" : ""} over ${best.n} seed${best.n === 1 ? "" : "s"}`;
  const chance = level.length > names.length ? `${names.join(", ")} and ${level.length - names.length} more` : names.join(", ");
  const verdict = valued.length === 1 ? ` has a test ${metric.label} of ${value}.`
    : level.length ? ` has the ${metric.lower ? "lowest" : "highest"} mean test ${metric.label}, ${value}, but no method is clearly best: the difference from ${chance} may be chance.`
    : ` has the best test ${metric.label}: ${value}. Every other method differs from it with p < 0.05.`;
  const ahead = best.difference && best.difference.low !== null && !level.some(({method}) => method === baseline)
    ? ` The difference from ${baseline?.label ?? OVERVIEW.settings[chosen.baseline].label} is ${signed(best.difference, metric)}${metric.percent ? " points" : ""} (p ${best.adjusted < 0.001 ? "" : "= "}${pText(best.adjusted)}).` : "";
  const how = valued.length > 1 ? " Differences are paired by seed, and their p-values corrected by Holm's method." : "";
  control("answer").replaceChildren(element("strong", {}, best.label), `${verdict}${ahead}${how} Labels that its selection reads: ${best.reads}.`);
}

function signed(difference, metric) {
  const text = meanText(difference, metric);
  return difference.mean > 0 ? `+${text}` : text.replace(/^-/, "−");
}

function drawMethods({metric, methods}) {
  const differing = OVERVIEW.columns.filter(key => new Set(methods.map(method => textOf(method.setting.columns[key]))).size > 1);
  const significant = method => method.adjusted !== null && method.adjusted < 0.05;
  const better = method => significant(method) ? (method.difference.mean > 0) === !metric.lower ? "better" : "worse" : "";
  const differenceText = method => !method.difference ? (method.isBaseline ? "baseline" : "–")
    : signed(method.difference, metric) + (method.difference.n < method.n ? ` (n = ${method.difference.n})` : "");
  const columns = [
    {name: "#", number: true, text: method => method.rank},
    {name: "method", head: true, value: method => method.setting.name, render: method => element("span", {}, method.best ? "★ " : method.isBaseline ? "◆ " : "", method.setting.method.replaceAll("_", " "))},
    ...differing.map(key => ({name: key, value: method => method.setting.columns[key] ?? null, text: method => textOf(method.setting.columns[key])})),
    {name: `test ${metric.label}${metric.percent ? ", %" : ""}`, number: true, value: method => method.mean, text: method => meanText(method, metric)},
    {name: "difference", number: true, value: method => method.difference?.mean ?? null, text: differenceText,
     render: method => element("span", {class: better(method)}, differenceText(method))},
    {name: "p (Holm)", number: true, value: method => method.adjusted, text: method => pText(method.adjusted ?? null)},
    {name: "labels that selection reads", text: method => method.reads},
    {name: "n", number: true, text: method => method.n},
    {name: "left out", text: method => method.leftOut},
    {name: "seconds a run", number: true, value: method => method.seconds, text: method => method.seconds === null ? "–" : method.seconds.toFixed(1)},
  ];
  drawTable(control("methods"), `${methods.length} ${chosen.every ? "settings" : "methods"}: mean over n seeds with its 95 % interval`, columns, methods,
    method => method.best ? "best" : method.isBaseline ? "baseline" : null);
  const tests = methods.filter(method => method.adjusted !== null && method.adjusted !== undefined).length;
  control("ranking-note").textContent =
    `★ ${metric.lower ? "lowest" : "highest"} mean, ◆ baseline. Intervals are Student's t-intervals over seeds, cut off at the metric's bounds. With fewer than three runs, the runs' values are shown instead. ` +
    `Differences are paired by seed. p-values are corrected for ${tests} comparison${tests === 1 ? "" : "s"} by Holm's method; differences with p below 0.05 are coloured. The mean of the best of ${methods.length} methods is biased upwards, because the method was selected by it.` +
    (chosen.every ? "" : " For a method with several settings, the table shows the setting with the best mean score on val.");
}

function drawAggregates({metric}) {
  const section = control("aggregates"), aggregates = OVERVIEW.aggregates?.[metric.name];
  section.hidden = !aggregates;
  if (!aggregates) return;
  const text = ([value, low, high]) => `${(100 * value).toFixed(1)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;
  drawTable(section.querySelector("table"), `${aggregates.tasks} data sets, ${aggregates.seeds} seeds each`, [
    {name: "method", head: true, text: row => row.method}, {name: "interquartile mean, %", number: true, value: row => row.iqm[0], text: row => text(row.iqm)},
    {name: `better than ${aggregates.baseline}, %`, number: true, value: row => row.improvement?.[0] ?? null, text: row => row.improvement ? text(row.improvement) : "–"}], aggregates.rows);
  show("aggregates", width => ({label: "Share of runs above each score, by method", plot: Plot.plot({
    width: Math.min(width, 760), height: 320, grid: true, marginBottom: 40, style: {fontSize: "12px"}, x: {label: `${axisLabel(metric)} at least`}, y: {label: "runs, %", domain: [0, 100]},
    color: {domain: aggregates.rows.map(row => row.method), range: SERIES, legend: true},
    marks: aggregates.rows.slice(0, 8).map((row, n) => Plot.line(row.profile, {x: (_, i) => 100 * aggregates.thresholds[i], y: value => 100 * value, stroke: () => row.method, strokeWidth: 1.8, strokeDasharray: DASHES[n % 4]})),
  }), note: "Interquartile mean, probability of improvement and performance profile as in Agarwal et al. (NeurIPS 2021), with stratified bootstrap intervals that are widened for few seeds, for the weights that each run selected itself."}));
}

function drawRuns() {
  const runs = OVERVIEW.runs.map((run, i) => ({...run, i, label: OVERVIEW.settings[run.setting].label}))
    .filter(run => OVERVIEW.settings[run.setting].task === chosen.task && matches(OVERVIEW.settings[run.setting]));
  const open = run => element("a", {href: `#run=${encodeURIComponent(run.path)}`, onclick: event => openedFrom = event.currentTarget}, run.label);
  const others = OVERVIEW.metrics.map((metric, i) => ({metric, i})).filter(({i}) => i === chosen.metric || i < 2);
  drawTable(control("run-table"), `${runs.length} runs; click a name to open its run`, [
    {name: "run", head: true, text: run => run.label, render: open},
    {name: "seed", number: true, text: run => run.seed},
    {name: "status", text: run => run.status, classOf: run => run.status},
    ...others.map(({metric, i}) => ({name: `test ${metric.label}`, number: true, value: run => valueOf(run, i), text: run => numberText(valueOf(run, i), metric)})),
    {name: "score", number: true, value: run => run.score, text: run => numberText(run.score, {percent: true})},
    {name: "epoch", number: true, value: run => run.selected, text: run => textOf(run.selected)},
    {name: "seconds", number: true, value: run => run.seconds, text: run => textOf(run.seconds)},
    {name: "warnings", number: true, value: run => run.warnings.length, text: run => run.warnings.length || ""},
  ], runs, () => null, mostRuns);
  control("more-runs").hidden = runs.length <= mostRuns;
  control("more-runs").textContent = `Show all ${runs.length} runs`;
}

// List each warning once; warnings that differ only in their numbers count as one.
function drawWarnings() {
  const texts = OVERVIEW.runs.filter(run => OVERVIEW.settings[run.setting].task === chosen.task).flatMap(run => run.warnings.map(text => ({text, run})));
  const alike = d3.sort(d3.groups(texts, ({text}) => text.replace(/\d+(\.\d+)?/g, "#")).map(([, rows]) => rows), rows => -rows.length);
  const where = rows => { const labels = new Set(rows.map(row => OVERVIEW.settings[row.run.setting].label)); return labels.size === 1 ? [...labels][0] : `${labels.size} settings`; };
  control("warnings").hidden = !alike.length;
  control("warnings").querySelector("ul").replaceChildren(...alike.slice(0, 12).map(rows =>
    element("li", {}, `${rows[0].text}${new Set(rows.map(row => row.text)).size > 1 ? ", or similar" : ""} (${rows.length} run${rows.length === 1 ? "" : "s"}, ${where(rows)})`)));
}

setUp();
draw();
followHash();
