// Learned sparsity, layer kind × block, as a table whose cells are coloured: its values can be read as any table's.
import { make, percent } from "./dom.js";

const LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const LEAST_SPAN = 0.01; // of the colour scale: smaller differences are not worth a colour
const STRONGEST = 60; // percent of colour in a cell, so that its text stays readable
const READABLE = 20; // blocks beside each other; the values of more are shown by colour alone, so that all fit the page
const NUMBERED = 10; // of so many columns without text one has its number

export function layerNames(blocks) {
	const names = new Set(blocks.flatMap((block) => Object.keys(block.layers)));
	return LAYERS.filter((name) => names.has(name)).concat([...names].filter((name) => !LAYERS.includes(name)));
}

const sparsity = (layer) => layer.zeros / layer.params;

// The largest distance from the target among all blocks of all jobs.
export function span(blocks, target) {
	const distances = blocks.flatMap((block) => Object.values(block.layers).map((layer) => Math.abs(sparsity(layer) - target)));
	return Math.max(LEAST_SPAN, ...distances);
}

function paint(cell, distance, most) {
	const share = Math.round(Math.min(1, Math.abs(distance) / most) * STRONGEST);
	cell.style.backgroundColor = `color-mix(in oklab, var(${distance > 0 ? "--more" : "--less"}) ${share}%, var(--surface))`;
}

function makeCell(layer, target, most, many) {
	if (!layer) return make("td", { class: "pending" }, make("span", { class: "unseen" }, "not yet"));
	const value = sparsity(layer);
	const title = `${percent(value, 2)} zeros of ${layer.params.toLocaleString("en")} weights, learned rate ${percent(layer.rate, 2)}`;
	const text = (100 * value).toFixed(1);
	const cell = make("td", { title }, many ? make("span", { class: "unseen" }, text) : text);
	paint(cell, value - target, most);
	return cell;
}

function legend(target, most) {
	const steps = [-1, -0.5, 0, 0.5, 1].map((part) => {
		const box = make("span", { class: "swatch" }, percent(target + part * most));
		paint(box, part, 1);
		return box;
	});
	return make("p", { class: "scale", "aria-hidden": "true" }, ...steps);
}

// blocks: [{ block, layers }]; `count` columns in all. Gives a node to put in place of the last one.
export function heatmap(blocks, count, target, caption, most = span(blocks, target)) {
	const byNumber = new Map(blocks.map((block) => [block.block, block]));
	const numbers = Array.from({ length: Math.max(count, ...blocks.map((b) => b.block + 1)) }, (_, i) => i);
	const many = numbers.length > READABLE;
	const shown = (n) => !many || n % NUMBERED === 0;
	const head = make("tr", null, make("th", { scope: "col" }, "Layer"), numbers.map((n) => make("th", { scope: "col" },
		make("span", { class: "unseen" }, `Block ${shown(n) ? "" : n}`), shown(n) ? String(n) : "")));
	const rows = layerNames(blocks).map((name) => make("tr", null, make("th", { scope: "row" }, name.replace("_proj", "")),
		numbers.map((n) => makeCell(byNumber.get(n)?.layers[name], target, most, many))));
	const table = make("table", { class: many ? "heatmap many" : "heatmap" }, make("caption", null, caption), make("thead", null, head), make("tbody", null, rows));
	return make("div", null, make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table), legend(target, most));
}
