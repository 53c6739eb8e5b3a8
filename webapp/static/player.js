// The player of the Video tab: whatever names a time (a button with `data-seek`, a click on the timeline) moves it
// there, and it tells the timeline where it is.

const player = () => document.querySelector("#tf-player video");
let told = 0;

function seek(seconds) {
  const video = player();
  if (!video) return;
  video.currentTime = seconds;
  video.scrollIntoView({ block: "nearest", behavior: "smooth" });
  tell(video);
}

function tell(video) {
  told = performance.now();
  document.dispatchEvent(new CustomEvent("tellframe-time", { detail: { seconds: video.currentTime } }));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-seek]");
  if (button) seek(Number(button.dataset.seek));
});
document.addEventListener("tellframe-seek", (event) => seek(event.detail.seconds));
// Media events do not bubble; they can be caught on the way down.
for (const kind of ["timeupdate", "seeked"]) {
  document.addEventListener(
    kind,
    (event) => {
      if (event.target === player() && performance.now() - told > 200) tell(event.target);
    },
    true,
  );
}
