import { PMPError, checkAborted } from "./error.js";

/** More pixels than this are refused, since they would not fit into memory on a phone. */
const MAX_PIXELS = 50e6;

/**
 * Makes of any picture what the worker can take: a bitmap or RGBA bytes, and what of it is
 * handed over rather than copied.
 *
 * @returns {Promise<{args: {width: number, height: number, bitmap?: ImageBitmap, pixels?: Uint8Array}, transfer: Transferable[]}>}
 */
export async function takePicture(source, signal) {
  // An ImageData has the colours of its own space, and may have larger numbers; such a one goes through a canvas.
  if ((source?.data instanceof Uint8ClampedArray || source?.data instanceof Uint8Array) && (source.colorSpace ?? "srgb") === "srgb") {
    const { width, height, data } = source;
    checkSize(width, height);
    if (data.length !== 4 * width * height) {
      throw new PMPError("bad-input", `${width}×${height} pixels of RGBA have ${4 * width * height} bytes, not ${data.length}.`);
    }
    const pixels = new Uint8Array(data); // the page keeps its own
    return { args: { pixels, width, height }, transfer: [pixels.buffer] };
  }
  if (typeof createImageBitmap !== "function") {
    throw new PMPError("unsupported", "Node cannot decode pictures. Decode it with a package such as sharp or jimp, and give encode its pixels: {data, width, height}, RGBA.");
  }
  if (typeof source === "string" || source instanceof URL) source = await download(source, signal);
  const bitmap = await toBitmap(source);
  const { width, height } = bitmap;
  try {
    checkAborted(signal);
    checkSize(width, height);
  } catch (e) {
    bitmap.close();
    throw e;
  }
  if (typeof OffscreenCanvas === "undefined") {
    const pixels = readHere(bitmap);
    return { args: { pixels, width, height }, transfer: [pixels.buffer] };
  }
  return { args: { bitmap, width, height }, transfer: [bitmap] };
}

async function download(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal });
  } catch (e) {
    checkAborted(signal);
    throw new PMPError("network", `The picture ${url} could not be fetched (${e.message}). If it is on another host, that host must allow it with CORS headers.`, { cause: e });
  }
  if (!response.ok) throw new PMPError("network", `The picture ${url} could not be fetched: the host answered ${response.status}.`);
  try {
    return await response.blob();
  } catch (e) {
    checkAborted(signal);
    throw new PMPError("network", `The picture ${url} broke off (${e.message}). Try again.`, { cause: e });
  }
}

async function toBitmap(source) {
  const is = (name) => typeof globalThis[name] === "function" && source instanceof globalThis[name];
  if (is("Blob")) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(source);
    } catch (e) {
      throw new PMPError("bad-input", "This file is not a picture that the browser can read, or it is damaged. JPEG, PNG, WebP, GIF and mostly AVIF work.", { cause: e });
    }
    if (endsEarly(new Uint8Array(await source.arrayBuffer()))) {
      bitmap.close();
      throw new PMPError("bad-input", "This picture's file is damaged: it ends early. Copy or download it again.");
    }
    return bitmap;
  }
  if (is("HTMLImageElement")) {
    try {
      await source.decode();
    } catch (e) {
      throw new PMPError("bad-input", source.currentSrc || source.src ? "The <img> could not be loaded or its file is damaged." : "The <img> has no src.", { cause: e });
    }
    checkSize(source.naturalWidth, source.naturalHeight);
  } else if (is("HTMLVideoElement")) {
    if (source.readyState < 2) throw new PMPError("bad-input", "The <video> has no frame yet; wait for its loadeddata event.");
    checkSize(source.videoWidth, source.videoHeight);
  } else if (is("VideoFrame")) {
    checkSize(source.displayWidth, source.displayHeight);
  } else if (is("HTMLCanvasElement") || is("OffscreenCanvas") || is("ImageBitmap") || is("ImageData")) {
    checkSize(source.width, source.height);
  } else {
    const got = source === null ? "null" : source?.constructor?.name ?? typeof source;
    throw new PMPError("bad-input", `encode takes an <img>, <canvas>, <video>, ImageBitmap, ImageData, {data, width, height}, Blob, File, VideoFrame, OffscreenCanvas or a URL, not ${got}.`);
  }
  try {
    // A frame goes to the worker as it is, which may leave it on the graphics card. Its sides are those that are shown.
    if (is("VideoFrame")) return sized(source.clone());
    return await createImageBitmap(source);
  } catch (e) {
    const message = e.name === "SecurityError"
      ? 'The picture comes from another origin, so its pixels may not be read. Load it with crossorigin="anonymous" and let that host allow it.'
      : `The browser could not read the picture's pixels (${e.message}).`;
    throw new PMPError("bad-input", message, { cause: e });
  }
}

/** A frame with the sides that a bitmap has. */
const sized = (frame) => Object.assign(frame, { width: frame.displayWidth, height: frame.displayHeight });

/**
 * Whether a JPEG or PNG lacks its end. Some browsers show the rest of such a picture in grey
 * without a word, and masks of that would be nonsense.
 */
function endsEarly(bytes) {
  const has = (at, ...values) => values.every((v, i) => bytes[at + i] === v);
  if (has(0, 0x89, 0x50, 0x4e, 0x47)) {
    // Chunks of length, name, data and checksum up to the one named IEND.
    for (let at = 8; at + 8 <= bytes.length; ) {
      if (has(at + 4, 0x49, 0x45, 0x4e, 0x44)) return false;
      at += 12 + new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(0);
    }
    return true;
  }
  if (has(0, 0xff, 0xd8)) {
    // Segments with a length come first, one of which may hold a thumbnail with an end of its own;
    // after the first scan's header (0xda) the end marker can only be the picture's.
    let at = 2;
    while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) {
      at += bytes[at + 1] === 0xff ? 1 : 2 + bytes[at + 2] * 256 + bytes[at + 3];
    }
    while ((at = bytes.indexOf(0xff, at)) >= 0) if (bytes[++at] === 0xd9) return false;
    return true;
  }
  return false;
}

function checkSize(width, height) {
  if (!(Number.isInteger(width) && Number.isInteger(height))) throw new PMPError("bad-input", `The picture's sides must be whole numbers, not ${width} and ${height}.`);
  if (!(width > 0 && height > 0)) throw new PMPError("bad-input", `The picture is empty (${width}×${height} pixels).`);
  if (width * height > MAX_PIXELS) {
    throw new PMPError("bad-input", `The picture has ${width}×${height} pixels, more than ${MAX_PIXELS / 1e6} million. Scale it down first, for example with createImageBitmap(file, {resizeWidth: 4000}).`);
  }
}

/** For browsers whose workers have no canvas. */
function readHere(bitmap) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  try {
    return new Uint8Array(context.getImageData(0, 0, width, height).data.buffer);
  } catch (e) {
    throw new PMPError("bad-input", `The picture's pixels may not be read (${e.message}).`, { cause: e });
  }
}
