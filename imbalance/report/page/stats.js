// Compute means over seeds, paired differences and their tests, by the formulas of imbalance/metrics/intervals.py.
"use strict";
const FEWEST = 3;

// Return {mean, low, high, n, values}. With fewer than three values there is no interval, so low and high are null.
function meanOf(values, t, low = -Infinity, high = Infinity) {
  const known = values.filter(v => v !== null && v !== undefined);
  const n = known.length, mean = n ? d3.mean(known) : null;
  if (n < FEWEST) return {mean, low: null, high: null, n, values: known};
  const half = d3.deviation(known) / Math.sqrt(n) * t[n - 2];
  return {mean, low: Math.max(low, mean - half), high: Math.min(high, mean + half), n, values: known};
}

// Return the two-sided p-value of a paired t-test; null for fewer than three differences, or if all differences are equal.
function pairedP(differences) {
  const n = differences.length;
  if (n < FEWEST) return null;
  const deviation = d3.deviation(differences);
  if (!(deviation > 1e-12)) return null;
  const t = d3.mean(differences) / (deviation / Math.sqrt(n)), freedom = n - 1;
  return incompleteBeta(freedom / (freedom + t * t), freedom / 2, 0.5);
}

// Return p-values corrected for several comparisons by Holm (1979); null stays null and does not count as a comparison.
function holm(pValues) {
  const tested = d3.range(pValues.length).filter(i => pValues[i] !== null).sort((a, b) => pValues[a] - pValues[b]);
  const adjusted = pValues.map(() => null);
  let most = 0;
  tested.forEach((index, i) => adjusted[index] = most = Math.min(1, Math.max(most, pValues[index] * (tested.length - i))));
  return adjusted;
}

// Return the regularised incomplete beta function I_x(a, b), by its continued fraction (Numerical Recipes, 6.4).
function incompleteBeta(x, a, b) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
  let c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), sum = d;
  for (let m = 1; m <= 300; m++) {
    const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    for (const term of [even, odd]) {
      d = 1 / (1 + term * d);
      c = 1 + term / c;
      sum *= c * d;
    }
    if (Math.abs(c * d - 1) < 1e-14) break;
  }
  return front * sum;
}

// Return the logarithm of the gamma function by Lanczos' approximation, to 15 digits for positive x.
function logGamma(x) {
  const g = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
             12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const series = g.slice(1).reduce((sum, value, i) => sum + value / (x + i), g[0]);
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(x + 6.5) - (x + 6.5) + Math.log(series);
}
