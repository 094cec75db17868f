// The run, its queries and their matches: loading on demand, filtering, ordering, and how times are said. No drawing.

const run = JSON.parse(document.getElementById("run").textContent);
const arrivals = new Map(); // query number -> {resolve, reject} while its data file is on the way
const loaded = new Map(); // query number -> promise of {matches, near}

// A data file beside the page calls this; a script element works from file:// where fetch() does not.
globalThis.psreidQuery = (number, columns) => arrivals.get(number)?.resolve(columns);

function loadQuery(number) {
  if (!loaded.has(number)) {
    loaded.set(number, fetchColumns(number).then((columns) => ({ matches: toRows(columns.matches), near: toRows(columns.near) })));
    loaded.get(number).catch(() => loaded.delete(number));
  }
  return loaded.get(number);
}

function fetchColumns(number) {
  const embedded = document.getElementById(`query-${number}`);
  if (embedded) return Promise.resolve(JSON.parse(embedded.textContent));
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = run.queries[number].data;
    arrivals.set(number, { resolve, reject });
    script.onerror = () => reject(new Error(`The file ${run.queries[number].data} is missing. Keep this page together with the folder beside it.`));
    document.head.append(script);
  });
}

// Columns of equal length -> one object per match. Numbers index the run's lists of lanes and the chunk's scenes.
function toRows(columns) {
  const names = Object.keys(columns).filter((name) => name !== "scenes");
  const rows = [];
  for (let i = 0; i < columns.score.length; i += 1) {
    const row = { number: i, isNear: columns.rank[i] === null };
    for (const name of names) row[name] = columns[name][i];
    row.laneOf = run.lanes[row.lane];
    row.cameraName = run.cameras[row.laneOf.camera];
    row.picture = row.scene === null ? null : columns.scenes[row.scene];
    row.uri = row.image ?? row.laneOf.uri; // photographs each have a file of their own
    row.file = row.image ? row.image.split("/").pop() : row.laneOf.file;
    row.trace = `${row.file} @ frame ${row.frame}${row.time === null ? "" : ` (${timecode(row.time)})`}`;
    rows.push(row);
  }
  return rows;
}

// A picture is a path beside the page, or "#id" of an embedded data URI.
function pictureSource(reference) {
  return reference.startsWith("#") ? document.getElementById(reference.slice(1)).textContent : reference;
}

function noFilters() {
  return { text: "", from: null, to: null, score: null, cameras: new Set(), sort: "rank", oncePerSighting: false, near: false };
}

function isFiltered(filters) {
  return Boolean(filters.text || filters.from !== null || filters.to !== null || filters.score !== null || filters.cameras.size || filters.oncePerSighting);
}

function applyFilters(rows, filters) {
  const words = filters.text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) =>
    (!filters.cameras.size || filters.cameras.has(row.laneOf.camera)) &&
    (filters.score === null || row.isNear || row.score >= filters.score) &&
    (filters.from === null || (row.time !== null && row.time >= filters.from)) &&
    (filters.to === null || (row.time !== null && row.time <= filters.to)) &&
    words.every((word) => `${row.cameraName} ${row.trace}`.toLowerCase().includes(word)));
  return ordered(filters.oncePerSighting ? bestOfSightings(kept) : kept, filters.sort);
}

function bestOfSightings(rows) {
  const best = new Map();
  for (const row of rows) {
    const key = row.sighting ?? `alone-${row.number}`;
    const held = best.get(key);
    if (!held || row.score > held.score) best.set(key, row);
  }
  return [...best.values()];
}

function ordered(rows, sort) {
  const position = (row) => row.time ?? row.frame;
  const byTime = (a, b) => position(a) - position(b) || a.number - b.number;
  if (sort === "time") return rows.sort(byTime);
  if (sort === "camera") return rows.sort((a, b) => a.laneOf.camera - b.laneOf.camera || a.lane - b.lane || byTime(a, b));
  return rows.sort((a, b) => a.number - b.number);
}

const two = (number) => String(number).padStart(2, "0");

function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

function longClock(seconds) {
  const whole = Math.floor(seconds);
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function timecode(seconds) {
  const milliseconds = Math.round(seconds * 1000);
  return `${longClock(milliseconds / 1000)}.${String(milliseconds % 1000).padStart(3, "0")}`;
}

// "90", "1:30" and "0:01:30" are all 90 s; null for nothing, NaN for what is no time.
function parseClock(text) {
  if (!text.trim()) return null;
  if (!/^\d+(:\d{1,2}){0,2}(\.\d+)?$/.test(text.trim())) return NaN;
  return text.trim().split(":").reduce((total, part) => total * 60 + Number(part), 0);
}

function counted(number, noun, plural) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural || `${noun}s`}`;
}
