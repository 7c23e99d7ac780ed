// For `imbalance watch` only: check every few seconds whether the runs have changed. If so, reload the page and restore the
// reader's choices.
"use strict";
const LISTS = ["task", "metric", "rule", "baseline", "every"], TABLES = ["methods", "run-table"], SECONDS = 5;
const following = control("follow"), statusText = control("follow-status");

function keep() {
  const focused = document.activeElement;
  sessionStorage.setItem("kept", JSON.stringify({
    lists: LISTS.map(name => control(name).selectedOptions[0]?.text), filter: control("filter").value,
    orders: TABLES.map(name => order.get(control(name)) ?? null), all: mostRuns === Infinity, theme: document.documentElement.dataset.theme,
    focus: focused?.id || null, caret: focused === control("filter") ? focused.selectionStart : null, scroll: [scrollX, scrollY, dialog.scrollTop],
  }));
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem("kept") ?? "null");
  sessionStorage.removeItem("kept");
  if (!kept) return;
  setTheme(kept.theme);
  LISTS.forEach((name, i) => {
    const option = [...control(name).options].find(option => option.text === kept.lists[i]);
    if (!option || option.selected) return;
    control(name).value = option.value;
    control(name).dispatchEvent(new Event("change"));
  });
  if (kept.all) mostRuns = Infinity;
  TABLES.forEach((name, i) => kept.orders[i] && order.set(control(name), kept.orders[i]));
  control("filter").value = kept.filter;
  control("filter").dispatchEvent(new Event("input")); // redraws everything
  document.getElementById(kept.focus)?.focus({preventScroll: true});
  if (kept.caret !== null) control("filter").setSelectionRange(kept.caret, kept.caret);
  scrollTo({left: kept.scroll[0], top: kept.scroll[1], behavior: "instant"});
  dialog.scrollTop = kept.scroll[2];
}

async function check() {
  try {
    const answer = await fetch("/stamp");
    const changed = answer.ok && await answer.text() !== document.body.dataset.live;
    if (changed && following.checked) {
      keep();
      return location.reload();
    }
    statusText.textContent = changed ? "The runs have changed." : "";
  } catch {
    statusText.textContent = "imbalance watch has stopped.";
  }
  setTimeout(check, 1000 * SECONDS);
}

following.addEventListener("change", () => sessionStorage.setItem("paused", following.checked ? "" : "yes"));
following.checked = !sessionStorage.getItem("paused");
restore();
setTimeout(check, 1000 * SECONDS);
