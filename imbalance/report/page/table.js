// Draw tables that the reader can sort by a column.
"use strict";

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

// Draw a table. Each column is {name, text(row), value(row), number, head, render(row)}. `order` holds, for each table, the
// column that the reader sorted it by.
const order = new WeakMap();
function drawTable(table, caption, columns, rows, classOf = () => null, most = Infinity) {
  const sorted = order.get(table);
  const by = sorted && columns.find(column => column.name === sorted.name);
  const value = (column, row) => (column.value ?? column.text)(row);
  const shown = by ? [...rows].sort((a, b) => compared(value(by, a), value(by, b), sorted.down)) : rows;
  const head = element("tr", {}, ...columns.map(column => {
    const state = by === column ? (sorted.down ? "descending" : "ascending") : null;
    const press = () => {
      order.set(table, {name: column.name, down: by === column ? !sorted.down : Boolean(column.number)});
      drawTable(table, caption, columns, rows, classOf, most);
      [...table.querySelectorAll("thead button")].find(button => button.textContent === column.name)?.focus();
    };
    return element("th", {scope: "col", class: column.number ? "number" : null, "aria-sort": state},
      element("button", {type: "button", onclick: press, title: column.title}, column.name));
  }));
  const body = shown.slice(0, most).map(row => element("tr", {class: classOf(row)}, ...columns.map(column =>
    element(column.head ? "th" : "td", {scope: column.head ? "row" : null, class: column.number ? "number" : column.classOf?.(row)},
      column.render ? column.render(row) : column.text(row)))));
  table.replaceChildren(element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
}

// Compare two values for sorting, in descending order if `down`. Missing values come last in both orders.
function compared(a, b, down) {
  const [missingA, missingB] = [a, b].map(v => v === null || v === undefined || v === "");
  if (missingA || missingB) return missingA - missingB;
  const result = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
  return down ? -result : result;
}

function definitions(list, values) {
  list.replaceChildren(...Object.entries(values).flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, textOf(value))]));
}
