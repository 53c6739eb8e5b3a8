// What a live session looks like: the picture with its boxes, the verdict, the plot, the gauge and the figures.

import { plotly, themed } from "./plot.js";

// Words and icons of the verdicts, as webapp/view.py has them.
const WORDS = { REAL: "Real", FAKE: "Fake", UNSURE: "Not sure", NO_FACE: "No face" };
const ICONS = { REAL: "✓", FAKE: "!", UNSURE: "?", NO_FACE: "–" };
const DASHES = { REAL: [], FAKE: [], UNSURE: [8, 6] }; // a third sign, for boxes too small for a word
const STAGES = { find: "Find faces", crop: "Cut them out", score: "Score them", rest: "All else", total: "In all" };
const GAUGE_ENDS = 1.5; // budgets: there is room to see by how much a frame is late
const PLOT_S = 20;
const STALE_MS = 1000; // boxes without a newer result lie about the picture beneath them
const SAY_AGAIN_MS = 1500;
const NARROW_PX = 480; // a picture in which words of several boxes would cover each other
const NONE = "–";

const gaugeRow = ([stage, name]) => `
  <div class="tfl-stage-row" data-stage="${stage}">
    <span>${name}</span><span class="tfl-track" aria-hidden="true"><span></span></span><span>${NONE}</span>
  </div>`;
const figure = ([key, name]) => `<div><dt>${name}</dt><dd data-figure="${key}">${NONE}</dd></div>`;
const FIGURES = {
  rate: "Verdicts a second",
  dropped: "Frames dropped",
  trip: "Round trip, camera to screen",
  detector: "Of that, the detector",
  model: "Model",
  pace: "Pace",
};
const TEMPLATE = `
  <form class="tfl-controls">
    <label>Camera<select name="camera" aria-label="Camera"><option value="">The usual camera</option></select></label>
    <label>Time for a frame<select name="budget" aria-label="Time for a frame"></select></label>
    <button class="tfl-go">Start</button>
  </form>
  <p class="tfl-state" role="status"><span class="tf-icon" aria-hidden="true"></span><span class="tfl-said"></span></p>
  <div class="tfl-columns">
    <section aria-label="Picture and verdict">
      <div class="tfl-stage">
        <video muted playsinline aria-label="The camera's picture"></video><canvas aria-hidden="true"></canvas>
        <p class="tfl-empty">Your picture appears here, with a box around every face.</p>
      </div>
      <div class="tfl-verdict"><p class="tfl-word"></p><p class="tfl-score"></p></div>
      <p class="tfl-unseen" aria-live="polite"></p>
    </section>
    <section aria-label="Measurements">
      <h3>p(fake) over the last ${PLOT_S} seconds</h3>
      <div class="tfl-plot" role="img" aria-label="Plot of p(fake) over the last ${PLOT_S} seconds"></div>
      <h3>Time for a frame; the dashed line is the budget</h3>
      <div class="tfl-gauge" role="group" aria-label="Time for a frame, by stage">
        ${Object.entries(STAGES).map(gaugeRow).join("")}
      </div>
      <p class="tfl-kept"></p>
      <h3>Figures</h3>
      <dl class="tfl-figures">${Object.entries(FIGURES).map(figure).join("")}</dl>
    </section>
  </div>`;

const ms = (value) => (value == null ? NONE : `${value.toFixed(value < 99.95 ? 1 : 0)} ms`);
const cssColor = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function badge(label) {
  const made = document.createElement("span");
  made.className = `tf-badge tf-${label}`;
  made.innerHTML = `<span class="tf-icon" aria-hidden="true">${ICONS[label]}</span>${WORDS[label]}`;
  return made;
}

/** The live view inside `root`; `budgets` are [ms, name], `budget` the one that is chosen at first. */
export class View {
  #root;
  #pen;
  #colors = null;
  #welcome = null;
  #word = "";
  #spoken = { word: "", at: 0 };
  #drawnAt = 0;
  #board = null;
  #drawing = false;

