// A prompt for the job's finished model and for the dense one that it was made of, one after the other, where besad serves models.
import { get, request } from "./api.js";
import { announce, freshId, make, setText } from "./dom.js";
import { readEvents } from "./stream.js";

const TOKENS = 64;

// Calls `add` with each piece of the text that the model makes of the prompt.
async function complete(model, prompt, signal, add) {
	const body = JSON.stringify({ model, prompt, max_tokens: TOKENS, stream: true });
	const response = await request("POST", "v1/completions", { body, signal, endless: true });
	for await (const { data } of readEvents(response.body, () => {})) {
		if (data === "[DONE]") return;
		const { error, choices } = JSON.parse(data);
		if (error) throw new Error(error.message);
		add(choices[0].text);
	}
	throw new Error("The text broke off.");
}

function answer(title) {
	const text = make("pre", { tabindex: 0, "aria-label": `${title}: text` });
	const error = make("p", { class: "error", role: "alert" });
	const name = make("span");
	return { text, error, name, node: make("div", null, make("h4", null, `${title}: `, name), text, error) };
}

export function tryPart(signal) {
	const id = freshId("prompt");
	const prompt = make("textarea", { id, rows: 3, required: true, maxlength: 4000 });
	const button = make("button", { class: "primary" }, "Try it");
	const stop = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => running?.abort() }, "Stop");
	const answers = [answer("Pruned"), answer("Dense")];
	const form = make("form", { onsubmit: start }, make("div", { class: "field" }, make("label", { for: id }, "Prompt"), prompt),
		make("p", { class: "buttons" }, button, stop));
	const node = make("section", { class: "card", "aria-label": "Try it", hidden: true }, make("h3", null, "Try it"), form,
		make("div", { class: "answers" }, answers.map((a) => a.node)));
	let running = null;
	let served = null; // a promise of whether models are
	let models = null;

	async function start(event) {
		event.preventDefault();
		if (running) return;
		running = new AbortController();
		const either = AbortSignal.any([signal, running.signal]);
		button.disabled = true;
		stop.hidden = false;
		for (const { text, error } of answers) [text, error].forEach((part) => setText(part, ""));
		for (const [i, { text, error }] of answers.entries()) {
			try {
				setText(text, prompt.value);
				if (!either.aborted) await complete(models[i], prompt.value, either, (piece) => text.append(piece));
			} catch (problem) {
				if (!either.aborted) setText(error, problem.message);
			}
		}
		running = null;
		button.disabled = false;
		stop.hidden = true;
		if (!either.aborted) announce("The texts are there.");
	}

	async function update(progress, job) {
		const output = job.state === "succeeded" ? job.result.output : null;
		if (output) served ??= get("v1/info", signal).then((info) => info.serves_models, () => false);
		node.hidden = !output || !(await served);
		if (node.hidden) return;
		models = [output, job.spec.model];
		answers.forEach(({ name }, i) => setText(name, models[i]));
	}
	return { node, update };
}
