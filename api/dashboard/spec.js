// The fields of the form, each with the JSON pointer of what it fills in a spec. What is left empty is left out, and besad says what
// it takes instead; what cannot be read is sent as it is, so that besad's own words say what is wrong.

export const choices = (...names) => names.map((name) => ({ value: name, text: name }));

export const GROUPS = [
	{ title: "Model and output", fields: [
		{ pointer: "/model", label: "Model", kind: "model" },
		{ pointer: "/name", label: "Name", hint: "For people; any text." },
		{ pointer: "/output", label: "Output", hint: "A directory below the output root. {id} and {date} are filled in.", placeholder: "<model>-<method>-{id}" },
		{ pointer: "/overwrite", label: "Replace the output if it exists", kind: "flag" },
	] },
	{ title: "Pruning", fields: [
		{ pointer: "/method", label: "Method", kind: "choice", choices: choices("besa", "wanda", "magnitude", "none"), value: "besa" },
		{ pointer: "/sparsity", label: "Sparsity", kind: "number", value: "0.5", hint: "Part of the weights to be zero, 0 to 0.95." },
		{ pointer: "/precision", label: "Precision", kind: "choice", choices: choices("auto", "f32", "bf16"), value: "auto" },
	] },
	{ title: "Calibration", fields: [
		{ pointer: "/calibration/path", label: "Calibration data", kind: "file", hint: "A file below the data roots; empty for the daemon's own." },
		{ pointer: "/calibration/field", label: "Field of the text", placeholder: "text",
			hint: "Of JSON rows: text, messages, data.0.content …" },
		{ pointer: "/calibration/samples", label: "Samples", kind: "number", placeholder: "128" },
		{ pointer: "/calibration/sequence_length", label: "Sequence length", kind: "number", placeholder: "2048, or what the model takes" },
		{ pointer: "/calibration/seed", label: "Seed", kind: "number", placeholder: "0" },
	] },
	{ title: "BESA settings", folded: true, only: "besa", fields: [
		{ pointer: "/besa/granularity", label: "Granularity", kind: "choice", choices: choices("", "row", "layer") },
		{ pointer: "/besa/importance", label: "Importance", kind: "choice", choices: choices("", "wanda", "magnitude") },
		{ pointer: "/besa/epochs", label: "Epochs", kind: "number", placeholder: "1" },
		{ pointer: "/besa/batch_size", label: "Batch size", kind: "number", placeholder: "1" },
		{ pointer: "/besa/candidates", label: "Candidate rates", kind: "number", placeholder: "101" },
		{ pointer: "/besa/lambda", label: "Lambda", kind: "number", placeholder: "5", hint: "Weight of the sparsity term of the loss." },
		{ pointer: "/besa/optimizer", label: "Optimizer", kind: "choice", choices: choices("", "prodigy", "adamw") },
		{ pointer: "/besa/d_coef", label: "Prodigy's d_coef", kind: "number" },
		{ pointer: "/besa/learning_rate", label: "AdamW's learning rate", kind: "number", placeholder: "0.01" },
		{ pointer: "/besa/target", label: "Target", kind: "choice", choices: choices("", "block", "dense_stream") },
		{ pointer: "/besa/parameterization", label: "Parameterization", kind: "choice", choices: choices("", "auto", "sigmoid", "softmax") },
	] },
	{ title: "Queueing", folded: true, fields: [
		{ pointer: "/priority", label: "Priority", kind: "number", placeholder: "0", hint: "Higher goes first; −100 to 100." },
		{ pointer: "/timeout_seconds", label: "Time limit in seconds", kind: "number", placeholder: "0, none" },
	] },
];

// Of each data set to measure; <n> is its place in the list.
export const DATASET = [
	{ pointer: "/evaluation/perplexity/<n>/path", label: "File", kind: "file", hint: "Below the data roots." },
	{ pointer: "/evaluation/perplexity/<n>/name", label: "Name", placeholder: "from the file" },
	{ pointer: "/evaluation/perplexity/<n>/field", label: "Field of the text", placeholder: "text" },
	{ pointer: "/evaluation/perplexity/<n>/sequence_length", label: "Sequence length", kind: "number" },
];

const steps = (pointer) => pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));

export function lookUp(spec, pointer) {
	return steps(pointer).reduce((value, step) => value?.[step], spec);
}

export function place(spec, pointer, value) {
	const path = steps(pointer);
	const last = path.pop();
	let at = spec;
	path.forEach((step, i) => {
		at[step] ??= /^[0-9]+$/.test(path[i + 1] ?? last) ? [] : {};
		at = at[step];
	});
	at[last] = value;
}

// The value that the text of a field stands for; undefined for none.
export function parse(field, text) {
	const trimmed = text.trim();
	if (trimmed === "") return undefined;
	if (field.kind !== "number") return field.kind === "choice" ? trimmed : text;
	const number = Number(trimmed.replace("−", "-"));
	return Number.isFinite(number) ? number : trimmed;
}

// What of a spec no field of the form shows, as an object to be merged into what the form makes; {} for nothing.
export function remainder(spec, pointers) {
	const rest = structuredClone(spec);
	const known = new Set(pointers);
	const strip = (value, path) => {
		for (const key of Object.keys(value)) {
			const here = `${path}/${key}`;
			if (known.has(here)) delete value[key];
			else if (value[key] !== null && typeof value[key] === "object") {
				strip(value[key], here);
				if (Object.values(value[key]).every((inner) => inner === undefined)) delete value[key];
			}
		}
	};
	strip(rest, "");
	return rest;
}

export function merge(into, from) {
	for (const [key, value] of Object.entries(from)) {
		const both = [into[key], value].every((v) => v !== null && typeof v === "object" && !Array.isArray(v));
		if (both) merge(into[key], value);
		else into[key] = value;
	}
	return into;
}
