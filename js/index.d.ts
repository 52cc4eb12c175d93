// Types of pmp-segment, written by hand; index.js says more about each call.

/** What went wrong, for programs. */
export type ErrorCode =
  /** the page stopped it, by a signal or by close() */
  | "aborted"
  /** a file or picture could not be fetched */
  | "network"
  /** a file of the weights is not what the manifest says */
  | "integrity"
  /** a file is no manifest, no weights or no engine that this version reads */
  | "format"
  /** the browser gave too little memory */
  | "out-of-memory"
  /**
   * the graphics card was lost, and with it all pictures: encode them again, on the device that the Segmenter takes
   * instead; or the engine stopped, and every call gets this error: load a new Segmenter
   */
  | "device-lost"
  /** a picture, a prompt or an option cannot be used */
  | "bad-input"
  /** the browser, or a policy of the page, lacks something that is needed */
  | "unsupported"
  /** a bug of this package: please report it */
  | "internal";

/** Every error that this package throws on purpose. Its name is "AbortError" where code is "aborted". */
export class PMPError extends Error {
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown });
  readonly code: ErrorCode;
}

export type PictureSource =
  | string
  | URL
  | Blob
  | ImageData
  /** RGBA, row by row: width × height × 4 bytes. In Node this is the only source. */
  | { data: Uint8Array | Uint8ClampedArray; width: number; height: number }
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | HTMLVideoElement
  | OffscreenCanvas
  | VideoFrame;

export interface Progress {
  /** "download": weights arrive; "prepare": they are brought to the device; "ready": done. */
  stage: "download" | "prepare" | "ready";
  /** Bytes of the weights that are there. */
  loaded: number;
  /** Bytes of all weights; 0 until the manifest is there. */
  total: number;
}

/** Weights that the page has: all files of their folder, or their bytes by name. */
export type WeightFiles =
  | FileList
  | Iterable<File>
  | { manifest: Bytes; shards: Iterable<File> | Record<string, Bytes> };
export type Bytes = ArrayBuffer | ArrayBufferView | Blob;

