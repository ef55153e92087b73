// Two or more finished jobs side by side.
import { get } from "./api.js";
import { chart } from "./charts.js";
import { decimal, duration, jobName, make, percent, score, setText } from "./dom.js";
import { heatmap, span } from "./heatmap.js";
import { makesOutput } from "./spec.js";

// The fields of a spec by dotted path, without what differs in any two jobs.
function flatten(value, path = "", into = {}) {
	if (value !== null && typeof value === "object" && Object.keys(value).length)
		for (const [key, inner] of Object.entries(value)) flatten(inner, path ? `${path}.${key}` : key, into);
	else if (!["name", "output", "overwrite", "priority"].includes(path)) into[path] = typeof value === "string" ? value : JSON.stringify(value);
	return into;
}

function specRows(jobs) {
	const flat = jobs.map((job) => flatten(job.spec));
	const paths = [...new Set(flat.flatMap((spec) => Object.keys(spec)))];
	const told = ["model", "method", "sparsity"]; // whether or not they differ
	return paths.filter((path) => !told.includes(path) && new Set(flat.map((spec) => spec[path])).size > 1)
		.map((path) => [path, flat.map((spec) => spec[path] ?? "–")]);
}

// The index of the smallest value; none where they do not differ.
function best(values) {
	const known = values.filter((v) => typeof v === "number");
	if (known.length < 2 || new Set(known).size < 2) return -1;
	return values.indexOf(Math.min(...known));
}

function perplexityRows(jobs) {
	const names = [...new Set(jobs.flatMap((job) => Object.keys(job.result.perplexity)))];
	return names.flatMap((name) => {
		const of = (model) => jobs.map((job) => job.result.perplexity[name]?.[model] ?? null);
		const pruned = of("pruned");
		const change = jobs.map((job, i) => {
			const { dense } = job.result.perplexity[name] || {};
			return dense && pruned[i] ? `${pruned[i] >= dense ? "+" : "−"}${percent(Math.abs(pruned[i] / dense - 1))}` : "–";
		});
		return [[`${name}, dense`, of("dense").map((v) => decimal(v, 3))], [`${name}, pruned`, pruned.map((v) => decimal(v, 3)), best(pruned)],
			[`${name}, change`, change]];
	});
}

function taskRows(jobs) {
	const names = [...new Set(jobs.flatMap((job) => Object.keys(job.result.tasks)))];
	return names.flatMap((name) => ["acc", "acc_norm", "acc_bytes"].flatMap((key) => {
		const of = (model) => jobs.map((job) => job.result.tasks[name]?.[model] ?? null);
		const misses = of("pruned").map((scores) => (scores ? 1 - scores[key] : null));
		return [[`${name} ${key}, dense`, of("dense").map((scores) => score(scores, key))],
			[`${name} ${key}, pruned`, of("pruned").map((scores) => score(scores, key)), best(misses)]];
	}));
}

function rowsOf(jobs) {
	return [
		["Model", jobs.map((job) => job.spec.model)],
		["Method", jobs.map((job) => job.spec.method)],
		["Target", jobs.map((job) => percent(job.spec.sparsity))],
		["Zeros", jobs.map((job) => percent(job.result.sparsity, 3))],
		...perplexityRows(jobs),
		...taskRows(jobs),
		["Pruning time", jobs.map((job) => duration(job.result.pruning_seconds))],
		["Time in all", jobs.map((job) => duration(job.result.seconds)), best(jobs.map((job) => job.result.seconds))],
		...specRows(jobs),
	];
}

function comparison(jobs) {
	const head = make("tr", null, make("td"), jobs.map((job) => make("th", { scope: "col" }, make("a", { href: `#/job/${job.id}` }, jobName(job)))));
	const rows = rowsOf(jobs).map(([name, cells, winner]) => make("tr", null, make("th", { scope: "row" }, name), cells.map((cell, i) =>
		make("td", { class: i === winner ? "best" : null }, cell, i === winner ? make("span", { class: "unseen" }, " (best)") : ""))));
	return make("table", { class: "numbers compare" }, make("caption", { class: "unseen" }, "The jobs side by side"),
		make("thead", null, head), make("tbody", null, rows));
}

