// A line or bar chart in SVG, drawn at the width it has. Series differ by colour and by dashes. A screen reader gets a summary as the
// image's name, and every value from a table beside it; a pointer gets the values under it.
import { make, setText, svg } from "./dom.js";

const MARGIN = { top: 10, right: 14, bottom: 32, left: 58 };
const HEIGHT = 230;

// About `count` round numbers that span low to high.
export function ticks(low, high, count) {
	if (!(high > low)) return [low];
	const rough = (high - low) / count;
	const power = 10 ** Math.floor(Math.log10(rough));
	const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
	const result = [];
	for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) result.push(i * step);
	return result;
}

export function short(value) {
	if (value === 0) return "0";
	const size = Math.abs(value);
	if (size >= 1e6 || size < 1e-4) return value.toExponential(1);
	return String(Number(value.toPrecision(3)));
}

function range(values, zero) {
	let low = Math.min(...values);
	let high = Math.max(...values);
	if (zero) low = Math.min(0, low);
	if (high - low < 1e-12) [low, high] = [low - Math.abs(low) * 0.1 - 1e-6, high + Math.abs(high) * 0.1 + 1e-6];
	const pad = (high - low) * 0.06;
	return [zero && low === 0 ? 0 : low - pad, high + pad];
}

// The largest of `xs`, in order, that is nearest to x.
function nearest(xs, x) {
	let best = 0;
	for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - x) <= Math.abs(xs[best] - x)) best = i;
	return xs[best];
}

class Chart {
	constructor({ x, y, bars = false, whole = false, zero = bars, nothing }) {
		this.options = { x, y, bars, whole, zero };
		this.data = { series: [], domain: null, summary: "" };
		this.plot = make("div", { class: "plot" });
		this.readout = make("p", { class: "readout", "aria-hidden": "true" });
		this.legend = make("ul", { class: "legend" });
		this.nothing = make("p", { class: "nothing" }, nothing);
		this.node = make("div", { class: "chart" }, this.nothing, this.legend, this.plot, this.readout);
		new ResizeObserver(() => this.draw()).observe(this.plot);
		this.plot.addEventListener("pointermove", (event) => this.point(event));
		this.plot.addEventListener("pointerleave", () => this.unpoint());
	}

	// series: [{ name, points: [[x, y] …], dashed, loose }], loose ones without a line; points without a y are left out. domain: [from, to] of x.
	update(series, domain, summary) {
		for (const one of series) one.points = one.points.filter(([, y]) => y !== null && y !== undefined);
		this.data = { series: series.filter((one) => one.points.length), domain, summary };
		this.draw();
	}

	draw() {
		const { series, domain, summary } = this.data;
		const empty = series.length === 0;
		this.nothing.hidden = !empty;
		this.plot.hidden = this.legend.hidden = this.readout.hidden = empty;
		const width = this.plot.clientWidth;
		if (empty || width === 0) return;
		const ys = series.flatMap((one) => one.points.map(([, y]) => y));
		const [low, high] = range(ys, this.options.zero);
		const [from, to] = domain;
		const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
		this.scale = {
			x: (v) => MARGIN.left + ((v - from) / (to - from || 1)) * inner.width,
			y: (v) => MARGIN.top + (1 - (v - low) / (high - low)) * inner.height,
			back: (pixel) => from + ((pixel - MARGIN.left) / inner.width) * (to - from),
		};
		this.cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
		const image = svg("svg", { role: "img", "aria-label": summary, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` },
			this.axes(low, high, from, to, width), series.map((one, i) => this.mark(one, i)), this.cursor);
		this.plot.replaceChildren(image);
		this.drawLegend(series);
	}

	axes(low, high, from, to, width) {
		const { x, y, whole } = this.options;
		const rows = ticks(low, high, 4).map((value) => svg("g", { class: "tick" },
			svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: this.scale.y(value), y2: this.scale.y(value) }),
			svg("text", { x: MARGIN.left - 6, y: this.scale.y(value) + 4, "text-anchor": "end" }, short(value))));
		const columns = ticks(from, to, Math.max(2, Math.floor(width / 90)))
			.filter((value) => !whole || Number.isInteger(Number(value.toFixed(6))))
			.map((value) => svg("g", { class: "tick" }, svg("text",
				{ x: this.scale.x(value), y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "middle" }, short(value))));
		const title = svg("text", { class: "axis", x: width - MARGIN.right, y: HEIGHT - 3, "text-anchor": "end" }, x);
		const up = svg("text", { class: "axis", x: -(HEIGHT - MARGIN.bottom + MARGIN.top) / 2, y: 12, transform: "rotate(-90)",
			"text-anchor": "middle" }, y);
		return [...rows, ...columns, title, up];
	}

	mark(one, index) {
		const { x, y } = this.scale;
		if (this.options.bars) {
			const [from, to] = this.data.domain;
			const width = Math.min(36, Math.max(2, (x(to) - x(from)) / (to - from || 1) * 0.7));
			const base = HEIGHT - MARGIN.bottom;
			return svg("g", { class: `bars series-${index % 6}` }, one.points.map(([at, value]) => svg("rect",
				{ x: x(at) - width / 2, y: y(value), width, height: Math.max(1, base - y(value)) })));
		}
		const path = one.points.map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
		const dots = one.points.length <= 40 && !one.dashed;
		return svg("g", { class: `line series-${index % 6}${one.dashed ? " dashed" : ""}` }, one.loose ? [] : svg("path", { d: path }),
			dots ? one.points.map(([at, value]) => svg("circle", { cx: x(at), cy: y(value), r: one.loose ? 4 : 2.5 })) : []);
	}

	drawLegend(series) {
		const key = series.map((one) => one.name).join("\n");
		if (this.key === key) return;
		this.key = key;
		this.legend.hidden = series.length < 2 && !series[0]?.always;
		this.legend.replaceChildren(...series.map((one, i) => make("li", null,
			svg("svg", { width: 28, height: 10, "aria-hidden": "true", class: `line series-${i % 6}${one.dashed ? " dashed" : ""}` },
				one.loose ? svg("circle", { cx: 14, cy: 5, r: 4 }) : svg("path", { d: "M0 5L28 5" })), one.name)));
	}

	point(event) {
		const { series } = this.data;
		if (!series.length) return;
		const xs = [...new Set(series.flatMap((one) => one.points.map(([x]) => x)))].sort((a, b) => a - b);
		const x = nearest(xs, this.scale.back(event.clientX - this.plot.getBoundingClientRect().left));
		for (const side of ["x1", "x2"]) this.cursor.setAttribute(side, this.scale.x(x));
		this.cursor.setAttribute("visibility", "visible");
		const values = series.map((one) => [one, one.points.find(([at]) => at === x)]).filter(([, point]) => point);
		setText(this.readout, `${this.options.x} ${short(x)}: ${values.map(([one, [, y]]) => `${one.name} ${y.toPrecision(5)}`).join(", ")}`);
	}

	unpoint() {
		this.cursor?.setAttribute("visibility", "hidden");
		setText(this.readout, "");
	}
}

// options: x and y, the axes' names; nothing, what stands there before there is data; bars; whole, x has whole numbers only; zero, y
// begins at 0. Gives { node, update(series, domain, summary) }.
export const chart = (options) => new Chart(options);
