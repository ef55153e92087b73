// The form that submits a job.
import { get, post } from "./api.js";
import { copyButton, curlSubmit, specAgain } from "./curl.js";
import { announce, bytes, freshId, make } from "./dom.js";
import { DATASET, GROUPS } from "./fields.js";
import { lookUp, merge, parse, place, remainder, textOf } from "./spec.js";

// ---- one field --------------------------------------------------------------------------------------------------------------

// The files that fields of the kind "file" offer.
const FILES = "data-files";

function control(field, id) {
	if (field.kind === "flag") return make("input", { type: "checkbox", id });
	if (field.kind === "map") return make("textarea", { id, rows: 2, placeholder: field.placeholder, spellcheck: "false" });
	if (field.kind === "choice" || field.kind === "model")
		return make("select", { id }, (field.choices || []).map((value) => make("option", { value }, value || "default")));
	return make("input", { type: "text", id, inputmode: field.kind === "number" ? "decimal" : null, placeholder: field.placeholder,
		list: field.kind === "file" ? FILES : null, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
}

class Field {
	constructor(definition) {
		this.definition = definition;
		this.id = freshId("field");
		this.input = control(definition, this.id);
		this.hint = definition.hint ? make("p", { class: "hint", id: `${this.id}-hint` }, definition.hint) : null;
		this.error = make("p", { class: "error", id: `${this.id}-error`, hidden: true });
		const label = make("label", { for: this.id }, definition.label);
		const flag = definition.kind === "flag";
		this.node = make("div", { class: `field${flag ? " flag" : ""}` }, flag ? [this.input, label] : [label, this.input], this.hint, this.error);
		if (definition.value !== undefined) this.input.value = definition.value;
		this.complain([]);
		this.input.addEventListener("input", () => this.complain([]));
	}

	get value() {
		if (this.definition.kind === "flag") return this.input.checked || undefined;
		return parse(this.definition, this.input.value);
	}

	set value(value) {
		if (this.definition.kind === "flag") this.input.checked = Boolean(value);
		else this.input.value = textOf(this.definition, value) ?? "";
	}

	complain(texts) {
		this.error.hidden = texts.length === 0;
		this.error.textContent = texts.join("; ");
		if (texts.length) this.input.setAttribute("aria-invalid", "true");
		else this.input.removeAttribute("aria-invalid");
		const described = [this.hint?.id, texts.length ? this.error.id : null].filter(Boolean).join(" ");
		if (described) this.input.setAttribute("aria-describedby", described);
		else this.input.removeAttribute("aria-describedby");
	}

	show() {
		const folded = this.node.closest("details");
		if (folded) folded.open = true;
		this.input.focus();
	}
}

// ---- the data sets to measure -----------------------------------------------------------------------------------------------

class Datasets {
	constructor() {
		this.rows = [];
		this.list = make("div", { class: "datasets" });
		this.button = make("button", { type: "button", class: "quiet", onclick: () => this.add().fields[0].input.focus() }, "Add a data set");
		this.node = make("fieldset", { class: "card" }, make("legend", null, "Perplexity"),
			make("p", { class: "hint" }, "Each file is measured with the dense and with the pruned model."), this.list, this.button);
	}

	add() {
		const row = { fields: DATASET.map((definition) => new Field(definition)) };
		const drop = make("button", { type: "button", class: "quiet", onclick: () => this.drop(row) }, "Remove");
		row.legend = make("legend");
		row.node = make("fieldset", { class: "dataset" }, row.legend, make("div", { class: "fields" }, row.fields.map((field) => field.node)), drop);
		this.rows.push(row);
		this.list.append(row.node);
		this.number();
		return row;
	}

	drop(row) {
		this.rows = this.rows.filter((other) => other !== row);
		row.node.remove();
		this.number();
		this.button.focus();
	}

	clear() {
		this.rows = [];
		this.list.replaceChildren();
	}

	number() {
		this.rows.forEach((row, n) => (row.legend.textContent = `Data set ${n + 1}`));
	}

	// All fields, by the pointer that they have now.
	fields() {
		return this.rows.flatMap((row, n) => row.fields.map((field) => [field.definition.pointer.replace("<n>", n), field]));
	}
}

// ---- the form ---------------------------------------------------------------------------------------------------------------

function modelOption(model) {
	const facts = model.supported ? [model.family, `${model.blocks} blocks`, bytes(model.bytes)] : [model.reason || "not supported"];
	const name = model.title ? `${model.title} ${model.name.slice(model.name.lastIndexOf("/") + 1).slice(0, 8)}` : model.name;
	return make("option", { value: model.name, disabled: !model.supported }, `${name} (${facts.filter(Boolean).join(", ")})`);
}

function fileOption({ name, kind, compression, size }) {
	const facts = [kind.replaceAll("_", " "), compression === "none" ? null : compression, bytes(size)];
	return make("option", { value: name }, facts.filter(Boolean).join(", "));
}

// Names a submission, so that one whose answer was lost can be sent again and is still one job.
function freshKey() {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Form {
	constructor(heading) {
		this.fixed = new Map(); // pointer: Field
		this.datasets = new Datasets();
		this.extra = new Field({ pointer: "", label: "More fields, as JSON", kind: "text" });
		this.sent = { body: null, key: null };
		this.files = make("datalist", { id: FILES });
		this.unreadable = new Map(); // file: why
		this.summary = make("div", { class: "summary", role: "alert", tabindex: -1, hidden: true });
		const shown = (folded) => GROUPS.filter((group) => Boolean(group.folded) === folded).map((group) => this.group(group));
		const area = make("textarea", { id: this.extra.id, rows: 4, spellcheck: "false", placeholder: "{ }" });
		this.extra.input.replaceWith(area);
		this.extra.input = area;
		area.addEventListener("input", () => this.extra.complain([]));
		this.submitButton = make("button", { class: "primary" }, "Submit");
		this.node = make("form", { novalidate: true, onsubmit: (event) => this.submit(event) }, this.summary, ...shown(false),
			this.datasets.node, ...shown(true), make("details", { class: "card" }, make("summary", null, "Other fields"), this.extra.node,
				make("p", { class: "hint" }, make("a", { href: "openapi.yaml" }, "The contract"), " has them all.")),
			make("p", { class: "buttons" }, this.submitButton, copyButton(() => this.command())), this.files);
		this.node.addEventListener("change", (event) => this.judgeFile(event.target));
		this.heading = heading;
		for (const pointer of ["/method", "/quantization/bits"]) this.input(pointer).addEventListener("change", () => this.adapt());
		this.adapt();
	}

	input(pointer) {
		return this.fixed.get(pointer).input;
	}

	group({ title, fields, folded, only }) {
		const made = fields.map((definition) => {
			const field = new Field(definition);
			this.fixed.set(definition.pointer, field);
			return field.node;
		});
		const content = make("div", { class: "fields" }, made);
		const node = folded ? make("details", { class: "card" }, make("summary", null, title), content)
			: make("fieldset", { class: "card" }, make("legend", null, title), content);
		if (only) node.dataset.only = only;
		return node;
	}

	// Some fields are of some methods only.
	adapt() {
		const method = this.input("/method").value;
		for (const node of this.node.querySelectorAll("[data-only]")) node.hidden = node.dataset.only !== method;
		this.fixed.get("/sparsity").node.hidden = method === "none";
		const evaluates = method === "none" && !this.input("/quantization/bits").value.trim();
		for (const pointer of ["/output", "/overwrite", "/archive", "/archive_coded", "/export"]) this.fixed.get(pointer).node.hidden = evaluates;
	}

	setModels(models) {
		const select = this.input("/model");
		const { value } = select;
		const usable = models.filter((model) => model.supported);
		select.replaceChildren(...(models.length ? [] : [make("option", { value: "" }, "none found below the model roots")]), ...models.map(modelOption));
		select.value = models.some((model) => model.name === value) ? value : usable[0]?.name ?? "";
	}

	setData(files) {
		this.files.replaceChildren(...files.filter((file) => file.supported).map(fileOption));
		this.unreadable = new Map(files.filter((file) => !file.supported).map((file) => [file.name, file.reason]));
	}

	// A file that besad has seen and cannot read is told before the job is sent.
	judgeFile(input) {
		const field = this.fields().map(([, other]) => other).find((other) => other.input === input);
		const reason = field?.definition.kind === "file" ? this.unreadable.get(input.value) : undefined;
		if (reason) field.complain([reason]);
	}

	fields() {
		return [...this.fixed, ...this.datasets.fields()];
	}

	// The spec as it stands. Throws a SyntaxError for what is no JSON.
	spec() {
		const spec = {};
		for (const [pointer, field] of this.fields()) {
			const value = field.node.closest("[hidden]") ? undefined : field.value;
			if (value !== undefined) place(spec, pointer, value);
		}
		this.datasets.rows.forEach((_, n) => lookUp(spec, `/evaluation/perplexity/${n}`) ?? place(spec, `/evaluation/perplexity/${n}`, {}));
		const more = this.extra.input.value.trim() === "" ? {} : JSON.parse(this.extra.input.value);
		if (more === null || typeof more !== "object" || Array.isArray(more)) throw new SyntaxError("an object is needed");
		return merge(spec, more);
	}

	fill(spec) {
		this.datasets.clear();
		for (const _ of spec.evaluation?.perplexity || []) this.datasets.add();
		const { d_coef: d, learning_rate: rate, ...besa } = spec.besa || {};
		// Each belongs to one optimizer, and the other's is no choice of the user's.
		const own = { ...spec, besa: { ...besa, ...(besa.optimizer === "adamw" ? { learning_rate: rate } : { d_coef: d }) } };
		for (const [pointer, field] of this.fields()) field.value = lookUp(own, pointer);
		const shown = this.fields().filter(([pointer, field]) => textOf(field.definition, lookUp(own, pointer)) !== undefined);
		const rest = remainder(spec, [...shown.map(([pointer]) => pointer), "/pattern"]);
		for (const set of rest.evaluation?.perplexity || []) if (set?.join === "\n\n") delete set.join;
		if (rest.evaluation?.perplexity?.every((set) => !set || Object.keys(set).length === 0)) delete rest.evaluation;
		this.extra.input.value = Object.keys(rest).length ? JSON.stringify(rest, null, 2) : "";
		this.adapt();
	}

	read() {
		try {
			return this.spec();
		} catch (error) {
			this.extra.complain([`This is no JSON object: ${error.message}`]);
			this.extra.show();
			return null;
		}
	}

	command() {
		const spec = this.read();
		return spec && curlSubmit(spec);
	}

	// The API's errors, each at its field; those of no field, and a list of all, above the form.
	complain(problem) {
		const byPointer = new Map(this.fields());
		const complaints = new Map();
		// Of an element of a list the list's field.
		const owner = (pointer) => byPointer.get(pointer) || (pointer ? owner(pointer.slice(0, pointer.lastIndexOf("/"))) : null);
		const items = (problem.errors || []).map(({ pointer, detail, header, parameter }) => {
			const field = owner(pointer) || (pointer ? this.extra : null);
			if (!field) return make("li", null, `${pointer ?? header ?? parameter ?? ""} ${detail}`);
			const text = field === this.extra ? `${pointer} ${detail}` : detail;
			complaints.set(field, [...(complaints.get(field) || []), text]);
			const go = (event) => {
				event.preventDefault();
				field.show();
			};
			return make("li", null, make("a", { href: `#${field.input.id}`, onclick: go }, `${field === this.extra ? "" : `${field.definition.label}: `}${text}`));
		});
		for (const [field, texts] of complaints) field.complain(texts);
		const title = items.length ? "besad did not take this job:" : problem.message;
		this.summary.replaceChildren(make("p", null, title), make("ul", null, items));
		this.summary.hidden = false;
		this.summary.focus();
	}

	clear() {
		this.summary.hidden = true;
		for (const [, field] of this.fields()) field.complain([]);
		this.extra.complain([]);
	}

	async submit(event) {
		event.preventDefault();
		this.clear();
		const spec = this.read();
		if (!spec || this.submitButton.disabled) return;
		const body = JSON.stringify(spec);
		if (this.sent.body !== body) this.sent = { body, key: freshKey() };
		this.submitButton.disabled = true;
		try {
			const job = await post("v1/jobs", { body, headers: { "Idempotency-Key": this.sent.key } });
			announce("The job is queued");
			location.hash = `#/job/${job.id}`;
		} catch (problem) {
			this.complain(problem.status ? problem : { message: "besad does not answer. Submitting again is safe: it will be one job." });
		} finally {
			this.submitButton.disabled = false;
		}
	}
}

// `template` is the id of a job whose spec fills the form, or nothing.
export function formView(template) {
	const heading = make("h2", { tabindex: -1 }, "New job");
	const form = new Form(heading);
	const node = make("div", null, make("p", { class: "crumb" }, make("a", { href: "#/" }, "All jobs")), heading, form.node);
	let loaded = false;
	let offered = false;

	async function poll(signal) {
		if (offered) return get("v1/info", signal);
		if (!loaded) {
			const [{ models }, job] = await Promise.all([get("v1/models", signal), template ? get(`v1/jobs/${template}`, signal) : null]);
			loaded = true;
			form.setModels(models);
			if (job) form.fill(specAgain(job));
		}
		form.setData((await get("v1/data", signal)).data);
		offered = true;
	}
	return { title: "New job", node, heading, poll, stop() {} };
}
