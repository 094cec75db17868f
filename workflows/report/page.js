// The page: which query, which filters, which page of cards; keys and the address (#query=..&match=..).

const PAGE_SIZE = 24;
const LISTED_AT_ONCE = 200; // queries in the side list before "show more"
const byId = (id) => document.getElementById(id);
const state = { number: -1, data: null, kept: [], nearKept: [], page: 0, current: null, filters: noFilters(), listed: LISTED_AT_ONCE };

function start() {
  listQueries();
  byId("query-search-row").hidden = run.queries.length < 8;
  bindFilters();
  bindKeys();
  bindViewer();
  addEventListener("hashchange", () => showAddress());
  new ResizeObserver(() => state.data && showTimeline()).observe(byId("timeline"));
  bindPrint();
  if (run.queries.length) showAddress();
}

// --- the address ------------------------------------------------------------------------------------------------

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const number = run.queries.findIndex((query) => query.id === parts.get("query"));
  return { number: number < 0 ? null : number, match: Number(parts.get("match")) || null };
}

function addressOf(query, match) {
  const parts = new URLSearchParams({ query: query.id });
  if (match) parts.set("match", match);
  return `#${parts}`;
}

async function showAddress() {
  const { number, match } = readAddress();
  if (number === null && state.number >= 0) return; // an anchor of the page itself, such as #about
  const wanted = number ?? firstWithMatches();
  if (wanted !== state.number) await showQuery(wanted);
  const row = match && state.data?.matches.find((candidate) => candidate.rank === match);
  if (row) goTo(row);
}

function firstWithMatches() {
  return Math.max(0, run.queries.findIndex((query) => query.matches > 0));
}

// --- queries ----------------------------------------------------------------------------------------------------

function listQueries() {
  const wanted = byId("query-search").value.trim().toLowerCase();
  const found = run.queries.map((query, number) => ({ query, number })).filter(({ query }) => !wanted || `${query.id} ${query.text ?? ""}`.toLowerCase().includes(wanted));
  byId("query-list").replaceChildren(...found.slice(0, state.listed).map(({ query, number }) => queryItem(query, number)));
  const rest = found.length - state.listed;
  byId("query-more").hidden = rest <= 0 && found.length > 0;
  byId("query-more").textContent = found.length ? `Show ${counted(Math.min(rest, LISTED_AT_ONCE), "more query", "more queries")} of ${rest.toLocaleString("en")}` : "No query has these words. Show all";
}

function queryItem(query, number) {
  const words = make("span", {}, make("span", { className: "query-name", dir: "auto", textContent: query.id }), make("span", { className: "query-text", dir: "auto", textContent: query.text ?? "by picture" }));
  const tally = make("span", { className: query.matches ? "query-count" : "query-count none", textContent: query.matches ? query.matches.toLocaleString("en") : "none", title: counted(query.matches, "match", "matches") });
  const link = make("a", { href: addressOf(query) }, queryThumb(query), words, tally);
  link.dataset.number = number;
  if (number === state.number) link.setAttribute("aria-current", "true");
  return make("li", {}, link);
}

function queryThumb(query) {
  if (!query.image) return make("span", { className: "query-thumb", textContent: "“", ariaHidden: "true" });
  const image = make("img", { className: "query-thumb", alt: "", loading: "lazy", decoding: "async" });
  image.src = pictureSource(query.image);
  return image;
}

async function showQuery(number) {
  const query = run.queries[number];
  if (state.number >= 0) scrollTo({ top: 0 });
  state.number = number;
  Object.assign(state, { data: null, page: 0, current: null, filters: { ...noFilters(), sort: state.filters.sort, oncePerSighting: state.filters.oncePerSighting, near: state.filters.near } });
  for (const link of byId("query-list").querySelectorAll("a")) {
    if (Number(link.dataset.number) === number) { link.setAttribute("aria-current", "true"); link.scrollIntoView({ block: "nearest", inline: "nearest" }); } else link.removeAttribute("aria-current");
  }
  byId("query").hidden = false;
  const face = queryThumb(query);
  byId("query-face").replaceChildren(face);
  byId("query-kind").textContent = query.text ? `Query ${query.id}, by ${query.kind}` : `Query, by ${query.kind}`;
  byId("query-title").textContent = query.text || query.id;
  byId("query-title").classList.toggle("is-long", byId("query-title").textContent.length > 110);
  byId("query-verdict").textContent = query.verdict;
  byId("query-note").textContent = query.note;
  document.title = `${query.id} · ${run.title}`;
  try {
    const data = await loadQuery(number);
    if (state.number !== number) return; // another query was chosen meanwhile
    state.data = data;
    resetFilterControls();
    update();
  } catch (error) {
    byId("query-note").textContent = error.message;
    for (const id of ["timeline-section", "filters", "matches"]) byId(id).hidden = true;
  }
}

