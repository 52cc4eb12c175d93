// The app inside a module worker of the page's own.
import { Segmenter } from "pmp-segment";
import { answer } from "./app.js";

onmessage = async ({ data: { weights } }) => postMessage(await answer("in a module worker", Segmenter, weights));
