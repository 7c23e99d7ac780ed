// Hold the page's data and the reader's choices. `rankedMethods` computes the values that all tables and figures show.
"use strict";
const OVERVIEW = JSON.parse(document.getElementById("overview").textContent);
const EXAMPLES = JSON.parse(document.getElementById("examples").textContent);
const chosen = {task: null, metric: 0, rule: OVERVIEW.rules[0].name, baseline: null, words: [], every: false};

// Values that several runs have are in the page once; `entries` makes an object of the index of its keys and its values.
const shared = index => OVERVIEW.shared[index], entries = ([keys, ...values]) => Object.fromEntries(shared(keys).map((key, i) => [key, values[i]]));
for (const run of OVERVIEW.runs) Object.assign(run, {groups: entries(run.groups), examples: shared(run.examples)});

const runsOf = d3.group(OVERVIEW.runs.map((run, i) => ({...run, i})), run => run.setting);
OVERVIEW.settings.forEach((setting, i) => { setting.i = i; setting.label = labelOf(setting); });

function labelOf(setting) {
  const own = OVERVIEW.columns.filter(key => key in setting.columns && !(key.startsWith("data.") && OVERVIEW.tasks?.length > 1));
  const differing = own.filter(key => OVERVIEW.settings.some(
    other => other.name === setting.name && textOf(other.columns[key]) !== textOf(setting.columns[key])));
  return [setting.method.replaceAll("_", " "), ...differing.map(key => `${key.split(".").pop()} ${textOf(setting.columns[key])}`)].join(", ");
}

function textOf(value) {
  if (value === null || value === undefined) return "–";
  return Array.isArray(value) ? value.map(textOf).join("+") : typeof value === "number" ? String(+value.toPrecision(6)) : String(value);
}

const scaleOf = metric => metric.percent ? 100 : 1;
const numberText = (value, metric, digits = metric.percent ? 1 : 3) =>
  value === null || value === undefined ? "–" : (scaleOf(metric) * value).toFixed(digits);

// Format a mean as `70.1 ± 2.0`, or with both ends of its interval if the interval is cut off. With one or two runs, there is
// no interval: list the runs' values. If all values are equal, which accuracies of small groups often are, say so.
function meanText(over, metric) {
  const text = value => numberText(value, metric);
  if (!over.n) return "–";
  if (over.low === null) return over.values.map(text).join(", ");
  if (over.high - over.low < 1e-12) return `${text(over.mean)} (all ${over.n} equal)`;
  const even = Math.abs(over.low + over.high - 2 * over.mean) < 1e-9;
  const half = (over.high - over.low) / 2, digit = Number((scaleOf(metric) * half).toPrecision(1));  // one digit instead of ± 0.0
  return even ? `${text(over.mean)} ± ${Number(text(half)) ? text(half) : digit}` : `${text(over.mean)} (${text(over.low)} to ${text(over.high)})`;
}

const pText = p => p === null ? "" : p < 0.001 ? "< 0.001" : p.toFixed(3);
const axisLabel = metric => `test ${metric.label}${metric.percent ? ", %" : ""}${metric.lower ? " (lower is better)" : ""}`;
const valueOf = (run, metric, rule = chosen.rule) => run.values[rule]?.[metric] ?? null;

function matches(setting, words = chosen.words) {
  const text = `${setting.label} ${setting.overrides} ${Object.entries(setting.columns).map(([k, v]) => `${k}=${textOf(v)}`).join(" ")}`.toLowerCase();
  return words.every(word => text.includes(word));
}

const alike = d3.group(OVERVIEW.settings, setting => setting.task, setting => setting.name);
const hasSeveral = setting => alike.get(setting.task).get(setting.name).length > 1;

// Return the methods of the chosen task that match the filter, best first. Each method has the setting with the best score on
// val, or all of its settings if the reader chose that.
function rankedMethods() {
  const metric = OVERVIEW.metrics[chosen.metric];
  const methods = OVERVIEW.settings.filter(s => s.task === chosen.task && matches(s) && (chosen.every || s.chosen))
    .map(setting => summarised(setting, chosen.metric));
  const sign = metric.lower ? 1 : -1;
  methods.sort((a, b) => a.mean === null ? 1 : b.mean === null ? -1 : sign * (a.mean - b.mean));
  methods.forEach((method, i) => { method.rank = i + 1; method.best = i === 0 && method.mean !== null; });
  const baseline = OVERVIEW.settings[chosen.baseline];
  if (baseline && baseline.task === chosen.task) {
    const reference = summarised(baseline, chosen.metric).bySeed;
    for (const method of methods) {
      method.isBaseline = method.setting.i === chosen.baseline;
      const shared = [...method.bySeed.keys()].filter(seed => reference.has(seed));
      const differences = shared.map(seed => method.bySeed.get(seed) - reference.get(seed));
      method.difference = method.isBaseline ? null : meanOf(differences, OVERVIEW.t);
      method.p = method.isBaseline ? null : pairedP(differences);
    }
    holm(methods.map(method => method.p)).forEach((p, i) => methods[i].adjusted = p);
  }
  return {metric, methods, baseline: methods.find(method => method.isBaseline)};
}

// Return the methods whose difference from the best one may be chance: p of at least 0.05 after Holm's correction, paired by seed.
function levelWithBest([best, ...others]) {
  const differences = others.map(other => [...best.bySeed].filter(([seed]) => other.bySeed.has(seed)).map(([seed, value]) => value - other.bySeed.get(seed)));
  const adjusted = holm(differences.map(pairedP));
  return others.map((method, i) => ({method, p: adjusted[i]})).filter(({p}) => p === null || p >= 0.05);
}

function summarised(setting, index) {
  const metric = OVERVIEW.metrics[index], all = runsOf.get(setting.i) ?? [];
  const done = all.filter(run => run.status === "done");
  const bySeed = new Map(done.map(run => [run.seed, valueOf(run, index)]).filter(([, value]) => value !== null));
  const lost = d3.rollups(all.filter(run => run.status !== "done"), runs => runs.length, run => run.status);
  return {
    ...meanOf([...bySeed.values()], OVERVIEW.t, metric.low ?? -Infinity, metric.high ?? Infinity),
    setting, bySeed, runs: done, id: setting.i, label: setting.label,
    leftOut: lost.map(([status, n]) => `${n} ${status}`).join(", ") || "–",
    seconds: d3.mean(done, run => run.seconds) ?? null, reads: readsOf(setting), difference: null, p: null, adjusted: null,
  };
}

// Return the labels that the chosen selection rule reads.
function readsOf(setting) {
  const rule = OVERVIEW.rules.find(rule => rule.name === chosen.rule);
  return rule.labels === null ? `${setting.rule.labels} (${setting.rule.name})` : rule.labels;
}
