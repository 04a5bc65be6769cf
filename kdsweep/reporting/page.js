"use strict";
// Run the page: figures, theme, tables, copying, the current section in the navigation. Nothing is fetched.

const root = document.documentElement;
const every = (selector, within = document) => [...within.querySelectorAll(selector)];
function element(tag, properties) { return Object.assign(document.createElement(tag), properties); }

// Figures and theme ---------------------------------------------------------------------------------------------------

const plots = every(".plot");
const colour = name => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

/** Return the colours of `layout` that the stylesheet has now, as changes for Plotly.relayout. */
function themed(layout) {
  const colours = {"font.color": colour("soft"), "hoverlabel.bgcolor": colour("ink"), "hoverlabel.bordercolor": colour("ink"),
    "hoverlabel.font.color": colour("page")};
  for (const axis of Object.keys(layout).filter(key => /^[xy]axis\d*$/.test(key))) {
    colours[`${axis}.gridcolor`] = colour("grid");
  }
  return colours;
}

/** Give every figure the page's colours; traces with an arm as `meta` get that arm's colour. */
function paint() {
  for (const plot of plots) {
    for (const arm of ["distilled", "fine_tuned", "pseudo_labeled"]) {
      const mine = plot.data.flatMap((trace, index) => trace.meta === arm ? [index] : []);
      if (mine.length) {
        const own = colour(arm);
        Plotly.restyle(plot, plot.data[mine[0]].type === "bar" ? {"marker.color": own} : {"marker.color": own, "line.color": own}, mine);
      }
    }
    Plotly.relayout(plot, themed(plot.layout));
  }
}

for (const plot of plots) {
  const {data, layout} = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  Plotly.newPlot(plot, data, layout, {responsive: true, displayModeBar: false});
}
paint();

const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const toggle = document.getElementById("theme");
function tell() { toggle.textContent = dark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `${toggle.textContent} colours`); }
toggle.hidden = false;
toggle.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try { localStorage.setItem("kdsweep-theme", root.dataset.theme); } catch { /* the browser stores nothing */ }
  tell();
  paint();
});
system.addEventListener("change", () => { tell(); paint(); });
tell();

// Print in light colours at the paper's width, up to three figures a row (two dense ones) as in page.css; then restore the window's.
const PAPER = 690;  // CSS pixels of A4 without its margins
addEventListener("beforeprint", () => {
  root.dataset.screen = root.dataset.theme ?? "";
  root.dataset.theme = "light";
  paint();
  for (const plot of plots) {
    const row = plot.closest(".plots");
    const columns = Math.min(row.classList.contains("dense") ? 2 : 3, every(".plot", row).length);
    Plotly.relayout(plot, {width: (PAPER + 20) / columns - 20});
  }
});
addEventListener("afterprint", () => {
  if (root.dataset.screen) root.dataset.theme = root.dataset.screen; else delete root.dataset.theme;
  paint();
  for (const plot of plots) Plotly.relayout(plot, {width: null, autosize: true});
});

// Tables: sort, filter, fold --------------------------------------------------------------------------------------------

const FOLD = 50;  // rows shown until the reader asks for all
const EMPTY = "–";
const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();

/** Compare two keys for sorting: numbers as numbers, texts as texts, unknown ones last in both directions. */
function compare(a, b, up, numeric) {
  const none = text => text === "" || text === EMPTY;
  if (none(a) || none(b)) return none(a) - none(b);
  const order = numeric ? a - b : a.localeCompare(b, undefined, {numeric: true});
  return up ? order : -order;
}

/** Make the headers of `table` sort it and its form filter it; only the first rows are shown until the reader asks for all. */
function live(table) {
  const original = [...table.tBodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];
  const named = headers.map(header => header.textContent);
  const form = document.getElementById(table.dataset.filters);
  const more = element("button", {type: "button", className: "quiet more"});
  const rest = element("p", {className: "note rest"});  // printed instead of the button `more`
  let rows = original, all = original.length <= FOLD * 1.2;

  function wanted() {
    if (!form) return () => true;
    const {text, arm, status} = form.elements;
    const words = text.value.toLowerCase().split(/\s+/);
    const fits = (row, select) => !select.value || row.cells[named.indexOf(select.name)].textContent === select.value;
    return row => fits(row, arm) && fits(row, status)
      && words.every(word => row.textContent.toLowerCase().includes(word));
  }
  function show() {
    const kept = rows.filter(wanted());
    const shown = new Set(all ? kept : kept.slice(0, FOLD));
    for (const row of rows) row.hidden = !shown.has(row);
    more.hidden = rest.hidden = shown.size === kept.length;
    rest.textContent = `${(kept.length - shown.size).toLocaleString("en")} more trials are in leaderboard.csv.`;
    more.textContent = `Show all ${kept.length.toLocaleString("en")}`;
    if (form) form.querySelector("output").textContent = `${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} trials`;
  }
  function sort(column) {
    const up = headers[column].getAttribute("aria-sort") !== "ascending";
    headers.forEach(other => other.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const keys = new Map(original.map(row => [row, key(row, column)]));
    const numeric = [...keys.values()].every(text => text === EMPTY || !isNaN(text));
    rows = [...original].sort((a, b) => compare(keys.get(a), keys.get(b), up, numeric));
    table.tBodies[0].append(...rows);
    show();
  }

  headers.forEach((header, column) => {
    const button = element("button", {type: "button"});
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(column));
    header.append(button);
  });
  more.addEventListener("click", () => { all = true; show(); });
  table.parentElement.after(more, rest);
  if (form) {
    form.hidden = false;
    form.addEventListener("input", show);
    form.addEventListener("submit", event => event.preventDefault());
  }
  show();
}
every("table.live").forEach(live);

// Copying -------------------------------------------------------------------------------------------------------------

/** Copy a text to the clipboard, also where a browser gives a page from disk no clipboard. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = element("textarea", {value: text});
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
for (const block of every(".commands dd")) {
  const purpose = block.previousElementSibling.textContent;
  const button = element("button", {type: "button", className: "quiet copy", textContent: "Copy", ariaLabel: `Copy: ${purpose}`});
  button.addEventListener("click", async () => {
    await copy(block.querySelector("code").textContent);
    button.textContent = "Copied";
    document.getElementById("said").textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; document.getElementById("said").textContent = ""; }, 2000);
  });
  block.append(button);
}

// The current section ---------------------------------------------------------------------------------------------------

const links = new Map(every("nav a").map(link => [document.getElementById(link.hash.slice(1)).closest("section"), link]));
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries.filter(entry => entry.isIntersecting)) {
    links.forEach(link => link.removeAttribute("aria-current"));
    links.get(entry.target).setAttribute("aria-current", "true");
  }
}, {rootMargin: "-20% 0px -75% 0px"});
links.forEach((_, section) => watcher.observe(section));
