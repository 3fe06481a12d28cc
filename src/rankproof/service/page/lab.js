/** The lab: choose a query, put its results in the wanted order, run an attack and watch it. */

import { request, requestJson } from "./api.js";
import { begin, show } from "./live.js";
import { Order, letter } from "./order.js";
import { Query } from "./query.js";
import { fill, itemImage, make, walkable } from "./tiles.js";

const POLL = 250; // milliseconds
const FIRST = 5;
const MOST = 26; // results, which are labelled by letters

const at = (id) => document.getElementById(id);

let shown = []; // the ids of the results
let run = ""; // the path of the attack that is shown

const query = new Query(async (file) => {
  showResults([]);
  const { ids } = await requestJson("/lab/search", { method: "POST", body: file });
  if (query.file === file) showResults(ids); // otherwise a newer query has been chosen
});

const order = new Order(
  at("order"),
  (text) => (at("moved").textContent = text),
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

/** Show the results of a query, none of them picked. */
function showResults(ids) {
  shown = ids;
  at("empty").hidden = ids.length > 0;
  at("five").disabled = ids.length === 0;
  fill(at("results"), ids.map(resultTile));
  order.ids = [];
}

/** A button that picks a result. */
function resultTile(id, place) {
  const tile = make(
    "button",
    { class: "tile", "data-id": id, "aria-label": `Rank ${place + 1}, item ${id}` },
    itemImage(id),
    make("span", { class: "rank" }, place + 1),
    make("span", { class: "mark" }),
  );
  tile.addEventListener("click", () => {
    if (order.ids.includes(id) || order.ids.length < MOST) order.toggle(id);
  });
  return tile;
}

async function start() {
  const parameters = new URLSearchParams(order.ids.map((id) => ["wanted", id]));
  parameters.set("eps", at("eps").valueAsNumber / 255);
  parameters.set("budget", at("budget").value);
  parameters.set("seed", at("seed").value);
  const result = await requestJson(`/lab/runs?${parameters}`, { method: "POST", body: query.file });
  run = `/lab/runs/${result.id}`;
  begin(run);
  at("run").hidden = true;
  at("stop").hidden = false;
  try {
    await watch(result);
  } finally {
    at("run").hidden = false;
    at("stop").hidden = true;
  }
}

async function watch(result) {
  await show(result, run);
  while (result.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, POLL));
    result = await requestJson(run);
    await show(result, run);
  }
}

walkable(at("results"));
at("five").addEventListener("click", () => (order.ids = shown.slice(0, FIRST)));
at("reverse").addEventListener("click", () => (order.ids = order.ids.reverse()));
at("clear").addEventListener("click", () => (order.ids = []));
at("eps").addEventListener("input", () => (at("eps-value").textContent = `${at("eps").value}/255`));
at("stop").addEventListener("click", () => query.attempt(() => request(run, { method: "DELETE" })));
at("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at("stop").hidden) query.attempt(start);
});
await query.begin();
at("closed").hidden = query.extra?.includes("lab") ?? true;
