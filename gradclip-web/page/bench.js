// The tab 'bench': CPU in WebAssembly beside GPU, by size.

import { benchPlot } from './chart.js';
import { Remote } from './remote.js';

const find = (id) => document.getElementById(id);
const count = new Intl.NumberFormat('en');
const LEAST = 10;

// A logarithmic scale has no zero.
const seen = (ms) => (ms > 0 ? ms : null);
const words = (ms) => (ms > 0 ? ms.toPrecision(3) : 'too short to tell');

export function bench(there) {
    let remote = null;
    let plots = null;
    const ended = () => {
        remote?.end();
        remote = null;
        find('bench-go').disabled = !there;
        find('bench-stop').disabled = true;
    };
    const say = (text, bad = false) => {
        find('bench-state').textContent = text;
        find('bench-state').classList.toggle('bad', bad);
    };
    const draw = (times) => {
        plots ??= [benchPlot(find('bench-norm'), 'norm (ms)', ['CPU', 'GPU']), benchPlot(find('bench-clip'), 'norm and clip (ms)', ['CPU', 'GPU'])];
        const column = (name) => times.map((time) => seen(time[name]));
        const sizes = times.map(({ elements }) => elements);
        plots[0].setData([sizes, column('cpu_norm'), column('gpu_norm')]);
        plots[1].setData([sizes, column('cpu_clip'), column('gpu_clip')]);
        find('bench-table').hidden = false;
        const lines = times.map(({ elements, cpu_norm, gpu_norm, cpu_clip, gpu_clip }) => {
            const line = document.createElement('tr');
            const cells = [count.format(elements), ...[cpu_norm, gpu_norm, cpu_clip, gpu_clip].map(words)];
            for (const text of cells) line.insertCell().textContent = text;
            return line;
        });
        find('bench-table').tBodies[0].replaceChildren(...lines);
    };
    find('bench-stop').addEventListener('click', () => {
        ended();
        say('stopped');
    });
    find('bench-form').addEventListener('submit', async (event) => {
        event.preventDefault();
        const own = (remote = new Remote());
        [find('bench-go').disabled, find('bench-stop').disabled] = [true, false];
        const times = [];
        const most = Number(find('bench-form').elements.most.value);
        try {
            for (let power = LEAST; power <= most; power += 2) {
                say(`${count.format(2 ** power)} elements …`);
                const time = await own.call('bench', 2 ** power);
                if (own !== remote) return;
                times.push(time);
                draw(times);
            }
            ended();
            say(`measured on ${times[0].device}`);
        } catch (error) {
            if (own !== remote) return;
            ended();
            say(error.message, true);
        }
    });
    find('bench-go').disabled = !there;
}