// --- filters ----------------------------------------------------------------------------------------------------

function resetFilterControls() {
  const { matches, near } = state.data;
  const scores = matches.map((row) => row.score);
  state.scale = { min: scores.reduce((a, b) => Math.min(a, b), Infinity), max: scores.reduce((a, b) => Math.max(a, b), -Infinity) };
  state.scale.base = Math.min(0, state.scale.min); // where a score's bar is empty
  byId("filters").hidden = !matches.length && !near.length;
  byId("filters").classList.toggle("only-near", !matches.length);
  byId("filter-text").value = byId("filter-from").value = byId("filter-to").value = "";
  for (const id of ["filter-from", "filter-to"]) { byId(id).removeAttribute("aria-invalid"); byId(id).disabled = !matches.some((row) => row.time !== null); }
  byId("filter-score").value = 0;
  byId("filter-score").disabled = !(state.scale.max > state.scale.min);
  byId("filter-sightings").checked = state.filters.oncePerSighting;
  byId("filter-near").checked = state.filters.near;
  byId("filter-near-row").hidden = !near.length;
  const counts = new Map();
  for (const row of matches) counts.set(row.laneOf.camera, (counts.get(row.laneOf.camera) ?? 0) + 1);
  byId("filter-cameras").hidden = counts.size < 2;
  byId("filter-cameras").replaceChildren(byId("filter-cameras").firstElementChild, ...[...counts].sort((a, b) => a[0] - b[0]).map(([camera, number]) => cameraChip(camera, number)));
}

function cameraChip(camera, number) {
  const chip = make("button", { type: "button", className: "chip", title: run.cameras[camera] }, isolated(run.cameras[camera]), make("small", { textContent: number.toLocaleString("en") }));
  chip.setAttribute("aria-pressed", "false");
  chip.addEventListener("click", () => {
    const chosen = state.filters.cameras;
    if (!chosen.delete(camera)) chosen.add(camera);
    chip.setAttribute("aria-pressed", String(chosen.has(camera)));
    refilter();
  });
  return chip;
}

function bindFilters() {
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filter-text").addEventListener("input", (event) => refilter({ text: event.target.value }));
  for (const [id, name] of [["filter-from", "from"], ["filter-to", "to"]]) {
    byId(id).addEventListener("input", (event) => {
      const time = parseClock(event.target.value);
      event.target.setAttribute("aria-invalid", String(Number.isNaN(time)));
      if (!Number.isNaN(time)) refilter({ [name]: time !== null && name === "to" && !event.target.value.includes(".") ? time + 0.999 : time });
    });
  }
  byId("filter-score").addEventListener("input", (event) => {
    const share = Number(event.target.value) / 100;
    refilter({ score: share ? state.scale.min + share * (state.scale.max - state.scale.min) : null });
  });
  byId("filter-sort").addEventListener("change", (event) => refilter({ sort: event.target.value }));
  byId("filter-sightings").addEventListener("change", (event) => refilter({ oncePerSighting: event.target.checked }));
  byId("filter-near").addEventListener("change", (event) => refilter({ near: event.target.checked }));
  byId("filter-clear").addEventListener("click", () => {
    state.filters = { ...noFilters(), sort: state.filters.sort, near: state.filters.near };
    resetFilterControls();
    refilter();
    byId("filter-text").focus();
  });
  byId("query-search").addEventListener("input", () => { state.listed = LISTED_AT_ONCE; listQueries(); });
  byId("query-more").addEventListener("click", () => {
    if (byId("query-list").children.length) state.listed += LISTED_AT_ONCE; else byId("query-search").value = "";
    listQueries();
  });
}

function refilter(change = {}) {
  Object.assign(state.filters, change);
  state.page = 0;
  state.current = null;
  update();
}

