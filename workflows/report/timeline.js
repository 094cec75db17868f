// When and where: one lane per camera (per file where a camera has several), one mark per sighting, one tick per match.

const TICK_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
const FEW_LANES = 10; // up to so many lanes in all, cameras that saw nobody are drawn too
const MARK_GAP_PX = 9; // marks nearer than this become one
const EDGE_PX = 18; // room at the right for a tick's label
const AXIS_PX = 24;

// view: {rows, kept, filters}; act: {go(row), range(from, to)}. Returns the lanes that were drawn.
function drawTimeline(holder, view, act) {
  const lanes = lanesToDraw(view.rows);
  if (!lanes.length) return lanes;
  const scroller = make("div", { className: "lanes" });
  holder.replaceChildren(scroller); // measured before it is filled, so that the old drawing cannot hold the width
  const frame = layOut(lanes, Math.max(280, scroller.clientWidth));
  const svg = draw("svg", { viewBox: `0 0 ${frame.width} ${frame.height}`, height: frame.height, role: "group", "aria-label": "Sightings over time. Arrow keys move between marks." });
  const axis = draw("svg", { viewBox: `0 0 ${frame.width} ${AXIS_PX}`, height: AXIS_PX, "aria-hidden": "true" });
  drawTicks(svg, axis, frame);
  const kept = new Set(view.kept);
  lanes.forEach((lane, place) => drawLane(svg, lane, place, frame, kept, act));
  drawRange(svg, view.filters, frame);
  letRangeBeDragged(svg, frame, act);
  letMarksBeWalked(svg);
  scroller.append(svg);
  holder.append(axis);
  return lanes;
}

// Lanes with their matches in time order: [{camera, file, uri, start, end, rows}].
function lanesToDraw(rows) {
  const byLane = new Map();
  for (const row of rows) {
    if (row.time === null) continue;
    if (!byLane.has(row.lane)) byLane.set(row.lane, []);
    byLane.get(row.lane).push(row);
  }
  const lanes = [];
  run.lanes.forEach((lane, number) => {
    const mine = byLane.get(number) ?? [];
    if (!mine.length && (lane.start === null || run.lanes.length > FEW_LANES)) return;
    lanes.push({ ...lane, rows: mine.sort((a, b) => a.time - b.time) });
  });
  return byLane.size ? lanes : [];
}

// The cameras that have no lane in the drawing, in words.
function unseenLine(lanes) {
  const drawn = new Set(lanes.map((lane) => lane.camera));
  const names = run.cameras.filter((camera, number) => !drawn.has(number));
  const files = run.unlisted ? `${names.length ? ", nor in " : "Not seen in "}${counted(run.unlisted, "further file")}` : "";
  if (!names.length && !files) return "";
  const first = names.slice(0, 8).map((name) => shortened(name, 40)).join(", ");
  const rest = names.length > 8 ? ` and ${counted(names.length - 8, "more camera")}` : "";
  return `${names.length ? `Not seen on ${first}${rest}` : ""}${files}.`;
}

const shortened = (text, length) => ([...text].length > length ? `${[...text].slice(0, length - 1).join("")}…` : text);
const laneName = (lane) => shortened(run.cameras[lane.camera], 22);

function laneNote(lane) {
  const seen = lane.rows.length ? counted(lane.rows.length, "frame") : "not seen";
  const hasSiblings = run.lanes.filter((other) => other.camera === lane.camera).length > 1;
  return hasSiblings ? `${shortened(lane.file, 20)} · ${seen}` : seen;
}

function layOut(lanes, width) {
  const isNarrow = width < 560;
  const longest = Math.max(...lanes.map((lane) => Math.max(laneName(lane).length, 0.86 * laneNote(lane).length)));
  const start = isNarrow ? 8 : Math.min(212, 34 + 7.4 * longest);
  const laneHeight = isNarrow ? 44 : 36;
  let [from, to] = [Infinity, -Infinity];
  for (const lane of lanes) {
    from = Math.min(from, lane.start ?? Infinity, lane.rows[0]?.time ?? Infinity);
    to = Math.max(to, lane.end ?? -Infinity, lane.rows[lane.rows.length - 1]?.time ?? -Infinity);
  }
  to = Math.max(to, from + 1);
  const x = (time) => start + ((time - from) / (to - from)) * (width - start - EDGE_PX);
  return { width, height: lanes.length * laneHeight + 4, isNarrow, start, laneHeight, from, to, x };
}

function drawTicks(svg, axis, { from, to, x, width, height, start }) {
  const most = Math.max(2, Math.floor((width - start) / 74));
  const step = TICK_STEPS_S.find((candidate) => (to - from) / candidate <= most) ?? Math.ceil((to - from) / most / 604800) * 604800;
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    svg.append(draw("line", { class: "tick", x1: x(time), x2: x(time), y1: 0, y2: height }));
    axis.append(draw("text", { class: "tick-label", x: Math.max(20, x(time)), y: 15 }, clock(time)));
  }
}

