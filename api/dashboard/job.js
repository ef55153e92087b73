// One job, live.
import { get, hasToken, post, remove } from "./api.js";
import { chart, short } from "./charts.js";
import { alive, forget, lost } from "./connection.js";
import { copyButton, curlSubmit, specAgain } from "./curl.js";
import { announce, bytes, decimal, duration, element, isFinished, jobName, make, percent, score, setText, timeElement } from "./dom.js";
import { heatmap, layerNames } from "./heatmap.js";
import { stateBadge } from "./jobs.js";
import { WHOLE_MODEL, apply, currentBlock, newProgress, spoken } from "./progress.js";
import { makesOutput } from "./spec.js";
import { measuredSpeedups, simulatedSpeedups } from "./speedup.js";
import { follow } from "./stream.js";
import { tryPart } from "./try.js";

const SAMPLED = 12; // rows of the table of a loss curve
const QUIET = ["block.started", "block.step", "tune.step"]; // events that change nothing of the job itself

function card(title, ...content) {
	const heading = make("h3", null, title);
	const node = make("section", { class: "card", "aria-label": title }, heading, ...content);
	return { node, heading };
}

function table(caption, head, rows) {
	return make("table", { class: "numbers" }, make("caption", { class: "unseen" }, caption),
		make("thead", null, make("tr", null, head.map((text) => make("th", { scope: "col" }, text)))),
		make("tbody", null, rows.map(([first, ...rest]) => make("tr", null, make("th", { scope: "row" }, first),
			rest.map((cell) => make("td", null, cell))))));
}

const scroll = (label, content) => make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, content);

// ---- the parts of the page: each makes its node once and updates it ---------------------------------------------------------

function statePart(id, failed) {
	const badge = make("span");
	const heading = make("h2", { tabindex: -1 }, id);
	const bar = make("progress", { max: 1, "aria-label": "Progress of the job" });
	const line = make("p", { class: "how" });
	const error = make("p", { class: "error", role: "alert" });
	const facts = make("dl", { class: "facts" });
	const act = async (change) => {
		setText(error, "");
		try {
			await change();
			document.dispatchEvent(new Event("try-now"));
		} catch (problem) {
			failed(problem);
		}
	};
	const button = (text, change, look) => make("button", { type: "button", class: look, hidden: true, onclick: () => act(change) }, text);
	const cancel = button("Cancel", () => post(`v1/jobs/${id}/cancel`), "danger");
	const pause = button("Pause", () => post(`v1/jobs/${id}/pause`), "quiet");
	const resume = button("Resume", () => post(`v1/jobs/${id}/resume`), "primary");
	const retry = button("Retry", () => post(`v1/jobs/${id}/retry`), "primary");
	const forgetJob = button("Delete", async () => {
		if (!(await confirmDelete())) return;
		await remove(`v1/jobs/${id}`);
		location.hash = "#/";
	}, "danger");
	const again = make("a", { class: "button quiet", href: `#/new/${id}` }, "Use as a template");
	let current = null;
	const buttons = make("p", { class: "buttons" }, cancel, pause, resume, retry, again, copyButton(() => current && curlSubmit(specAgain(current))), forgetJob);
	const spec = make("pre", { tabindex: 0, "aria-label": "Spec as JSON" });
	const node = make("section", { class: "card", "aria-label": "State" }, make("div", { class: "bar" }, heading, badge), bar, line, error,
		buttons, facts, make("details", null, make("summary", null, "Spec with every default"), spec));

	function update(job) {
		const focused = document.activeElement;
		current = job;
		setText(heading, jobName(job));
		if (badge.textContent !== job.state) badge.replaceChildren(stateBadge(job.state));
		bar.value = job.progress.fraction;
		bar.hidden = isFinished(job.state);
		const { phase, block, blocks, fraction, eta_seconds: eta } = job.progress;
		const running = ["running", "cancelling", "pausing"].includes(job.state);
		setText(line, !running ? "" : [percent(fraction, 0), phase, blocks && phase === "pruning" ? `block ${Math.min(block + 1, blocks)} of ${blocks}` : null,
			eta === null ? null : `about ${duration(eta)} left`].filter(Boolean).join(" · "));
		setText(error, job.error ? `${job.error.code}: ${job.error.message}` : "");
		cancel.hidden = isFinished(job.state) || job.state === "cancelling";
		pause.hidden = !["queued", "running"].includes(job.state);
		resume.hidden = !["paused", "pausing"].includes(job.state);
		retry.hidden = !["failed", "cancelled"].includes(job.state);
		forgetJob.hidden = !isFinished(job.state);
		if (focused?.hidden && buttons.contains(focused)) heading.focus();
		facts.replaceChildren(...factsOf(job).flatMap(([name, value]) => [make("div", null, make("dt", null, name), make("dd", null, value))]));
		setText(spec, JSON.stringify(job.spec, null, 2));
	}
	return { node, heading, error, update };
}

