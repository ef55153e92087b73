// What the zeros are worth on hardware, by kinds of layers: bars in the cells of a table, of cycles of a simulated accelerator, by ways of
// counting, or of times measured.
import { decimal, make, percent, svg } from "./dom.js";

const COUNTED = [["published", "As published"], ["corrected", "Corrected"], ["memory", "With memory traffic"]];
const HEIGHT = 8; // of a bar, of a cell that is 100 wide

const dense = (most) => svg("line", { x1: 100 / most, x2: 100 / most, y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke" });

function bar(speedup, most, index) {
	return svg("svg", { viewBox: `0 0 100 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "tick" },
		svg("g", { class: `bars series-${index}` }, svg("rect", { x: 0, y: 0, width: (100 * (speedup || 0)) / most, height: HEIGHT })),
		dense(most));
}

function cell(title, speedup, most, index) {
	return make("td", { title }, speedup === null ? "–" : `${decimal(speedup, 2)} ×`, bar(speedup, most, index));
}

function cyclesCell({ cycles, dense_cycles: from, speedup }, most, index) {
	return cell(`${cycles.toLocaleString("en")} cycles, ${from.toLocaleString("en")} without zeros`, speedup, most, index);
}

const total = (layers, key) => layers.reduce((sum, layer) => sum + layer[key], 0);
const allOf = (layers) => ({ layer: "all", params: total(layers, "params"), zeros: total(layers, "zeros") });

// cells: gives those of a row, behind its name and its zeros.
function table(caption, columns, rows, cells) {
	return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
		make("table", { class: "numbers speedups" }, make("caption", null, caption),
			make("thead", null, make("tr", null, ["Layer", "Zeros", ...columns].map((text) => make("th", { scope: "col" }, text)))),
			make("tbody", null, rows.map((row) => make("tr", null, make("th", { scope: "row" }, row.layer.replace("_proj", "")),
				make("td", null, percent(row.zeros / row.params)), cells(row))))));
}

// hardware: of a job's result. Both give a node.
export function simulatedSpeedups({ layers, simulated }) {
	const rows = [...layers, { ...allOf(layers), simulated }];
	const most = Math.max(1, ...rows.flatMap((row) => COUNTED.map(([key]) => row.simulated[key].speedup || 0)));
	return table("How many times fewer cycles than without zeros; the line is once", COUNTED.map(([, name]) => name), rows,
		(row) => COUNTED.map(([key], i) => cyclesCell(row.simulated[key], most, i)));
}

export function measuredSpeedups({ layers, decode }) {
	const rows = [...layers, { ...allOf(layers), measured: decode }];
	const most = Math.max(1, ...rows.map((row) => row.measured.speedup));
	const threads = `${decode.threads} thread${decode.threads === 1 ? "" : "s"}`;
	return table(`Products of one token by ${threads}, in microseconds, and how many times faster without the zeros; the line is once`,
		["Dense", "Without zeros", "Times"], rows, ({ measured }) => [make("td", null, decimal(measured.dense_us, 1)),
			make("td", null, decimal(measured.sparse_us, 1)), cell(null, measured.speedup, most, 0)]);
}
