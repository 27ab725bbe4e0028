// The net's gradients beside differences of its loss, computed in doubles by other code than its shaders.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, visit } from './browser.js';
import { serve } from '../serve.js';

const [BATCH, HIDDEN, LENGTH, SEED] = [16, 64, 8, 3];
const TEXT = 'the quick brown fox jumps over the lazy dog, and the dog does not mind. '.repeat(2);

// The symbols of a text: the most frequent characters have the smallest numbers, of equals those of smaller codes.
function symbols(text) {
    const counts = new Map();
    for (const c of text) counts.set(c, (counts.get(c) ?? 0) + 1);
    const order = [...counts].sort(([a, m], [b, n]) => n - m || a.codePointAt(0) - b.codePointAt(0)).map(([c]) => c);
    return { numbers: [...text].map((c) => order.indexOf(c)), count: Math.ceil(order.length / 4) * 4 };
}

// PCG's output function as a hash.
function hash(x) {
    const state = (Math.imul(x, 747796405) + 2891336453) >>> 0;
    const word = Math.imul(((state >>> ((state >>> 28) + 4)) ^ state) >>> 0, 277803737) >>> 0;
    return ((word >>> 22) ^ word) >>> 0;
}

// The mean loss of the first batch under these parameters.
function loss(parameters, { numbers, count }) {
    const [recurrent, bias] = [count * HIDDEN, count * HIDDEN + HIDDEN * HIDDEN];
    const [readout, last] = [bias + HIDDEN, bias + HIDDEN + HIDDEN * count];
    let total = 0;
    for (let sequence = 0; sequence < BATCH; sequence++) {
        const begin = hash((hash(hash(SEED)) + sequence) >>> 0) % (numbers.length - LENGTH);
        let state = new Float64Array(HIDDEN);
        for (let time = 0; time < LENGTH; time++) {
            const symbol = numbers[begin + time];
            const next = new Float64Array(HIDDEN);
            for (let i = 0; i < HIDDEN; i++) {
                let sum = parameters[symbol * HIDDEN + i] + parameters[bias + i];
                for (let k = 0; k < HIDDEN; k++) sum += state[k] * parameters[recurrent + k * HIDDEN + i];
                next[i] = Math.tanh(sum);
            }
            state = next;
            const logits = new Float64Array(count);
            for (let v = 0; v < count; v++) {
                logits[v] = parameters[last + v];
                for (let k = 0; k < HIDDEN; k++) logits[v] += state[k] * parameters[readout + k * count + v];
            }
            const top = Math.max(...logits);
            const sum = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
            total += Math.log(sum) + top - logits[numbers[begin + time + 1]];
        }
    }
    return total / (BATCH * LENGTH);
}

test('gradients are those of the loss', async () => {
    const [server, browser] = [await serve(0), await open()];
    try {
        const { page, said } = await visit(browser.context, `http://localhost:${server.address().port}/`);
        const settings = JSON.stringify({ rule: 'norm', threshold: 1, rate: 0.1, length: LENGTH, seed: SEED });
        const [first, second] = await page.evaluate(async ([settings, text]) => {
            const { Remote } = await import('./remote.js');
            const remote = new Remote();
            await remote.call('start', settings, text);
            const first = await remote.call('read');
            await remote.call('steps', 1);
            const second = await remote.call('read');
            remote.end();
            return [[...first], [...second]];
        }, [settings, TEXT]);
        const known = symbols(TEXT);
        const elements = 2 * known.count * HIDDEN + HIDDEN * HIDDEN + HIDDEN + known.count;
        assert.equal(first.length, 2 * elements + 4);
        const parameters = Float64Array.from(first.slice(0, elements));
        const gradient = second.slice(elements, 2 * elements);
        const exact = loss(parameters, known);
        assert.ok(Math.abs(second[2 * elements] - exact) < 1e-5 * exact, `the loss is ${second[2 * elements]}, in doubles ${exact}`);
        const largest = Math.max(...gradient.map(Math.abs));
        // Some of every tensor, none of them by a rule that a shader could have.
        let compared = 0;
        for (let i = 0; i < elements; i += 97) {
            const difference = [1e-4, -1e-4].map((by) => {
                const moved = parameters.slice();
                moved[i] += by;
                return loss(moved, known);
            });
            const expected = (difference[0] - difference[1]) / 2e-4;
            // Sums of 128 products in f32, of functions that WGSL allows some ulp: far below what any mistake leaves.
            assert.ok(Math.abs(gradient[i] - expected) < 2e-4 * largest, `element ${i} is ${gradient[i]}, by differences ${expected}`);
            compared++;
        }
        assert.ok(compared > 60);
        // A step of SGD from there, not clipped below a norm of 1.
        const norm = Math.hypot(...gradient);
        const factor = Math.min(1, 1 / norm);
        const moved = second.slice(0, elements);
        assert.ok(moved.every((value, i) => Math.abs(value - (parameters[i] - 0.1 * factor * gradient[i])) < 1e-6), 'the step is that of SGD');
        assert.deepEqual(said, []);
    } finally {
        await browser.close();
        server.close();
    }
});
