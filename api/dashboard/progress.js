// What the events of a job come to. No page here: events in, state out.

const LONGEST_CURVE = 1200; // points kept of a loss curve

// Stands behind all blocks where the global tune has a curve as they have.
export const WHOLE_MODEL = Infinity;

export function newProgress() {
	return { attempt: 0, running: null, blocks: 0, curves: new Map(), finished: new Map(), perplexity: new Map(), tasks: new Map(), warnings: new Map() };
}

function addStep(progress, data) {
	const block = data.block ?? WHOLE_MODEL;
	let curve = progress.curves.get(block);
	const stage = data.stage || null; // what learns after the method begins a curve of its own
	if (!curve || curve.attempt !== data.attempt || curve.stage !== stage) {
		curve = { attempt: data.attempt, stage, steps: data.steps, points: [] };
		progress.curves.set(block, curve);
	}
	curve.points.push({ step: data.step, loss: data.loss, reconstruction: data.reconstruction, sparsity: data.sparsity });
	if (curve.points.length > LONGEST_CURVE) curve.points = curve.points.filter((_, i) => i % 2 === 1 || i === 0);
	progress.running = block;
}

const handlers = {
	"job.queued": (progress) => (progress.running = null),
	"job.started": (progress, data) => (progress.attempt = data.attempt),
	"block.started": (progress, data) => {
		progress.running = data.block;
		progress.blocks = data.blocks;
		progress.curves.delete(data.block); // an earlier attempt's
	},
	"block.step": addStep,
	"tune.step": addStep,
	"block.finished": (progress, data) => {
		progress.finished.set(data.block, data);
		progress.blocks = data.blocks;
		progress.running = null;
	},
	"eval.finished": (progress, data) => {
		const values = progress.perplexity.get(data.dataset) || { dense: null, pruned: null };
		values[data.model] = data.perplexity;
		progress.perplexity.set(data.dataset, values);
	},
	"task.finished": (progress, data) => {
		const scores = progress.tasks.get(data.task) || { dense: null, pruned: null };
		scores[data.model] = data;
		progress.tasks.set(data.task, scores);
	},
	"job.paused": (progress) => (progress.running = null),
	"job.cancelled": (progress) => (progress.running = null),
	"job.failed": (progress) => (progress.running = null),
	warning: (progress, data) => progress.warnings.set(data.message, { count: (progress.warnings.get(data.message)?.count || 0) + 1, change: data.change }),
};

export function apply(progress, event) {
	handlers[event.type]?.(progress, event.data);
}

// The block whose curve is of interest: the running one, or else the last that has any.
export function currentBlock(progress) {
	if (progress.running !== null) return progress.running;
	return progress.curves.size ? Math.max(...progress.curves.keys()) : null;
}

// What `event` is to a listener, or null where it is nothing to interrupt them for.
export function spoken(event) {
	const { type, data } = event;
	if (type === "block.finished") return `Block ${data.block + 1} of ${data.blocks} finished`;
	if (type === "warning") return `Warning: ${data.message}`;
	if (type === "job.started") return "The job is running";
	if (type === "job.succeeded") return "The job has succeeded";
	if (type === "job.failed") return `The job has failed: ${data.message}`;
	if (type === "job.paused") return "The job is paused";
	if (type === "job.cancelled") return "The job is cancelled";
	return null;
}
