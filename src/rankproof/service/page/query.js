/** The query: an image that is dropped, chosen or pasted, or an item of the gallery, named in the address. */

import { RequestError, imageUrl, rememberKey, request, requestJson } from "./api.js";
import { crisp, fill, make, itemImage, walkable } from "./tiles.js";

const SAMPLES = 24; // items of the gallery that are shown
const ADJACENT = 2; // adjacent items fetched by one request

const at = (id) => document.getElementById(id);

/** Lets the user choose a query; `onQuery` is called with each as a file. */
export class Query {
  constructor(onQuery) {
    this.onQuery = onQuery;
    this.file = null;
    crisp(at("query"));
    walkable(at("gallery"));
    at("file").addEventListener("change", (event) => this.#useFiles(event.target.files));
    document.addEventListener("paste", (event) => this.#useFiles(event.clipboardData.files));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(kind, (event) => this.#drag(event));
    }
    addEventListener("hashchange", () => this.#fromAddress());
    at("key").addEventListener("submit", (event) => this.#useKey(event));
    at("others").addEventListener("click", () => this.attempt(() => this.#showSamples()));
  }

  /** Show the gallery and the state of the service, and search with the item in the address. */
  async begin() {
    await this.attempt(() => Promise.all([this.#showSamples(), this.#showHealth(), this.showCalls()]));
    await this.#fromAddress();
  }

  /** Show how many calls are left. */
  async showCalls() {
    const { left, per_day: all } = await requestJson("/quota");
    at("calls").textContent = `${left.toLocaleString("en")} of ${all.toLocaleString("en")} calls left today`;
  }

  /** Call `work`; show why a request failed, and ask for a key where one is needed. */
  async attempt(work) {
    at("error").hidden = true;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      at("error").textContent = error.message;
      at("error").hidden = false;
      if (error.status === 401) at("key").hidden = false;
    }
  }

  async #showHealth() {
    const health = await requestJson("/health");
    at("items").textContent = `${health.items.toLocaleString("en")} items`;
    this.extra = health.extra;
  }

  async #showSamples() {
    const { items } = await requestJson("/items?limit=1");
    const from = () => Math.floor(Math.random() * Math.max(1, items - ADJACENT + 1));
    const pages = Array.from({ length: SAMPLES / ADJACENT }, () => requestJson(`/items?limit=${ADJACENT}&offset=${from()}`));
    const ids = new Set((await Promise.all(pages)).flatMap((page) => page.ids));
    fill(at("gallery"), [...ids].map((id) => link(id, `Item ${id}: search with it`)));
  }

  #drag(event) {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    at("drop").classList.toggle("over", event.type === "dragover");
    if (event.type === "drop") this.#useFiles(event.dataTransfer.files);
  }

  async #useFiles(files) {
    if (files.length === 0) return;
    history.pushState(null, "", location.pathname);
    await this.#useFile(files[0], files[0].name);
  }

  async #fromAddress() {
    const id = location.hash.slice(1);
    if (id === "") return;
    await this.attempt(async () => {
      const file = await (await request(imageUrl(id))).blob();
      await this.#useFile(file, `Item ${id}`);
    });
  }

  async #useFile(file, name) {
    this.file = file;
    URL.revokeObjectURL(at("query").src);
    at("query").src = URL.createObjectURL(file);
    at("query").hidden = false;
    at("query").alt = `The query: ${name}`;
    at("name").textContent = name;
    at("hint").textContent = "Drop, choose or paste another image";
    at("file").value = "";
    await this.attempt(() => this.onQuery(file));
  }

  async #useKey(event) {
    event.preventDefault();
    rememberKey(at("key-field").value);
    await this.attempt(async () => {
      await this.showCalls();
      if (this.file !== null) await this.onQuery(this.file);
      at("key").hidden = true;
    });
  }
}

/** A tile that is a link to a search with its item. */
export function link(id, label, ...badges) {
  return make("a", { class: "tile", href: `#${id}`, "aria-label": label }, itemImage(id), ...badges);
}
