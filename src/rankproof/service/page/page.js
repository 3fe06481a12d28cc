/** The page at `/`: a query and its nearest items. */

import { requestJson } from "./api.js";
import { Query, link } from "./query.js";
import { fill, make, walkable } from "./tiles.js";

const at = (id) => document.getElementById(id);

const query = new Query(async (file) => {
  at("results").setAttribute("aria-busy", "true");
  at("status").textContent = "";
  const begin = performance.now();
  let ids = [];
  try {
    ({ ids } = await requestJson("/search", { method: "POST", body: file }));
  } finally {
    if (query.file === file) show(ids, performance.now() - begin); // otherwise a newer query has been chosen
  }
  await query.showCalls();
});

function show(ids, milliseconds) {
  const inside = at("results").contains(document.activeElement);
  at("results").removeAttribute("aria-busy");
  at("empty").hidden = ids.length > 0;
  fill(at("results"), ids.map(result));
  if (ids.length > 0) at("status").textContent = `${ids.length} items in ${(milliseconds / 1000).toFixed(2)} s`;
  if (inside) at("results").firstChild?.focus();
}

function result(id, place) {
  return link(id, `Rank ${place + 1}, item ${id}: search with it`, make("span", { class: "rank" }, place + 1));
}

walkable(at("results"));
await query.begin();
at("lab").hidden = !query.extra?.includes("lab");
