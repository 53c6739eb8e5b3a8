// <tellframe-live ticket budget budgets>: a camera's pictures go to webapp/live.py, verdicts come back and are shown.
// What state it is in stands in words beside the controls and, for programs, in `dataset.state`.

import { Shutter, allowed, cameras, openCamera } from "./live-camera.js";
import { Figures } from "./live-figures.js";
import { Link } from "./live-link.js";
import { View } from "./live-view.js";

const TICK_MS = 220; // between two drawings of plot and figures: the processor is the detector's
const SILENT_MS = 3000;
const TRY_AGAIN_MS = [500, 1000, 2000, 4000, 8000];
const STATES = {
  idle: ["rest", "Not started. Pictures go to the Tellframe that this page came from, and are kept nowhere."],
  stopped: ["rest", "Stopped. The camera is off."],
  asking: ["busy", "Asking for the camera: allow it where your browser asks."],
  connecting: ["busy", "The camera is on. Connecting ..."],
  waiting: ["busy", "All seats are taken."],
  starting: ["busy", "Ready. The first verdict is on its way."],
  running: ["live", "Live. Press Stop to turn the camera off."],
  silent: ["wrong", "The camera sends no picture. Is it covered, or taken by another program?"],
  lost: ["busy", "The connection was lost."],
  away: ["rest", "Paused while this page is out of sight. The camera is off; it goes on when you are back."],
  refused: ["wrong", "The camera was refused. Allow it for this page, beside the address, then press Start."],
  missing: ["wrong", "No camera was found. Plug one in, and it starts by itself."],
  busy: ["wrong", "The camera gives no picture. Close whatever else is using it, then press Start."],
  unplugged: ["wrong", "The camera was unplugged. Plug it in and it goes on, or choose another and press Start."],
  offline: ["wrong", "Tellframe cannot be reached. See whether it still runs, then press Start."],
  stale: ["wrong", "This page is too old. Reload it."],
  error: ["wrong", "Something went wrong. Press Start to try again."],
  insecure: ["wrong", "Browsers open cameras for https:// and for localhost only. Open this page at such an address."],
};
const COMES_BACK = ["missing", "unplugged"];
const RUNNING = ["asking", "connecting", "waiting", "starting", "running", "silent", "lost"];

class TellframeLive extends HTMLElement {
  #view;
  #watch; // aborted when the element leaves the page
  #ticking = null; // while a session lasts
  #again = null;
  #turn = 0; // goes up when what is still being waited for is not wanted any more
  #cameraId = null; // of the camera that was on last
  #stream = null;
  #shutter = null;
  #link = null;
  #figures = new Figures();
  #newest = null; // when the newest picture was taken that was not sent
  #picturing = false;
  #seenAt = 0;

  /** What was measured, as numbers. */
  figures() {
    return this.#figures.summary(performance.now(), this.#undecided);
  }

