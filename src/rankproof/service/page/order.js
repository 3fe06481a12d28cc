/** Items in a wanted order: dragged by mouse, pen or finger, or moved by arrow keys. */

import { make, picture, placeAfter } from "./tiles.js";

const STILL = 4; // pixels a pointer may move and yet not drag

/** The letter of a place; A is the one wanted first. */
export function letter(place) {
  return String.fromCharCode(65 + place);
}

export class Order {
  #held = null; // what the pointer has: its item and where it took it
  #lifted = null; // the item that arrow keys move

  constructor(list, say, changed) {
    Object.assign(this, { list, say, changed });
    list.addEventListener("pointerdown", (event) => this.#take(event));
    list.addEventListener("pointermove", (event) => this.#drag(event));
    for (const kind of ["pointerup", "pointercancel"]) list.addEventListener(kind, () => this.#drop());
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusout", () => this.#lift(null));
  }

  get ids() {
    return [...this.list.children].map((item) => item.dataset.id);
  }

  /** Put items into the list in place of those in it. */
  set ids(ids) {
    const known = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    this.list.replaceChildren(...ids.map((id) => known.get(id) ?? entry(id)));
    this.#tell();
  }

  /** Put an item at the end, or take it out where it is in. */
  toggle(id) {
    this.ids = this.ids.includes(id) ? this.ids.filter((other) => other !== id) : [...this.ids, id];
  }

  #take(event) {
    const item = event.target.closest("li");
    if (item === null || event.button !== 0) return;
    this.#held = { item, x: event.clientX, y: event.clientY, moved: false };
    item.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    const held = this.#held;
    if (held === null) return;
    const [x, y] = [event.clientX - held.x, event.clientY - held.y];
    if (!held.moved && Math.hypot(x, y) < STILL) return;
    held.moved = true;
    held.item.classList.add("dragged");
    held.item.style.translate = "";
    const before = middle(held.item);
    this.#insert(held.item, nearest([...this.list.children], before.x + x, before.y + y));
    const after = middle(held.item); // from its new place it must stand under the pointer again
    held.x += after.x - before.x;
    held.y += after.y - before.y;
    held.item.style.translate = `${event.clientX - held.x}px ${event.clientY - held.y}px`;
  }

  #drop() {
    this.#held?.item.classList.remove("dragged");
    this.#held?.item.style.removeProperty("translate");
    this.#held = null;
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
      if (this.#lifted === item) this.#carry(item, there);
      else there.firstChild.focus();
    }
    event.preventDefault();
  }

  /** Move a lifted item; moving it in the page takes its focus away. */
  #carry(item, there) {
    this.#lifted = null;
    this.#insert(item, there);
    item.firstChild.focus();
    this.#lifted = item;
    item.classList.add("lifted");
    this.say(`${letter(this.ids.indexOf(item.dataset.id))}, place ${this.ids.indexOf(item.dataset.id) + 1}`);
  }

  #lift(item) {
    if (this.#lifted === item) return;
    this.#lifted?.classList.remove("lifted");
    item?.classList.add("lifted");
    this.say(item === null ? "let go" : "lifted: arrow keys move it");
    this.#lifted = item;
  }

  #insert(item, there) {
    if (item === there) return;
    const later = item.compareDocumentPosition(there) & Node.DOCUMENT_POSITION_FOLLOWING;
    there[later ? "after" : "before"](item);
    this.#tell();
  }

  #tell() {
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
    make("button", { class: "tile", type: "button" }, picture(id), make("span", { class: "mark" })));
}

function middle(item) {
  const box = item.getBoundingClientRect();
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}

function nearest(items, x, y) {
  const far = items.map((item) => Math.hypot(middle(item).x - x, middle(item).y - y));
  return items[far.indexOf(Math.min(...far))];
}
