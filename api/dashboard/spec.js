// What the fields of the form (fields.js) and a spec have to do with each other. What is left empty is left out, and besad says what it takes
// instead; what cannot be read is sent as it is, so that besad's own words say what is wrong.

const steps = (pointer) => pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));

// Whether a job of that spec writes a model; without quantization the method none evaluates only.
export const makesOutput = (spec) => spec.method !== "none" || Boolean(spec.quantization);

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
	if (field.kind === "list") return trimmed.split(/[\s,]+/).filter(Boolean);
	if (field.kind === "map") {
		const notes = trimmed.split(/\s*\n\s*/).map((line) => [line, line.indexOf("=")]);
		return notes.every(([, at]) => at > 0) ? Object.fromEntries(notes.map(([line, at]) => [line.slice(0, at), line.slice(at + 1)])) : trimmed;
	}
	if (field.kind !== "number") return field.kind === "choice" ? trimmed : text;
	const number = Number(trimmed.replace("−", "-"));
	return Number.isFinite(number) ? number : trimmed;
}

// The text that stands for a value in a field; undefined where no text does.
export function textOf(field, value) {
	if (value === undefined || value === null) return "";
	if (field.kind === "list") return value.join(", ");
	if (field.kind !== "map") return String(value);
	const text = Object.entries(value).map((note) => note.join("=")).join("\n");
	return JSON.stringify(parse(field, text)) === JSON.stringify(value) ? text : undefined;
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
