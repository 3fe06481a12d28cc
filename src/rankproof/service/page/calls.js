/** Calls to the service: the key goes with each, and a refusal says why. */

const KEY = "rankproof key";

/** A call that was not answered; `status` is 0 where nobody was there. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Remember a key for as long as this tab is open. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The answer to a call; throws Refused. */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key === null ? {} : { "X-Api-Key": key };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, "The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, sentence(problem.detail ?? `the service answered ${answer.status}`));
}

/** The JSON of an answer. */
export async function ask(path, options) {
  return (await call(path, options)).json();
}

/** Where the picture of an item is. */
export function pictureOf(id) {
  return `/items/${encodeURIComponent(id)}/image`;
}

function sentence(words) {
  return `${words[0].toUpperCase()}${words.slice(1)}.`;
}