function jobLinks(ids) {
	return make("span", null, ...ids.flatMap((id, i) => [i ? ", " : "", make("a", { href: `#/job/${id}` }, id)]));
}

function factsOf(job) {
	const { spec, result } = job;
	return [
		["Model", spec.model],
		["Method", spec.method],
		spec.method === "none" ? null : ["Target", `${percent(spec.sparsity)} ${spec.pattern}`],
		result && spec.method !== "none" ? ["Reached", `${percent(result.sparsity, 3)} zeros`] : null,
		result?.output || makesOutput(spec) ? ["Output", result?.output || spec.output] : null,
		["Submitted", timeElement(job.created_at)],
		job.started_at ? ["Started", timeElement(job.started_at)] : null,
		job.finished_at ? ["Finished", timeElement(job.finished_at)] : null,
		result ? ["Took", `${duration(result.seconds)}${!makesOutput(spec) ? "" : `, pruning ${duration(result.pruning_seconds)}`}`] : null,
		job.retry_at ? ["Next try", timeElement(job.retry_at)] : null,
		job.depends_on.length ? [job.waits_for.length ? "Waits for" : "Followed", jobLinks(job.waits_for.length ? job.waits_for : job.depends_on)] : null,
		job.attempt > 1 ? ["Attempt", String(job.attempt)] : null,
		...Object.entries(spec.metadata || {}),
	].filter(Boolean);
}

