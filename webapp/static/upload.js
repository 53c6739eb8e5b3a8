// The file box of the Video tab: what is too large is refused here, in words beside the box, before it is sent. Gradio
// would refuse it as well, in a corner of the page and with a number of another unit.

const limit = Number(document.querySelector('meta[name="tellframe-upload-bytes"]')?.content ?? Infinity);

const isOurs = (event) => event.target.closest?.("#tf-upload") != null;

function refuse(words) {
  const box = document.querySelector("#tf-progress .tf-progress");
  if (!box) return;
  box.className = "tf-progress tf-progress-error";
  box.setAttribute("role", "alert");
  box.innerHTML = '<p><span class="tf-icon" aria-hidden="true">!</span> <span></span></p>';
  box.querySelector("p span:last-child").textContent = words;
}

function look(event, files) {
  const large = [...(files ?? [])].find((file) => file.size > limit);
  if (!large) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
  refuse(`${large.name}: has ${megabytes(large.size)}; at most ${megabytes(limit)} are taken: cut it`);
}

// On the way down, before Gradio's own handlers see them.
document.addEventListener(
  "change",
  (event) => {
    if (!isOurs(event) || event.target.type !== "file") return;
    look(event, event.target.files);
    if (event.defaultPrevented) event.target.value = "";
  },
  true,
);
document.addEventListener("drop", (event) => isOurs(event) && look(event, event.dataTransfer?.files), true);
// A file dialogue that shows videos first; whatever else is chosen is refused by the server, in words.
document.addEventListener(
  "click",
  (event) => {
    const input = isOurs(event) && document.querySelector("#tf-upload input[type=file]");
    if (input) input.accept = "video/*,.mkv,.ts,.m2ts,.mts,.avi,.flv,.wmv";
  },
  true,
);
