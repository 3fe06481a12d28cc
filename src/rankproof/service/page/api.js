/** Requests to the service, with the API key of this tab. */

const KEY = "rankproof key";

/** A request that was refused or failed; `status` is 0 if the service did not answer. */
export class RequestError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Remember an API key until this tab is closed. */
export function rememberKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Send a request and return the response; throws RequestError. */
export async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key === null ? {} : { "X-Api-Key": key };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new RequestError(0, "The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new RequestError(response.status, asSentence(problem.detail ?? `the service answered with status ${response.status}`));
}

/** Send a request and return the JSON of the response; throws RequestError. */
export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

/** The address of the image of an item. */
export function imageUrl(id) {
  return `/items/${encodeURIComponent(id)}/image`;
}

function asSentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
