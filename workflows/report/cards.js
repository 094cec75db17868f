// A match as a card, and the large view. Text from the data is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const isolated = (text) => make("bdi", { textContent: text });
const spokenTime = (row) => (row.time === null ? `frame ${row.frame}` : longClock(row.time));

// The outline over a region [left, top, right, bottom] of the frame: a dark edge below a bright core stays visible on
// every footage. Mask coordinates run through pixel centres, hence the half pixel.
function outlineOver(row, [left, top, right, bottom]) {
  const svg = draw("svg", { class: "outline", viewBox: `${left} ${top} ${right - left} ${bottom - top}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (row.path && !row.isNear) {
    const shift = { d: row.path, transform: "translate(.5 .5)" };
    svg.append(draw("path", { ...shift, class: "edge" }), draw("path", { ...shift, class: "core" }));
  } else if (row.box) {
    const [x0, y0, x1, y1] = row.box;
    const shape = { x: x0, y: y0, width: x1 - x0, height: y1 - y0, rx: 2 };
    svg.append(draw("rect", { ...shape, class: "edge" }), draw("rect", { ...shape, class: row.isNear ? "miss" : "core" }));
  }
  return svg;
}

function wholeFrame(row) {
  return [0, 0, row.picture.width, row.picture.height];
}

function shot(source, alt, row, region, eager) {
  const image = make("img", { alt, decoding: "async", loading: eager ? "eager" : "lazy", draggable: false });
  image.src = pictureSource(source);
  const [left, top, right, bottom] = region;
  const holder = make("span", { className: "shot" }, image, outlineOver(row, region));
  holder.style.flex = `${(right - left) / (bottom - top)} 1 0`;
  holder.style.aspectRatio = `${right - left} / ${bottom - top}`;
  return holder;
}

function matchCard(row, scale, open) {
  const what = row.isNear ? `near miss, camera ${row.cameraName}, ${spokenTime(row)}` : `match ${row.rank}, camera ${row.cameraName}, ${spokenTime(row)}, score ${row.score.toFixed(2)}`;
  const button = make("button", { type: "button", className: "shots", ariaLabel: `Large view of ${what}` });
  if (row.picture) {
    if (row.zoom) button.append(shot(row.zoom, "", row, row.region, row.eager));
    button.append(shot(row.picture.source, "", row, wholeFrame(row), row.eager));
  } else {
    button.append(make("span", { className: "missing", textContent: "The picture of this frame could not be read." }));
  }
  button.addEventListener("click", () => open(row));
  const first = make("div", { className: "card-line" },
    make("span", { className: "card-rank", textContent: row.isNear ? "no match" : `#${row.rank}` }),
    make("span", { className: "card-camera", title: row.cameraName }, isolated(row.cameraName)),
    make("span", { className: "card-time", textContent: spokenTime(row) }),
    scoreBadge(row, scale));
  const trace = make("p", { className: "trace", title: row.trace }, isolated(row.trace));
  const card = make("article", { className: row.isNear ? "card near" : "card", ariaLabel: what }, button, make("div", { className: "card-facts" }, first, trace));
  card.dataset.number = row.number;
  return card;
}

function scoreBadge(row, scale) {
  const badge = make("span", { className: "score", title: `Score ${row.score}` }, make("span", { textContent: row.score.toFixed(2) }));
  if (!row.isNear) {
    const bar = make("i");
    bar.style.width = `${Math.round(4 + 96 * (scale.max > scale.base ? (row.score - scale.base) / (scale.max - scale.base) : 1))}%`;
    badge.prepend(make("span", { className: "meter", ariaHidden: "true" }, bar));
  }
  return badge;
}

// The large view: the frame, the zoom beside the query's own picture, the facts. Steps through the rows it was given.
const viewer = {
  dialog: document.getElementById("viewer"),
  rows: [], at: 0, query: null, zoomed: false, onMove: () => {},

  open(rows, at, query, onMove) {
    Object.assign(this, { rows, at, query, onMove, zoomed: false });
    this.show();
    if (!this.dialog.open) this.dialog.showModal();
    document.getElementById("viewer-next").focus({ preventScroll: true });
  },

  step(by) {
    const at = this.at + by;
    if (at < 0 || at >= this.rows.length) return;
    this.at = at;
    this.show();
    this.onMove(this.rows[at]);
  },

  show() {
    const row = this.rows[this.at];
    const title = row.isNear ? "Near miss" : `Match ${row.rank}`;
    document.getElementById("viewer-title").textContent = `${title} of ${this.query.matches.toLocaleString("en")}`;
    if (row.isNear) document.getElementById("viewer-title").textContent = title;
    this.showStage(row);
    this.showCompare(row);
    this.showFacts(row);
    const full = document.getElementById("viewer-full");
    full.hidden = !row.picture?.full;
    if (row.picture?.full) full.href = row.picture.full;
    document.getElementById("viewer-previous").disabled = this.at === 0;
    document.getElementById("viewer-next").disabled = this.at === this.rows.length - 1;
    document.getElementById("viewer-zoom").setAttribute("aria-pressed", String(this.zoomed));
    document.getElementById("viewer-copy").firstChild.textContent = "Copy trace ";
  },

  showStage(row) {
    const stage = document.getElementById("viewer-stage");
    stage.replaceChildren();
    if (!row.picture) {
      stage.append(make("p", { className: "missing", textContent: "The picture of this frame could not be read." }));
      return;
    }
    const { width, height, full, source } = row.picture;
    const image = make("img", { alt: `Frame ${row.frame} of ${row.file}, the person outlined`, draggable: false });
    image.src = pictureSource(full || source);
    if (full) image.onerror = () => { image.onerror = null; image.src = pictureSource(source); };
    const moving = make("div", { className: "viewer-moving" }, image, outlineOver(row, wholeFrame(row)));
    const frame = make("div", { className: "viewer-frame" }, moving);
    frame.style.width = `min(100cqw, 100cqh * ${width / height})`;
    frame.style.aspectRatio = `${width} / ${height}`;
    frame.addEventListener("click", () => this.toggleZoom());
    stage.append(frame);
    this.applyZoom(row);
  },

  showCompare(row) {
    const compare = document.getElementById("viewer-compare");
    const asked = make("figure", {}, queryPane(this.query), make("figcaption", { textContent: "Looked for" }));
    compare.replaceChildren(asked);
    if (!row.zoom || !row.picture) return;
    const image = make("img", { alt: "The person found" });
    image.src = pictureSource(row.zoom);
    const [left, top, right, bottom] = row.region;
    const pane = make("div", { className: "pane" }, image);
    pane.style.aspectRatio = `${right - left} / ${bottom - top}`;
    compare.append(make("figure", {}, pane, make("figcaption", { textContent: row.isNear ? "Judged not to be it" : "Found" })));
  },

  showFacts(row) {
    const facts = [["Camera", row.cameraName], ["Time", row.time === null ? "unknown" : timecode(row.time)], ["Frame", String(row.frame)], ["File", row.uri],
      ["Score", row.score.toFixed(3)], ["Trace", row.trace]];
    if (row.recall !== null) facts.splice(5, 0, ["Likeness", `${row.recall.toFixed(3)} (recall, cosine)`]);
    document.getElementById("viewer-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", {}, isolated(value))]));
  },

  toggleZoom() {
    this.zoomed = !this.zoomed;
    document.getElementById("viewer-zoom").setAttribute("aria-pressed", String(this.zoomed));
    this.applyZoom(this.rows[this.at]);
  },

  applyZoom(row) {
    const frame = this.dialog.querySelector(".viewer-frame");
    if (!frame || !row.picture) return;
    const isZoomed = this.zoomed && Boolean(row.region);
    frame.classList.toggle("is-zoomed", isZoomed);
    frame.firstChild.style.transform = isZoomed ? zoomTransform(row) : "none";
  },

  async copy() {
    const row = this.rows[this.at];
    await navigator.clipboard?.writeText(`${row.trace} ${row.uri}`).then(
      () => { document.getElementById("viewer-copy").firstChild.textContent = "Copied "; },
      () => { document.getElementById("viewer-copy").firstChild.textContent = "Copying is not allowed here "; });
  },
};

// Scales and shifts the frame (percent of its own size) so that the person's region, with room around it, fills it.
function zoomTransform(row) {
  const { width, height } = row.picture;
  const [left, top, right, bottom] = row.region;
  const scale = Math.max(1, Math.min(8, 0.95 * Math.min(width / (right - left), height / (bottom - top))));
  const shift = (centre, length) => Math.min(0, Math.max(100 - 100 * scale, 50 - (centre / length) * 100 * scale));
  return `translate(${shift((left + right) / 2, width)}%, ${shift((top + bottom) / 2, height)}%) scale(${scale})`;
}

function queryPane(query) {
  if (!query.image) return make("div", { className: "pane words", dir: "auto", textContent: query.text || query.id });
  const image = make("img", { alt: query.text || `Picture of query ${query.id}` });
  image.src = pictureSource(query.image);
  return make("div", { className: "pane" }, image);
}
