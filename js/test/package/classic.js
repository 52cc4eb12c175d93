// The app in a script that is no module, on a page without a bundler.
const { from } = document.currentScript.dataset;
window.classic = Promise.all([import("./app.js"), import(from)]).then(([{ answer }, { Segmenter }]) => answer("in a classic script", Segmenter));
