/** Pictures of items in a grid that the arrow keys walk through. */

import { pictureOf } from "./calls.js";

const CRISP = 100; // pixels a side below which a picture is enlarged by whole pixels

/** A new element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The picture of an item. */
export function picture(id) {
  return crisp(make("img", { src: pictureOf(id), alt: "", draggable: "false" }));
}

/** Enlarge a picture by whole pixels where it is small, whenever it is loaded. */
export function crisp(image) {
  const look = () => image.classList.toggle("crisp", image.naturalWidth < CRISP);
  image.addEventListener("load", look);
  return image;
}

/** Fill a grid with tiles; the first can be reached by Tab, the others by arrow keys. */
export function fill(grid, tiles) {
  grid.replaceChildren(...tiles);
  for (const [place, tile] of tiles.entries()) tile.tabIndex = place === 0 ? 0 : -1;
}

/** Let the arrow keys walk through the tiles of a grid. */
export function walkable(grid) {
  grid.addEventListener("keydown", (event) => {
    const tiles = [...grid.children];
    const here = tiles.indexOf(event.target.closest(".tiles > *"));
    const next = here < 0 || event.defaultPrevented ? undefined : tiles[placeAfter(event.key, here, tiles)];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  });
  grid.addEventListener("focusin", (event) => {
    const own = event.target.closest(".tiles > *");
    for (const tile of grid.children) tile.tabIndex = tile === own ? 0 : -1;
  });
}

/** Where a key leads to from a place. */
export function placeAfter(key, here, tiles) {
  const top = tiles[0].offsetTop;
  const below = tiles.findIndex((tile) => tile.offsetTop > top);
  const columns = below < 0 ? tiles.length : below;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (key in steps) return here + steps[key];
  return { Home: 0, End: tiles.length - 1 }[key];
}