// --- drawing ----------------------------------------------------------------------------------------------------

function update() {
  state.kept = applyFilters(state.data.matches, state.filters);
  state.nearKept = state.filters.near ? applyFilters(state.data.near, { ...state.filters, score: null, oncePerSighting: false }) : [];
  byId("filter-clear").hidden = !isFiltered(state.filters);
  byId("filter-score-value").textContent = (state.filters.score ?? state.scale.min).toFixed(2).replace("Infinity", "");
  byId("filter-score").setAttribute("aria-valuetext", byId("filter-score-value").textContent);
  showTimeline();
  showCards();
}

function showTimeline() {
  byId("timeline-section").hidden = !state.data.matches.some((row) => row.time !== null);
  if (byId("timeline-section").hidden) return;
  const lanes = drawTimeline(byId("timeline"), { rows: state.data.matches, kept: state.kept, filters: state.filters }, {
    go: goTo,
    range(from, to) {
      byId("filter-from").value = clock(from);
      byId("filter-to").value = clock(to);
      refilter({ from, to });
    },
  });
  byId("timeline-rest").textContent = unseenLine(lanes);
}

function showCards() {
  const [total, pages] = [state.kept.length, Math.max(1, Math.ceil(state.kept.length / PAGE_SIZE))];
  state.page = Math.min(state.page, pages - 1);
  const first = state.page * PAGE_SIZE;
  const shown = state.kept.slice(first, first + PAGE_SIZE);
  byId("matches").hidden = false;
  byId("matches-count").textContent = countLine(total, first, shown.length);
  const openIn = (rows) => (row) => openViewer(rows, row);
  byId("cards").replaceChildren(...shown.map((row) => matchCard(row, state.scale, openIn(state.kept))));
  byId("near-section").hidden = !state.nearKept.length;
  byId("near-cards").replaceChildren(...state.nearKept.map((row) => matchCard(row, state.scale, openIn(state.nearKept))));
  for (const pager of document.querySelectorAll(".pager")) fillPager(pager, pages);
  if (state.current) markCurrent();
}

function countLine(total, first, number) {
  const all = state.data.matches.length;
  if (!all) return "No frame was judged to show this person.";
  if (!total) return `None of the ${counted(all, "match", "matches")} passes these filters.`;
  const range = number < total ? `${(first + 1).toLocaleString("en")} to ${(first + number).toLocaleString("en")} of ` : "";
  const shown = total === all ? counted(all, "match", "matches") : `${total.toLocaleString("en")} (of ${counted(all, "match", "matches")} in all)`;
  return `${range}${shown}`;
}

function fillPager(pager, pages) {
  pager.hidden = pages < 2;
  const button = (text, page, label) => {
    const made = make("button", { type: "button", className: "chip", textContent: text, ariaLabel: label, disabled: page < 0 || page >= pages });
    made.addEventListener("click", () => turnTo(page));
    return made;
  };
  pager.replaceChildren(button("←", state.page - 1, "Previous page"), make("span", { textContent: `${(state.page + 1).toLocaleString("en")} / ${pages.toLocaleString("en")}` }), button("→", state.page + 1, "Next page"));
}

function turnTo(page) {
  if (!state.data) return;
  const pages = Math.ceil(state.kept.length / PAGE_SIZE);
  if (page < 0 || page >= pages) return;
  state.page = page;
  state.current = null;
  showCards();
  byId("matches").scrollIntoView({ block: "start" });
  byId("matches").focus({ preventScroll: true });
}

// --- moving -----------------------------------------------------------------------------------------------------

// Shows the page that holds a match, marks its card and puts the focus on it.
function goTo(row, { focus = true } = {}) {
  const list = row.isNear ? state.nearKept : state.kept;
  if (!list.includes(row)) {
    if (row.isNear) return;
    const inSighting = state.kept.find((other) => other.sighting === row.sighting);
    if (inSighting) return goTo(inSighting, { focus });
    byId("filter-clear").click(); // the mark belongs to matches that the filters hide
  }
  state.current = row;
  const page = Math.floor(state.kept.indexOf(row) / PAGE_SIZE);
  if (!row.isNear && page !== state.page) { state.page = page; showCards(); }
  const card = markCurrent();
  card?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  if (focus) card?.querySelector("button").focus({ preventScroll: true });
  if (!row.isNear) history.replaceState(null, "", addressOf(run.queries[state.number], row.rank));
}

