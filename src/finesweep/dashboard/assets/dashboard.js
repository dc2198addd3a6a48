// What makes a page live: asks for the marks of the sweeps that it shows, and fetches again what is another then.
// The pages are whole without it, apart from the plots. All HTML that is put in comes escaped from our own server.
import { drawParallel } from "/assets/parallel.js";
import { scrollRows } from "/assets/rows.js";

const EVERY_MS = 2000, AGES_EVERY = 5;
const tags = new Map();  // address -> ETag of what is shown
const drawn = new Set(), visible = new Set();
const dark = matchMedia("(prefers-color-scheme: dark)");
const all = (selector) => [...document.querySelectorAll(selector)];
const parts = all("[data-part]"), plots = all("[data-figure]");
const live = document.querySelector("#live");

async function fetched(address, { always = false } = {}) {
  const answer = await fetch(address, { cache: "no-cache", headers: { Accept: "*/*" } });
  const tag = answer.headers.get("ETag");
  if (!answer.ok) throw new Error(`${answer.status}`);
  if (!always && tag && tags.get(address) === tag) return null;
  tags.set(address, tag);
  return answer;
}

// --- parts: pieces of HTML ------------------------------------------------------------------------------------------

const isTyped = (part) => part.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox])");

async function refreshPart(part) {
  if (isTyped(part)) return;  // it comes with the next news
  const query = "keepsQuery" in part.dataset ? location.search : "";
  const answer = await fetched(part.dataset.part + query);
  if (answer === null) return;
  const html = await answer.text();
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  const { scrollLeft = 0, scrollTop = 0 } = part.querySelector(".wide") ?? {};
  const checked = new Set([...part.querySelectorAll("input:checked")].map((one) => one.value));
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.innerHTML = html;
  part.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? false; });
  part.querySelectorAll("input[type=checkbox]").forEach((one) => { one.checked = checked.has(one.value); });
  if (part === trials) scrollTrials(scrollTop);
  if (part.querySelector(".wide")) part.querySelector(".wide").scrollLeft = scrollLeft;
  if (focused) [...part.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
}

const trials = document.querySelector("#trials");
const where = document.querySelector("#where");

// Of a table of several pages make one that scrolls; the links between its pages are for those without JavaScript.
function scrollTrials(top) {
  const facts = trials.querySelector("#rows-shown")?.dataset;
  if (!facts || Number(facts.nPages) < 2) return;
  const said = trials.querySelector("#rows-seen");
  trials.querySelector(".pages").hidden = true;
  scrollRows(trials.querySelector(".wide"), {
    nRows: Number(facts.nRows), pageSize: Number(facts.pageSize), page: Number(facts.page), top,
    shown: (from, to) => { said.textContent = `${from.toLocaleString("en")} to ${to.toLocaleString("en")}`; },
    fetchPage: async (page) => {
      const asked = new URLSearchParams(location.search);
      asked.set("page", page);
      const answer = await fetch(`${trials.dataset.part}?${asked}`, { cache: "no-cache" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      return new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("tbody");
    },
  });
}

function show(address) {
  trials.querySelector(".wide")?.scrollTo(0, 0);
  history.pushState(null, "", address);
  if (where) where.value = new URLSearchParams(location.search).get("where") ?? "";
  refreshPart(trials).catch(lost);
}

function filter(text) {
  const asked = new URLSearchParams(location.search);
  asked.delete("page");
  if (text) asked.set("where", text); else asked.delete("where");
  show(asked.size ? `?${asked}` : location.pathname);
}

if (trials) {
  trials.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-part-link]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    show(link.getAttribute("href"));
  });
  document.querySelector("[data-part-form=trials]").addEventListener("submit", (event) => {
    event.preventDefault();
    filter(where.value.trim());
  });
  addEventListener("popstate", () => {
    where.value = new URLSearchParams(location.search).get("where") ?? "";
    refreshPart(trials).catch(lost);
  });
}