  connectedCallback() {
    this.#view ??= new View(this, JSON.parse(this.getAttribute("budgets")), Number(this.getAttribute("budget")));
    this.#watch = new AbortController();
    const heeding = { signal: this.#watch.signal };
    const { form, camera, budget } = this.#view;
    form.addEventListener("submit", (event) => this.#pressed(event), heeding);
    camera.addEventListener("change", () => this.#ticking && this.#open(), heeding);
    budget.addEventListener("change", () => this.#ticking && this.#begin(), heeding);
    document.addEventListener("visibilitychange", () => this.#look(), heeding);
    window.addEventListener("pagehide", () => this.#ticking && this.#end("away"), heeding);
    const sizes = new ResizeObserver(() => this.#look()); // also when its tab of the page is closed or opened
    const theme = new MutationObserver(() => (this.#view.recolor(), this.#draw()));
    sizes.observe(this);
    theme.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.#watch.signal.addEventListener("abort", () => (sizes.disconnect(), theme.disconnect()));
    if (!allowed()) return this.#say("insecure");
    navigator.mediaDevices.addEventListener("devicechange", () => this.#devicesChanged(), heeding);
    this.#say("idle");
    this.#offer();
  }

  disconnectedCallback() {
    this.#end("idle");
    this.#watch.abort();
  }

  // ------------------------------------------------------------------------------------ a session

  #pressed(event) {
    event.preventDefault();
    if (this.dataset.state === "stale") location.reload();
    else if (this.#ticking) this.#end("stopped");
    else this.#start();
  }

  async #start() {
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    this.#figures = new Figures();
    await this.#begin();
  }

  async #begin() {
    if (await this.#open()) this.#connect();
  }

  /** Ends what runs, and leaves the page in `state`. */
  #end(state, words) {
    clearInterval(this.#ticking);
    clearTimeout(this.#again);
    this.#ticking = null;
    this.#link?.close();
    this.#link = null;
    this.#release();
    this.#view.clear();
    this.#say(state, words);
  }

  /** Opens the chosen camera, in place of the one that is open; false when there is none, or it is not wanted now. */
  async #open() {
    const before = this.dataset.state;
    this.#release();
    this.#cameraId = null;
    this.#say("asking");
    const turn = this.#turn;
    let stream;
    try {
      stream = await openCamera(this.#view.camera.value, this.#view.framesPerSecond);
    } catch (error) {
      if (turn === this.#turn) this.#end(error.state);
      return false;
    }
    if (turn !== this.#turn) {
      stop(stream); // the user has changed their mind meanwhile
      return false;
    }
    this.#opened(stream);
    if (this.dataset.state === "asking") this.#say(this.#link ? before : "connecting");
    return true;
  }

  #opened(stream) {
    this.#stream = stream;
    this.#view.show(stream);
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => this.#stream === stream && this.#end("unplugged"));
    this.#cameraId = track.getSettings().deviceId;
    this.#seenAt = performance.now();
    this.#shutter = new Shutter(this.#view.video, (captured, count) => this.#pictured(captured, count));
    this.#offer();
  }

  #release() {
    this.#turn += 1;
    this.#shutter?.close();
    this.#shutter = this.#newest = null;
    stop(this.#stream);
    this.#stream = null;
    this.#view.show(null);
  }

  #connect(attempt = 0) {
    clearTimeout(this.#again);
    this.#link?.close();
    if (!attempt) this.#say("connecting");
    let failures = attempt;
    this.#link = new Link(this.getAttribute("ticket"), this.#view.budget.value, {
      waiting: (ahead) =>
        this.#say("waiting", `All seats are taken. ${ahead ? `${ahead} ahead of you.` : "You are next."}`),
      ready: (welcome) => {
        failures = 0;
        this.#view.begin(welcome);
        this.#say("starting");
      },
      result: (result) => this.#result(result),
      refused: (code, message) => this.#end(code === "ticket" ? "stale" : "error", message),
      lost: () => this.#lost(failures),
    });
  }

  #lost(failures) {
    const wait = TRY_AGAIN_MS[failures];
    if (wait === undefined) return this.#end("offline");
    this.#view.clear();
    this.#say("lost", `The connection was lost; trying again (${failures + 1} of ${TRY_AGAIN_MS.length}).`);
    this.#again = setTimeout(() => this.#connect(failures + 1), wait);
  }

  // ------------------------------------------------------------------------------------ pictures and verdicts

  #pictured(captured, count) {
    this.#seenAt = performance.now();
    if (this.dataset.state === "silent") this.#say("starting");
    if (!["starting", "running"].includes(this.dataset.state)) return;
    this.#figures.camera(count);
    this.#newest = captured;
    this.#pump();
  }

  /** Sends the newest picture if there is room for one: what comes meanwhile is newer, and nothing waits in a line. */
  async #pump() {
    const [link, shutter] = [this.#link, this.#shutter];
    if (this.#newest === null || this.#picturing || !link?.hasRoom) return;
    const captured = this.#newest;
    this.#newest = null;
    this.#picturing = true;
    try {
      const jpeg = await shutter.jpeg();
      if (this.#link === link) link.send(jpeg, captured);
    } finally {
      this.#picturing = false;
    }
    this.#pump();
  }

  #result(result) {
    const figures = this.#figures;
    figures.result(result);
    if (this.dataset.state === "starting") this.#say("running");
    this.#view.verdict(result, performance.now());
    // A timer that is set when the browser is about to paint runs once it has.
    requestAnimationFrame(() => setTimeout(() => figures.shown(result.captured_ms, performance.now())));
    this.#pump();
  }

  get #undecided() {
    return (this.#link?.inFlight ?? 0) + this.#picturing + (this.#newest !== null);
  }

  #tick() {
    if (!["starting", "running", "silent"].includes(this.dataset.state)) return;
    if (this.dataset.state !== "silent" && performance.now() - this.#seenAt > SILENT_MS) {
      this.#view.clear();
      this.#say("silent");
    }
    this.#draw();
  }

  #draw() {
    this.#view.tick(this.#figures, this.#undecided, performance.now());
  }

  // ------------------------------------------------------------------------------------ what happens around it

  #say(state, words) {
    const [kind, usual] = STATES[state];
    this.dataset.state = state;
    const action = state === "stale" ? "Reload" : RUNNING.includes(state) ? "Stop" : "Start";
    this.#view.say(words ?? usual, kind, action, state !== "insecure");
  }

  async #offer() {
    this.#view.offer(await cameras());
  }

  async #devicesChanged() {
    const found = await cameras();
    this.#view.offer(found);
    // Another camera than the one that was on is not turned on by itself.
    const isBack = this.#cameraId ? found.some(([id]) => id === this.#cameraId) : found.length > 0;
    if (COMES_BACK.includes(this.dataset.state) && isBack && this.#isShown) this.#start();
  }

  get #isShown() {
    return !document.hidden && this.checkVisibility();
  }

  #look() {
    if (!this.#isShown && this.#ticking) this.#end("away");
    else if (this.#isShown && this.dataset.state === "away") this.#start();
    else if (this.#isShown && !this.#ticking) this.#draw();
  }
}

const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

customElements.define("tellframe-live", TellframeLive);