  constructor(root, budgets, budget) {
    this.#root = root;
    root.innerHTML = TEMPLATE;
    const part = (selector) => root.querySelector(selector);
    this.form = part("form");
    this.camera = part("select[name=camera]");
    this.budget = part("select[name=budget]");
    this.video = part("video");
    this.parts = {
      go: part(".tfl-go"), state: part(".tfl-state .tf-icon"), said: part(".tfl-said"), stage: part(".tfl-stage"),
      canvas: part("canvas"), verdict: part(".tfl-verdict"), word: part(".tfl-word"), score: part(".tfl-score"),
      unseen: part(".tfl-unseen"), plot: part(".tfl-plot"), gauge: part(".tfl-gauge"), kept: part(".tfl-kept"),
    };
    this.#pen = this.parts.canvas.getContext("2d");
    this.video.addEventListener("resize", ({ target: { videoWidth, videoHeight } }) => {
      if (videoWidth) this.parts.stage.style.setProperty("--tfl-ratio", `${videoWidth / videoHeight}`);
    });
    const nearest = budgets.find(([period]) => Math.abs(period - budget) < 1)?.[0];
    const all = nearest ? budgets : [[String(budget), `${Math.round(1000 / budget)} frames a second`], ...budgets];
    this.budget.replaceChildren(...all.map(([period, name]) => new Option(`${period} ms: ${name}`, period)));
    this.budget.value = nearest ?? String(budget);
    this.clear();
  }

  /** The state in words, how things stand ("rest", "busy", "live" or "wrong"), and what the button does. */
  say(words, kind, action, isPossible) {
    const { go, state, said } = this.parts;
    set(said, words);
    set(state, { rest: "–", busy: "⋯", live: "●", wrong: "!" }[kind]);
    this.#root.dataset.kind = kind;
    set(go, action);
    go.disabled = !isPossible;
  }

  /** Offers these cameras, [id, name], beside the usual one; what was chosen stays so while it is there. */
  offer(cameras) {
    const chosen = this.camera.value;
    const named = cameras.map(([id, name]) => new Option(name, id));
    this.camera.replaceChildren(new Option("The usual camera", ""), ...named);
    this.camera.value = cameras.some(([id]) => id === chosen) ? chosen : "";
  }

  /** What the chosen budget is for. */
  get framesPerSecond() {
    return Number(this.budget.value) < 25 ? 60 : 30;
  }

  /** Shows a camera's stream; null takes it away. */
  show(stream) {
    this.video.srcObject = stream;
    this.parts.stage.classList.toggle("tfl-on", Boolean(stream));
    // A stream that is taken away before it plays is no error.
    if (stream) this.video.play().catch(() => {});
  }

  /** A session begins, with what the server said of it. */
  begin(welcome) {
    this.#welcome = welcome;
    this.#word = "";
  }

  /** A verdict: drawn at once, but for the figures, which come with `tick`. */
  verdict(result, now) {
    const { verdict: label, reason } = result;
    const word = label === "NO_FACE" ? "" : `: ${reason}`;
    if (this.#word !== label + word) {
      this.#word = label + word;
      this.parts.word.replaceChildren(badge(label), word);
      this.parts.verdict.className = `tfl-verdict tf-${label}`;
    }
    this.#box(result);
    this.#drawnAt = now;
  }

  /** Nothing is judged: no boxes and no verdict. */
  clear() {
    this.#word = "";
    this.parts.verdict.className = "tfl-verdict tf-NO_FACE";
    this.parts.word.textContent = "No verdict yet";
    this.parts.score.textContent = "";
    this.#wipe();
  }

  /** A few times a second: what would cost too much, or be too restless to read, at every verdict. */
  tick(figures, inFlight, now) {
    if (now - this.#drawnAt > STALE_MS) this.#wipe();
    figures.forget(now, (PLOT_S + 1) * 1000);
    const summary = figures.summary(now, inFlight);
    if (figures.last && this.#word) {
      this.#speak(figures.last, now);
      set(this.parts.score, this.#scored(figures.last));
    }
    this.#measure(summary);
    this.#write(summary, figures.last);
    this.plot(figures.history, now);
  }

  /** The colours of the page have changed. */
  recolor() {
    this.#colors = null;
  }

  // ------------------------------------------------------------------------------------ the picture

  #wipe() {
    this.#pen.clearRect(0, 0, this.parts.canvas.width, this.parts.canvas.height);
  }

  #box({ size: [width, height], faces }) {
    const { canvas, stage } = this.parts;
    const unit = window.devicePixelRatio; // of the canvas, a CSS pixel
    const scale = Math.min(stage.clientWidth / width, stage.clientHeight / height) * unit;
    const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    this.#wipe();
    for (const face of faces) this.#boxFace(face, scale, unit, faces.length > 1 ? `Face ${face.track} ` : "");
  }

