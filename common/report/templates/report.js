// What the page can do besides being read: sort, filter, read values off figures, enlarge, download.
// The page holds everything without this script, which only adds controls. It loads nothing and stores nothing.
"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const say = (words) => (document.getElementById("said").textContent = words);
const button = (text, label, click) => {
  const element = make("button", { type: "button", textContent: text, ariaLabel: label });
  element.addEventListener("click", click);
  return element;
};

// --- sort -----------------------------------------------------------------------------------------------------------

// The number that a cell begins with ("−0.010", "1,234", "<0.01"); its text where it begins with none.
function valueOf(cell) {
  const text = (cell?.textContent ?? "").trim();
  const found = /^[✓✗<≤+\s]*([−-]?[\d,]*\.?\d+(?:e[−+-]?\d+)?)/.exec(text);
  return found ? Number(found[1].replaceAll(",", "").replaceAll("−", "-")) : text;
}

const blank = (value) => value === "" || value === "–";

function compare(one, other) {
  if (blank(one) || blank(other)) return blank(one) - blank(other);
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return typeof one === "number" ? one - other : one.localeCompare(other);
}

// Rows change places within their own group only; a group's heading stays its first row.
function sortBy(table, column, descending) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const keyed = rows.map((row, place) => ({ row, place, value: valueOf(row.cells[column]) }));
    keyed.sort((a, b) => (blank(a.value) || blank(b.value) || !descending ? 1 : -1) * compare(a.value, b.value) || a.place - b.place);
    body.append(...keyed.map((one) => one.row));
  }
}

