/** The list of items in the wanted order, which are moved by mouse, pen, finger or arrow keys. */

import { itemImage, make, placeAfter } from "./tiles.js";

const CLICK_RADIUS = 4; // pixels; a pointer that moves less does not drag

/** The letter of a place; A is wanted first. */
export function letter(place) {
  return String.fromCharCode(65 + place);
}

export class Order {
  #dragged = null; // the dragged item, and where the pointer grabbed it
  #lifted = null; // the item that the arrow keys move

  constructor(list, announce, changed) {
    Object.assign(this, { list, announce, changed });
    list.addEventListener("pointerdown", (event) => this.#grab(event));
    list.addEventListener("pointermove", (event) => this.#drag(event));
    for (const kind of ["pointerup", "pointercancel"]) list.addEventListener(kind, () => this.#drop());
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusout", () => this.#lift(null));
  }

  get ids() {
    return [...this.list.children].map((item) => item.dataset.id);
  }

  /** Replace the items of the list. */
  set ids(ids) {
    const existing = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    this.list.replaceChildren(...ids.map((id) => existing.get(id) ?? entry(id)));
    this.#update();
  }

  /** Add an item at the end, or remove it if it is in the list. */
  toggle(id) {
    this.ids = this.ids.includes(id) ? this.ids.filter((other) => other !== id) : [...this.ids, id];
  }

  #grab(event) {
    const item = event.target.closest("li");
    if (item === null || event.button !== 0) return;
    this.#dragged = { item, x: event.clientX, y: event.clientY, moved: false };
    item.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    const dragged = this.#dragged;
    if (dragged === null) return;
    const [x, y] = [event.clientX - dragged.x, event.clientY - dragged.y];
    if (!dragged.moved && Math.hypot(x, y) < CLICK_RADIUS) return;
    dragged.moved = true;
    dragged.item.classList.add("dragged");
    dragged.item.style.translate = "";
    const before = middle(dragged.item);
    this.#insert(dragged.item, nearest([...this.list.children], before.x + x, before.y + y));
    const after = middle(dragged.item); // keep it under the pointer at its new place
    dragged.x += after.x - before.x;
    dragged.y += after.y - before.y;
    dragged.item.style.translate = `${event.clientX - dragged.x}px ${event.clientY - dragged.y}px`;
  }

  #drop() {
    this.#dragged?.item.classList.remove("dragged");
    this.#dragged?.item.style.removeProperty("translate");
    this.#dragged = null;
  }

  #key(event) {
    const item = event.target.closest("li");
    const items = [...this.list.children];
    const here = items.indexOf(item);
    if (event.key === "Enter" || event.key === " ") {
      this.#lift(this.#lifted === item ? null : item);
    } else if (event.key === "Escape") {
      this.#lift(null);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.toggle(item.dataset.id);
      this.list.children[Math.min(here, items.length - 2)]?.firstChild.focus();
    } else {
      const there = items[placeAfter(event.key, here, items)];
      if (there === undefined) return;
      if (this.#lifted === item) this.#moveTo(item, there);
      else there.firstChild.focus();
    }
    event.preventDefault();
  }

  /** Move the lifted item; it loses the focus when it moves in the document, so give it back. */
  #moveTo(item, there) {
    this.#lifted = null;
    this.#insert(item, there);
    item.firstChild.focus();
    this.#lifted = item;
    item.classList.add("lifted");
    this.announce(`${letter(this.ids.indexOf(item.dataset.id))}, place ${this.ids.indexOf(item.dataset.id) + 1}`);
  }

  #lift(item) {
    if (this.#lifted === item) return;
    this.#lifted?.classList.remove("lifted");
    item?.classList.add("lifted");
    this.announce(item === null ? "dropped" : "lifted: arrow keys move it");
    this.#lifted = item;
  }

  #insert(item, there) {
    if (item === there) return;
    const later = item.compareDocumentPosition(there) & Node.DOCUMENT_POSITION_FOLLOWING;
    there[later ? "after" : "before"](item);
    this.#update();
  }

  #update() {
    for (const [place, item] of [...this.list.children].entries()) {
      item.querySelector(".mark").textContent = letter(place);
      item.firstChild.setAttribute(
        "aria-label", `${letter(place)}: item ${item.dataset.id}, place ${place + 1} of ${this.list.children.length}`,
      );
    }
    this.changed(this.ids);
  }
}

function entry(id) {
  return make("li", { "data-id": id },
    make("button", { class: "tile", type: "button" }, itemImage(id), make("span", { class: "mark" })));
}

function middle(item) {
  const box = item.getBoundingClientRect();
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}

function nearest(items, x, y) {
  const far = items.map((item) => Math.hypot(middle(item).x - x, middle(item).y - y));
  return items[far.indexOf(Math.min(...far))];
}
