// Studies: the list, and one of them as a table of its jobs and a plot of perplexity against size.
import { get, post } from "./api.js";
import { chart } from "./charts.js";
import { bytes, decimal, duration, make, percent, setText, timeElement } from "./dom.js";
import { stateBadge } from "./jobs.js";

const told = (states) => Object.entries(states).filter(([, count]) => count).map(([state, count]) => `${count} ${state}`).join(", ");
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export function studiesView() {
	const heading = make("h2", { tabindex: -1 }, "Studies");
	const nothing = make("p", { class: "nothing", hidden: true }, "No study yet: besactl study submit, or POST /v1/studies.");
	const list = make("ul", { class: "rows" });
	const node = make("div", null, heading, make("section", { class: "card", "aria-label": "Studies" }, nothing, list));
	let last = "";
	async function poll(signal) {
		const { studies } = await get("v1/studies?limit=100", signal);
		nothing.hidden = studies.length > 0;
		const text = JSON.stringify(studies);
		if (text === last) return; // the focus stays where it is
		last = text;
		list.replaceChildren(...studies.map((study) => make("li", { class: "row" }, make("div", { class: "title" },
			make("a", { href: `#/study/${study.id}` }, study.name),
			make("p", { class: "what" }, `${study.jobs} jobs: ${told(study.states)} · `, timeElement(study.created_at))))));
	}
	return { title: "Studies", node, heading, poll, stop() {} };
}

// ---- one study --------------------------------------------------------------------------------------------------------------

// Of points [x, y] those that no other one beats in both, by x.
export function front(points) {
	const result = [];
	for (const point of [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]))
		if (!result.length || point[1] < result[result.length - 1][1]) result.push(point);
	return result;
}

function tableOf(study, datasets) {
	const fields = Object.keys(study.grid);
	const head = ["Job", "State", ...fields, "Zeros", ...datasets.map((name) => `${name} perplexity`), "Time", "Size", "Archive"];
	const rows = study.rows.map((row, i) => make("tr", null,
		make("th", { scope: "row" }, row.forgotten ? String(i + 1) : make("a", { href: `#/job/${row.job}` }, String(i + 1))),
		make("td", null, stateBadge(row.state), row.state === "running" ? ` ${percent(row.fraction, 0)}` : ""),
		fields.map((field) => make("td", null, shown(row.settings[field]))), make("td", null, percent(row.sparsity, 2)),
		datasets.map((name) => make("td", null, decimal(row.perplexity?.[name]?.pruned, 3))),
		make("td", null, duration(row.seconds)), make("td", null, row.bytes === null ? "–" : bytes(row.bytes)),
		make("td", null, row.archive_bytes === null ? "–" : bytes(row.archive_bytes))));
	return make("table", { class: "numbers" }, make("caption", { class: "unseen" }, "The jobs of the study"),
		make("thead", null, make("tr", null, head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", null, rows));
}

// The archive's bytes where every finished job has made one: zeros make nothing else smaller.
function pointsOf(rows, dataset) {
	const measured = rows.filter((row) => row.bytes !== null && typeof row.perplexity?.[dataset]?.pruned === "number");
	const size = measured.every((row) => row.archive_bytes !== null) ? "archive_bytes" : "bytes";
	return measured.map((row) => [row[size] / 1e6, row.perplexity[dataset].pruned]);
}

class Plot {
	constructor(dataset) {
		this.dataset = dataset;
		this.chart = chart({ x: "size, MB", y: "perplexity", nothing: "No job has been evaluated yet." });
		this.node = make("section", { class: "card", "aria-label": `Perplexity against size, ${dataset}` },
			make("h3", null, `Perplexity on ${dataset} against size`), this.chart.node);
	}

	update(rows) {
		const points = pointsOf(rows, this.dataset);
		const best = front(points);
		const rest = points.filter((point) => !best.includes(point));
		const sizes = points.map(([size]) => size);
		const low = Math.min(...sizes), high = Math.max(...sizes);
		const room = (high - low) * 0.06 || low * 0.05;
		this.chart.update([{ name: "Pareto front", points: best, always: true }, { name: "beaten in both", points: rest, loose: true }],
			[low - room, high + room], `Perplexity against size: ${best.length} of ${points.length} jobs are on the Pareto front`);
	}
}

export function studyView(id) {
	const heading = make("h2", { tabindex: -1 }, "Study");
	const state = make("p", { class: "hint" });
	const error = make("p", { class: "error", role: "alert" });
	const cancel = make("button", { type: "button", class: "quiet", hidden: true, onclick: async () => {
		try {
			await post(`v1/studies/${id}/cancel`);
			document.dispatchEvent(new Event("try-now"));
		} catch (problem) {
			setText(error, problem.message);
		}
	} }, "Cancel the study");
	const table = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of jobs" });
	const plots = make("div");
	const known = new Map();
	const node = make("div", null, make("p", { class: "crumb" }, make("a", { href: "#/studies" }, "All studies")),
		make("div", { class: "bar" }, heading, cancel), state, error, plots, make("section", { class: "card", "aria-label": "Jobs" }, table));
	const view = { title: "Study", node, heading, poll, stop() {} };
	let last = "";

	async function poll(signal) {
		let study;
		try {
			study = await get(`v1/studies/${encodeURIComponent(id)}`, signal);
		} catch (problem) {
			if (problem.status !== 404) throw problem;
			return setText(error, "This study does not exist any more.");
		}
		setText(heading, study.name);
		setText(state, `${study.jobs} jobs: ${told(study.states)}`);
		cancel.hidden = study.finished;
		const text = JSON.stringify(study.rows);
		if (text === last) return;
		last = text;
		const datasets = [...new Set(study.rows.flatMap((row) => Object.keys(row.perplexity || {})))];
		table.replaceChildren(tableOf(study, datasets));
		for (const name of datasets) {
			if (!known.has(name)) {
				known.set(name, new Plot(name));
				plots.append(known.get(name).node);
			}
			known.get(name).update(study.rows);
		}
	}
	return view;
}