function makeSortable(table) {
  const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
  const simple = table.tHead?.rows.length === 1 && heads.every((head) => head.colSpan === 1);
  const tall = all("tbody [rowspan]", table).length || all("tbody [colspan]", table).some((cell) => cell.scope !== "rowgroup");
  if (!simple || tall || Math.max(...[...table.tBodies].map((body) => body.rows.length)) < 2) return;
  heads.forEach((head, column) => {
    const sorter = make("button", { type: "button", className: "sort" }, ...head.childNodes);
    head.append(sorter);
    sorter.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

// --- filter ---------------------------------------------------------------------------------------------------------

function filterPage() {
  const chosen = Object.fromEntries(all("[data-filter]").map((one) => [one.dataset.filter, one.value]));
  const marked = all("[data-task], [data-model], [data-lane], [data-metric]", document.querySelector("main"));
  for (const element of marked) {
    element.hidden = Object.entries(chosen).some(([name, value]) => value && element.dataset[name] && element.dataset[name] !== value);
  }
  for (const section of all("main > section[data-task]")) {
    const articles = all("article", section);
    if (articles.length && articles.every((article) => article.hidden)) section.hidden = true;
  }
  for (const link of all(".bar a")) link.parentElement.hidden = Boolean(document.querySelector(link.hash)?.closest("section")?.hidden);
  const active = Object.values(chosen).some(Boolean);
  document.getElementById("show-all").hidden = !active;
  const shown = all("main > section article[data-lane]").filter((one) => !one.closest("[hidden]")).length;
  say(active ? `${shown} comparison${shown === 1 ? " is" : "s are"} shown.` : "Everything is shown.");
}

function makeFilters() {
  const group = document.getElementById("filters");
  if (!group) return;
  group.hidden = false;
  group.addEventListener("change", filterPage);
  document.getElementById("show-all").addEventListener("click", () => {
    all("[data-filter]").forEach((one) => (one.value = ""));
    filterPage();
  });
}

// --- values of a figure ---------------------------------------------------------------------------------------------

// From the SVG's own coordinate to the value on the axis.
function read(axis, at) {
  const share = (at - axis.at[0]) / (axis.at[1] - axis.at[0]);
  const [low, high] = axis.log ? axis.ends.map(Math.log10) : axis.ends;
  const value = low + share * (high - low);
  return axis.log ? 10 ** value : value;
}

function words(axis, at) {
  const value = read(axis, at);
  if (axis.names?.length) {
    return axis.names.reduce((best, one) => (Math.abs(one[0] - value) < Math.abs(best[0] - value) ? one : best))[1];
  }
  const span = Math.abs(axis.ends[1] - axis.ends[0]);
  const digits = axis.log ? 0 : Math.max(0, Math.min(6, 3 - Math.floor(Math.log10(span || 1))));
  const rounded = axis.log ? value.toPrecision(2) : value.toFixed(Math.min(digits, 4));
  const shown = Number(rounded) === 0 ? rounded.replace("-", "") : rounded.replace("-", "−");
  return `${axis.label ? `${axis.label}: ` : ""}${shown}`;
}

// Long paths are written in relative steps: l right down, h right, v down.
function cornersOf(path) {
  let [x, y] = [0, 0];
  return [...path.matchAll(/([MLlhv]) ?(-?[\d.]+)(?:[ ,]+(-?[\d.]+))?/g)].map(([, step, first, second]) => {
    const [a, b] = [Number(first), Number(second)];
    [x, y] = { M: [a, b], L: [a, b], l: [x + a, y + b], h: [x + a, y], v: [x, y + a] }[step];
    return [x, y];
  });
}

// Every point drawn: the marks of a series, or the corners of its line where it has none.
function pointsOf(svg) {
  const scales = JSON.parse(svg.dataset.scales);
  return all("[data-series]", svg).flatMap((series) => {
    const scale = scales[series.dataset.scale];
    const marks = all("use", series).map((use) => [use.x.baseVal.value, use.y.baseVal.value]);
    const lines = marks.length ? [] : all("path", series).filter((path) => !path.closest("defs"));
    const corners = lines.flatMap((path) => cornersOf(path.getAttribute("d")));
    return [...marks, ...corners].map(([x, y]) => ({ x, y, text: [words(scale.x, x), words(scale.y, y)], name: series.dataset.series }));
  });
}

const tip = make("div", { className: "tip", hidden: true, ariaHidden: "true" });

function showPoint(svg, point) {
  svg.querySelector(".spot")?.remove();
  if (!point) return (tip.hidden = true);
  const spot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ class: "spot", cx: point.x, cy: point.y, r: 6 })) spot.setAttribute(name, value);
  svg.append(spot);
  tip.replaceChildren(...(point.name ? [make("strong", { textContent: point.name })] : []), point.text.join("; "));
  (svg.closest("dialog") ?? document.body).append(tip);
  tip.hidden = false;
  const box = spot.getBoundingClientRect();
  const left = Math.min(box.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, box.top - tip.offsetHeight - 6)}px`;
}

function makeReadable(svg) {
  let [points, place] = [null, -1];
  const every = () => (points ??= pointsOf(svg).sort((a, b) => a.name.localeCompare(b.name) || a.x - b.x || a.y - b.y));
  svg.tabIndex = 0;
  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const reach = 18 / svg.getScreenCTM().a; // px on the screen
    let [nearest, least] = [null, reach];
    for (const point of every()) {
      const distance = Math.hypot(point.x - at.x, point.y - at.y);
      if (distance < least) [nearest, least] = [point, distance];
    }
    showPoint(svg, nearest);
  });
  for (const name of ["pointerleave", "blur"]) svg.addEventListener(name, () => showPoint(svg, null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") showPoint(svg, null);
    if (!step || !every().length) return;
    event.preventDefault();
    place = (place + step + points.length) % points.length;
    showPoint(svg, points[place]);
    say([points[place].name, ...points[place].text].filter(Boolean).join("; "));
  });
}

// --- enlarge --------------------------------------------------------------------------------------------------------

const dialog = make("dialog");

// The picture itself moves into the dialog and back, so that nothing is on the page twice.
function enlarge(picture, title) {
  const hole = document.createComment("");
  picture.replaceWith(hole);
  dialog.replaceChildren(button("Close", "Close", () => dialog.close()), make("strong", { textContent: title }), picture);
  dialog.setAttribute("aria-label", title);
  dialog.addEventListener("close", () => hole.replaceWith(picture), { once: true });
  dialog.firstChild.className = "close";
  dialog.showModal();
}

// --- download -------------------------------------------------------------------------------------------------------

function save(name, kind, text) {
  const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: kind })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// On white, in the colours of print, whatever theme the reader has.
function svgFile(svg) {
  const copy = svg.cloneNode(true);
  const [, , width, height] = svg.getAttribute("viewBox").split(" ");
  const colours = Object.entries(JSON.parse(document.body.dataset.colours)).map(([name, value]) => `--${name}: ${value}`);
  copy.querySelector(".spot")?.remove();
  for (const name of ["tabindex", "data-scales"]) copy.removeAttribute(name);
  const style = [svg.getAttribute("style") ?? "", "color: #000", "fill: currentColor", "background: #fff", "--card: #fff", "--ink: #000", "--soft: #555", "--line: #ccc", ...colours].join("; ");
  for (const [name, value] of Object.entries({ width: `${width}pt`, height: `${height}pt`, style })) copy.setAttribute(name, value);
  return new XMLSerializer().serializeToString(copy);
}

function linesOf(cell) {
  const copy = cell.cloneNode(true);
  all("small, br", copy).forEach((part) => part.before(" "));
  return copy.textContent.replace(/\s+/g, " ").trim();
}
const rowsOf = (table) => [...table.rows].map((row) => [...row.cells].map(linesOf));

function csvFile(table) {
  const guarded = (text) => (/^[=+@\t\r-]/.test(text) && !/^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(text) ? `'${text}` : text); // no formulas for a spreadsheet
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return `${rowsOf(table).map((row) => row.map((text) => quoted(guarded(text))).join(",")).join("\n")}\n`;
}

