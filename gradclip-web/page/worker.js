// Runs the WebAssembly apart from the page.

import init, { Bench, Training, clip, verify } from './gradclip_web.js';

const loaded = init();
let training = null;
let device = null;
// Progress is told no more often than it can be seen.
const TELL_MS = 100;
const LOST_MS = 100;

// What the adapter is called: browsers tell more or less of it.
async function name(otherwise) {
    const { vendor, architecture, description } = (await navigator.gpu.requestAdapter())?.info ?? {};
    return description || [vendor, architecture].filter(Boolean).join(' ') || otherwise;
}

const does = {
    async start(settings, text) {
        // A device that is there is kept, with its kernels.
        const before = training?.lost() === undefined ? training : null;
        const begun = before ? await before.restart(settings, text) : await Training.start(settings, text);
        training?.free();
        training = begun;
        return { device: await name(training.device()) };
    },
    steps: (count) => training.steps(count),
    save: () => training.save(),
    read: () => training.read(),
    lose: () => training.lose(),
    // From where it was last saved, on a new device.
    async resume() {
        const resumed = await training.resume();
        training.free();
        training = resumed;
        return { device: await name(training.device()), steps: training.saved() };
    },
    async verify(share) {
        let told = 0;
        const found = await verify(share, (progress) => {
            if (performance.now() - told < TELL_MS) return;
            told = performance.now();
            postMessage({ progress: JSON.parse(progress) });
        });
        const words = JSON.parse(found);
        return { ...words, device: await name('WebGPU') };
    },
    async bench(elements) {
        device ??= await Bench.open();
        return { device: await name(device.device()), ...JSON.parse(await device.time(elements)) };
    },
    clip(options, names, contents) {
        const clipped = clip(options, names, contents.map((content) => new Uint8Array(content)));
        const [report, refused] = [clipped.report(), clipped.refused()];
        const bytes = refused === undefined ? clipped.bytes() : null;
        clipped.free();
        return { bytes, report, refused };
    },
};

// What went wrong. A device that is lost fails whatever is on its way before it tells that it is.
async function reason(error) {
    if (training) await new Promise((resolve) => setTimeout(resolve, LOST_MS));
    const lost = training?.lost();
    if (lost !== undefined) return { name: 'Lost', message: `the device was lost: ${lost}` };
    return { name: error?.name ?? 'Error', message: error?.message ?? String(error) };
}

async function answer({ data: { id, name, given } }) {
    try {
        await loaded;
        postMessage({ id, result: await does[name](...given) });
    } catch (error) {
        postMessage({ id, error: await reason(error) });
    }
}

// One call after the other: none finds what another is about to replace.
let last = Promise.resolve();
onmessage = (message) => (last = last.then(() => answer(message)));
