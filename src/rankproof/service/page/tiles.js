/** Grids of item images that can be walked through with the arrow keys. */

import { imageUrl } from "./api.js";

const CRISP = 100; // pixels; smaller images are enlarged without smoothing

/** Create an element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The image of an item. */
export function itemImage(id) {
  return crisp(make("img", { src: imageUrl(id), alt: "", draggable: "false" }));
}

/** Enlarge an image without smoothing where it is small, whenever it is loaded. */
export function crisp(image) {
  const update = () => image.classList.toggle("crisp", image.naturalWidth < CRISP);
  image.addEventListener("load", update);
  return image;
}

/** Fill a grid with tiles; Tab reaches the first, arrow keys reach the others. */
export function fill(grid, tiles) {
  grid.replaceChildren(...tiles);
  for (const [place, tile] of tiles.entries()) tile.tabIndex = place === 0 ? 0 : -1;
}

/** Let the arrow keys move the focus between the tiles of a grid. */
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
    const focused = event.target.closest(".tiles > *");
    for (const tile of grid.children) tile.tabIndex = tile === focused ? 0 : -1;
  });
}

/** The place that a key leads to from another. */
export function placeAfter(key, here, tiles) {
  const top = tiles[0].offsetTop;
  const below = tiles.findIndex((tile) => tile.offsetTop > top);
  const columns = below < 0 ? tiles.length : below;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (key in steps) return here + steps[key];
  return { Home: 0, End: tiles.length - 1 }[key];
}
