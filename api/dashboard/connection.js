// Whether what the page shows is live. Sources ("poll", "stream") say when they heard from besad and when they lost it; as long as one
// of them is lost, everything is marked as old, with the time it is from.
import { clock, element, setText } from "./dom.js";

const FRESH = 7000; // milliseconds that a poll may be silent

const sources = new Map(); // name: { ok, at }

function report() {
	const now = Date.now();
	const lost = [...sources.values()].filter((s) => !s.ok || (s.limit && now - s.at > s.limit));
	const heard = lost.map((s) => s.at).filter(Boolean);
	const state = document.body.dataset.login ? "login" : lost.length ? "lost" : sources.size ? "live" : "connecting";
	if (document.body.dataset.connection !== state) document.body.dataset.connection = state;
	setText(element("connection"), { login: "Token needed", lost: "Not live", live: "Live", connecting: "Connecting …" }[state]);
	element("lost").hidden = state !== "lost";
	if (state === "lost")
		setText(element("lost-text"), `Connection lost, ${heard.length ? `data as of ${clock(Math.min(...heard))}` : "no data yet"}. ` +
			"The page connects again by itself.");
}

// Heard from besad just now.
export function alive(name) {
	sources.set(name, { ok: true, at: Date.now(), limit: name === "poll" ? FRESH : 0 });
	report();
}

export function lost(name) {
	const source = sources.get(name);
	if (source?.ok === false) return;
	// What a stream has shown is true up to the moment when it broke, what a poll has shown up to its answer.
	const at = source ? (name === "poll" ? source.at : Date.now()) : 0;
	sources.set(name, { ok: false, at, limit: 0 });
	report();
}

// The page no longer depends on this source.
export function forget(name) {
	sources.delete(name);
	report();
}

export const refresh = report;

setInterval(report, 1000);
element("try-now").addEventListener("click", () => document.dispatchEvent(new Event("try-now")));
