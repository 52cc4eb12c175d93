import { PMPError, aborted, checkAborted } from "./error.js";

/**
 * The frames of a video, always the newest: those that come while the last one is still being worked on are dropped.
 * It ends with the video. A live stream, and a video that is paused, has no end; a signal or `break` stops it.
 *
 * @param {HTMLVideoElement} video
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<{time: number, dropped: number}>} time is the frame's, in seconds; dropped how many were
 *   passed over since the one before, where the browser counts them
 * @throws {PMPError} aborted, bad-input
 */
export async function* frames(video, signal) {
  if (!(typeof HTMLVideoElement === "function" && video instanceof HTMLVideoElement)) {
    throw new PMPError("bad-input", "video takes a <video> element. Give encode the frames of other sources, one after the other.");
  }
  checkAborted(signal);
  let newest = null, wake = () => {}, over = null;
  const come = (frame) => {
    newest = frame;
    wake();
  };
  const end = (why) => {
    over ??= why;
    wake();
  };
  const stop = watch(video, come);
  const events = {
    ended: () => end({}),
    error: () => end({ error: new PMPError("bad-input", `The <video> cannot be played (${video.error?.message || "no reason is given"}).`) }),
  };
  const abort = () => end({ error: aborted(signal) });
  for (const [name, f] of Object.entries(events)) video.addEventListener(name, f);
  signal?.addEventListener("abort", abort, { once: true });
  if (video.error) events.error();
  // The frame that is shown already comes no more.
  if (video.readyState >= 2) come({ time: video.currentTime, count: null });
  let last = null;
  try {
    for (;;) {
      if (!newest && !over) await new Promise((done) => (wake = done));
      if (over?.error) throw over.error;
      if (!newest) return;
      const { time, count } = newest;
      newest = null;
      yield { time, dropped: count && last ? Math.max(0, count - last - 1) : 0 };
      last = count ?? last;
    }
  } finally {
    stop();
    for (const [name, f] of Object.entries(events)) video.removeEventListener(name, f);
    signal?.removeEventListener("abort", abort);
  }
}

/** Calls f with every new frame until the returned function is called. */
function watch(video, f) {
  if (video.requestVideoFrameCallback) {
    let id;
    const ask = () => (id = video.requestVideoFrameCallback((_, { mediaTime, presentedFrames }) => {
      ask();
      f({ time: mediaTime, count: presentedFrames });
    }));
    ask();
    return () => video.cancelVideoFrameCallback(id);
  }
  // Older browsers tell only the time.
  let at = video.currentTime;
  const timer = setInterval(() => {
    if (video.readyState < 2 || video.currentTime === at) return;
    at = video.currentTime;
    f({ time: at, count: null });
  }, 15);
  return () => clearInterval(timer);
}
