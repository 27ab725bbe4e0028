// The tab 'train'.

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

// The columns of both runs.
const shown = (page) => page.evaluate(() => ['clipped', 'free'].map((id) => document.getElementById(id).shown.columns));
const steps = (page) => page.evaluate(() => document.getElementById('clipped').shown.steps.length);
const reached = (page, count) => page.waitForFunction((count) => document.getElementById('clipped').shown.steps.length >= count, count, { timeout: 120000 });
const drawn = (page) => page.evaluate(() => [...document.querySelectorAll('#train canvas')].map((canvas) => canvas.toDataURL()));
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// One step, drawn.
async function one(page) {
    const before = await steps(page);
    await page.click('#one');
    await page.waitForFunction((before) => document.getElementById('clipped').shown.steps.length !== before, before, { timeout: 60000 });
    await page.waitForTimeout(300);
}

test('the clipped run learns, the other does not, and the page stays awake', async () => {
    const { page, said } = await visit(browser.context, home);
    const trace = await page.context().newCDPSession(page);
    await page.click('#go');
    await reached(page, 3);
    const events = [];
    trace.on('Tracing.dataCollected', ({ value }) => events.push(...value));
    await trace.send('Tracing.start', { transferMode: 'ReportEvents', traceConfig: { includedCategories: ['toplevel'] } });
    await reached(page, 45);
    const ended = new Promise((resolve) => trace.once('Tracing.tracingComplete', resolve));
    await trace.send('Tracing.end');
    await ended;
    await page.click('#go');
    await page.waitForTimeout(1000);
    await picture(page, 'train');
    const [clipped, free] = await shown(page);
    assert.equal(clipped.loss[0], free.loss[0], 'both begin alike');
    assert.ok(mean(clipped.loss.slice(-15)) < clipped.loss[0] - 1, `with clipping: ${clipped.loss}`);
    assert.ok(!(mean(free.loss.slice(-15)) < free.loss[0]), `without: ${free.loss}`);
    assert.ok(clipped.clipped.some((flag) => flag === 1) && free.clipped.every((flag) => flag === 0));
    assert.ok(clipped.threshold.every((threshold) => threshold === 0.25));
    // The processor's time of tasks of the page's own thread: other programs do not count.
    const main = events.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`);
    const tasks = events.filter(({ tdur, pid, tid }) => tdur !== undefined && main.includes(`${pid} ${tid}`));
    assert.ok(tasks.length > 100, `${tasks.length} tasks were traced`);
    const longest = Math.max(...tasks.map(({ tdur }) => tdur)) / 1000;
    console.log(`the longest task of the page took ${longest.toFixed(1)} ms of a processor`);
    assert.ok(longest < 50, `a task took ${longest} ms`);
    assert.deepEqual(said, []);
    await page.close();
});

test('controls change what is drawn, and a link shows the same run', async () => {
    const { page, said } = await visit(browser.context, `${home}#length=8&seed=3`);
    await one(page);
    const [first, of] = [await drawn(page), await shown(page)];
    await page.fill('input[name=threshold]', '2.5');
    await page.press('input[name=threshold]', 'Enter');
    await one(page);
    const second = await drawn(page);
    assert.notEqual(second[1], first[1], 'the norm of the clipped run has another threshold');
    assert.equal((await shown(page))[0].loss[0], of[0].loss[0], 'the run begins as before');
    await page.selectOption('select[name=rule]', 'value');
    assert.equal(await page.inputValue('input[name=threshold]'), '0.01');
    await one(page);
    assert.ok(Number.isNaN((await shown(page))[0].threshold[0]), 'elements have no threshold of the whole set');
    await page.fill('input[name=seed]', '4');
    await page.press('input[name=seed]', 'Enter');
    await one(page);
    assert.notEqual((await shown(page))[0].loss[0], of[0].loss[0], 'another seed is another run');
    await page.click('summary');
    await page.fill('textarea', 'to be or not to be, that is the question. '.repeat(6));
    await page.press('textarea', 'Tab');
    await one(page);
    await one(page);
    const own = await shown(page);
    const link = await page.evaluate(() => location.href);
    const other = await visit(browser.context, link);
    assert.equal(await other.page.inputValue('select[name=rule]'), 'value');
    assert.match(await other.page.inputValue('textarea'), /^to be or not to be/);
    await one(other.page);
    await one(other.page);
    assert.deepEqual(await shown(other.page), own);
    assert.deepEqual([...said, ...other.said], []);
    await page.close();
    await other.page.close();
});

test('every rule makes steps', async () => {
    const { page, said } = await visit(browser.context, `${home}#length=8`);
    const rules = await page.locator('select[name=rule] option').evaluateAll((options) => options.map((option) => option.value));
    const seen = new Map();
    for (const rule of rules) {
        await page.selectOption('select[name=rule]', rule);
        await one(page);
        await one(page);
        const [{ loss, clippedNorm, clipped }] = await shown(page);
        assert.equal(loss.length, 2, rule);
        assert.ok(loss.every(Number.isFinite), `${rule}: ${loss}`);
        seen.set(rule, [loss[1], clippedNorm[0], clipped[0]].join());
    }
    assert.equal(rules.length, 9);
    // What a step left differs by the rule, but for two that begin as the norm's.
    assert.ok(new Set(seen.values()).size >= 6, [...seen].join('; '));
    await page.fill('input[name=length]', '3');
    await page.press('input[name=length]', 'Enter');
    assert.match(await page.textContent('#state'), /no number that it may have/);
    assert.deepEqual(said, []);
    await page.close();
});

test('it works by keyboard', async () => {
    const { page, said } = await visit(browser.context, `${home}#length=8`);
    await page.focus('#tab-train');
    await page.keyboard.press('ArrowRight');
    assert.ok(await page.isVisible('#verify'));
    await page.keyboard.press('End');
    assert.ok(await page.isVisible('#files'));
    await page.keyboard.press('Home');
    assert.ok(await page.isVisible('#train') && !(await page.isVisible('#files')));
    await page.keyboard.press('s');
    await reached(page, 1);
    await page.keyboard.press('p');
    await reached(page, 3);
    await page.keyboard.press('p');
    assert.equal(await page.textContent('#go'), 'Start');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.name), 'rule');
    assert.deepEqual(said, []);
    await page.close();
});

test('a destroyed device is survived', async () => {
    const { page, said } = await visit(browser.context, `${home}#length=8`);
    await page.click('#go');
    // Long enough to be remembered, which happens every one and a half seconds.
    await reached(page, 5);
    await page.waitForTimeout(4000);
    const undisturbed = (await shown(page))[0].loss;
    await page.click('#lose');
    await page.waitForSelector('#lost:not([hidden])', { timeout: 30000 });
    await picture(page, 'lost');
    assert.match(await page.textContent('#lost-words'), /was lost/);
    const at = await steps(page);
    await page.click('#resume');
    await reached(page, at + 3);
    await page.click('#go');
    const [{ loss }] = await shown(page);
    assert.ok(undisturbed.length > 3);
    assert.deepEqual(loss.slice(0, undisturbed.length), undisturbed, 'it goes on with the same steps');
    const fresh = await visit(browser.context, `${home}#length=8`);
    await fresh.page.click('#go');
    await reached(fresh.page, loss.length);
    assert.deepEqual((await shown(fresh.page))[0].loss.slice(0, loss.length), loss, 'as a run that lost nothing');
    assert.deepEqual([...said, ...fresh.said], []);
    await page.close();
    await fresh.page.close();
});
