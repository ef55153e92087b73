// Follows the events of a job. EventSource cannot send a token, so this reads server-sent events from a fetch, and does itself what
// EventSource would: go on after Last-Event-ID when the connection breaks.
import { Problem, request } from "./api.js";

const SILENCE = 40000; // milliseconds; besad sends at least a heartbeat every 15 s
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;

// The events of a text/event-stream body as {id, event, data}; `heard` is called for every piece, heartbeats too.
export async function* readEvents(body, heard) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	let fields = {};
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		heard();
		const lines = (text + value).split("\n");
		text = lines.pop();
		for (const raw of lines) {
			const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
			const colon = line.indexOf(":");
			if (line === "") {
				if (fields.data !== undefined) yield fields;
				fields = {};
			} else if (colon > 0) {
				const name = line.slice(0, colon);
				const content = line.slice(colon + 1).replace(/^ /, "");
				fields[name] = name === "data" && fields.data !== undefined ? `${fields.data}\n${content}` : content;
			}
		}
	}
}

// Ends early when the page comes back into view or online, or the user asks for it.
function wait(milliseconds, signal) {
	return new Promise((resolve) => {
		const ended = new AbortController();
		const finish = () => {
			clearTimeout(timer);
			ended.abort();
			resolve();
		};
		const timer = setTimeout(finish, milliseconds);
		const options = { signal: ended.signal };
		window.addEventListener("online", finish, options);
		document.addEventListener("try-now", finish, options);
		document.addEventListener("visibilitychange", () => document.hidden || finish(), options);
		signal.addEventListener("abort", finish, options);
	});
}

// Reads one connection until it breaks (false) or the job ended (true).
async function readConnection(id, position, signal, sink) {
	const silence = new AbortController();
	let timer = 0;
	const heard = () => {
		clearTimeout(timer);
		timer = setTimeout(() => silence.abort(), SILENCE);
	};
	try {
		heard();
		const headers = { Accept: "text/event-stream", "Last-Event-ID": position.last };
		const both = AbortSignal.any([signal, silence.signal]);
		const response = await request("GET", `v1/jobs/${id}/events`, { headers, signal: both, endless: true });
		sink.connected(true);
		for await (const event of readEvents(response.body, heard)) {
			position.failures = 0;
			if (event.event === "end") return true;
			position.last = event.id;
			sink.event(JSON.parse(event.data));
		}
		return false;
	} finally {
		clearTimeout(timer);
	}
}

// Calls sink.event for each event, once and in order, sink.connected(true or false) as the connection comes and goes, then sink.end, or
// sink.refused(problem) when besad will not give the events. Until `signal` aborts.
export async function follow(id, signal, sink) {
	const position = { last: "0", failures: 0 };
	while (!signal.aborted) {
		let least = 0;
		try {
			if (await readConnection(id, position, signal, sink)) return sink.end();
		} catch (error) {
			if (signal.aborted) return;
			if (error instanceof Problem && error.status < 500) return sink.refused(error);
			least = (error.retryAfter || 0) * 1000;
		}
		if (signal.aborted) return;
		sink.connected(false);
		const backoff = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** position.failures++) * (0.75 + Math.random() / 2);
		await wait(Math.max(backoff, least), signal);
	}
}
