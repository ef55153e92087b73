// Requests to besad. The token, where it asks for one, is kept for this browser tab's session and nowhere else.

const KEY = "besad-token";
const PATIENCE = 15000; // milliseconds until an answer

let token = sessionStorage.getItem(KEY);

export const hasToken = () => token !== null;

export function setToken(value) {
	token = value;
	if (value === null) sessionStorage.removeItem(KEY);
	else sessionStorage.setItem(KEY, value);
}

// What besad says against a request: `status`, and `errors` where it names fields.
export class Problem extends Error {
	constructor(response, body) {
		super(body.detail || body.title || `besad answered ${response.status}`);
		this.status = response.status;
		this.errors = body.errors || [];
		this.retryAfter = Number(response.headers.get("Retry-After")) || 0;
	}
}

export async function request(method, path, { body, headers, signal, endless } = {}) {
	const all = { ...headers };
	if (token !== null) all.Authorization = `Bearer ${token}`;
	if (body !== undefined) all["Content-Type"] = "application/json";
	const signals = [signal, endless ? null : AbortSignal.timeout(PATIENCE)].filter(Boolean);
	const response = await fetch(path, { method, headers: all, body, signal: AbortSignal.any(signals), cache: "no-store" });
	if (response.ok) return response;
	const problem = new Problem(response, await response.json().catch(() => ({})));
	if (problem.status === 401) document.dispatchEvent(new Event("unauthorized"));
	throw problem;
}

export const get = async (path, signal) => (await request("GET", path, { signal })).json();
export const post = async (path, options) => (await request("POST", path, options)).json();
export const remove = (path) => request("DELETE", path);
