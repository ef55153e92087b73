// Start, the pages by their address (#/, #/job/<id>, #/new, #/new/<id>, #/compare/<id>,<id>…, #/studies, #/study/<id>), the token, and the regular reading of
// what events do not tell.
import { get, hasToken, setToken } from "./api.js";
import { compareView } from "./compare.js";
import { alive, lost, refresh } from "./connection.js";
import { bytes, element, moment, percent, setText } from "./dom.js";
import { formView } from "./form.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { studiesView, studyView } from "./studies.js";

const PERIOD = 2000; // milliseconds between two readings

let view = null;

// ---- the device -------------------------------------------------------------------------------------------------------------

function meter(name, value, text) {
	element(`${name}-part`).hidden = value === null;
	element(`${name}-meter`).value = value ?? 0;
	setText(element(`${name}-text`), text);
}

function showInfo(info) {
	setText(element("version"), info.version);
	setText(element("device"), info.device);
	element("drained").hidden = info.drained_since === null;
	setText(element("drained-text"), info.drained_since === null ? "" : `Drained since ${moment(info.drained_since)}: no job is begun, ` +
		"those that are queued wait.");
	const { memory_used_bytes: used, memory_total_bytes: total, utilisation } = info.device_load;
	meter("memory", used !== null && total ? used / total : null, `${bytes(used)} of ${bytes(total)}`);
	meter("utilisation", utilisation, percent(utilisation, 0));
	element("device-panel").hidden = false;
}

// ---- pages ------------------------------------------------------------------------------------------------------------------

function route() {
	const [, page, rest] = /^#\/([a-z]*)\/?(.*)$/.exec(location.hash) || [null, "", ""];
	if (page === "job" && rest) return jobView(rest);
	if (page === "new") return formView(rest);
	if (page === "compare") return compareView([...new Set(rest.split(",").filter(Boolean))]);
	if (page === "study" && rest) return studyView(rest);
	if (page === "studies") return studiesView();
	return jobsView();
}

function open(focus) {
	view?.stop();
	view = route();
	document.title = `${view.title} · besad`;
	element("view").replaceChildren(view.node);
	for (const link of document.querySelectorAll("nav a")) {
		const here = link.getAttribute("href") === ({ "New job": "#/new", Studies: "#/studies" }[view.title] || "#/");
		if (here && ["Jobs", "New job", "Studies"].includes(view.title)) link.setAttribute("aria-current", "page");
		else link.removeAttribute("aria-current");
	}
	if (focus) {
		window.scrollTo(0, 0);
		view.heading.focus({ preventScroll: true });
	}
	poll();
}

// ---- regular reading --------------------------------------------------------------------------------------------------------

let reading = null;
let timer = 0;

async function poll() {
	clearTimeout(timer);
	reading?.abort();
	const mine = (reading = new AbortController());
	try {
		const [info] = await Promise.all([get("v1/info", mine.signal), view.poll(mine.signal)]);
		if (mine.signal.aborted) return;
		showInfo(info);
		alive("poll");
	} catch (error) {
		if (mine.signal.aborted) return;
		if (error.status !== 401) lost("poll");
		if (!(error instanceof TypeError) && !error.status && error.name !== "TimeoutError") throw error; // a fault of this page
	} finally {
		if (!mine.signal.aborted && !document.hidden && !document.body.dataset.login) timer = setTimeout(poll, PERIOD);
	}
}

// ---- the token --------------------------------------------------------------------------------------------------------------

function askForToken() {
	if (document.body.dataset.login && !hasToken()) return; // the second of two requests
	const wrong = hasToken();
	setToken(null);
	document.body.dataset.login = "needed";
	view?.stop();
	element("login").hidden = false;
	element("app").hidden = true;
	element("sign-out").hidden = true;
	element("device-panel").hidden = true;
	setText(element("token-error"), wrong ? "besad does not take this token." : "");
	element("token").toggleAttribute("aria-invalid", false);
	if (wrong) element("token").setAttribute("aria-invalid", "true");
	element("token").value = "";
	element("token").focus();
	refresh();
}

function enter() {
	delete document.body.dataset.login;
	element("login").hidden = true;
	element("app").hidden = false;
	element("sign-out").hidden = !hasToken();
	refresh();
	open(true);
}

element("login").addEventListener("submit", async (event) => {
	event.preventDefault();
	const value = element("token").value.trim();
	if (!/^[!-~]+$/.test(value)) {
		setText(element("token-error"), "A token is made of letters, digits and signs, without spaces.");
		element("token").setAttribute("aria-invalid", "true");
		return;
	}
	setToken(value);
	try {
		await get("v1/info");
		enter();
	} catch (problem) {
		if (problem.status === 401) return; // asked for again
		setToken(null);
		setText(element("token-error"), "besad does not answer; try again.");
	}
});

element("sign-out").addEventListener("click", () => {
	setToken(null);
	askForToken();
});

document.querySelector(".skip").addEventListener("click", (event) => {
	event.preventDefault(); // the address says which page this is
	element("view").focus();
});
document.addEventListener("unauthorized", askForToken);
document.addEventListener("try-now", poll);
document.addEventListener("visibilitychange", () => document.hidden || document.body.dataset.login || poll());
window.addEventListener("online", poll);
window.addEventListener("hashchange", () => document.body.dataset.login || open(true));
element("sign-out").hidden = !hasToken();
open(false);
