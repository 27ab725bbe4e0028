// Tabs, and what to do where there is no WebGPU.

import { Address } from './address.js';
import { bench } from './bench.js';
import { files } from './files.js';
import { train } from './train.js';
import { verify } from './verify.js';

const tabs = [...document.querySelectorAll('[role=tab]')];
const address = new Address();

function show(name, focus = false) {
    for (const tab of tabs) {
        const own = tab.getAttribute('aria-controls');
        tab.setAttribute('aria-selected', own === name);
        tab.tabIndex = own === name ? 0 : -1;
        document.getElementById(own).hidden = own !== name;
        if (own === name && focus) tab.focus();
    }
    address.set({ tab: name });
    dispatchEvent(new CustomEvent('tab', { detail: name }));
}

for (const [i, tab] of tabs.entries()) {
    tab.addEventListener('click', () => show(tab.getAttribute('aria-controls')));
    tab.addEventListener('keydown', (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        show(tabs[(to + tabs.length) % tabs.length].getAttribute('aria-controls'), true);
    });
}

// Why there is no WebGPU, or null where there is.
async function missing() {
    if (!isSecureContext) return 'It is not given to pages from http addresses other than localhost.';
    if (!navigator.gpu) return 'navigator.gpu is not there.';
    try {
        return (await navigator.gpu.requestAdapter()) ? null : 'The browser has it, but no adapter that it would use.';
    } catch (error) {
        return `The browser has it, but gives no adapter: ${error.message}`;
    }
}

const why = await missing();
document.getElementById('without').hidden = why === null;
document.getElementById('why').textContent = why ?? '';
verify(why === null);
bench(why === null);
files();
await train(address, why === null);
const known = tabs.map((tab) => tab.getAttribute('aria-controls'));
const asked = address.get('tab');
show(known.includes(asked) ? asked : why === null ? 'train' : 'files');
document.body.dataset.ready = 'true';
