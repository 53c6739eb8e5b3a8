// <tellframe-plot figure='{"data": [...], "layout": {...}}'>: a Plotly figure in the colours of the page.
// With the attribute `seeks`, a click on a point sends the event "tellframe-seek" with its x as seconds, and the event
// "tellframe-time" moves a line to where the player is.

const SCRIPT = "/tellframe/plotly.min.js";
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

let loading = null;

/** Plotly, loaded from this server when it is first needed. */
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("the plots could not be loaded; reload the page"));
    };
    document.head.append(script);
  });
  return loading;
}

/** Colours of the page as it is now, dark or light. */
export function themed(layout) {
  const style = getComputedStyle(document.body);
  const text = style.getPropertyValue("--body-text-color").trim() || style.color;
  const line = style.getPropertyValue("--border-color-primary").trim() || "#8888";
  const axis = (given) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...given });
  const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    ...layout,
    font: { family: "system-ui, sans-serif", size: 13, ...layout.font, color: text },
    ...Object.fromEntries([...new Set(["xaxis", "yaxis", ...axes])].map((key) => [key, axis(layout[key])])),
  };
}

class TellframePlot extends HTMLElement {
  static observedAttributes = ["figure"];

  connectedCallback() {
    this.setAttribute("role", "img");
    this.themeWatch = new MutationObserver(() => this.draw());
    this.themeWatch.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    // A plot in a tab that is not open has no width yet.
    this.sizeWatch = new ResizeObserver(() => this.draw());
    this.sizeWatch.observe(this);
    this.onTime = (event) => this.showTime(event.detail.seconds);
    document.addEventListener("tellframe-time", this.onTime);
  }

  disconnectedCallback() {
    this.themeWatch?.disconnect();
    this.sizeWatch?.disconnect();
    document.removeEventListener("tellframe-time", this.onTime);
    if (this.board) window.Plotly?.purge(this.board);
    this.board = null;
  }

  attributeChangedCallback() {
    if (this.isConnected) this.draw();
  }

  async draw() {
    if (this.drawing) {
      this.again = true;
      return;
    }
    this.drawing = true;
    do {
      this.again = false;
      await this.drawOnce();
    } while (this.again);
    this.drawing = false;
  }

  async drawOnce() {
    if (!this.clientWidth) return;
    try {
      const library = await plotly();
      if (!this.isConnected) return;
      const figure = JSON.parse(this.getAttribute("figure"));
      if (!this.board) {
        this.board = document.createElement("div");
        this.board.className = "tf-board";
        this.replaceChildren(this.board);
      }
      const layout = themed({ ...figure.layout, width: this.clientWidth, height: this.clientHeight || 300 });
      this.shapes = layout.shapes ?? [];
      await library.react(this.board, figure.data, layout, CONFIG);
      if (this.hasAttribute("seeks") && !this.listening) this.listen();
      this.dataset.drawn = "yes";
    } catch (error) {
      this.textContent = `This plot cannot be drawn: ${error.message}`;
      this.board = null;
    }
  }

  listen() {
    this.listening = true;
    // Anywhere in the plot: a point of a line is hard to hit with a thumb.
    this.board.addEventListener("click", (event) => {
      const axes = this.board._fullLayout;
      const box = this.board.getBoundingClientRect();
      const seconds = axes.xaxis.p2d(event.clientX - box.left - axes.margin.l - (axes._size.l - axes.margin.l));
      const [first, last] = axes.xaxis.range;
      if (seconds < first || seconds > last) return;
      const detail = { seconds: Math.max(0, seconds) };
      this.dispatchEvent(new CustomEvent("tellframe-seek", { bubbles: true, detail }));
    });
  }

  showTime(seconds) {
    if (!this.hasAttribute("seeks") || !this.board || !this.dataset.drawn) return;
    const color = getComputedStyle(document.body).getPropertyValue("--body-text-color").trim() || "#888";
    const here = { type: "line", xref: "x", yref: "paper", x0: seconds, x1: seconds, y0: 0, y1: 1, line: { width: 2, color } };
    window.Plotly.relayout(this.board, { shapes: [...this.shapes, here] });
  }
}

customElements.define("tellframe-plot", TellframePlot);
