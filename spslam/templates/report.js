"use strict";
// Draws the charts of a run from the numbers in #data. Positions of frames, keyframes and ground
// truth are metres or map units, times are seconds since the first frame.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const charts = [];
// Number of colours of the position error.
const BINS = 24;

function node(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

function span(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  return low <= high ? [low, high] : [0, 1];
}

// Round numbers at which to label an axis from low to high, with about `count` steps.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) || 10);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

const short = (value) => String(+value.toPrecision(4));

function length(value) {
  if (data.unit !== "m") return short(value) + " " + data.unit;
  return value < 0.1 ? short(+(1000 * value).toPrecision(3)) + " mm" : short(+value.toPrecision(3)) + " m";
}

// Colour of a fraction, 0 to 1, in the current theme.
function ramp(share) {
  const [from, to, part] = share < 0.5 ? ["low", "middle", 2 * share] : ["middle", "high", 2 * share - 1];
  return `color-mix(in oklab, var(--${to}) ${(100 * part).toFixed(0)}%, var(--${from}))`;
}

function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle; else high = middle;
  }
  return Math.abs(sorted[low] - value) <= Math.abs(sorted[high] - value) ? low : high;
}

// The row of the path at a time, or -1 without a pose.
function poseAt(t) {
  if (!data.path.t.length) return -1;
  const row = nearest(data.path.t, t);
  const pause = data.frames.t.length > 1 ? data.frames.t.at(-1) / (data.frames.t.length - 1) : 1;
  return Math.abs(data.path.t[row] - t) <= pause ? row : -1;
}

function describe(t) {
  const frames = data.frames, row = nearest(frames.t, t), pose = poseAt(frames.t[row]);
  const lines = [`frame ${frames.index[row]}, ${frames.t[row].toFixed(2)} s, ${data.states[frames.state[row]]}`];
  if (pose >= 0 && data.path.error[pose] !== null) lines.push(`error ${length(data.path.error[pose])}`);
  if (pose >= 0) lines.push(data.axes.map((axis, i) => `${axis} ${short(data.path.xyz[i][pose])}`).join("  "));
  lines.push(`${frames.inliers[row]} inliers of ${frames.matches[row]} matches`);
  lines.push(`${Object.values(frames.ms).reduce((sum, ms) => sum + ms[row], 0).toFixed(0)} ms`);
  return lines.join("\n");
}

