// How many times fewer cycles the zeros leave on a simulated accelerator, layer kind × way of counting: bars in the cells of a table.
import { decimal, make, percent, svg } from "./dom.js";

const COUNTED = [["published", "As published"], ["corrected", "Corrected"], ["memory", "With memory traffic"]];
const HEIGHT = 8; // of a bar, of a cell that is 100 wide

const dense = (most) => svg("line", { x1: 100 / most, x2: 100 / most, y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke" });

function bar(speedup, most, index) {
	return svg("svg", { viewBox: `0 0 100 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "tick" },
		svg("g", { class: `bars series-${index}` }, svg("rect", { x: 0, y: 0, width: (100 * (speedup || 0)) / most, height: HEIGHT })),
		dense(most));
}

function cell({ cycles, dense_cycles: from, speedup }, most, index) {
	const title = `${cycles.toLocaleString("en")} cycles, ${from.toLocaleString("en")} without zeros`;
	return make("td", { title }, speedup === null ? "–" : `${decimal(speedup, 2)} ×`, bar(speedup, most, index));
}

// hardware: of a job's result. Gives a node.
export function speedups({ layers, simulated }) {
	const rows = [...layers, { layer: "all", params: layers.reduce((sum, l) => sum + l.params, 0),
		zeros: layers.reduce((sum, l) => sum + l.zeros, 0), simulated }];
	const most = Math.max(1, ...rows.flatMap((row) => COUNTED.map(([key]) => row.simulated[key].speedup || 0)));
	const caption = "How many times fewer cycles than without zeros; the line is once";
	return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
		make("table", { class: "numbers speedups" }, make("caption", null, caption),
			make("thead", null, make("tr", null, ["Layer", "Zeros", ...COUNTED.map(([, name]) => name)].map((text) => make("th", { scope: "col" }, text)))),
			make("tbody", null, rows.map((row) => make("tr", null, make("th", { scope: "row" }, row.layer.replace("_proj", "")),
				make("td", null, percent(row.zeros / row.params)),
				COUNTED.map(([key], i) => cell(row.simulated[key], most, i)))))));
}
