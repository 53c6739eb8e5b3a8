// What is counted and measured in a live session. Pure: times come in, in ms of the page's clock.

const KEPT = 100; // measurements that quantiles are taken of
const RATE_OVER_MS = 2000;
const MEAN_OVER = 20; // results that the stages are the mean of: some are left out in most frames, by the governor

export class Figures {
  results = 0;
  history = []; // {at, p}: when a picture was taken, and p(fake), null without one
  last = null;
  #cameraFrames = 0;
  #shown = [];
  #roundTrips = [];
  #servers = [];
  #totals = [];
  #stages = [];

  /** `count` more frames came from the camera. */
  camera(count) {
    this.#cameraFrames += count;
  }

  /** A result came. */
  result(result) {
    this.results += 1;
    this.last = result;
    const { find, crop, score, total, server } = result.timing_ms;
    keep(this.#servers, server, KEPT);
    keep(this.#totals, total, KEPT);
    keep(this.#stages, { find, crop, score, rest: Math.max(0, total - find - crop - score), total }, MEAN_OVER);
    this.history.push({ at: result.captured_ms, p: result.p_fake });
  }

  /** The verdict on a picture taken at `captured` stands on the screen. */
  shown(captured, now) {
    keep(this.#roundTrips, now - captured, KEPT);
    this.#shown.push(now);
  }

  /** Forgets what is older than `ms`. */
  forget(now, ms) {
    while (this.history.length && this.history[0].at < now - ms) this.history.shift();
    while (this.#shown.length && this.#shown[0] < now - RATE_OVER_MS) this.#shown.shift();
  }

  /** All of it, as it is now; null where nothing was measured. `inFlight` frames may yet get a verdict. */
  summary(now, inFlight) {
    const shown = this.#shown.filter((at) => at >= now - RATE_OVER_MS);
    const over = shown.length > 1 ? now - shown[0] : 0;
    return {
      verdicts_per_s: over > 0 ? (1000 * shown.length) / Math.max(over, RATE_OVER_MS / 2) : 0,
      round_trip_p50_ms: quantile(this.#roundTrips, 0.5),
      round_trip_p95_ms: quantile(this.#roundTrips, 0.95),
      server_p95_ms: quantile(this.#servers, 0.95),
      detector_p50_ms: quantile(this.#totals, 0.5),
      detector_p95_ms: quantile(this.#totals, 0.95),
      stages_ms: mean(this.#stages),
      camera_frames: this.#cameraFrames,
      dropped: Math.max(0, this.#cameraFrames - this.results - inFlight),
      results: this.results,
    };
  }
}

function keep(list, value, most) {
  list.push(value);
  if (list.length > most) list.shift();
}

function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

function mean(records) {
  if (!records.length) return null;
  const names = Object.keys(records[0]);
  return Object.fromEntries(names.map((name) => [name, records.reduce((sum, r) => sum + r[name], 0) / records.length]));
}
