import { PMPError } from "./error.js";

/**
 * One answer: where in the picture a prompt's thing is. It holds run lengths, not pixels, and
 * needs neither the picture nor the Segmenter any more.
 */
export class Mask {
  #runs; // lengths of runs of 0 and 1 in turn, starting with 0, row by row; empty: nothing

  constructor({ text, score, present, area, bbox, runs }, width, height) {
    this.#runs = runs;
    /** The prompt. */
    this.text = text;
    /** How sure the model is that the thing is in the picture at all, 0 to 1. */
    this.score = score;
    /** Whether the thing counts as being in the picture. */
    this.present = present;
    /** Pixels in the mask. */
    this.area = area;
    /** [x, y, width, height] in pixels. */
    this.bbox = bbox;
    /** The picture's sides in pixels. */
    this.width = width;
    this.height = height;
  }

  /** Calls f(start, end) for each run of pixels in the mask; both count pixels row by row. */
  #each(f) {
    let at = 0;
    this.#runs.forEach((n, i) => {
      if (i & 1) f(at, at + n);
      at += n;
    });
  }

  /** One byte a pixel, row by row: 1 in the mask, 0 outside. */
  toBytes() {
    const bytes = new Uint8Array(this.width * this.height);
    this.#each((a, b) => bytes.fill(1, a, b));
    return bytes;
  }

  /**
   * COCO's compressed run-length encoding, as pycocotools reads and writes it (column by column).
   *
   * @returns {{size: [number, number], counts: string}} size is [height, width]
   */
  rle() {
    const { width, height } = this;
    const bytes = this.toBytes();
    const counts = [];
    let value = 0, n = 0;
    for (let x = 0; x < width; x++) {
      for (let i = x; i < bytes.length; i += width) {
        if (bytes[i] !== value) {
          counts.push(n);
          value = bytes[i];
          n = 0;
        }
        n++;
      }
    }
    counts.push(n);
    return { size: [height, width], counts: compress(counts) };
  }

  /**
   * The mask's outlines along pixel edges, each as [x0, y0, x1, y1, …] in pixels. Outer outlines
   * go clockwise on the screen, holes counter-clockwise, so filling all of them in
   * one path gives the mask again.
   *
   * @returns {number[][]}
   */
  polygons() {
    return outlines(this.toBytes(), this.width, this.height);
  }

  /**
   * The mask in a colour, transparent outside.
   *
   * @param {{color?: [number, number, number, number?]}} [options] red, green, blue and alpha, 0 to 255; default white
   * @returns {ImageData}
   */
  toImageData({ color = [255, 255, 255] } = {}) {
    if (typeof ImageData !== "function") throw new PMPError("unsupported", "Node has no ImageData; take toBytes(), rle() or polygons().");
    const image = new ImageData(this.width, this.height);
    // The same four bytes as one number, whatever the machine's byte order.
    const word = new Uint32Array(new Uint8ClampedArray([color[0], color[1], color[2], color[3] ?? 255]).buffer)[0];
    const words = new Uint32Array(image.data.buffer);
    this.#each((a, b) => words.fill(word, a, b));
    return image;
  }

  /** @returns {Promise<ImageBitmap>} toImageData as something to draw */
  toImageBitmap(options) {
    return createImageBitmap(this.toImageData(options));
  }

  /**
   * @param {{color?: number[], type?: string, quality?: number}} [options] type is a MIME type; default image/png
   * @returns {Promise<Blob>} toImageData as a file
   */
  async toBlob({ type = "image/png", quality, ...options } = {}) {
    const image = this.toImageData(options);
    if (typeof OffscreenCanvas === "function") {
      const canvas = new OffscreenCanvas(this.width, this.height);
      canvas.getContext("2d").putImageData(image, 0, 0);
      return canvas.convertToBlob({ type, quality });
    }
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, type, quality));
  }
}

/**
 * COCO's text form of counts: each count, from the third on minus the one two before,
 * in pieces of five bits, the lowest first; 32 marks that more follow, and 48 is added.
 */
function compress(counts) {
  let out = "";
  counts.forEach((n, i) => {
    let x = i > 2 ? n - counts[i - 2] : n;
    for (let more = true; more; ) {
      let c = x & 31;
      x >>= 5;
      more = c & 16 ? x !== -1 : x !== 0;
      if (more) c |= 32;
      out += String.fromCharCode(c + 48);
    }
  });
  return out;
}

/** Walks round every edge between inside and outside once, the inside on the right hand. */
function outlines(bytes, width, height) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && bytes[y * width + x] === 1;
  // Directions: 0 right, 1 down, 2 left, 3 up. Every outline has an edge that goes right, along
  // the top of a pixel in the mask; those are marked when walked.
  const walked = new Uint8Array(width * height);
  const polygons = [];
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 1 || walked[i]) continue;
    const startX = i % width, startY = (i - startX) / width;
    if (inside(startX, startY - 1)) continue;
    const points = [];
    let x = startX, y = startY, direction = 0;
    do {
      if (direction === 0) walked[y * width + x] = 1;
      x += [1, 0, -1, 0][direction];
      y += [0, 1, 0, -1][direction];
      // The two pixels ahead of the corner, left and right of the way.
      const left = inside(x + [0, 0, -1, -1][direction], y + [-1, 0, 0, -1][direction]);
      const right = inside(x + [0, -1, -1, 0][direction], y + [0, 0, -1, -1][direction]);
      // Where two pixels touch at a corner only, they stay separate.
      const turn = !right ? 1 : left ? 3 : 0;
      if (turn) points.push(x, y);
      direction = (direction + turn) % 4;
    } while (x !== startX || y !== startY || direction !== 0);
    polygons.push(points);
  }
  return polygons;
}
