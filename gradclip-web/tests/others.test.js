// The tabs 'verify' and 'bench', and a browser without WebGPU.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { open, picture, visit } from './browser.js';
import { serve } from '../serve.js';

let [server, browser, home] = [];

before(async () => {
    server = await serve(0);
    browser = await open();
    home = `http://localhost:${server.address().port}/`;
});

after(async () => {
    await browser.close();
    server.close();
});

const rows = (page, id) => page.evaluate((id) => [...document.getElementById(id).tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)), id);

test('verify ends green, and its hash is the native one', async () => {
    const { page, said } = await visit(browser.context, `${home}#tab=verify`);
    // All of them take SwiftShader many minutes; one in so many has every kernel.
    await page.selectOption('#verify-share', process.env.GRADCLIP_WEB_SHARE ?? '50');
    await page.click('#verify-go');
    await page.waitForFunction(() => document.getElementById('verify-bar').value > 5, null, { timeout: 120000 });
    await picture(page, 'verifying');
    await page.waitForFunction(() => !document.getElementById('verify-go').disabled, null, { timeout: 900000 });
    await picture(page, 'verified');
    const state = await page.textContent('#verify-state');
    assert.match(state, /^every kernel passed on .*; the hash is the native one$/);
    const found = await rows(page, 'verify-table');
    assert.ok(found.length >= 29, `${found.length} kernels`);
    for (const [kernel, cases, compared, , , result] of found) {
        assert.ok(cases !== '0' && compared !== '0', `${kernel} was not checked`);
        assert.equal(result, 'pass', kernel);
    }
    const [gpu, cpu, native] = await Promise.all(['gpu', 'cpu', 'native'].map((id) => page.textContent(`#hash-${id}`)));
    assert.match(native, /^[0-9a-f]{16}$/);
    assert.deepEqual([gpu, cpu], [native, native]);
    assert.deepEqual(said, []);
    await page.close();
});

test('bench draws the CPU beside the GPU', async () => {
    const { page, said } = await visit(browser.context, `${home}#tab=bench`);
    await page.selectOption('select[name=most]', '18');
    await page.click('#bench-go');
    await page.waitForFunction(() => !document.getElementById('bench-go').disabled, null, { timeout: 300000 });
    await picture(page, 'bench');
    assert.match(await page.textContent('#bench-state'), /^measured on /);
    const times = await rows(page, 'bench-table');
    assert.deepEqual(times.map(([elements]) => elements), ['1,024', '4,096', '16,384', '65,536', '262,144']);
    const [, cpuNorm, gpuNorm, cpuClip, gpuClip] = times.at(-1).map(Number);
    for (const ms of [cpuNorm, gpuNorm, cpuClip, gpuClip]) assert.ok(ms > 0, times.at(-1).join());
    const inked = await page.evaluate(() => [...document.querySelectorAll('#bench canvas')].map((canvas) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value) => value !== 0);
    }));
    assert.deepEqual(inked, [true, true]);
    assert.deepEqual(said, []);
    await page.close();
});

test('a browser without WebGPU is told what to do, and clips files all the same', async () => {
    const plain = await open({ without: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'], besides: ['--disable-features=WebGPU', '--disable-gpu'] });
    try {
        const { page, said } = await visit(plain.context, home);
        assert.ok(await page.isVisible('#without'));
        assert.ok(await page.isVisible('#files'));
        await page.click('#tab-train');
        assert.ok(await page.isDisabled('#go'));
        await picture(page, 'without');
        await page.click('#tab-files');
        await page.setInputFiles('#file', new URL('../../tests/data/lstm_exploding.safetensors', import.meta.url).pathname);
        await page.waitForSelector('#download:not([hidden])', { timeout: 60000 });
        // The browser's own words.
        assert.deepEqual(said.filter((words) => words !== 'warning: No available adapters.'), []);
    } finally {
        await plain.close();
    }
});
