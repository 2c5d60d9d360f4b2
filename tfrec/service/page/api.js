// The service's answers.

const KEY = "tfrec-token";
let token = sessionStorage.getItem(KEY);

export function setToken(text) {
  token = text;
  sessionStorage.setItem(KEY, text);
}

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Values that are lists are given once for each entry; null is left out.
export async function ask(path, fields = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (Array.isArray(value)) value.forEach((entry) => query.append(name, entry));
    else if (value !== null && value !== undefined) query.append(name, value);
  }
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(`${path}?${query}`, { headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service does not answer.");
  }
  let body = {};
  try {
    body = await response.json();
  } catch {
    throw new ServiceError(response.status, `The service answered ${response.status} without JSON.`);
  }
  if (!response.ok) throw new ServiceError(response.status, body.error);
  return body;
}
