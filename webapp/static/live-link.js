// The connection to webapp/live.py, whose first lines describe what is said on it.

const PATH = "/tellframe/live";
const HEADER_BYTES = 16;
const PATIENCE_MS = 1500; // a picture without a result by then had none
const SMOOTHED = 0.9;

/**
 * One connection. `hear` has functions for what comes: waiting(ahead), ready(welcome), result(result),
 * refused(code, message) and lost().
 */
export class Link {
  #socket;
  #hear;
  #ready = false;
  #sequence = 0;
  #flying = []; // pictures without a result, oldest first
  #wayMs = 0; // what a picture takes there and a result back
  #serverMs = 0; // ... and what it takes in between

  constructor(ticket, budget, hear) {
    this.#hear = hear;
    const url = new URL(PATH, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#say({ type: "start", ticket, budget });
    this.#socket.onmessage = ({ data }) => this.#heard(JSON.parse(data));
    this.#socket.onclose = () => {
      this.#silence();
      hear.lost();
    };
  }

  /** Whether a picture that is sent now would be judged soon. */
  get hasRoom() {
    const now = performance.now();
    this.#flying = this.#flying.filter(({ sentAt }) => now - sentAt < PATIENCE_MS);
    // A second one would only wait for the first; unless most of the time goes by on the way, far from the server.
    return this.#ready && this.#flying.length < (this.#wayMs > this.#serverMs ? 2 : 1);
  }

  get inFlight() {
    return this.#flying.length;
  }

  /** Sends a JPEG, an ArrayBuffer. */
  send(jpeg, capturedMs) {
    if (!this.#ready) return;
    const message = new Uint8Array(HEADER_BYTES + jpeg.byteLength);
    const header = new DataView(message.buffer);
    header.setUint32(0, this.#sequence, true);
    header.setFloat64(8, capturedMs, true);
    message.set(new Uint8Array(jpeg), HEADER_BYTES);
    this.#socket.send(message);
    this.#flying.push({ sequence: this.#sequence++, sentAt: performance.now() });
  }

  /** Leaves; nothing is heard after that. */
  close() {
    this.#silence();
    if (this.#socket.readyState === WebSocket.OPEN) this.#say({ type: "stop" });
    this.#socket.close();
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #silence() {
    this.#ready = false;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
  }

  #heard(said) {
    if (said.type === "waiting") this.#hear.waiting(said.ahead);
    else if (said.type === "ready") {
      this.#ready = true;
      this.#hear.ready(said);
    } else if (said.type === "result") {
      this.#landed(said);
      this.#hear.result(said);
    } else if (said.type === "error") {
      this.#silence();
      this.#hear.refused(said.code, said.message);
    }
  }
  #landed({ sequence, timing_ms: { server } }) {
    const its = this.#flying.find((picture) => picture.sequence === sequence);
    if (its) {
      const way = performance.now() - its.sentAt - server;
      this.#wayMs += (1 - SMOOTHED) * (way - this.#wayMs);
      this.#serverMs += (1 - SMOOTHED) * (server - this.#serverMs);
    }
    // Results come in order: a picture before this one that has none was overtaken, and gets none.
    this.#flying = this.#flying.filter((picture) => picture.sequence > sequence);
  }
}
