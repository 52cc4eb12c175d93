/**
 * `<pmp-segment src="photo.jpg" prompts="cat; sofa, couch">`: importing this file makes the element known.
 * Further attributes: threshold, weights, device, alt. Parts: image, overlay, list, item, absent, message.
 * Events: "segmented" (detail: SegmentResult), "progress" (detail: Progress), "error" (detail: PMPError).
 */
import type { SegmentResult } from "./index.js";

export class PMPSegmentElement extends HTMLElement {
  /** Address of the picture. */
  src: string;
  /** Words, separated by semicolons; commas join synonyms. */
  prompts: string;
  /** How sure a pixel must be, 0 to 1; empty: what the model was tuned to. */
  threshold: string;
  /** The last answer. */
  readonly result: SegmentResult | null;
}

declare global {
  interface HTMLElementTagNameMap {
    "pmp-segment": PMPSegmentElement;
  }
}
