/** The lab: a query, results in a wanted order, and an attack that is watched. */

import { ask, call } from "./calls.js";
import { begin, show } from "./live.js";
import { Order, letter } from "./order.js";
import { Query } from "./query.js";
import { fill, make, picture, walkable } from "./tiles.js";

const POLL = 250; // milliseconds
const FIRST = 5;
const MOST = 26; // results, one for each letter

const at = (id) => document.getElementById(id);

let shown = []; // the ids of the results
let run = ""; // the path of the attack that is watched

const query = new Query(async (file) => {
  offer([]);
  const { ids } = await ask("/lab/search", { method: "POST", body: file });
  if (query.file === file) offer(ids); // else another was asked since
});

const order = new Order(
  at("order"),
  (words) => (at("moved").textContent = words),
  (ids) => {
    for (const tile of at("results").children) {
      const place = ids.indexOf(tile.dataset.id);
      tile.setAttribute("aria-pressed", place >= 0);
      tile.querySelector(".mark").textContent = place < 0 ? "" : letter(place);
    }
    at("run").disabled = at("reverse").disabled = ids.length < 2;
    at("clear").disabled = ids.length === 0;
  },
);

/** Show results to pick from; what was picked from others is gone. */
function offer(ids) {
  shown = ids;
  at("empty").hidden = ids.length > 0;
  at("five").disabled = ids.length === 0;
  fill(at("results"), ids.map(choice));
  order.ids = [];
}

/** A result that can be picked. */
function choice(id, place) {
  const tile = make(
    "button",
    { class: "tile", "data-id": id, "aria-label": `Rank ${place + 1}, item ${id}` },
    picture(id),
    make("span", { class: "rank" }, place + 1),
    make("span", { class: "mark" }),
  );
  tile.addEventListener("click", () => {
    if (order.ids.includes(id) || order.ids.length < MOST) order.toggle(id);
  });
  return tile;
}

async function start() {
  const wish = new URLSearchParams(order.ids.map((id) => ["wanted", id]));
  wish.set("eps", at("eps").valueAsNumber / 255);
  wish.set("budget", at("budget").value);
  wish.set("seed", at("seed").value);
  const told = await ask(`/lab/runs?${wish}`, { method: "POST", body: query.file });
  run = `/lab/runs/${told.id}`;
  begin(run);
  at("run").hidden = true;
  at("stop").hidden = false;
  try {
    await watch(told);
  } finally {
    at("run").hidden = false;
    at("stop").hidden = true;
  }
}

async function watch(told) {
  await show(told, run);
  while (told.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, POLL));
    told = await ask(run);
    await show(told, run);
  }
}

walkable(at("results"));
at("five").addEventListener("click", () => (order.ids = shown.slice(0, FIRST)));
at("reverse").addEventListener("click", () => (order.ids = order.ids.reverse()));
at("clear").addEventListener("click", () => (order.ids = []));
at("eps").addEventListener("input", () => (at("eps-told").textContent = `${at("eps").value}/255`));
at("stop").addEventListener("click", () => query.attempt(() => call(run, { method: "DELETE" })));
at("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at("stop").hidden) query.attempt(start);
});
await query.begin();
at("closed").hidden = query.extra?.includes("lab") ?? true;
