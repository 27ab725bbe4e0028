// The tab 'verify': every kernel against the CPU path, and one hash beside the native one.

import { Remote } from './remote.js';

const find = (id) => document.getElementById(id);
const count = new Intl.NumberFormat('en');

function show(rows) {
    find('verify-table').hidden = false;
    const lines = rows.map(({ what, cases, compared, worst, flushed, failed, first }) => {
        const line = document.createElement('tr');
        // JSON has no infinity.
        const ulp = worst === null ? '∞' : worst < 1e6 ? worst.toFixed(2) : worst.toExponential(1);
        const result = cases === 0 ? '' : failed === 0 ? 'pass' : `FAIL: ${failed} cases, first ${first}`;
        for (const text of [what, count.format(cases), count.format(compared), ulp, count.format(flushed), result]) {
            line.insertCell().textContent = text;
        }
        line.lastChild.className = failed === 0 ? 'good' : 'bad';
        return line;
    });
    find('verify-table').tBodies[0].replaceChildren(...lines);
}

function hashes([gpu, cpu, native]) {
    find('hashes').hidden = false;
    for (const [id, hash] of [['hash-gpu', gpu], ['hash-cpu', cpu], ['hash-native', native]]) {
        find(id).textContent = hash === native ? hash : `${hash}, which differs`;
        find(id).className = hash === native ? 'good' : 'bad';
    }
}

function say(words, kind = '') {
    find('verify-state').textContent = words;
    find('verify-state').className = kind;
}

export function verify(there) {
    let remote = null;
    const ended = () => {
        remote?.end();
        remote = null;
        find('verify-go').disabled = !there;
        find('verify-stop').disabled = true;
        find('verify-bar').hidden = true;
    };
    find('verify-stop').addEventListener('click', () => {
        ended();
        say('stopped');
    });
    find('verify-go').addEventListener('click', async () => {
        const own = (remote = new Remote());
        [find('verify-go').disabled, find('verify-stop').disabled] = [true, false];
        const bar = find('verify-bar');
        [bar.hidden, bar.value, find('hashes').hidden] = [false, 0, true];
        say('loading …');
        own.progress = ({ done, all, rows }) => {
            if (own !== remote) return;
            [bar.max, bar.value] = [all, done];
            say(`${done} of ${all} checks`);
            requestAnimationFrame(() => own === remote && show(rows));
        };
        try {
            const found = await own.call('verify', Number(find('verify-share').value));
            if (own !== remote) return;
            ended();
            show(found.rows);
            hashes(found.hashes);
            const failed = found.rows.filter((row) => row.failed > 0).length;
            const same = found.hashes.every((hash) => hash === found.hashes[2]);
            const words = failed === 0 ? 'every kernel passed' : `${failed} kernels failed`;
            say(`${words} on ${found.device}; the hash ${same ? 'is' : 'is not'} the native one`, failed === 0 && same ? 'good' : 'bad');
        } catch (error) {
            if (own !== remote) return;
            ended();
            say(error.message, 'bad');
        }
    });
    find('verify-go').disabled = !there;
}