function confirmDelete() {
	const dialog = element("confirm-dialog");
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function curveName(block, curve) {
	if (block === WHOLE_MODEL) return "Whole model";
	return curve?.stage ? `Block ${block}, ${curve.stage}` : `Block ${block}`;
}

function curveState(curve, end) {
	const parts = [`step ${end.step} of ${curve.steps}: loss ${decimal(end.loss, 5)}`];
	if (end.reconstruction !== undefined) parts.push(`reconstruction ${decimal(end.reconstruction, 5)}`, `sparsity ${percent(end.sparsity, 2)}`);
	return parts.join(", ");
}

// Rows of a curve's table, some of its points.
function curveTable(name, points) {
	const every = Math.max(1, Math.ceil(points.length / SAMPLED));
	const shown = points.filter((_, i) => i % every === 0 || i === points.length - 1);
	if (shown[0].reconstruction === undefined) {
		return table(`Loss: ${name}`, ["Step", "Loss"], shown.map((p) => [String(p.step), decimal(p.loss, 6)]));
	}
	return table(`Loss: ${name}`, ["Step", "Loss", "Reconstruction", "Sparsity"],
		shown.map((p) => [String(p.step), decimal(p.loss, 6), decimal(p.reconstruction, 6), percent(p.sparsity, 2)]));
}

// The loss curve of the running block, or of another one if the user picks it.
function curvePart() {
	const picker = make("select", { id: "curve-block" });
	const line = make("p", { class: "how" });
	const picture = chart({ x: "step", y: "loss", whole: true, nothing: "The curve begins with the first learning step." });
	const values = make("div");
	const label = make("label", { for: "curve-block" }, "Block ");
	const details = make("details", { hidden: true }, make("summary", null, "Values"), values);
	const { node } = card("Loss of the running block", make("p", { class: "pick" }, label, picker), line, picture.node, details);
	let last = null;
	picker.addEventListener("change", () => update(last));
	details.addEventListener("toggle", () => update(last));

	function options(progress) {
		const wanted = ["", ...[...progress.curves.keys()].sort((a, b) => a - b).map(String)];
		if ([...picker.options].map((o) => o.value).join() === wanted.join()) return;
		const { value } = picker;
		picker.replaceChildren(...wanted.map((v) => make("option", { value: v }, v === "" ? "the running one" : Number(v) === WHOLE_MODEL ? "whole model" : v)));
		picker.value = wanted.includes(value) ? value : "";
	}

	function update(progress) {
		last = progress;
		options(progress);
		const block = picker.value === "" ? currentBlock(progress) : Number(picker.value);
		const curve = progress.curves.get(block);
		const points = curve?.points || [];
		const end = points.at(-1);
		picker.parentNode.hidden = progress.curves.size === 0;
		details.hidden = !end;
		const name = curveName(block, curve);
		setText(line, end ? `${name}, ${curveState(curve, end)}` : "");
		const series = [{ name: "loss", points: points.map((p) => [p.step, p.loss]) }];
		if (end?.reconstruction !== undefined) {
			series.push({ name: "reconstruction", points: points.map((p) => [p.step, p.reconstruction]), dashed: true });
		}
		picture.update(series, [0, curve?.steps || 1], end ? `Loss: ${name}: ${short(points[0].loss)} at step ${points[0].step}, ` +
			`${short(end.loss)} at step ${end.step} of ${curve.steps}` : "");
		if (end && details.open) values.replaceChildren(curveTable(name, points));
	}
	return { node, update };
}

function perplexityPart() {
	const values = make("div");
	const picture = chart({ x: "blocks pruned", y: "perplexity", whole: true, nothing: "" });
	const { node } = card("Perplexity", values, picture.node);

	function update(progress) {
		const blocks = [...progress.finished.values()].filter((b) => b.perplexity !== null).sort((a, b) => a.block - b.block);
		const sets = [...progress.perplexity];
		node.hidden = sets.length === 0 && blocks.length === 0;
		const rows = sets.map(([name, { dense, pruned }]) => [name, decimal(dense, 3), decimal(pruned, 3),
			dense && pruned ? `${pruned >= dense ? "+" : "−"}${percent(Math.abs(pruned / dense - 1))}` : "–"]);
		values.replaceChildren(rows.length ? table("Perplexity by data set", ["Data set", "Dense", "Pruned", "Change"], rows) : "");
		picture.node.hidden = blocks.length === 0;
		if (!blocks.length) return;
		const so = blocks.at(-1);
		const { perplexity_dense: dense } = so;
		const domain = [0, progress.blocks];
		const series = [{ name: "so far, a few sequences", points: blocks.map((b) => [b.block + 1, b.perplexity]) }];
		if (dense !== null) series.push({ name: "dense, the same sequences", points: domain.map((x) => [x, dense]), dashed: true });
		picture.update(series, domain, `Perplexity with ${so.block + 1} blocks pruned: ${short(so.perplexity)}` +
			`${dense === null ? "" : `, dense ${short(dense)}`}`);
	}
	return { node, update };
}

function tasksPart() {
	const values = make("div");
	const { node } = card("Zero-shot tasks", values);

	function update(progress) {
		const tasks = [...progress.tasks];
		node.hidden = tasks.length === 0;
		const rows = tasks.flatMap(([name, { dense, pruned }]) => ["acc", "acc_norm", "acc_bytes"].map((key) =>
			[`${name}, ${key}`, score(dense, key), score(pruned, key)]));
		values.replaceChildren(scroll("Table of scores", table("Accuracy by task, with standard errors", ["Task", "Dense", "Pruned"], rows)));
	}
	return { node, update };
}

function blocksPart() {
	const picture = chart({ x: "block", y: "reconstruction loss", bars: true, whole: true, nothing: "No block has finished yet." });
	const values = make("div");
	const details = make("details", null, make("summary", null, "Values, and each layer's sparsity"), values);
	const { node } = card("Reconstruction loss of finished blocks", picture.node, details);
	details.addEventListener("toggle", () => details.open && fillTable());
	let blocks = [];

	function fillTable() {
		const names = layerNames(blocks);
		values.replaceChildren(scroll("Finished blocks", table("Finished blocks",
			["Block", "Loss", "Zeros", ...names.map((name) => name.replace("_proj", "")), "Time"],
			blocks.map((b) => [String(b.block), decimal(b.reconstruction, 5), percent(b.sparsity, 2),
				...names.map((name) => (b.layers[name] ? percent(b.layers[name].zeros / b.layers[name].params, 2) : "–")), duration(b.seconds)]))));
	}

	function update(progress) {
		if (blocks.length === progress.finished.size && blocks.length) return;
		blocks = [...progress.finished.values()].sort((a, b) => a.block - b.block);
		details.hidden = blocks.length === 0;
		const end = blocks.at(-1);
		picture.update([{ name: "reconstruction loss", points: blocks.map((b) => [b.block, b.reconstruction]) }],
			[-0.6, (progress.blocks || blocks.length) - 0.4],
			end ? `Reconstruction loss of ${blocks.length} of ${progress.blocks} blocks; block ${end.block}: ${decimal(end.reconstruction, 5)}` : "");
		if (details.open) fillTable();
	}
	return { node, update };
}

function heatmapPart() {
	const place = make("div", null, make("p", { class: "nothing" }, "Each finished block adds a column."));
	const { node } = card("Learned sparsity, per cent", place);
	let shown = 0;

	function update(progress, job) {
		if (progress.finished.size === shown || job.spec.method === "none") return;
		shown = progress.finished.size;
		const at = place.querySelector(".scroll")?.scrollLeft || 0;
		const focused = place.contains(document.activeElement);
		place.replaceChildren(heatmap([...progress.finished.values()], progress.blocks, job.spec.sparsity, "Learned sparsity of each layer in each block"));
		const region = place.querySelector(".scroll");
		region.scrollLeft = at;
		if (focused) region.focus();
	}
	return { node, update };
}

// key: of the result's `hardware`, which is there where there is something to show.
function hardwarePart(title, key, table) {
	const place = make("div");
	const { node } = card(title, place);
	let shown = null;

	function update(progress, job) {
		const hardware = job.result?.hardware || null;
		node.hidden = !hardware?.[key];
		if (node.hidden || shown === job.finished_at) return;
		shown = job.finished_at;
		place.replaceChildren(table(hardware));
	}
	return { node, update };
}

// A link cannot send a token, so where there is one the files are only listed.
function artifactsPart(id, signal) {
	const place = make("div");
	const { node } = card("Files of the output", place);
	node.hidden = true;
	let shown = null;

	function name(file) {
		const path = file.name.split("/").map(encodeURIComponent).join("/");
		return hasToken() ? file.name : make("a", { href: `v1/jobs/${id}/artifacts/${path}`, download: "" }, file.name);
	}

	async function update(progress, job) {
		if (job.state !== "succeeded" || !job.result.output) node.hidden = true;
		if (job.state !== "succeeded" || !job.result.output || shown === job.finished_at) return;
		shown = job.finished_at;
		try {
			const { artifacts } = await get(`v1/jobs/${id}/artifacts`, signal);
			place.replaceChildren(scroll("Table of files", table("Files of the output", ["File", "Size", "SHA-256"],
				artifacts.map((file) => [name(file), bytes(file.bytes), file.sha256]))));
		} catch (problem) {
			if (signal.aborted) return;
			place.replaceChildren(make("p", { class: "nothing" }, problem.message));
		}
		node.hidden = false;
	}
	return { node, update };
}

function warningsPart() {
	const list = make("ul", { class: "warnings" });
	const { node } = card("Warnings", list);
	let shown = -1;
	function update(progress) {
		const count = [...progress.warnings.values()].reduce((sum, warning) => sum + warning.count, 0);
		if (count === shown) return;
		shown = count;
		node.hidden = count === 0;
		list.replaceChildren(...[...progress.warnings].map(([message, { count: n, change }]) => make("li", null,
			n > 1 ? `${message} (${n} times)` : message, change ? make("p", null, `To change: ${change}.`) : null)));
	}
	return { node, update };
}

// ---- the page ---------------------------------------------------------------------------------------------------------------

export function jobView(id) {
	const ended = new AbortController();
	const progress = newProgress();
	const state = statePart(id, (problem) => setText(state.error, problem.message));
	const parts = [curvePart(), heatmapPart(), blocksPart(), perplexityPart(), tasksPart(),
		hardwarePart("On a simulated accelerator", "simulated", simulatedSpeedups),
		hardwarePart("Timed on the processor", "decode", measuredSpeedups), warningsPart(),
		artifactsPart(id, ended.signal), tryPart(ended.signal)];
	const [curve, heat, blocks, perplexity, tasks, simulated, measured, warnings, artifacts, trial] = parts;
	const grid = make("div", { class: "grid" }, curve.node, blocks.node, perplexity.node, tasks.node, simulated.node, measured.node);
	const node = make("div", null, make("p", { class: "crumb" }, make("a", { href: "#/" }, "All jobs")), state.node, warnings.node, grid, heat.node,
		trial.node, artifacts.node);
	let job = null;
	let drawing = false;
	let streaming = false;

	function draw() {
		if (drawing || !job) return;
		drawing = true;
		setTimeout(() => {
			drawing = false;
			if (ended.signal.aborted) return;
			const learns = job.spec.method === "besa" || progress.curves.size > 0;
			for (const part of parts) part.update(progress, job);
			curve.node.hidden = !learns;
			if (job.spec.method === "none") heat.node.hidden = true;
			if (!makesOutput(job.spec)) blocks.node.hidden = true;
		}, 60);
	}

	function gone(problem) {
		if (problem.status === 401) return; // the page asks for the token, then starts this view anew
		forget("stream");
		setText(state.error, problem.status === 404 ? "There is no such job; it may have been deleted." : problem.message);
	}

	function start() {
		streaming = true;
		follow(id, ended.signal, {
			event(event) {
				apply(progress, event);
				draw();
				const words = Date.now() - Date.parse(event.created_at) < 5000 ? spoken(event) : null;
				if (words) announce(words);
				if (!QUIET.includes(event.type)) poll(ended.signal).catch(() => {});
			},
			connected: (is) => (is ? alive : lost)("stream"),
			end() {
				streaming = false;
				forget("stream");
				poll(ended.signal).catch(() => {});
			},
			refused: gone,
		});
	}

	async function poll(signal) {
		try {
			job = await get(`v1/jobs/${id}`, signal);
		} catch (problem) {
			if (problem.status === 404) return gone(problem);
			throw problem;
		}
		if (ended.signal.aborted) return;
		state.update(job);
		document.title = `${jobName(job)} · ${job.state} · besad`;
		draw();
		// A finished job that was retried has a stream again; its past events come again too.
		if (!streaming && !isFinished(job.state)) {
			Object.assign(progress, newProgress());
			start();
		}
	}

	start();
	return { title: "Job", node, heading: state.heading, poll, stop() {
		ended.abort();
		forget("stream");
	} };
}
