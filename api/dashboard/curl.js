// A job as a curl command line. The token never goes in: the command takes it from the environment.
import { hasToken } from "./api.js";
import { announce, element, make } from "./dom.js";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curlSubmit(spec) {
	return [
		`curl -sS ${quote(new URL("v1/jobs", document.baseURI).href)}`,
		"-H 'Content-Type: application/json'",
		...(hasToken() ? ['-H "Authorization: Bearer $BESAD_TOKEN"'] : []),
		`-d ${quote(JSON.stringify(spec, null, 2))}`,
	].join(" \\\n  ");
}

// The spec that makes a job like this one again: an output named after the job's id is named after the new one's.
export function specAgain(job) {
	return { ...job.spec, output: job.spec.output.replaceAll(job.id, "{id}") };
}

function showCommand(command) {
	element("command").value = command;
	element("command-dialog").showModal();
	element("command").select();
}

// Copies what `command()` gives; where the browser does not allow that, shows it, selected.
export function copyButton(command) {
	const button = make("button", { type: "button", class: "quiet", onclick: copy }, "Copy as curl");
	async function copy() {
		const text = command();
		if (text === null) return;
		try {
			await navigator.clipboard.writeText(text);
		} catch {
			return showCommand(text);
		}
		button.textContent = "Copied";
		announce("The curl command is on the clipboard");
		setTimeout(() => (button.textContent = "Copy as curl"), 2000);
	}
	return button;
}
