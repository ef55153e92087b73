// The dashboard: the queue, one job live, and a form. Everything shown comes from the API; text goes in as text, never as HTML.
"use strict";

const element = (id) => document.getElementById(id);
const finished = (state) => ["succeeded", "failed", "cancelled"].includes(state);
const LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

let token = sessionStorage.getItem("besad-token"); // for this tab only
let shown = null; // id of the job that is shown live
let watching = null; // AbortController of its stream

// ---- the API ----------------------------------------------------------------------------------------------------------------

class Problem extends Error {
	constructor(status, body) {
		super(body.detail || body.title || `status ${status}`);
		this.status = status;
		this.errors = body.errors || [];
	}
}

async function request(method, path, { body, headers, signal } = {}) {
	const all = { ...headers };
	if (token) all.Authorization = `Bearer ${token}`;
	if (body !== undefined) all["Content-Type"] = "application/json";
	const response = await fetch(path, { method, headers: all, body, signal, cache: "no-store" });
	if (response.ok) return response;
	const problem = await response.json().catch(() => ({}));
	if (response.status === 401) {
		element("login").hidden = false;
		element("token").focus();
	}
	throw new Problem(response.status, problem);
}

const get = async (path) => (await request("GET", path)).json();

// ---- small helpers -----------------------------------------------------------------------------------------------------------

function make(tag, content, name) {
	const node = document.createElement(tag);
	if (name) node.className = name;
	if (content instanceof Node) node.append(content);
	else if (content !== undefined && content !== null) node.textContent = content;
	return node;
}

function duration(seconds) {
	if (seconds === null || seconds === undefined) return "";
	const s = Math.round(seconds);
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

const percent = (rate) => `${(100 * rate).toFixed(2)} %`;
const decimal = (value, digits) => (value === null || value === undefined ? "" : value.toFixed(digits));

function say(text) {
	element("connection").textContent = text;
}

// ---- the queue ---------------------------------------------------------------------------------------------------------------

function jobRow(job) {
	const row = make("tr");
	const open = make("button", job.name || job.id, "link");
	open.type = "button";
	open.addEventListener("click", () => show(job.id));
	const bar = make("progress");
	bar.max = 1;
	bar.value = job.progress.fraction;
	bar.setAttribute("aria-label", `progress of ${job.name || job.id}`);
	row.append(make("td", open), make("td", job.spec.model), make("td", job.spec.method));
	row.append(make("td", job.spec.method === "none" ? "" : percent(job.spec.sparsity)), make("td", job.state), make("td", bar));
	if (job.id === shown) row.setAttribute("aria-current", "true");
	return row;
}

async function refresh() {
	try {
		const { jobs } = await get("v1/jobs?limit=50");
		element("jobs").replaceChildren(...jobs.map(jobRow));
		element("no-jobs").hidden = jobs.length > 0;
		say(watching ? "live" : "");
	} catch (error) {
		say(error instanceof Problem ? error.message : "besad does not answer; trying again");
	}
}

// ---- one job -----------------------------------------------------------------------------------------------------------------

function showState(job) {
	element("job-title").textContent = job.name || job.id;
	element("job-line").textContent = [
		job.spec.model,
		job.spec.method,
		job.state,
		job.progress.phase && !finished(job.state) ? job.progress.phase : null,
		job.progress.blocks ? `block ${Math.min(job.progress.block + 1, job.progress.blocks)} of ${job.progress.blocks}` : null,
		job.progress.eta_seconds !== null ? `about ${duration(job.progress.eta_seconds)} left` : null,
		job.attempt > 1 ? `attempt ${job.attempt}` : null,
		job.result && job.result.output ? `output ${job.result.output}` : null,
	].filter(Boolean).join(" · ");
	element("job-progress").value = job.progress.fraction;
	element("job-error").textContent = job.error ? `${job.error.code}: ${job.error.message}` : "";
	element("cancel").hidden = finished(job.state) || job.state === "cancelling";
	element("retry").hidden = !["failed", "cancelled"].includes(job.state);
	element("delete").hidden = !finished(job.state);
}

function layerNames(layers) {
	const names = Object.keys(layers);
	return LAYERS.filter((name) => names.includes(name)).concat(names.filter((name) => !LAYERS.includes(name)));
}

function addBlock(block) {
	const names = layerNames(block.layers);
	if (!element("blocks-head").firstChild) {
		const head = make("tr");
		for (const title of ["Block", "Loss", "Zeros", ...names, "Time"]) {
			const cell = make("th", title, "number");
			cell.scope = "col";
			head.append(cell);
		}
		element("blocks-head").append(head);
	}
	const row = make("tr");
	row.append(make("td", block.block, "number"), make("td", decimal(block.reconstruction, 5), "number"));
	row.append(make("td", percent(block.sparsity), "number"));
	for (const name of names) row.append(make("td", percent(block.layers[name].zeros / block.layers[name].params), "number"));
	row.append(make("td", duration(block.seconds), "number"));
	element("blocks").append(row);
}

function onEvent(type, data) {
	if (type === "block.step") {
		element("job-step").textContent = `step ${data.step} of ${data.steps}: loss ${decimal(data.loss, 5)}, ` +
			`sparsity ${percent(data.sparsity)}`;
	} else if (type === "block.finished") {
		element("job-step").textContent = "";
		addBlock(data);
	} else if (type === "eval.finished") {
		element("perplexity").append(make("li", `${data.dataset}, ${data.model}: ${decimal(data.perplexity, 3)}`));
	} else if (type === "warning") {
		element("warnings").append(make("li", data.message));
	}
}

async function reload(id) {
	const job = await get(`v1/jobs/${id}`);
	if (id === shown) showState(job);
}

// Reads server-sent events from a fetch, which, unlike EventSource, can send a token.
async function* readEvents(response) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		text += value;
		let end;
		while ((end = text.indexOf("\n\n")) >= 0) {
			const fields = {};
			for (const line of text.slice(0, end).split("\n")) {
				const colon = line.indexOf(": ");
				if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
			}
			text = text.slice(end + 2);
			if (fields.event) yield fields;
		}
	}
}

