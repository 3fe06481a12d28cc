/** The query: dropped, chosen, pasted, or an item of the gallery, whose id then stands in the address. */

import { Refused, ask, call, keepKey, pictureOf } from "./calls.js";
import { crisp, fill, make, picture, walkable } from "./tiles.js";

const SHOWN = 24; // items of the gallery
const TOGETHER = 2; // neighbours among them

const at = (id) => document.getElementById(id);

/** Let the user choose a query; `found` gets each as a file and does what is to be done with it. */
export class Query {
  constructor(found) {
    this.found = found;
    this.file = null;
    crisp(at("query"));
    walkable(at("gallery"));
    at("file").addEventListener("change", (event) => this.#given(event.target.files));
    document.addEventListener("paste", (event) => this.#given(event.clipboardData.files));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(kind, (event) => this.#dragged(event));
    }
    addEventListener("hashchange", () => this.#fromAddress());
    at("key").addEventListener("submit", (event) => this.#keyed(event));
    at("others").addEventListener("click", () => this.attempt(() => this.#others()));
  }

  /** Show the gallery and what can be done, and begin with the item in the address. */
  async begin() {
    await this.attempt(() => Promise.all([this.#others(), this.#facts(), this.calls()]));
    await this.#fromAddress();
  }

  /** Tell how many calls are left. */
  async calls() {
    const { left, per_day: all } = await ask("/quota");
    at("calls").textContent = `${left.toLocaleString("en")} of ${all.toLocaleString("en")} calls left today`;
  }

  /** Do something; where it is refused say why, and ask for a key where one is wanted. */
  async attempt(work) {
    at("error").hidden = true;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      at("error").textContent = error.message;
      at("error").hidden = false;
      if (error.status === 401) at("key").hidden = false;
    }
  }

  async #facts() {
    const health = await ask("/health");
    at("items").textContent = `${health.items.toLocaleString("en")} items`;
    this.extra = health.extra;
  }

  async #others() {
    const { items } = await ask("/items?limit=1");
    const from = () => Math.floor(Math.random() * Math.max(1, items - TOGETHER + 1));
    const pages = Array.from({ length: SHOWN / TOGETHER }, () => ask(`/items?limit=${TOGETHER}&offset=${from()}`));
    const ids = new Set((await Promise.all(pages)).flatMap((page) => page.ids));
    fill(at("gallery"), [...ids].map((id) => link(id, `Item ${id}: search with it`)));
  }

  #dragged(event) {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    at("drop").classList.toggle("over", event.type === "dragover");
    if (event.type === "drop") this.#given(event.dataTransfer.files);
  }

  async #given(files) {
    if (files.length === 0) return;
    history.pushState(null, "", location.pathname);
    await this.#take(files[0], files[0].name);
  }

  async #fromAddress() {
    const id = location.hash.slice(1);
    if (id === "") return;
    await this.attempt(async () => {
      const file = await (await call(pictureOf(id))).blob();
      await this.#take(file, `Item ${id}`);
    });
  }

  async #take(file, name) {
    this.file = file;
    URL.revokeObjectURL(at("query").src);
    at("query").src = URL.createObjectURL(file);
    at("query").hidden = false;
    at("query").alt = `The query: ${name}`;
    at("name").textContent = name;
    at("hint").textContent = "Drop, choose or paste another";
    at("file").value = "";
    await this.attempt(() => this.found(file));
  }

  async #keyed(event) {
    event.preventDefault();
    keepKey(at("key-field").value);
    await this.attempt(async () => {
      await this.calls();
      if (this.file !== null) await this.found(this.file);
      at("key").hidden = true;
    });
  }
}

/** A tile that leads to a search with its item. */
export function link(id, label, ...badges) {
  return make("a", { class: "tile", href: `#${id}`, "aria-label": label }, picture(id), ...badges);
}
