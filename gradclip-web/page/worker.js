// Runs the WebAssembly apart from the page.

import init, { Training } from './gradclip_web.js';

const loaded = init();
let training = null;

const does = {
    async start(settings, text) {
        training?.free();
        training = null;
        training = await Training.start(settings, text);
        return { device: training.device() };
    },
    steps: (count) => training.steps(count),
    save: () => training.save(),
    lose: () => training.lose(),
    // From where it was last saved, on a new device.
    async resume() {
        const resumed = await training.resume();
        training.free();
        training = resumed;
        return { device: training.device(), steps: training.saved() };
    },
};

onmessage = async ({ data: { id, name, given } }) => {
    try {
        await loaded;
        postMessage({ id, result: await does[name](...given) });
    } catch (error) {
        postMessage({ id, error: { name: error?.name ?? 'Error', message: error?.message ?? String(error) } });
    }
};
