/**
 * `<pmp-segment src="photo.jpg" prompts="cat; sofa, couch">`: importing this file makes the element known.
 * Events: "segmented" (detail: SegmentResult), "progress" (detail: Progress), "error" (detail: PMPError).
 */
import type { SegmentResult } from "./index.js";

export class PMPSegmentElement extends HTMLElement {
  /** Address of the picture. */
  src: string;
  /** Words, separated by semicolons; commas join synonyms. */
  prompts: string;
  /** The last answer. */
  readonly result: SegmentResult | null;
}

declare global {
  interface HTMLElementTagNameMap {
    "pmp-segment": PMPSegmentElement;
  }
}
