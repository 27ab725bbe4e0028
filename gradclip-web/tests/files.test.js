// The tab 'files': the same bytes and words as by the command line, which GRADCLIP names.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { open, picture, visit } from './browser.js';
import { serve } from '../serve.js';

const DATA = fileURLToPath(new URL('../../tests/data/', import.meta.url));
const LSTM = join(DATA, 'lstm_exploding.safetensors');
const at = (name) => join(DATA, 'cases', name, 'input.safetensors');

let [server, browser, home, folder] = [];

before(async () => {
    server = await serve(0);
    browser = await open();
    home = `http://localhost:${server.address().port}/#tab=files`;
    folder = mkdtempSync(join(tmpdir(), 'gradclip-files-'));
});

after(async () => {
    await browser.close();
    server.close();
    rmSync(folder, { recursive: true, force: true });
});

// What the command line makes of a file: the bytes, or null, and its words.
function native(file, options) {
    const out = `${basename(file, '.safetensors')}.clipped.safetensors`;
    const { status, stdout, stderr } = spawnSync(process.env.GRADCLIP, ['clip', file, ...options, '--out', out, '--device', 'cpu'], { cwd: folder, encoding: 'utf8' });
    assert.ok(status !== null && !stderr.includes('panicked'), stderr);
    return { bytes: status === 0 ? readFileSync(join(folder, out)) : null, report: stdout.trimEnd(), error: stderr.slice(stderr.indexOf('error: ') + 7).replaceAll(/\s+/g, ' ').trim() };
}

// What the page makes of it.
async function clipped(page, file, options) {
    await page.fill('#options', options.join(' '));
    const again = page.waitForFunction(() => !document.getElementById('file-state').textContent.startsWith('clipping'));
    await page.setInputFiles('#file', []);
    await page.setInputFiles('#file', file);
    await page.waitForFunction(() => /is clipped$|[a-z]/.test(document.getElementById('file-state').textContent) && !document.getElementById('file-state').textContent.startsWith('clipping'), null, { timeout: 60000 });
    await again;
    const state = await page.textContent('#file-state');
    const report = (await page.textContent('#report')).trimEnd();
    if (!(await page.isVisible('#download'))) return { bytes: null, report, error: state };
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
    return { bytes: readFileSync(await download.path()), report, error: undefined, name: download.suggestedFilename() };
}

const CASES = [
    ['an LSTM whose gradients exploded', LSTM, ['--max-norm', '1']],
    ['value', LSTM, ['--value', '0.5']],
    ['norms of tensors, unscaled', LSTM, ['--max-norm', '0.1', '--scope', 'tensor', '--unscale', '1024']],
    ['norm 1, rounded down', LSTM, ['--max-norm', '1', '--norm', '1', '--never-above']],
    ['f16 beside f32', at('torch_mixed_f16_f32_clip'), ['--max-norm', '1']],
    ['f16 beside f32, widened', at('torch_mixed_f16_f32_clip'), ['--max-norm', '1', '--out-type', 'f32']],
    ['bf16', at('optax_gnorm_bf16_clip'), ['--max-norm', '0.5']],
    ['empty tensors', at('torch_zero_size_p2_clip'), ['--max-norm', '0.5']],
    ['NaN, set to 0', at('torch_nan_error_if_nonfinite'), ['--max-norm', '1', '--on-nonfinite', 'sanitize']],
    ['NaN, refused', at('torch_nan_error_if_nonfinite'), ['--max-norm', '1']],
    ['an option that there is not', LSTM, ['--max-norm', '-1']],
];

test('files come out as by the command line', async () => {
    const { page, said } = await visit(browser.context, home);
    const requests = [];
    page.on('request', (request) => requests.push(request));
    for (const [what, file, options] of CASES) {
        const [want, got] = [native(file, options), await clipped(page, file, options)];
        assert.deepEqual(got.bytes, want.bytes, what);
        assert.equal(got.report, want.report, what);
        if (want.bytes === null) {
            assert.ok(want.error && got.error.replaceAll(/\s+/g, ' ') === want.error, `${what}: ${got.error}, and not ${want.error}`);
        } else {
            assert.notDeepEqual(got.bytes, readFileSync(file), what);
        }
        if (file === LSTM && options[0] === '--max-norm' && options[1] === '1') await picture(page, 'files');
    }
    const away = requests.filter((request) => request.method() !== 'GET' || !/^(blob:)?http:\/\/localhost:/.test(request.url()));
    assert.deepEqual(away.map((request) => request.url()), [], 'nothing leaves the browser');
    assert.deepEqual(said, []);
    await page.close();
});

test('a file may be dropped, with parameters beside it', async () => {
    const { page, said } = await visit(browser.context, home);
    await page.setInputFiles('#params', LSTM);
    await page.fill('#options', '--agc 0.01');
    const transfer = await page.evaluateHandle((letters) => {
        const bytes = Uint8Array.from(atob(letters), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], 'lstm_exploding.safetensors'));
        return transfer;
    }, readFileSync(LSTM).toString('base64'));
    await page.dispatchEvent('#drop', 'drop', { dataTransfer: transfer });
    await page.waitForSelector('#download:not([hidden])', { timeout: 60000 });
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
    const want = native(LSTM, ['--agc', '0.01', '--params', LSTM]);
    assert.deepEqual(readFileSync(await download.path()), want.bytes);
    assert.equal(download.suggestedFilename(), 'lstm_exploding.clipped.safetensors');
    assert.deepEqual(said, []);
    await page.close();
});