const search = document.querySelector("[data-live-search] input");
search?.addEventListener("input", () => {
  history.replaceState(null, "", search.value ? `?search=${encodeURIComponent(search.value)}` : location.pathname);
  refreshPart(parts[0]).catch(lost);
});

// --- plots ----------------------------------------------------------------------------------------------------------

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [text, quiet, line, page] = ["--text", "--quiet", "--line", "--page"].map((name) => style.getPropertyValue(name).trim());
  const made = { ...layout, template: undefined, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true };
  made.font = { family: "system-ui, sans-serif", size: 13, color: text };
  made.margin = { t: 16, r: 12, b: 48, l: 56 };
  made.hoverlabel = { bgcolor: page, bordercolor: quiet, font: { color: text }, align: "left" };
  made.legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...(layout.legend ?? {}), title: { text: "" } };
  const tickfont = { size: innerWidth < 600 ? 10 : 12 };
  for (const axis of ["xaxis", "yaxis"]) {
    made[axis] = { automargin: true, exponentformat: layout[axis]?.type === "log" ? "power" : axis === "yaxis" ? "e" : "B", tickfont, gridcolor: line, zerolinecolor: line, linecolor: line, ...(layout[axis] ?? {}) };
  }
  return made;
}

function themedData(data) {
  const style = getComputedStyle(document.documentElement);
  const swapped = { "#000000": style.getPropertyValue("--text").trim(), white: style.getPropertyValue("--page").trim(), "#0072B2": style.getPropertyValue("--complete").trim() };
  const swap = (value) => (typeof value === "string" && value in swapped ? swapped[value] : value);
  return data.map((trace) => {
    const made = { ...trace };
    if (trace.line) made.line = { ...trace.line, color: swap(trace.line.color) };
    if (trace.marker) {
      made.marker = { ...trace.marker, color: swap(trace.marker.color) };
      if (trace.marker.line) made.marker.line = { ...trace.marker.line, color: swap(trace.marker.line.color) };
    }
    if (trace.error_x) made.error_x = { ...trace.error_x, color: style.getPropertyValue("--text").trim() };
    return made;
  });
}

const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] };

async function put(plot, figure) {
  if (figure.nothing) {
    if (plot.data) window.Plotly.purge(plot);
    plot.classList.add("bare");
    const said = document.createElement("p");
    said.className = "empty";
    said.textContent = figure.nothing;
    plot.replaceChildren(said);
    return;
  }
  plot.classList.remove("bare");
  plot.querySelector(":scope > p")?.remove();
  plot.figure = figure;
  await window.Plotly.react(plot, themedData(figure.data), themed(figure.layout), CONFIG);
}

async function refreshPlot(plot) {
  drawn.add(plot);
  const answer = await fetched(plot.dataset.figure);
  if (answer !== null) await put(plot, await answer.json());
}

let firstDrawn = null;  // what waits for the first plot
const observer = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (isIntersecting) visible.add(target); else visible.delete(target);
    if (isIntersecting && (!drawn.has(target) || target.stale)) {
      target.stale = false;
      const drawing = target.matches("[data-parallel]") ? refreshParallel() : refreshPlot(target);
      drawing.catch(() => failed(target)).finally(() => { firstDrawn?.(); firstDrawn = null; });
    }
  }
}, { rootMargin: "300px" });

function failed(plot) {
  if (!plot.data) put(plot, { nothing: "It could not be loaded. It is tried again when there is news, or with a reload." });
}

document.querySelector("[data-figure-choice=curves]")?.addEventListener("change", (event) => {
  const plot = document.querySelector("#curves");
  const base = plot.dataset.figure.split("?")[0];
  plot.dataset.figure = `${base}?of=${encodeURIComponent(event.target.value)}`;
  refreshPlot(plot).catch(() => failed(plot));
});

// --- parallel coordinates and a trial's curves ----------------------------------------------------------------------

const parallel = document.querySelector("[data-parallel]");
const unbrush = document.querySelector("#unbrush");
const brushes = new Map();
let lines = null, typed = "";
if (where) typed = where.value;
where?.addEventListener("input", () => { typed = where.value; });