async function watch(id, signal) {
	let last = "0";
	let busy = false; // one read of the job at a time
	const update = () => {
		if (busy) return;
		busy = true;
		setTimeout(() => reload(id).catch(() => {}).finally(() => (busy = false)), 200);
	};
	while (!signal.aborted) {
		try {
			const headers = { Accept: "text/event-stream", "Last-Event-ID": last };
			const response = await request("GET", `v1/jobs/${id}/events`, { headers, signal });
			say("live");
			for await (const event of readEvents(response)) {
				if (event.event === "end") {
					watching = null;
					say("");
					await reload(id);
					return refresh();
				}
				last = event.id;
				onEvent(event.event, JSON.parse(event.data).data);
				update();
			}
		} catch (error) {
			if (signal.aborted || (error instanceof Problem && error.status < 500)) return;
		}
		say("connection lost; trying again");
		await new Promise((resolve) => setTimeout(resolve, 2000));
	}
}

async function show(id) {
	if (watching) watching.abort();
	shown = id;
	for (const part of ["blocks", "blocks-head", "perplexity", "warnings"]) element(part).replaceChildren();
	element("job-step").textContent = "";
	location.hash = id;
	try {
		await reload(id);
	} catch (error) {
		element("job").hidden = true;
		say(error.message);
		return;
	}
	element("job").hidden = false;
	watching = new AbortController();
	watch(id, watching.signal);
	refresh();
}

async function act(method, path) {
	element("job-error").textContent = "";
	try {
		await request(method, path);
		if (method !== "DELETE") return show(shown);
		if (watching) watching.abort();
		watching = shown = null;
		element("job").hidden = true;
		location.hash = "";
		refresh();
	} catch (error) {
		element("job-error").textContent = error.message;
	}
}

// ---- submit ------------------------------------------------------------------------------------------------------------------

async function submit(event) {
	event.preventDefault();
	element("problems").replaceChildren();
	try {
		const response = await request("POST", "v1/jobs", { body: element("spec").value });
		show((await response.json()).id);
	} catch (error) {
		const lines = error.errors && error.errors.length
			? error.errors.map((field) => `${field.pointer || field.parameter || field.header}: ${field.detail}`)
			: [error.message];
		element("problems").replaceChildren(...lines.map((line) => make("li", line)));
	}
}

// ---- start -------------------------------------------------------------------------------------------------------------------

async function start() {
	try {
		const info = await get("v1/info");
		element("daemon").textContent = `${info.version} · ${info.device}`;
		const { models } = await get("v1/models");
		if (models.length) element("models").textContent = models.map((model) => model.name).join(", ");
		element("login").hidden = true;
	} catch (error) {
		say(error.message);
	}
	await refresh();
	if (location.hash.length > 1) show(location.hash.slice(1));
}

element("login").addEventListener("submit", (event) => {
	event.preventDefault();
	token = element("token").value;
	sessionStorage.setItem("besad-token", token);
	start();
});
element("submit").addEventListener("submit", submit);
element("cancel").addEventListener("click", () => act("POST", `v1/jobs/${shown}/cancel`));
element("retry").addEventListener("click", () => act("POST", `v1/jobs/${shown}/retry`));
element("delete").addEventListener("click", () => act("DELETE", `v1/jobs/${shown}`));
setInterval(() => {
	if (!document.hidden) refresh();
}, 3000);
start();
