// The queue and the history.
import { get } from "./api.js";
import { duration, isFinished, jobName, make, percent, setText, timeElement } from "./dom.js";
import { makesOutput } from "./spec.js";

const PAGE = 25;
const LARGEST_PAGE = 1000; // the API's

const chosen = new Set(); // ids of the finished jobs to compare

function summary(job) {
	const { spec } = job;
	return `${spec.model} · ${spec.method}${spec.method === "none" ? "" : ` · ${percent(spec.sparsity, 0)}`}`;
}

function outcome(job) {
	if (job.state === "failed") return `${job.error.code}: ${job.error.message}`;
	if (job.state !== "succeeded") return "";
	const [name, values] = Object.entries(job.result.perplexity)[0] || [];
	const parts = job.spec.method === "none" ? [] : [`${percent(job.result.sparsity, 2)} zeros`];
	const written = [values?.dense, values?.pruned].filter((v) => typeof v === "number").map((v) => v.toFixed(2));
	if (written.length) parts.push(`${name} ${written.join(" → ")}`);
	return [...parts, duration(job.result.seconds)].join(" · ");
}

export function stateBadge(state) {
	return make("span", { class: `badge ${state}` }, state);
}

function progressText(job, position) {
	const { fraction, eta_seconds: eta, phase, block, blocks } = job.progress;
	if (job.state === "queued") return position ? `number ${position} in the queue` : "waiting";
	const parts = [percent(fraction, 0)];
	if (phase === "pruning" && blocks) parts.push(`block ${Math.min(block + 1, blocks)} of ${blocks}`);
	else if (phase) parts.push(phase);
	if (eta !== null) parts.push(`${duration(eta)} left`);
	return parts.join(" · ");
}

class Row {
	constructor(job, changed) {
		this.state = make("span");
		this.link = make("a", { href: `#/job/${job.id}` });
		this.what = make("p", { class: "what" });
		this.bar = make("progress", { max: 1 });
		this.text = make("p", { class: "how" });
		this.check = make("input", { type: "checkbox", onchange: () => this.choose(changed) });
		this.box = make("label", { class: "check" }, this.check, make("span", { class: "unseen" }));
		this.node = make("li", { class: "row" }, this.box, make("div", { class: "title" }, this.link, this.what), this.state,
			make("div", { class: "progress" }, this.bar, this.text));
		this.id = job.id;
	}

	choose(changed) {
		chosen[this.check.checked ? "add" : "delete"](this.id);
		changed();
	}

	update(job, position) {
		const name = jobName(job);
		setText(this.link, name);
		if (this.shown !== job.state) this.state.replaceChildren(stateBadge(job.state));
		this.shown = job.state;
		const when = job.finished_at || job.started_at || job.created_at;
		if (this.when !== when) this.what.replaceChildren(`${summary(job)} · `, timeElement(when));
		this.when = when;
		const done = isFinished(job.state);
		this.bar.hidden = done;
		this.bar.value = job.progress.fraction;
		this.bar.setAttribute("aria-label", `Progress of ${name}`);
		setText(this.text, done ? outcome(job) : progressText(job, position));
		this.box.hidden = job.state !== "succeeded" || !makesOutput(job.spec);
		this.check.checked = chosen.has(job.id);
		setText(this.box.lastChild, `Compare ${name}`);
	}
}

// A list that keeps its rows, with the focus in them, while their contents change.
class List {
	constructor(nothing, changed) {
		this.rows = new Map();
		this.changed = changed;
		this.list = make("ul", { class: "rows" });
		this.nothing = make("p", { class: "nothing", hidden: true }, nothing);
		this.node = make("div", null, this.nothing, this.list);
	}

	update(jobs) {
		const rows = new Map();
		jobs.forEach((job, i) => {
			const row = this.rows.get(job.id) || new Row(job, this.changed);
			row.update(job, job.state === "queued" ? 1 + i - jobs.findIndex((j) => j.state === "queued") : 0);
			rows.set(job.id, row);
			if (this.list.children[i] !== row.node) this.list.insertBefore(row.node, this.list.children[i] || null);
		});
		for (const [id, row] of this.rows) if (!rows.has(id)) row.node.remove();
		this.rows = rows;
		this.nothing.hidden = jobs.length > 0;
	}
}

const RANK = { running: 0, cancelling: 0, pausing: 0, queued: 1, paused: 2 };

// As the worker takes them: running ones, then by priority and age; those that it does not take last.
function queueOrder(a, b) {
	return RANK[a.state] - RANK[b.state] || b.spec.priority - a.spec.priority || (a.id < b.id ? -1 : 1);
}

export function jobsView() {
	let size = PAGE;
	const compare = make("a", { class: "button" });
	const hint = make("p", { class: "hint", id: "compare-hint" }, "Tick two or more jobs to compare them.");
	const showChosen = () => {
		const enough = chosen.size >= 2;
		setText(compare, enough ? `Compare ${chosen.size} jobs` : "Compare");
		compare.hidden = !enough;
		hint.hidden = enough;
		if (enough) compare.href = `#/compare/${[...chosen].join(",")}`;
	};
	const queue = new List("Nothing is queued or running.", showChosen);
	const history = new List("No job has finished yet.", showChosen);
	const more = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => {
		size = Math.min(size * 2, LARGEST_PAGE);
		document.dispatchEvent(new Event("try-now"));
	} }, "Older jobs");
	const heading = make("h2", { tabindex: -1 }, "Jobs");
	const node = make("div", null,
		make("div", { class: "bar" }, heading, make("a", { class: "button primary", href: "#/new" }, "New job")),
		make("section", { class: "card", "aria-labelledby": "queue-title" }, make("h3", { id: "queue-title" }, "Queue"), queue.node),
		make("section", { class: "card", "aria-labelledby": "history-title" },
			make("div", { class: "bar" }, make("h3", { id: "history-title" }, "History"), hint, compare), history.node, more));
	showChosen();

	async function poll(signal) {
		const ask = async (query) => get(`v1/jobs?${query}`, signal);
		const [running, cancelling, pausing, queued, paused, newest] = await Promise.all([ask("state=running"), ask("state=cancelling"),
			ask("state=pausing"), ask(`state=queued&limit=${LARGEST_PAGE}`), ask(`state=paused&limit=${LARGEST_PAGE}`), ask(`limit=${size}`)]);
		const active = new Map();
		for (const job of [...queued.jobs, ...paused.jobs, ...running.jobs, ...cancelling.jobs, ...pausing.jobs]) active.set(job.id, job);
		for (const job of newest.jobs) if (isFinished(job.state)) active.delete(job.id); // it finished between the answers
		queue.update([...active.values()].sort(queueOrder));
		history.update(newest.jobs.filter((job) => isFinished(job.state)));
		more.hidden = newest.next === null || size === LARGEST_PAGE;
		for (const id of chosen) if (!history.rows.has(id)) chosen.delete(id);
		showChosen();
	}
	return { title: "Jobs", node, heading, poll, stop() {} };
}