export interface LoadOptions {
  /**
   * Address of the folder with manifest.json, or of the manifest itself. Default: the folder weights beside index.js.
   * Or the folder's files, so that nothing is fetched.
   */
  weights?: string | URL | WeightFiles;
  /**
   * "auto" (default) takes the fastest that works. The graphics card is taken if a trial when the model is loaded gave
   * the masks that the processor gives, and not later; what came of it is remembered for two weeks.
   */
  device?: "auto" | "webgpu" | "simd" | "scalar";
  /**
   * How many threads share the work. "auto" (default) takes what the machine has, 8 at most; a number may be
   * larger, but not larger than what the machine has. More than one needs a page that is cross-origin isolated.
   */
  threads?: number | "auto";
  /** How products with weights are computed. Default "int8", which is faster, and for a public checkpoint "f32". */
  precision?: "int8" | "f32";
  /** Keep the weights in the browser's Cache API. Default true. */
  cache?: boolean;
  onprogress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface SegmentOptions {
  /** How sure a pixel must be to count, between 0 and 1. Default: what the model was tuned to. */
  threshold?: number;
  /** Also make the label map. Default true. */
  labelMap?: boolean;
  /**
   * Let the mask decoder read the prompts. Default true. Without it they only name proposals that the picture alone
   * gave: to compare with, not to be used.
   */
  guided?: boolean;
  signal?: AbortSignal;
}

export interface OverlayOptions {
  /** A colour for each prompt; with fewer colours than prompts they come again. */
  colors?: Colour[];
  /** As for segment. */
  threshold?: number;
  signal?: AbortSignal;
}

export interface Answer {
  /** The prompt. */
  text: string;
  /** How sure the model is that the thing is in the picture at all, 0 to 1. */
  score: number;
  /** Whether the thing counts as being in the picture. */
  present: boolean;
}

/** What a stage takes. */
export interface Work {
  /** Ops, or, on a graphics card, dispatches. */
  dispatches: number;
  /** Bytes that these read and write, each operand once. */
  moved: number;
  /** Bytes that must be moved at least: weights, picture and results, each once. */
  least: number;
  /** Milliseconds that the graphics card measured, where it can; browsers round them. */
  card?: number;
}

export interface Report {
  /** What runs: "webgpu (…)", "simd", "simd (relaxed)" or "scalar"; empty before the model is loaded. */
  device: string;
  /** How many share the work of the kernels. */
  threads: number;
  /** How products with weights are computed. */
  precision: "int8" | "f32";
  /** The devices that were not taken, and why; "threads" if fewer run than were wanted. */
  reasons: { device: string; reason: string }[];
  /** What of a graphics card's optional features is used, and the shapes that its kernels got when the model was loaded. */
  features: string[];
  /** Bytes on the processor's side. */
  memory: { engine: number; kernels: number };
  /** Bytes of the weights as downloaded. */
  weights: number;
  /** The last times by stage, in milliseconds. */
  times: {
    engine?: number;
    weights?: number;
    /** Waiting for threads once the weights are there. */
    threads?: number;
    prepare?: number;
    begin?: number;
    pixels?: number;
    encode?: number;
    segment?: number;
    masks?: number;
    overlay?: number;
  };
  /** What the last encode and the last segment took. */
  work: { encode?: Work; segment?: Work };
  counts: { encode: number; segment: number };
}

/** A loaded model in a worker of its own. */
export class Segmenter {
  private constructor();
  /**
   * All that the network can name, if that is a list, as with public checkpoints: prompts must be among them. Null if it
   * takes any words.
   */
  readonly labels: string[] | null;
  /** @throws {PMPError} aborted, network, integrity, format, out-of-memory, unsupported, bad-input */
  static load(options?: LoadOptions): Promise<Segmenter>;
  /** @throws {PMPError} aborted, bad-input, network (for a URL), out-of-memory, device-lost */
  encode(source: PictureSource, options?: { signal?: AbortSignal }): Promise<Picture>;
  /**
   * Answers for a video as it plays. Frames that come while one is being worked on are dropped. It ends with the video.
   * @param prompts a function is asked before every frame
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  video(video: HTMLVideoElement, prompts: Prompts | (() => Prompts), options?: SegmentOptions): AsyncGenerator<FrameResult, void>;
  report(): Report;
  close(): void;
}

/** One string a mask; commas join synonyms: "sofa, couch". At most 255. */
export type Prompts = string | Iterable<string>;

export interface SegmentResult {
  /** One for each prompt, in the same order. */
  masks: Mask[];
  /** For each pixel, row by row, the index of the strongest prompt, or 255. Null if it was not wanted. */
  labelMap: Uint8Array | null;
  width: number;
  height: number;
}

export interface FrameResult extends SegmentResult {
  /** The frame's place in the video, in seconds. */
  time: number;
  /** How many frames were passed over since the one before, where the browser counts them. */
  dropped: number;
}

/** A picture that the model has looked at. */
export class Picture {
  private constructor();
  readonly width: number;
  readonly height: number;
  /**
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  segment(prompts: Prompts, options?: SegmentOptions): Promise<SegmentResult>;
  /**
   * All mask proposals, one for each query of the mask decoder. A proposal's text is its likeliest prompt, its score how
   * likely that is against the other prompts and void.
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  proposals(prompts: Prompts, options?: { guided?: boolean; signal?: AbortSignal }): Promise<Mask[]>;
  /**
   * The same masks as one picture, transparent where nothing was found. Where a graphics card has them, they stay there.
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  overlay(prompts: Prompts, options?: OverlayOptions): Promise<{ bitmap: ImageBitmap; answers: Answer[] }>;
  close(): void;
}

/** Red, green, blue and, if wanted, alpha, each 0 to 255. */
export type Colour = [number, number, number] | [number, number, number, number];

/** One answer. It needs neither the picture nor the Segmenter any more. */
export class Mask {
  private constructor();
  /** The prompt. */
  readonly text: string;
  /** How sure the model is that the thing is in the picture at all, 0 to 1. */
  readonly score: number;
  /** Whether the thing counts as being in the picture. */
  readonly present: boolean;
  /** Pixels in the mask. */
  readonly area: number;
  /** [x, y, width, height] in pixels. */
  readonly bbox: [number, number, number, number];
  /** The picture's sides in pixels. */
  readonly width: number;
  readonly height: number;
  /** One byte a pixel, row by row: 1 in the mask. */
  toBytes(): Uint8Array;
  /** COCO's compressed run-length encoding; size is [height, width]. */
  rle(): { size: [number, number]; counts: string };
  /** Outlines along pixel edges, [x0, y0, x1, y1, …]; holes run counter-clockwise. */
  polygons(): number[][];
  /** The mask in a colour (default white), transparent outside. */
  toImageData(options?: { color?: Colour }): ImageData;
  toImageBitmap(options?: { color?: Colour }): Promise<ImageBitmap>;
  /** Default type: image/png. */
  toBlob(options?: { color?: Colour; type?: string; quality?: number }): Promise<Blob>;
}