function drawLane(svg, lane, place, frame, kept, act) {
  const { x, isNarrow, laneHeight, start, width } = frame;
  const top = place * laneHeight;
  const middle = isNarrow ? top + 30 : top + laneHeight / 2;
  const label = draw("text", { class: "lane-label", x: isNarrow ? start : 6, y: isNarrow ? top + 13 : middle - 1 }, laneName(lane), draw("title", {}, `${run.cameras[lane.camera]} · ${lane.uri}`));
  const noteAt = isNarrow ? { x: width - EDGE_PX, y: top + 13, "text-anchor": "end" } : { x: 6, y: middle + 13 };
  svg.append(label, draw("text", { class: "lane-note", ...noteAt }, laneNote(lane)));
  const [first, last] = [lane.start ?? lane.rows[0].time, lane.end ?? lane.rows[lane.rows.length - 1].time];
  svg.append(draw("rect", { class: "lane-track", x: x(first), y: middle - 1.5, width: Math.max(2, x(last) - x(first)), height: 3, rx: 1.5 }));
  for (const mark of marksOf(lane.rows, x)) svg.append(drawMark(mark, middle, lane, frame, kept, act));
}

// Sightings in time order; those that would touch on the screen become one mark.
function marksOf(rows, x) {
  const marks = [];
  for (const row of rows) {
    const held = marks[marks.length - 1];
    if (held && (row.sighting === held.sighting || x(row.time) - x(held.last) < MARK_GAP_PX)) {
      Object.assign(held, { last: row.time, sighting: row.sighting });
      held.rows.push(row);
      if (row.score > held.best.score) held.best = row;
    } else {
      marks.push({ first: row.time, last: row.time, sighting: row.sighting, best: row, rows: [row] });
    }
  }
  return marks;
}

function drawMark(mark, middle, lane, { x }, kept, act) {
  const [left, width] = [x(mark.first) - 4, x(mark.last) - x(mark.first) + 8];
  const camera = run.cameras[lane.camera];
  const when = clock(mark.first) === clock(mark.last) ? clock(mark.first) : `${clock(mark.first)} to ${clock(mark.last)}`;
  const frames = counted(mark.rows.length, "frame");
  const best = mark.best.score.toFixed(2);
  const group = draw("g", { class: "mark", role: "button", tabindex: "-1", "aria-label": `${camera}, ${when}, ${frames}, best score ${best}` },
    draw("rect", { class: "mark-hit", x: left - 2, y: middle - 14, width: width + 4, height: 28 }),
    draw("rect", { class: "mark-body", x: left, y: middle - 9, width, height: 18, rx: 4 }),
    draw("path", { class: "mark-off", d: ticksOf(mark.rows.filter((row) => !kept.has(row)), x, middle) }),
    draw("path", { class: "mark-on", d: ticksOf(mark.rows.filter((row) => kept.has(row)), x, middle) }));
  const go = (event) => { event.stopPropagation(); hideTip(); act.go(mark.best); };
  group.addEventListener("click", go);
  group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(event); } });
  for (const come of ["pointerenter", "focus"]) group.addEventListener(come, () => showTip(group, mark.best, [camera, when, `${frames}, best ${best}`]));
  for (const leave of ["pointerleave", "blur"]) group.addEventListener(leave, hideTip);
  return group;
}

// One short line per match, one per pixel at most.
function ticksOf(rows, x, middle) {
  const places = new Set(rows.map((row) => Math.round(x(row.time) * 2) / 2));
  return [...places].map((place) => `M${place} ${middle - 6}v12`).join("");
}

function showTip(anchor, row, lines) {
  const tip = document.getElementById("tip");
  tip.replaceChildren();
  if (row.zoom) {
    const image = make("img", { alt: "" });
    image.src = pictureSource(row.zoom);
    tip.append(image);
  }
  tip.append(make("div", {}, ...lines.map((line, i) => make("div", { className: i ? "quiet" : "tip-head" }, isolated(line)))));
  tip.hidden = false;
  const [at, size] = [anchor.getBoundingClientRect(), tip.getBoundingClientRect()];
  const above = at.top - size.height - 8;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - size.width - 8, at.left + at.width / 2 - size.width / 2))}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}

function drawRange(svg, filters, { from, to, x, height }) {
  if (filters.from === null && filters.to === null) return;
  const [left, right] = [x(Math.max(from, filters.from ?? from)), x(Math.min(to, filters.to ?? to))];
  svg.append(draw("rect", { class: "range", x: left, y: 0, width: Math.max(0, right - left), height }));
  for (const edge of [left, right]) svg.append(draw("line", { class: "range-edge", x1: edge, x2: edge, y1: 0, y2: height }));
}

function letRangeBeDragged(svg, frame, act) {
  const { from, to, start, width } = frame;
  const timeAt = (event) => {
    const box = svg.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * width;
    return Math.min(to, Math.max(from, from + ((place - start) / (width - start - EDGE_PX)) * (to - from)));
  };
  const isDrag = (event) => began && Math.abs(event.clientX - began.place) >= 5;
  let began = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.pointerType !== "touch") began = { time: timeAt(event), place: event.clientX };
  });
  svg.addEventListener("pointermove", (event) => {
    if (!isDrag(event)) return;
    if (!svg.hasPointerCapture(event.pointerId)) svg.setPointerCapture(event.pointerId);
    hideTip();
    svg.querySelectorAll(".range, .range-edge").forEach((old) => old.remove());
    const [low, high] = [began.time, timeAt(event)].sort((a, b) => a - b);
    drawRange(svg, { from: low, to: high }, frame);
  });
  svg.addEventListener("pointerup", (event) => {
    const range = isDrag(event) ? [began.time, timeAt(event)].sort((a, b) => a - b) : null;
    began = null;
    if (range) act.range(...range);
  });
}

// The whole timeline is one stop of the tab key; arrows walk its marks.
function letMarksBeWalked(svg) {
  const marks = [...svg.querySelectorAll(".mark")];
  marks[0]?.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = marks.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = marks[Math.min(marks.length - 1, Math.max(0, at + step))];
    marks[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}