  #boxFace({ verdict, xyxy, p_fake: p }, scale, unit, name) {
    const pen = this.#pen;
    const [left, top, right, bottom] = xyxy.map((value) => value * scale);
    const color = this.#palette()[verdict];
    pen.lineJoin = "round";
    for (const [style, width] of [["#000a", 5], [color.fill, 3]]) {
      pen.setLineDash(style === color.fill ? DASHES[verdict].map((length) => length * unit) : []);
      pen.strokeStyle = style;
      pen.lineWidth = width * unit;
      pen.strokeRect(left, top, right - left, bottom - top);
    }
    const score = p === null || pen.canvas.width < NARROW_PX * unit ? "" : ` ${p.toFixed(2)}`;
    const words = `${name}${ICONS[verdict]} ${WORDS[verdict]}${score}`;
    pen.font = `700 ${15 * unit}px system-ui, sans-serif`;
    const [pad, tall] = [6 * unit, 24 * unit];
    const wide = pen.measureText(words).width + 2 * pad;
    const x = Math.max(0, Math.min(left - unit, pen.canvas.width - wide));
    const y = Math.max(0, Math.min(top < tall ? bottom : top - tall, pen.canvas.height - tall));
    pen.fillStyle = color.fill;
    pen.fillRect(x, y, wide, tall);
    pen.fillStyle = color.text;
    pen.textBaseline = "middle";
    pen.fillText(words, x + pad, y + tall / 2 + unit);
  }

  #palette() {
    this.#colors ??= Object.fromEntries(
      Object.keys(WORDS).map((label) => {
        const probe = this.#root.appendChild(badge(label));
        const fill = cssColor(probe, "--tf-verdict");
        probe.remove();
        return [label, { fill, text: this.#root.closest(".dark") ? "#000" : "#fff" }];
      }),
    );
    return this.#colors;
  }

  // ------------------------------------------------------------------------------------ words and figures

  #scored({ p_fake: p, faces }) {
    const count = faces.length > 1 ? `${faces.length} faces, the most suspicious counts` : "";
    return [p === null ? "" : `p(fake) ${p.toFixed(2)}`, count].filter(Boolean).join(" · ");
  }

  /** To those who listen: the word when it changes, not at every frame, and not faster than it can be said. */
  #speak({ verdict, reason }, now) {
    if (verdict === this.#spoken.word || now - this.#spoken.at < SAY_AGAIN_MS) return;
    this.#spoken = { word: verdict, at: now };
    this.parts.unseen.textContent = `${WORDS[verdict]}: ${reason}`;
  }

  #measure({ stages_ms: stages, detector_p95_ms: p95, results }) {
    if (!stages || !this.#welcome) return;
    const budget = this.#welcome.budget_ms;
    const share = (value) => Math.min(1, value / (budget * GAUGE_ENDS));
    let begins = 0;
    for (const row of this.parts.gauge.children) {
      const value = stages[row.dataset.stage];
      const isTotal = row.dataset.stage === "total";
      const from = isTotal ? 0 : share(begins);
      const bar = row.querySelector(".tfl-track > span");
      bar.style.left = `${100 * from}%`;
      bar.style.width = `${100 * (share((isTotal ? 0 : begins) + value) - from)}%`;
      set(row.lastElementChild, ms(value));
      begins += value;
    }
    const kept = p95 <= budget;
    set(
      this.parts.kept,
      `${kept ? "✓ Within" : "! Over"} the budget of ${ms(budget)}: of the last ${Math.min(results, 100)} frames, ` +
        `95 % took at most ${ms(p95)}.`,
    );
    this.parts.kept.classList.toggle("tfl-late", !kept);
  }

  #write(summary, last) {
    const pair = (p50, p95) => (p50 === null ? NONE : `${ms(p50)}, 95 % within ${ms(p95)}`);
    const values = {
      rate: summary.results ? summary.verdicts_per_s.toFixed(1) : NONE,
      dropped: summary.camera_frames ? `${summary.dropped} of ${summary.camera_frames}` : NONE,
      trip: pair(summary.round_trip_p50_ms, summary.round_trip_p95_ms),
      detector: pair(summary.detector_p50_ms, summary.detector_p95_ms),
      model: last ? this.#modelWords(last.model) : NONE,
      pace: last ? paceWords(last.find_every, last.score_every) : NONE,
    };
    for (const [key, text] of Object.entries(values)) set(this.#root.querySelector(`[data-figure=${key}]`), text);
  }

  #modelWords(name) {
    const models = this.#welcome?.models ?? [];
    const at = models.indexOf(name);
    return models.length < 2 ? name : `${name} (${at ? "faster" : "most accurate"})`;
  }

  // ------------------------------------------------------------------------------------ the plot

  /** The plot as it is now; a call while it is being drawn is left out. */
  async plot(history, now) {
    const { plot } = this.parts;
    if (this.#drawing || !plot.clientWidth) return;
    this.#drawing = true;
    try {
      const library = await plotly();
      if (!plot.isConnected) return;
      if (!this.#board) {
        this.#board = document.createElement("div");
        plot.replaceChildren(this.#board);
      }
      const { data, layout } = this.#figure(history, now);
      await library.react(this.#board, data, layout, { displayModeBar: false, staticPlot: true });
      plot.dataset.drawn = "yes";
    } catch (error) {
      this.#board = null;
      plot.textContent = `This plot cannot be drawn: ${error.message}`;
    } finally {
      this.#drawing = false;
    }
  }

  #figure(history, now) {
    const { plot } = this.parts;
    const { real_below: real = 0, fake_above: fake = 1 } = this.#welcome ?? {};
    const zones = this.#welcome ? [["REAL", 0, real], ["UNSURE", real, fake], ["FAKE", fake, 1]] : [];
    const colors = this.#palette();
    // Times are told as seconds before now, so that the axis stands still and only the line is drawn anew.
    const x = history.map(({ at }) => (at - now) / 1000);
    const line = { color: cssColor(document.body, "--body-text-color") || "#888", width: 2 };
    const trace = { x, y: history.map(({ p }) => p), mode: "lines", line, connectgaps: false, hoverinfo: "skip" };
    const layout = themed({
      width: plot.clientWidth,
      height: plot.clientHeight,
      margin: { l: 34, r: 22, t: 6, b: 40 },
      showlegend: false,
      xaxis: {
        range: [-PLOT_S, 0], tickvals: [-20, -15, -10, -5, 0], ticktext: ["20", "15", "10", "5", "now"],
        title: { text: "seconds ago", font: { size: 12 } }, zeroline: false, automargin: false,
      },
      yaxis: { range: [0, 1], tickvals: [0, 0.5, 1], zeroline: false, automargin: false },
      shapes: zones.flatMap(([label, y0, y1]) => {
        const where = { xref: "paper", x0: 0, x1: 1, y0 };
        const line = { color: colors[label].fill, width: 1.5, dash: "dash" };
        const look = { fillcolor: colors[label].fill, opacity: 0.13, line: { width: 0 }, layer: "below" };
        const zone = { type: "rect", ...where, y1, ...look };
        return y0 ? [zone, { type: "line", ...where, y1: y0, line }] : [zone];
      }),
      annotations: zones.map(([label, y0, y1]) => ({
        xref: "paper", x: 0.01, y: (y0 + y1) / 2, xanchor: "left", showarrow: false,
        text: `${ICONS[label]} ${zoneWords(label, real, fake)}`, font: { color: colors[label].fill, size: 12 },
      })),
    });
    return { data: [trace], layout };
  }
}

function zoneWords(label, real, fake) {
  if (label === "UNSURE") return WORDS.UNSURE;
  return label === "REAL" ? `Real below ${real.toFixed(2)}` : `Fake above ${fake.toFixed(2)}`;
}

function paceWords(findEvery, scoreEvery) {
  if (findEvery === 1 && scoreEvery === 1) return "every frame";
  const nth = (n) => (n === 1 ? "every frame" : `1 frame in ${n}`);
  return findEvery === scoreEvery ? nth(findEvery) : `looks in ${nth(findEvery)}, scores in ${nth(scoreEvery)}`;
}