function brushed(text) {
  unbrush.hidden = brushes.size === 0;
  filter([typed && brushes.size ? `(${typed})` : typed, text].filter(Boolean).join(" and "));
}

function drawLines() {
  drawParallel(parallel, lines, brushes, brushed);
}

unbrush?.addEventListener("click", () => {
  brushes.clear();
  drawLines();
  brushed("");
});

// What is there to be drawn in a box; null where that is what is drawn, or nothing, and then the box says so.
async function toDraw(box, address) {
  const answer = await fetched(address);
  if (answer === null) return null;
  const found = await answer.json();
  if (!found.nothing) return found;
  put(box, found);
  return null;
}

async function refreshParallel() {
  drawn.add(parallel);
  const found = await toDraw(parallel, parallel.dataset.parallel);
  if (found === null) return;
  lines = found;
  drawLines();
}

const curves = document.querySelector("[data-curves]");
async function refreshCurves() {
  const found = await toDraw(curves, curves.dataset.curves);
  if (found === null) return;
  curves.querySelectorAll(":scope > p").forEach((one) => one.remove());
  for (const { name, figure } of found) {
    let box = [...curves.children].find((one) => one.dataset.name === name);
    if (!box) {
      box = document.createElement("div");
      box.dataset.name = name;
      box.className = "canvas low";
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name} against examples seen`);
      curves.append(box);
    }
    await put(box, figure);
  }
}

// --- looks and news -------------------------------------------------------------------------------------------------

dark.addEventListener("change", () => {
  all(".canvas").filter((one) => one.figure).forEach((one) => put(one, one.figure));
  if (lines) drawLines();
});

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width && lines) drawLines();
  width = innerWidth;
});

function lost() {
  live.textContent = "The dashboard does not answer; it is asked again every few seconds.";
}

async function refreshAll() {
  const wanted = [];
  for (const plot of drawn) {
    if (!visible.has(plot)) plot.stale = true;
    else wanted.push(plot === parallel ? refreshParallel : () => refreshPlot(plot));
  }
  if (curves) wanted.push(refreshCurves);
  // What may take long comes last; one after the other, so that a browser's few connections stay free.
  const late = (part) => "atOnce" in part.dataset;
  for (const part of [...parts].sort((a, b) => late(a) - late(b))) wanted.push(() => refreshPart(part));
  let failure = null;
  for (const refresh of wanted) await refresh().catch((error) => { failure = error; });
  if (failure) throw failure;
}

const shown = document.querySelector("[data-mark-of]");
const isHome = document.querySelector("[data-marks]") !== null;
let marks = shown ? JSON.stringify({ [shown.dataset.markOf]: shown.dataset.mark }) : null;
let round = 0;

async function look() {
  if (!document.hidden && (shown || isHome)) {
    try {
      const asked = shown ? `?sweep=${encodeURIComponent(shown.dataset.markOf)}` : "";
      const answer = await fetch(`/marks${asked}`, { cache: "no-cache" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const now = JSON.stringify(await answer.json());
      if (marks !== null && now !== marks) {
        marks = now;
        await refreshAll();
        live.textContent = `News as of ${new Date().toLocaleTimeString()}.`;
      } else {
        if (++round % AGES_EVERY === 0 && parts.length) await refreshPart(parts[0]);  // "last report 20 s ago"
        if (live.textContent.startsWith("The dashboard")) live.textContent = "The dashboard answers again.";
      }
      marks = now;
    } catch {
      lost();
    }
  }
  setTimeout(look, EVERY_MS);
}

function begin() {
  if (trials) scrollTrials(0);
  [...plots, ...(parallel ? [parallel] : [])].forEach((one) => observer.observe(one));
  if (curves) refreshCurves().catch(() => failed(curves));
  // What takes long to compute is asked for once the plots in sight are drawn.
  const later = () => all("[data-at-once]").forEach((one) => refreshPart(one).catch(lost));
  if (plots.length) firstDrawn = later; else later();
  setTimeout(look, EVERY_MS);
}

begin();
