// Parallel coordinates on a canvas, with a brush for each axis. Without WebGL, which plotly's own need.
// In: what figures.parallel_lines gives. Out: ranges that were brushed, as a condition of --where.

const TOP = 44, BOTTOM = 16, SIDE = 60, APART = 96;
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Write a number so that a reader can change it, and no row at the edge is lost by rounding.
const written = (value) => String(Number(value.toPrecision(5)));

export function condition(axes, brushes) {
  const parts = [];
  for (const [place, [from, to]] of brushes) {
    const axis = axes[place];
    if (axis.kind === "choice") {
      const chosen = axis.ticks.filter((tick) => tick.literal !== null && tick.literal !== undefined && tick.place >= from - 1e-6 && tick.place <= to + 1e-6);
      const texts = chosen.map((tick) => `${axis.column} == ${tick.literal}`);
      parts.push(texts.length === 1 ? texts[0] : texts.length ? `(${texts.join(" or ")})` : `${axis.column} != ${axis.column}`);
      continue;
    }
    const at = (share) => {
      const value = axis.range[0] + share * (axis.range[1] - axis.range[0]);
      return written(axis.kind === "log" ? 10 ** value : value);
    };
    if (from > 0) parts.push(`${axis.column} >= ${at(from)}`);
    if (to < 1) parts.push(`${axis.column} <= ${at(to)}`);
  }
  return parts.join(" and ");
}

export function drawParallel(box, data, brushes, changed) {
  const { axes, numbers } = data;
  box.replaceChildren();
  const stage = document.createElement("div");
  stage.className = "stage";
  stage.style.minWidth = `${2 * SIDE + (axes.length - 1) * APART}px`;
  const canvas = document.createElement("canvas");
  const svg = node("svg", { role: "group", "aria-label": `Parallel coordinates of ${numbers.length} complete trials` });
  stage.append(canvas, svg);
  box.append(stage);

  const width = stage.clientWidth, height = stage.clientHeight;
  const x = (place) => SIDE + (place * (width - 2 * SIDE)) / Math.max(1, axes.length - 1);
  const y = (share) => height - BOTTOM - share * (height - TOP - BOTTOM);
  const last = axes[axes.length - 1].places;
  const rank = numbers.map((_, row) => (data.maximize ? last[row] : 1 - last[row]));
  const order = numbers.map((_, row) => row).sort((a, b) => rank[a] - rank[b]);

  function lines() {
    const scale = window.devicePixelRatio || 1;
    const style = getComputedStyle(document.documentElement);
    const [weak, strong] = ["--weak", "--strong"].map((name) => channels(style.getPropertyValue(name)));
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.lineWidth = numbers.length > 300 ? 0.6 : 1.2;
    const inside = (row) => [...brushes].every(([place, [from, to]]) => axes[place].places[row] >= from - 1e-4 && axes[place].places[row] <= to + 1e-4);
    for (const within of [false, true]) {
      for (const row of order) {
        if (inside(row) !== within) continue;
        const mixed = weak.map((from, channel) => Math.round(from + rank[row] * (strong[channel] - from)));
        pen.strokeStyle = `rgb(${mixed.join(" ")})`;
        pen.globalAlpha = within ? 0.85 : 0.08;
        pen.beginPath();
        axes.forEach((axis, place) => pen.lineTo(x(place), y(axis.places[row])));
        pen.stroke();
      }
    }
  }

  axes.forEach((axis, place) => {
    const at = x(place);
    svg.append(node("line", { class: "axis", x1: at, x2: at, y1: y(0), y2: y(1) }));
    const anchor = place === axes.length - 1 ? "end" : place === 0 ? "start" : "middle";
    const shift = anchor === "start" ? -SIDE + 8 : anchor === "end" ? SIDE - 8 : 0;
    svg.append(node("text", { class: "label", x: at + shift, y: 14 + (place % 2) * 15, "text-anchor": anchor }, axis.label));
    for (const tick of axis.ticks) {
      svg.append(node("text", { class: "tick", x: at - 5, y: y(tick.place) + 4, "text-anchor": "end" }, tick.text));
    }
    const brush = node("rect", { class: "brush", x: at - 8, width: 16, y: 0, height: 0 });
    svg.append(brush);
    const show = () => {
      const range = brushes.get(place);
      brush.setAttribute("height", range ? y(range[0]) - y(range[1]) : 0);
      if (range) brush.setAttribute("y", y(range[1]));
    };
    show();
    if (axis.column === null) return;
    const grip = node("rect", { class: "grip", "data-axis": axis.label, x: at - 14, width: 28, y: y(1) - 6, height: y(0) - y(1) + 12 });
    let began = null;
    const share = (event) => {
      const within = svg.getBoundingClientRect();
      return Math.min(1, Math.max(0, (y(0) - (event.clientY - within.top)) / (y(0) - y(1))));
    };
    grip.addEventListener("pointerdown", (event) => {
      began = share(event);
      grip.setPointerCapture(event.pointerId);
    });
    grip.addEventListener("pointermove", (event) => {
      if (began === null) return;
      const now = share(event);
      brushes.set(place, [Math.min(began, now), Math.max(began, now)]);
      show();
      lines();
    });
    const end = (event) => {
      if (began === null) return;
      if (Math.abs(share(event) - began) < 0.01) brushes.delete(place);  // a click takes the range away
      began = null;
      show();
      lines();
      changed(condition(axes, brushes));
    };
    grip.addEventListener("pointerup", end);
    grip.addEventListener("pointercancel", end);
    svg.append(grip);
  });
  lines();
}

function channels(text) {
  const hex = text.trim().replace("#", "");
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