function select(t, event) {
  for (const chart of charts) chart.show(t);
  tip.hidden = t === null;
  if (t === null) return;
  tip.textContent = describe(t);
  const box = tip.getBoundingClientRect();
  const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - box.height - 4)}px`;
}

// A chart is drawn again when its width changes. `draw` returns two functions: `show` marks a time,
// `find` returns the time at a position.
function chart(id, draw) {
  const box = document.getElementById(id);
  const state = { show: () => {}, width: 0 };
  charts.push(state);
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - state.width) < 1) return;
    state.width = box.clientWidth;
    box.replaceChildren();
    const svg = node("svg", { role: "img" }, box);
    const { show, find } = draw(svg, state.width);
    state.show = show;
    const point = (event) => {
      const corner = svg.getBoundingClientRect();
      select(find(event.clientX - corner.left, event.clientY - corner.top), event);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => select(null, event));
  }).observe(box);
}

function size(svg, width, height, label) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", label);
}

// Sections of the path between gaps, each as [first, last] row.
function pieces(line) {
  const ends = [...line.breaks, line.t.length - 1];
  return ends.map((end, i) => [i ? ends[i - 1] + 1 : 0, end]).filter(([first, last]) => last >= first);
}

function pathView(id, view) {
  const { across, vertical } = view;
  chart(id, (svg, width) => {
    const left = 62, right = 14, top = 26, bottom = 40;
    const lines = [data.path, data.truth].filter((line) => line && line.t.length);
    const all = (axis) => lines.flatMap((line) => span(line.xyz[axis])).concat(lines.length ? [] : [0, 1]);
    const [u0, u1] = span(all(across)), [v0, v1] = span(all(vertical));
    // One scale for both axes; a flat or straight path still gets a minimum size.
    const extent = Math.max(u1 - u0, v1 - v0) || 1;
    const du = Math.max(u1 - u0, 0.05 * extent) * 1.12, dv = Math.max(v1 - v0, 0.05 * extent) * 1.16;
    const room = width - left - right;
    const tall = Math.min(Math.max((room * dv) / du, 90), Math.max(260, Math.min(0.85 * room, 460)));
    const scale = Math.min(room / du, tall / dv);
    const height = tall + top + bottom;
    size(svg, width, height, `${view.title} of the trajectory`);
    const x = (u) => left + room / 2 + (u - (u0 + u1) / 2) * scale;
    const y = (v) => top + tall / 2 - (v - (v0 + v1) / 2) * scale * (view.turned ? -1 : 1);
    const at = (xyz, row) => `${x(xyz[across][row]).toFixed(1)} ${y(xyz[vertical][row]).toFixed(1)}`;

    const half = [room / 2 / scale, tall / 2 / scale];
    for (const u of ticks((u0 + u1) / 2 - half[0], (u0 + u1) / 2 + half[0], room / 75)) {
      node("path", { class: "grid", d: `M${x(u)} ${top}v${tall}` }, svg);
      node("text", { x: x(u), y: top + tall + 15, "text-anchor": "middle" }, svg, short(u));
    }
    for (const v of ticks((v0 + v1) / 2 - half[1], (v0 + v1) / 2 + half[1], Math.max(3, tall / 32))) {
      node("path", { class: "grid", d: `M${left} ${y(v)}h${room}` }, svg);
      node("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, svg, short(v));
    }
    node("rect", { class: "frame", x: left, y: top, width: room, height: tall }, svg);
    node("text", { class: "name", x: left, y: 16 }, svg, view.title);
    node("text", { x: left + room / 2, y: height - 6, "text-anchor": "middle" }, svg, `${data.axes[across]} (${data.unit})`);
    const turn = `translate(13 ${top + tall / 2}) rotate(-90)`;
    node("text", { transform: turn, "text-anchor": "middle" }, svg, `${data.axes[vertical]} (${data.unit})`);

    const draw = (line, attributes) => {
      const d = pieces(line).map(([first, last]) => {
        const rows = Array.from({ length: last - first + 1 }, (_, i) => at(line.xyz, first + i));
        return "M" + rows.join("L") + (rows.length === 1 ? "h0" : "");
      });
      node("path", { d: d.join(""), ...attributes }, svg);
    };
    if (data.truth && data.truth.t.length) draw(data.truth, { class: "line truth" });
    draw(data.path, { class: "line", style: `stroke: var(--${data.compared ? "second" : "path"})` });
    if (data.compared) errorLine(svg, at);
    for (const loop of data.loops) {
      const [a, b] = loop.ends.map((end) => `${x(end[across]).toFixed(1)} ${y(end[vertical]).toFixed(1)}`);
      node("path", { class: "line loop", d: `M${a}L${b}` }, svg);
    }
    const frames = data.keyframes.t.map((_, row) => `M${at(data.keyframes.xyz, row)}h0`);
    node("path", { class: "line keyframe", d: frames.join("") }, svg);
    const count = data.path.t.length;
    if (count) {
      const [sx, sy] = at(data.path.xyz, 0).split(" "), [ex, ey] = at(data.path.xyz, count - 1).split(" ").map(Number);
      node("circle", { class: "end", cx: sx, cy: sy, r: 5 }, svg);
      node("rect", { class: "end", x: ex - 4.5, y: ey - 4.5, width: 9, height: 9 }, svg);
    }
    const here = node("circle", { class: "here", r: 5.5, visibility: "hidden" }, svg);
    return {
      show(t) {
        const row = t === null ? -1 : poseAt(t);
        here.setAttribute("visibility", row < 0 ? "hidden" : "visible");
        if (row < 0) return;
        here.setAttribute("cx", x(data.path.xyz[across][row]));
        here.setAttribute("cy", y(data.path.xyz[vertical][row]));
      },
      find(px, py) {
        let best = null, closest = 60 ** 2;
        for (let row = 0; row < count; row++) {
          const gap = (x(data.path.xyz[across][row]) - px) ** 2 + (y(data.path.xyz[vertical][row]) - py) ** 2;
          if (gap < closest) [best, closest] = [data.path.t[row], gap];
        }
        return best;
      },
    };
  });
}

// Steps of the path in the colours of their errors: one path element for each colour.
function errorLine(svg, at) {
  const { t, xyz, error } = data.path, most = span(error)[1] || 1;
  const bins = Array.from({ length: BINS }, () => []);
  for (const [first, last] of pieces(data.path)) {
    for (let row = first; row < last; row++) {
      if (error[row] === null || error[row + 1] === null) continue;
      const share = (error[row] + error[row + 1]) / 2 / most;
      bins[Math.min(BINS - 1, Math.floor(share * BINS))].push(`M${at(xyz, row)}L${at(xyz, row + 1)}`);
    }
  }
  bins.forEach((steps, bin) => {
    if (!steps.length) return;
    const style = `stroke: ${ramp(bin / (BINS - 1))}; stroke-width: 3`;
    node("path", { class: "line", d: steps.join(""), style }, svg);
  });
}

// Lines over time. Each of `series` has `t`, `values`, `color`, `breaks` (the last row before each
// gap) and, if the area below the line is filled, `floor` (its lower edge).
function timeChart(id, name, series, format) {
  chart(id, (svg, width) => {
    const left = 62, right = 14, top = 24, bottom = 34, tall = 130;
    const room = width - left - right, height = top + tall + bottom;
    size(svg, width, height, name);
    const end = data.frames.t.at(-1) || 1;
    const most = Math.max(...series.map((line) => span(line.values)[1])) * 1.08 || 1;
    const x = (t) => left + (t / end) * room, y = (value) => top + tall * (1 - value / most);
    for (const t of ticks(0, end, room / 90)) {
      node("path", { class: "grid", d: `M${x(t)} ${top}v${tall}` }, svg);
      node("text", { x: x(t), y: top + tall + 15, "text-anchor": "middle" }, svg, short(t));
    }
    for (const value of ticks(0, most, 6)) {
      node("path", { class: "grid", d: `M${left} ${y(value)}h${room}` }, svg);
      node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, svg, format(value));
    }
    for (const loss of data.losses) {
      const wide = Math.max(x(loss.to) - x(loss.from), 2);
      node("rect", { class: "lost", x: x(loss.from), y: top, width: wide, height: tall }, svg);
    }
    for (const line of series) {
      const shape = timeShape(line, x, y);
      if (line.floor) node("path", { d: shape.area, style: `fill: ${line.color}; opacity: .85` }, svg);
      else node("path", { class: "line", d: shape.line, style: `stroke: ${line.color}` }, svg);
    }
    const marks = data.frames.keyframes.map((t) => `M${x(t).toFixed(1)} ${top + tall}v-6`);
    node("path", { class: "mark", d: marks.join("") }, svg);
    for (const loop of data.loops) {
      loop.t.forEach((t, i) => {
        if (!loop.earlier[i]) node("path", { class: "line loop", d: `M${x(t).toFixed(1)} ${top}v${tall}` }, svg);
      });
    }
    node("rect", { class: "frame", x: left, y: top, width: room, height: tall }, svg);
    node("text", { class: "name", x: left, y: 15 }, svg, name);
    node("text", { x: left + room, y: height - 4, "text-anchor": "end" }, svg, "time (s)");
    const cursor = node("path", { class: "cursor", visibility: "hidden" }, svg);
    return {
      show(t) {
        cursor.setAttribute("visibility", t === null ? "hidden" : "visible");
        if (t !== null) cursor.setAttribute("d", `M${x(t).toFixed(1)} ${top}v${tall}`);
      },
      find: (px) => data.frames.t[nearest(data.frames.t, ((px - left) / room) * end)],
    };
  });
}

function timeShape({ t, values, floor, breaks = [] }, x, y) {
  const ends = new Set(breaks);
  const joined = (row) => row >= 0 && values[row] !== null && values[row + 1] != null && !ends.has(row);
  let line = "";
  values.forEach((value, row) => {
    if (value === null) return;
    // A value without neighbours is a dot.
    const dot = joined(row - 1) || joined(row) ? "" : "h0";
    line += `${joined(row - 1) ? "L" : "M"}${x(t[row]).toFixed(1)} ${y(value).toFixed(1)}${dot}`;
  });
  if (!floor) return { line };
  const back = t.map((time, row) => `L${x(time).toFixed(1)} ${y(floor[row]).toFixed(1)}`).reverse();
  return { line, area: `${line}${back.join("")}Z` };
}

function stageSeries() {
  const series = [], names = Object.keys(data.frames.ms);
  let floor = data.frames.t.map(() => 0);
  names.forEach((name, i) => {
    const values = floor.map((below, row) => below + data.frames.ms[name][row]);
    const color = name === "other" ? "var(--stage-rest)" : `var(--stage-${i % 5})`;
    series.push({ name, t: data.frames.t, values, floor, color });
    floor = values;
  });
  return series;
}

function legend(id, entries) {
  const box = document.getElementById(id);
  for (const [text, color, kind, mark] of entries) {
    const entry = document.createElement("span"), sign = document.createElement("i");
    sign.className = kind;
    if (color) sign.style.color = color;
    if (mark) { sign.textContent = mark; sign.style.cssText += "background: none; width: auto; height: auto; font-style: normal"; }
    entry.append(sign, text);
    box.append(entry);
  }
}

function legends(stages) {
  const most = data.compared ? length(span(data.path.error)[1]) : "";
  legend("path-legend", [
    ...(data.compared ? [["ground truth", "var(--truth)", "dash"], [`estimate, error 0 to ${most}`, "", "ramp"]]
      : [["estimate", "var(--path)", ""]]),
    ["keyframes", "var(--keyframe)", "", "●"],
    ...(data.loops.length ? [["loops", "var(--loop)", ""]] : []),
    ["start", "", "", "○"], ["end", "", "", "□"],
  ]);
  legend("time-legend", [
    ["keyframes", "var(--keyframe)", "", "|"],
    ...(data.losses.length ? [["tracking lost", "color-mix(in srgb, var(--lost) 40%, transparent)", "block"]] : []),
    ...(data.loops.length ? [["loops", "var(--loop)", "", "|"]] : []),
    ["inliers", "var(--path)", ""], ["matches", "var(--second)", ""],
  ]);
  legend("stage-legend", stages.map(({ name, color }) => [name, color, "block"]));
}

const stages = stageSeries();
legends(stages);
pathView("top", data.views[0]);
pathView("side", data.views[1]);
if (data.compared) timeChart("error", `Position error (${errorUnit()[1]})`, [
  { t: data.path.t, values: data.path.error, breaks: data.path.breaks, color: "var(--path)" },
], (value) => short(value * errorUnit()[0]));
timeChart("points", "Tracked points", [
  { t: data.frames.t, values: data.frames.matches, color: "var(--second)" },
  { t: data.frames.t, values: data.frames.inliers, color: "var(--path)" },
], short);
timeChart("reprojection", "Median reprojection error (px)", [
  { t: data.frames.t, values: data.frames.reprojection, color: "var(--path)" },
], short);
timeChart("time", "Time of each frame (ms)", stages, short);

function errorUnit() {
  return span(data.path.error)[1] < 0.2 ? [1000, "mm"] : [1, "m"];
}
