// What the theme leaves out for who uses a keyboard or a screen reader.
document.addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.setAttribute("aria-level", "2");
  const names = { "sidebar-drawer": "Pages", "toc-drawer": "On this page" };
  for (const [drawer, name] of Object.entries(names)) document.querySelector(`aside.${drawer}`)?.setAttribute("aria-label", name);
  for (const wide of document.querySelectorAll("pre, .table-wrapper")) wide.tabIndex = 0;
  for (const cell of document.querySelectorAll(".table-wrapper td")) {
    cell.classList.toggle("number", /^[^a-z]*±[^a-z]*$/i.test(cell.textContent));
    for (const name of cell.querySelectorAll("code, code .pre"))
      if (!name.childElementCount) name.innerHTML = name.innerHTML.replace(/(?<=\w)[._=,(](?=["\w])|[a-z](?=[A-Z])/g, "$&<wbr>");
  }
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) link.setAttribute("aria-label", link.textContent);
});