function markCurrent() {
  for (const card of document.querySelectorAll(".card.is-current")) card.classList.remove("is-current");
  const holder = state.current.isNear ? byId("near-cards") : byId("cards");
  const card = holder.querySelector(`[data-number="${state.current.number}"]`);
  card?.classList.add("is-current");
  return card;
}

function move(by) {
  const rows = [...state.kept, ...state.nearKept];
  if (!rows.length) return;
  const at = state.current ? rows.indexOf(state.current) : -1;
  const next = at < 0 ? Math.min(rows.length - 1, state.page * PAGE_SIZE) : at + by;
  if (next >= 0 && next < rows.length) goTo(rows[next]);
}

function rowStep() {
  const cards = [...byId("cards").children];
  return Math.max(1, cards.filter((card) => card.offsetTop === cards[0].offsetTop).length);
}

function chooseQuery(by) {
  const next = state.number + by;
  if (next >= 0 && next < run.queries.length) location.hash = addressOf(run.queries[next]);
}

// --- large view and keys ----------------------------------------------------------------------------------------

function openViewer(rows, row) {
  state.current = row;
  markCurrent();
  viewer.open(rows, rows.indexOf(row), run.queries[state.number], (now) => goTo(now, { focus: false }));
}

function toggleOutlines() {
  const off = document.body.classList.toggle("outlines-off");
  byId("viewer-outline").setAttribute("aria-pressed", String(!off));
  byId("said").textContent = off ? "Outlines are off" : "Outlines are on";
}

// Paper is narrower than most windows, and the timeline is drawn to a width.
function bindPrint() {
  const redraw = (width) => () => {
    byId("timeline").style.width = width;
    if (state.data) showTimeline();
  };
  addEventListener("beforeprint", redraw("660px"));
  addEventListener("afterprint", redraw(""));
}

function bindViewer() {
  for (const [id, rows] of [["cards", () => state.kept], ["near-cards", () => state.nearKept]]) {
    byId(id).addEventListener("focusin", (event) => { // tab moves the current match too
      const number = Number(event.target.closest(".card").dataset.number);
      state.current = rows().find((row) => row.number === number);
      markCurrent();
    });
  }
  byId("viewer-close").addEventListener("click", () => viewer.dialog.close());
  byId("viewer-previous").addEventListener("click", () => viewer.step(-1));
  byId("viewer-next").addEventListener("click", () => viewer.step(1));
  byId("viewer-outline").addEventListener("click", toggleOutlines);
  byId("viewer-zoom").addEventListener("click", () => viewer.toggleZoom());
  byId("viewer-copy").addEventListener("click", () => viewer.copy());
  viewer.dialog.addEventListener("close", () => { if (state.current) goTo(state.current); });
  for (const dialog of [viewer.dialog, byId("keys")]) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  byId("keys-open").addEventListener("click", () => byId("keys").showModal());
  byId("keys-close").addEventListener("click", () => byId("keys").close());
}

const VIEWER_KEYS = {
  j: () => viewer.step(1), ArrowRight: () => viewer.step(1), ArrowDown: () => viewer.step(1),
  k: () => viewer.step(-1), ArrowLeft: () => viewer.step(-1), ArrowUp: () => viewer.step(-1),
  o: toggleOutlines, z: () => viewer.toggleZoom(), c: () => viewer.copy(),
};
const PAGE_KEYS = {
  j: () => move(1), ArrowRight: () => move(1), k: () => move(-1), ArrowLeft: () => move(-1),
  n: () => turnTo(state.page + 1), p: () => turnTo(state.page - 1), "[": () => chooseQuery(-1), "]": () => chooseQuery(1),
  o: toggleOutlines, "/": () => byId("filter-text").focus(), "?": () => byId("keys").showModal(),
};
const CARD_KEYS = { ArrowDown: () => move(rowStep()), ArrowUp: () => move(-rowStep()) }; // elsewhere they scroll

function bindKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (byId("keys").open || !run.queries.length) return;
    const inCard = event.target.closest?.(".card") && CARD_KEYS[event.key];
    const action = viewer.dialog.open ? VIEWER_KEYS[event.key] : inCard || PAGE_KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

start();
