// What the reader chooses, and drawing all of it anew.
"use strict";
const MOST_RUNS = 100;
const control = name => document.getElementById(name);
let mostRuns = MOST_RUNS;

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element("option", {value: key, selected: key === value}, text)));
}

function setUp() {
  const tasks = d3.groups(FACTS.settings, setting => setting.task);
  chosen.task = d3.greatest(tasks, ([, settings]) => settings.length)[0];
  control("task-field").hidden = tasks.length < 2;
  fill(control("task"), tasks.map(([task]) => [task, task]), chosen.task);
  fill(control("metric"), FACTS.metrics.map((metric, i) => [i, `test ${metric.label}`]), 0);
  const known = FACTS.rules.filter(rule => FACTS.runs.some(run => run.values[rule.name]?.some(value => value !== null)));
  fill(control("rule"), known.map(rule => [rule.name, rule.labels ? `${rule.name} (reads ${rule.labels})` : rule.name]), chosen.rule);
  fillBaselines();
  definitions(control("common"), FACTS.common);
  control("common-summary").textContent = `${Object.keys(FACTS.common).length} values of the config`;
  const on = (name, change, event = "change") => control(name).addEventListener(event, () => { change(control(name).value); draw(); });
  on("task", value => { chosen.task = value; fillBaselines(); });
  on("metric", value => chosen.metric = Number(value));
  on("rule", value => chosen.rule = value);
  on("baseline", value => chosen.baseline = Number(value));
  control("every-field").hidden = !FACTS.settings.some(hasSeveral);
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

// The plain method, where there is one: what the others are compared with until the reader says otherwise.
function fillBaselines() {
  const here = FACTS.settings.filter(setting => setting.task === chosen.task);
  const plain = here.filter(setting => /(^|_)(erm|ce)$/.test(setting.name));
  const erm = plain.filter(setting => setting.name.endsWith("erm"));
  const first = (erm.length ? erm : plain.length ? plain : here).find(setting => setting.chosen);
  chosen.baseline = first.i;
  fill(control("baseline"), here.map(setting => [setting.i, setting.label]), chosen.baseline);
}

function draw() {
  const found = view();
  drawAnswer(found);
  drawForest(found);
  drawMethods(found);
  drawAggregates(found);
  for (const figure of [drawTradeoff, drawGroups, drawCurves, drawRates, drawTuning, drawCalibration]) figure(found);
  drawRuns();
  drawWarnings();
}

function drawAnswer({metric, methods, baseline}) {
  const [best, second] = methods.filter(method => method.mean !== null);
  if (!best) return void (control("answer").textContent = "No run is done that the filter leaves.");
  const ahead = best.difference && best.difference.low !== null
    ? ` It is ${signed(best.difference, metric)} ${metric.percent ? "points " : ""}from ${baseline?.label ?? FACTS.settings[chosen.baseline].label}, paired by seed (p ${best.adjusted < 0.001 ? "" : "= "}${pText(best.adjusted)} after Holm).` : "";
  const close = second && best.low !== null && second.low !== null && (metric.lower ? second.low <= best.high : second.high >= best.low)
    ? ` The interval of ${second.label}, second, overlaps with its own.` : "";
  control("answer").replaceChildren(element("strong", {}, best.label), ` is best by test ${metric.label}: ${meanText(best, metric)}${metric.percent ? " %" : ""} over ${best.n} seed${best.n === 1 ? "" : "s"}; it reads ${best.reads}.${ahead}${close}`);
}

function signed(found, metric) {
  const text = meanText(found, metric);
  return found.mean > 0 ? `+${text}` : text.replace(/^-/, "−");
}

function drawMethods({metric, methods}) {
  const differing = FACTS.columns.filter(key => new Set(methods.map(method => textOf(method.setting.columns[key]))).size > 1);
  const sure = method => method.adjusted !== null && method.adjusted < 0.05;
  const better = method => sure(method) ? (method.difference.mean > 0) === !metric.lower ? "better" : "worse" : "";
  const differs = method => !method.difference ? (method.isBaseline ? "compared with" : "–")
    : signed(method.difference, metric) + (method.difference.n < method.n ? ` (n = ${method.difference.n})` : "");
  const columns = [
    {name: "#", number: true, text: method => method.rank},
    {name: "method", head: true, value: method => method.setting.name, render: method => element("span", {}, method.best ? "★ " : method.isBaseline ? "◆ " : "", method.setting.method.replaceAll("_", " "))},
    ...differing.map(key => ({name: key, value: method => method.setting.columns[key] ?? null, text: method => textOf(method.setting.columns[key])})),
    {name: `test ${metric.label}${metric.percent ? ", %" : ""}`, number: true, value: method => method.mean, text: method => meanText(method, metric)},
    {name: "difference", number: true, value: method => method.difference?.mean ?? null, text: differs,
     render: method => element("span", {class: better(method)}, differs(method))},
    {name: "p (Holm)", number: true, value: method => method.adjusted, text: method => pText(method.adjusted ?? null)},
    {name: "labels it reads", text: method => method.reads},
    {name: "n", number: true, text: method => method.n},
    {name: "left out", text: method => method.leftOut},
    {name: "seconds", number: true, value: method => method.seconds, text: method => method.seconds === null ? "–" : method.seconds.toFixed(1)},
  ];
  drawTable(control("methods"), `${methods.length} ${chosen.every ? "settings" : "methods"}; mean over n seeds with its 95 % interval`, columns, methods,
    method => method.best ? "best" : method.isBaseline ? "baseline" : null);
  const tests = methods.filter(method => method.adjusted !== null && method.adjusted !== undefined).length;
  control("ranking-note").textContent =
    `★ best, ◆ compared with. Intervals are Student's t over seeds, cut off where the metric cannot go; of fewer than three runs the values are shown. ` +
    `Differences are paired by seed; their ${tests} p-values are Holm's for that many comparisons, coloured where below 0.05. The best of ${methods.length} looks better than it is: it was chosen for being first.` +
    (chosen.every ? "" : " Of a method with several settings, the one with the best mean score on val is shown.");
}

function drawAggregates({metric}) {
  const section = control("aggregates"), of = FACTS.aggregates?.[metric.name];
  section.hidden = !of;
  if (!of) return;
  const text = found => `${(100 * found[0]).toFixed(1)} (${(100 * found[1]).toFixed(1)} to ${(100 * found[2]).toFixed(1)})`;
  drawTable(section.querySelector("table"), `${of.tasks} data sets, ${of.seeds} seeds each`, [
    {name: "method", head: true, text: row => row.method}, {name: "interquartile mean, %", number: true, value: row => row.iqm[0], text: row => text(row.iqm)},
    {name: `beats ${of.baseline}, %`, number: true, value: row => row.improvement?.[0] ?? null, text: row => row.improvement ? text(row.improvement) : "–"}], of.rows);
  show("aggregates", width => ({label: "Share of runs above each score, by method", plot: Plot.plot({
    width: Math.min(width, 760), height: 320, grid: true, style: {fontSize: "12px"}, x: {label: `${axisLabel(metric)} at least`}, y: {label: "runs, %", domain: [0, 100]},
    color: {domain: of.rows.map(row => row.method), range: SERIES, legend: true},
    marks: of.rows.slice(0, 8).map((row, n) => Plot.line(row.profile, {x: (_, i) => 100 * of.thresholds[i], y: value => 100 * value, stroke: () => row.method, strokeWidth: 1.8, strokeDasharray: DASHES[n % 4]})),
  }), note: "Interquartile mean, probability of improvement and performance profile of Agarwal et al. (NeurIPS 2021), with stratified bootstrap intervals, of the weights that each run chose."}));
}

function drawRuns() {
  const runs = FACTS.runs.map((run, i) => ({...run, i, label: FACTS.settings[run.setting].label}))
    .filter(run => FACTS.settings[run.setting].task === chosen.task && matches(FACTS.settings[run.setting]));
  const open = run => element("a", {href: `#run=${encodeURIComponent(run.path)}`, onclick: event => openedFrom = event.currentTarget}, run.label);
  const others = FACTS.metrics.map((metric, i) => ({metric, i})).filter(({i}) => i === chosen.metric || i < 2);
  drawTable(control("run-table"), `${runs.length} runs; a name opens its run`, [
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

function drawWarnings() {
  const of = d3.rollups(FACTS.runs.filter(run => FACTS.settings[run.setting].task === chosen.task).flatMap(run => run.warnings.map(text => ({text, run}))),
    rows => new Set(rows.map(row => FACTS.settings[row.run.setting].label)), row => row.text);
  control("warnings").hidden = !of.length;
  control("warnings").querySelector("ul").replaceChildren(...d3.sort(of, ([, labels]) => -labels.size).slice(0, 12).map(([text, labels]) =>
    element("li", {}, `${text} (${labels.size === 1 ? [...labels][0] : `${labels.size} settings`})`)));
}

setUp();
draw();
followHash();
