// The camera: which there are, why one cannot be had, and its newest picture as a JPEG.

const WIDEST_PX = 640; // of a picture that is sent; what the detector gains beyond that is not worth the bytes
const TALLEST_PX = 1280;
const QUALITY = 0.9; // compression moves scores, so little of it
const STATES = {
  NotAllowedError: "refused",
  SecurityError: "refused",
  NotFoundError: "missing",
  OverconstrainedError: "unplugged", // the one that was chosen is not there any more
};

/** Whether this page may ask for a camera at all: browsers offer it to https and to this very machine only. */
export const allowed = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** The cameras as [id, name]; before a camera was allowed, browsers tell neither. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const found = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  return found.map(({ deviceId, label }, index) => [deviceId, label || `Camera ${index + 1}`]);
}

/** A stream of the camera `id`, of the usual one when that is empty; throws an Error whose `state` says why not. */
export async function openCamera(id, framesPerSecond) {
  const which = id ? { deviceId: { exact: id } } : { facingMode: "user" };
  const size = { width: { ideal: 640 }, height: { ideal: 480 } };
  const video = { ...size, frameRate: { ideal: framesPerSecond }, ...which };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw Object.assign(error, { state: STATES[error.name] ?? "busy" });
  }
}

/** Watches a playing video and makes a JPEG of its newest picture, which is asked for when there is room for one. */
export class Shutter {
  #video;
  #canvas = new OffscreenCanvas(1, 1); // its encoder does not wait for the page to be idle, as that of a <canvas> does
  #pen = this.#canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  #seen = null;
  #handle = 0;

  /** `pictured(captured_ms, count)` is told of every picture: when it was taken, and how many came since the last. */
  constructor(video, pictured) {
    this.#video = video;
    const watch = (now, about) => {
      this.#handle = video.requestVideoFrameCallback(watch);
      const count = this.#seen === null ? 1 : about.presentedFrames - this.#seen;
      this.#seen = about.presentedFrames;
      pictured(about.captureTime ?? now, count);
    };
    this.#handle = video.requestVideoFrameCallback(watch);
  }

  async jpeg() {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, WIDEST_PX / videoWidth, TALLEST_PX / videoHeight);
    const [width, height] = [videoWidth, videoHeight].map((side) => Math.max(1, Math.round(side * scale)));
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
    }
    this.#pen.drawImage(this.#video, 0, 0, width, height);
    const blob = await this.#canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    return blob.arrayBuffer();
  }

  close() {
    this.#video.cancelVideoFrameCallback(this.#handle);
  }
}
