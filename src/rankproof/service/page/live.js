/** An attack as it is now: its figures, its pictures, and the results before, as wanted and now. */

import { drawChange } from "./change.js";
import { draw } from "./chart.js";
import { letter } from "./order.js";
import { crisp, make, picture } from "./tiles.js";

const WORDS = { running: "running", done: "finished", stopped: "stopped" };

const at = (id) => document.getElementById(id);
const signed = (tau) => tau.toFixed(2).replace("-", "−");

let drawn = ""; // where the adversarial picture is that is shown

for (const id of ["original", "adversarial"]) crisp(at(id));

/** Begin to show the attack that is at a path of the service. */
export function begin(path) {
  at("live").hidden = false;
  at("original").src = `${path}/query.png`;
  at("adversarial").src = at("original").src;
  at("get-picture").href = `${path}/adversarial.png`;
  at("get-report").href = `${path}/report.png`;
  at("get-result").href = path;
  at("live").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

/** Show what the service tells of the attack. */
export async function show(told, path) {
  const { scores, budget } = told;
  const words = told.error ?? WORDS[told.state];
  if (at("status").textContent !== words) at("status").textContent = words; // it is read aloud
  at("spent").textContent = `${scores.length} of ${budget} queries in ${told.seconds.toFixed(1)} s`;
  if (scores.length === 0) return;
  at("tau").textContent = signed(told.tau);
  at("tau-before").textContent = signed(told.tau_before);
  draw(at("chart"), scores, budget);
  const best = `${path}/adversarial.png?query=${scores.indexOf(told.tau) + 1}`;
  if (best !== drawn) await showBest(told, best);
}

async function showBest({ wanted, before, after, visible }, best) {
  drawn = best;
  at("before").replaceChildren(...placed(wanted, before, visible));
  at("wanted").replaceChildren(...wanted.map((id, place) => tile(id, letter(place), place)));
  at("now").replaceChildren(...placed(wanted, after, visible));
  at("ranking").replaceChildren(...after.map((id, place) => {
    return tile(id, wanted.includes(id) ? letter(wanted.indexOf(id)) : "", place);
  }));
  at("adversarial").src = best;
  await Promise.all([at("original").decode(), at("adversarial").decode()]);
  at("factor").textContent = `change × ${drawChange(at("change"), at("original"), at("adversarial"))}`;
}

/** The wanted items as a list of results has them; those it does not show come last and are pale. */
function placed(wanted, ids, visible) {
  const places = wanted.map((id) => (ids.includes(id) ? ids.indexOf(id) : visible));
  const rows = [...wanted.keys()].sort((one, other) => places[one] - places[other]);
  return rows.map((row) => (places[row] < visible ? tile(wanted[row], letter(row), places[row]) : unseen(wanted[row], row)));
}

function tile(id, mark, place) {
  return labelled(mark ? "tile chosen" : "tile", id, mark, place + 1, `rank ${place + 1}`);
}

function unseen(id, row) {
  return labelled("tile chosen unseen", id, letter(row), "–", "out of sight");
}

function labelled(kind, id, mark, rank, words) {
  return make(
    "div",
    { class: kind, role: "img", "aria-label": `${mark || `Item ${id}`}, ${words}` },
    picture(id),
    make("span", { class: "rank" }, rank),
    make("span", { class: "mark" }, mark),
  );
}
