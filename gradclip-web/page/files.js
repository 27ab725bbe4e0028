// The tab 'files': a safetensors file is clipped in this browser, as by the command line.

import { Remote } from './remote.js';

const find = (id) => document.getElementById(id);

// A name that no program takes for an option.
const path = (name) => (name.startsWith('-') ? `./${name}` : name);
// The same as an argument of a shell.
const quoted = (name) => (/^[\w.+,:/@-]+$/.test(name) ? path(name) : `'${path(name).replaceAll("'", "'\\''")}'`);
const named = (name) => `${name.replace(/\.safetensors$/, '')}.clipped.safetensors`;

export function files() {
    let [file, remote, address] = [null, null, null];
    const say = (words, bad = false) => {
        find('file-state').textContent = words;
        find('file-state').classList.toggle('bad', bad);
    };
    const command = () => {
        const [params] = find('params').files;
        const more = params ? ` --params ${quoted(params.name)}` : '';
        return file && `${quoted(file.name)} ${find('options').value}${more} --out ${quoted(named(file.name))}`;
    };
    const told = () => (find('command').textContent = file ? `the same by the command line: gradclip clip ${command()}` : '');
    const take = (taken) => {
        if (!taken) return;
        file = taken;
        find('file-go').disabled = false;
        say(`${file.name}, ${new Intl.NumberFormat('en').format(file.size)} bytes`);
        told();
        clip();
    };

    async function clip() {
        remote ??= new Remote();
        const [params] = find('params').files;
        const own = file;
        const all = params ? [own, params] : [own];
        [find('download').hidden, find('report').hidden] = [true, true];
        say(`clipping ${own.name} …`);
        try {
            const contents = await Promise.all(all.map((one) => one.arrayBuffer()));
            const { bytes, report, refused } = await remote.call('clip', command(), all.map(({ name }) => path(name)), contents);
            if (own !== file) return;
            find('report').textContent = report;
            find('report').hidden = report === '';
            if (refused !== undefined) return say(refused, true);
            say(`${own.name} is clipped`);
            if (address) URL.revokeObjectURL(address);
            address = URL.createObjectURL(new Blob([bytes]));
            Object.assign(find('download'), { href: address, download: named(own.name), textContent: `Save ${named(own.name)}`, hidden: false });
        } catch (error) {
            say(error.message, true);
        }
    }

    const drop = find('drop');
    drop.addEventListener('dragover', (event) => {
        event.preventDefault();
        drop.classList.add('over');
    });
    drop.addEventListener('dragleave', () => drop.classList.remove('over'));
    drop.addEventListener('drop', (event) => {
        event.preventDefault();
        drop.classList.remove('over');
        take(event.dataTransfer.files[0]);
    });
    find('file').addEventListener('change', () => take(find('file').files[0]));
    find('options').addEventListener('input', told);
    find('params').addEventListener('change', told);
    find('file-form').addEventListener('submit', (event) => {
        event.preventDefault();
        if (file) clip();
    });
}