function lossChart(jobs, reports) {
	const picture = chart({ x: "block", y: "reconstruction loss", whole: true, zero: true, nothing: "These jobs used no data, so there is no loss." });
	const series = jobs.map((job, i) => ({ name: jobName(job), points: reports[i].blocks.map((b) => [b.block, b.reconstruction]) }));
	const count = Math.max(...reports.map((report) => report.blocks.length));
	picture.update(series, [0, Math.max(1, count - 1)], `Reconstruction loss of each block: ${jobs.map(jobName).join(", ")}`);
	return picture.node;
}

function heatmaps(jobs, reports) {
	const most = Math.max(...jobs.map((job, i) => span(reports[i].blocks, job.spec.sparsity)));
	return jobs.map((job, i) => make("section", { class: "card", "aria-label": `Learned sparsity of ${jobName(job)}` },
		make("h4", null, jobName(job)),
		heatmap(reports[i].blocks, reports[i].blocks.length, job.spec.sparsity, `Learned sparsity of ${jobName(job)}, per cent`, most)));
}

// Another job for the comparison, or one less.
function chooser(ids, jobs, candidates) {
	const select = make("select", { id: "compare-add" }, make("option", { value: "" }, "Add a job …"),
		candidates.map((job) => make("option", { value: job.id }, `${jobName(job)} (${job.spec.method})`)));
	select.addEventListener("change", () => select.value && (location.hash = `#/compare/${[...ids, select.value].join(",")}`));
	const less = jobs.length < 3 ? [] : jobs.map((job) => make("a", { class: "button quiet",
		href: `#/compare/${ids.filter((id) => id !== job.id).join(",")}` }, `Without ${jobName(job)}`));
	return make("p", { class: "buttons" }, make("label", { for: "compare-add", class: "unseen" }, "Add a job"), candidates.length ? select : "", less);
}

export function compareView(ids) {
	const heading = make("h2", { tabindex: -1 }, "Comparison");
	const error = make("p", { class: "error", role: "alert" });
	const place = make("div");
	const node = make("div", null, make("p", { class: "crumb" }, make("a", { href: "#/" }, "All jobs")), heading, error, place);
	let done = false;

	// What is finished does not change: once is enough.
	async function poll(signal) {
		if (done) return get("v1/jobs?limit=1", signal);
		try {
			const jobs = await Promise.all(ids.map((id) => get(`v1/jobs/${id}`, signal)));
			const usable = jobs.filter((job) => job.state === "succeeded" && makesOutput(job.spec));
			const reports = await Promise.all(usable.map((job) => get(`v1/jobs/${job.id}/report`, signal)));
			const others = (await get("v1/jobs?state=succeeded&limit=100", signal)).jobs
				.filter((job) => !ids.includes(job.id) && makesOutput(job.spec));
			done = true;
			if (usable.length < 2) return setText(error, "A comparison needs two jobs that have pruned a model.");
			const section = (title, ...content) => make("section", { class: "card", "aria-label": title }, make("h3", null, title), ...content);
			place.replaceChildren(chooser(ids, usable, others),
				section("Results", make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of results" }, comparison(usable))),
				section("Reconstruction loss of each block", lossChart(usable, reports)),
				make("h3", null, "Learned sparsity"), make("div", { class: "grid" }, heatmaps(usable, reports)));
		} catch (problem) {
			if (problem.status !== 404 && problem.status !== 400) throw problem;
			done = true;
			setText(error, "One of these jobs does not exist any more.");
		}
	}
	return { title: "Comparison", node, heading, poll, stop() {} };
}
