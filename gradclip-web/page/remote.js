// Calls of a worker, so that nothing that computes or waits does so in the page's own thread.

export class Remote {
    constructor() {
        this.worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
        this.calls = new Map();
        this.next = 0;
        this.progress = () => {};
        this.worker.onmessage = ({ data: { id, result, error, progress } }) => {
            if (progress !== undefined) return this.progress(progress);
            const { resolve, reject } = this.calls.get(id);
            this.calls.delete(id);
            if (error === undefined) resolve(result);
            else reject(Object.assign(new Error(error.message), { name: error.name }));
        };
        // A worker that does not load, or ends.
        this.worker.onerror = (event) => {
            event.preventDefault();
            for (const { reject } of this.calls.values()) reject(new Error(event.message || 'the worker failed'));
            this.calls.clear();
        };
    }

    call(name, ...given) {
        return new Promise((resolve, reject) => {
            const id = this.next++;
            this.calls.set(id, { resolve, reject });
            this.worker.postMessage({ id, name, given });
        });
    }

    end() {
        this.worker.terminate();
    }
}
