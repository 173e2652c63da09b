// Search, pages and sorting, by DataTables. Without it the page shows all rows, and the filters work
// by the style sheet alone.
document.documentElement.classList.toggle(
  "dark", matchMedia("(prefers-color-scheme: dark)").matches);

for (const table of document.querySelectorAll("table.rows")) {
  const boxes = [...table.closest("section").querySelectorAll("fieldset input")];
  const shown = new DataTable(table, {
    autoWidth: false,
    columnDefs: [{ targets: "plain", orderable: false }],
    layout: { topStart: "info", topEnd: "search", bottomStart: "pageLength", bottomEnd: "paging" },
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    order: [],
    language: { search: "Search", lengthMenu: "_MENU_ rows a page", info: "_START_ to _END_ of _TOTAL_",
                infoFiltered: "(_MAX_ in all)", infoEmpty: "none", zeroRecords: "none of the rows" },
  });
  shown.search.fixed("filters", (text, cells, row) =>
    boxes.every((box) => !box.checked || shown.row(row).node().matches(`.is-${box.value}`)));
  for (const box of boxes) box.addEventListener("change", () => shown.draw());
}

// From a fact to the rows that it is about.
for (const link of document.querySelectorAll('a[href^="#"]'))
  link.addEventListener("click", (event) => {
    const part = document.querySelector(link.hash);
    for (const box of link.dataset.only === undefined ? [] : part.querySelectorAll("fieldset input")) {
      box.checked = box.value === link.dataset.only;
      box.dispatchEvent(new Event("change"));
    }
    if (location.protocol === "about:") {  // in a frame a link would lead to the page around it
      event.preventDefault();
      part.scrollIntoView();
    }
  });
