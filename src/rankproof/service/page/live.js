/** The progress of an attack: its figures, its images, and the results before, as wanted and now. */

import { drawChange } from "./change.js";
import { draw } from "./chart.js";
import { letter } from "./order.js";
import { crisp, itemImage, make } from "./tiles.js";

const STATES = { running: "running", done: "finished", stopped: "stopped" };

const at = (id) => document.getElementById(id);
const signed = (tau) => tau.toFixed(2).replace("-", "−");

let shownImage = ""; // the address of the adversarial image that is shown

for (const id of ["original", "adversarial"]) crisp(at(id));

/** Start to show the attack at a path of the service. */
export function begin(path) {
  at("live").hidden = false;
  at("original").src = `${path}/query.png`;
  at("adversarial").src = at("original").src;
  at("get-image").href = `${path}/adversarial.png`;
  at("get-report").href = `${path}/report.png`;
  at("get-result").href = path;
  at("live").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

/** Show the progress of the attack. */
export async function show(result, path) {
  const { scores, budget } = result;
  const text = result.error ?? STATES[result.state];
  if (at("status").textContent !== text) at("status").textContent = text; // screen readers announce changes
  at("spent").textContent = `${scores.length} of ${budget} queries in ${result.seconds.toFixed(1)} s`;
  if (scores.length === 0) return;
  at("tau").textContent = signed(result.tau);
  at("tau-before").textContent = signed(result.tau_before);
  draw(at("chart"), scores, budget);
  const best = `${path}/adversarial.png?query=${scores.indexOf(result.tau) + 1}`;
  if (best !== shownImage) await showBest(result, best);
}

async function showBest({ wanted, before, after, visible }, best) {
  shownImage = best;
  at("before").replaceChildren(...ranked(wanted, before, visible));
  at("wanted").replaceChildren(...wanted.map((id, place) => tile(id, letter(place), place)));
  at("now").replaceChildren(...ranked(wanted, after, visible));
  at("ranking").replaceChildren(...after.map((id, place) => {
    return tile(id, wanted.includes(id) ? letter(wanted.indexOf(id)) : "", place);
  }));
  at("adversarial").src = best;
  await Promise.all([at("original").decode(), at("adversarial").decode()]);
  at("factor").textContent = `change × ${drawChange(at("change"), at("original"), at("adversarial"))}`;
}

/** The wanted items in the order of some results; those that are not among them come last, faded. */
function ranked(wanted, ids, visible) {
  const places = wanted.map((id) => (ids.includes(id) ? ids.indexOf(id) : visible));
  const rows = [...wanted.keys()].sort((one, other) => places[one] - places[other]);
  return rows.map((row) => (places[row] < visible ? tile(wanted[row], letter(row), places[row]) : hiddenTile(wanted[row], row)));
}

function tile(id, mark, place) {
  return labelledTile(mark ? "tile chosen" : "tile", id, mark, place + 1, `rank ${place + 1}`);
}

function hiddenTile(id, row) {
  return labelledTile("tile chosen unseen", id, letter(row), "–", "not among the results");
}

function labelledTile(kind, id, mark, rank, description) {
  return make(
    "div",
    { class: kind, role: "img", "aria-label": `${mark || `Item ${id}`}, ${description}` },
    itemImage(id),
    make("span", { class: "rank" }, rank),
    make("span", { class: "mark" }, mark),
  );
}