function latexFile(table) {
  const marks = { "\\": "\\textbackslash{}", "±": "$\\pm$", "−": "$-$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "≤": "$\\leq$", "<": "$<$", ">": "$>$", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "✓": "\\checkmark{}", "✗": "$\\times$", "●": "$\\bullet$", "≠": "$\\neq$", "\u00a0": "~" };
  const escaped = (text) => text.replace(/[\\±−↑↓≤<>~^✓✗●≠\u00a0]|[&%$#_{}]/g, (mark) => marks[mark] ?? `\\${mark}`);
  const [head, ...body] = rowsOf(table).map((row) => `${row.map(escaped).join(" & ")} \\\\`);
  const columns = "l" + "r".repeat(table.rows[0].cells.length - 1);
  return ["% needs \\usepackage{booktabs,amssymb}", `\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function makeTools() {
  for (const box of all(".scroll")) {
    const table = box.querySelector("table");
    if (!table || "asIs" in table.dataset) continue;
    const label = box.getAttribute("aria-label");
    box.after(make("p", { className: "tools" },
      button("CSV", `${label}, as CSV`, () => save(`${box.id}.csv`, "text/csv", csvFile(table))),
      button("LaTeX", `${label}, as LaTeX`, () => save(`${box.id}.tex`, "application/x-tex", latexFile(table))),
      button("Copy", `${label}, copy`, () => navigator.clipboard?.writeText(rowsOf(table).map((row) => row.join("\t")).join("\n")).then(() => say("Copied."), () => say("The browser did not let the page copy."))),
    ));
    const hint = box.previousElementSibling;
    if (hint?.classList.contains("hint") && box.scrollWidth <= box.clientWidth && box.clientWidth) hint.hidden = true;
  }
  for (const figure of all("figure")) {
    const [svg, link] = [figure.querySelector(":scope > svg"), figure.querySelector(".tools a")];
    if (!svg || !link) continue;
    const title = figure.querySelector("strong")?.textContent ?? "Figure";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      save(link.getAttribute("download"), "image/svg+xml", svgFile(svg));
    });
    link.after(button("Enlarge", `${title}, enlarge`, () => enlarge(svg, title)));
    if (svg.dataset.scales) makeReadable(svg);
  }
  for (const slice of all(".slices li")) {
    const picture = slice.querySelector(".overlay, img");
    const title = slice.querySelector("img")?.alt ?? "Slice";
    if (picture) slice.append(Object.assign(button("⤢", `${title}, enlarge`, () => enlarge(picture, title)), { className: "enlarge" }));
  }
}

// --- where the reader is --------------------------------------------------------------------------------------------

function followReader() {
  const links = new Map(all(".bar a").map((link) => [document.querySelector(link.hash)?.closest("section"), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target);
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.offsetLeft - list.clientWidth / 2 + link.offsetWidth / 2;
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const section of links.keys()) if (section) seen.observe(section);
}

// A link into a folded part opens it first.
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details:not([open])");
  if (!folded) return;
  folded.open = true;
  target.scrollIntoView();
}

document.body.append(dialog, tip);
all("table").forEach(makeSortable);
makeFilters();
makeTools();
followReader();
unfold();
addEventListener("hashchange", unfold);
addEventListener("beforeprint", () => all("details").forEach((one) => (one.open = true)));
