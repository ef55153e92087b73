// Making elements, and how numbers, times and sizes are written. Text goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes || {})) {
		if (value === undefined || value === null || value === false) continue;
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
	return node;
}

// make("a", { href: "#/", onclick: f }, "text", node …)
export function make(tag, attributes, ...children) {
	return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
	return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const element = (id) => document.getElementById(id);

// Changes the text only where it differs, so that screen readers and selections are left alone.
export function setText(node, text) {
	const wanted = text === null || text === undefined ? "" : String(text);
	if (node.textContent !== wanted) node.textContent = wanted;
}

let announcement = 0;

// Tells a screen reader; of many in a row, the last.
export function announce(text) {
	clearTimeout(announcement);
	announcement = setTimeout(() => setText(element("announcer"), text), 500);
}

let ids = 0;
export const freshId = (prefix) => `${prefix}-${++ids}`;

export function duration(seconds) {
	if (seconds === null || seconds === undefined) return "";
	if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
	const s = Math.round(seconds);
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
	return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function bytes(count) {
	if (count === null || count === undefined) return "unknown";
	const units = ["B", "kB", "MB", "GB", "TB"];
	let unit = 0;
	for (; count >= 999.5 && unit < units.length - 1; unit++) count /= 1000;
	return `${unit && count < 99.5 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export const percent = (rate, digits = 1) => (rate === null || rate === undefined ? "–" : `${(100 * rate).toFixed(digits)} %`);
export const decimal = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
// The score `key` ("acc") of a task's scores, with its standard error.
export const score = (scores, key) => (scores?.[key] !== undefined ? `${percent(scores[key])} ± ${percent(scores[`${key}_stderr`])}` : "–");
export const clock = (date) => new Date(date).toLocaleTimeString("en-GB");

export function moment(date) {
	const then = new Date(date);
	const today = then.toDateString() === new Date().toDateString();
	const day = `${then.getFullYear()}-${String(then.getMonth() + 1).padStart(2, "0")}-${String(then.getDate()).padStart(2, "0")}`;
	return today ? clock(then) : `${day} ${clock(then)}`;
}

export const timeElement = (date) => make("time", { datetime: date, title: date }, moment(date));
export const jobName = (job) => job.name || job.id;
export const isFinished = (state) => ["succeeded", "failed", "cancelled"].includes(state);
