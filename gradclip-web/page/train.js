// The tab 'train': two runs side by side, live.

import { packed, unpacked } from './address.js';
import { lossPlot, normPlot, short } from './chart.js';
import { Remote } from './remote.js';

// Thresholds that suit the rules, of this net at this rate.
const DEFAULTS = { rule: 'norm', threshold: '0.25', rate: '0.6', length: '40', seed: '1' };
const THRESHOLDS = { norm: '0.25', tensor: '0.1', value: '0.01', agc: '0.02', zclip: '0.25', autoclip: '0.25', adagc: '0.25', spikes: '0.25', normalize: '0.25' };
// Numbers of a step as the worker gives them.
const FIELDS = ['loss', 'norm', 'threshold', 'clippedNorm', 'clipped', 'out'];
// A call of the worker is to take so long.
const CALL_MS = 120;
const MOST_STEPS = 32;
const SAVE_MS = 1500;
// More are not kept in view.
const MOST_KEPT = 20000;

const find = (id) => document.getElementById(id);

// What one run has shown so far.
class Shown {
    constructor(name, ranges) {
        this.place = find(name);
        // For whoever wants the numbers, in the console say.
        this.place.shown = this;
        this.loss = lossPlot(this.place.querySelector('.loss'), ranges.loss);
        this.norm = normPlot(this.place.querySelector('.norm'), ranges.norm);
        this.clear();
    }

    clear() {
        this.steps = [];
        this.columns = Object.fromEntries(FIELDS.map((field) => [field, []]));
    }

    // Goes back to so many steps.
    cut(length) {
        this.steps.length = length;
        Object.values(this.columns).forEach((column) => (column.length = length));
    }

    add(numbers) {
        this.steps.push(this.steps.length + 1);
        FIELDS.forEach((field, i) => this.columns[field].push(numbers[i]));
    }

    draw() {
        const { loss, norm, threshold, clipped, out } = this.columns;
        // A logarithmic scale has neither zero nor infinity.
        const seen = (values) => values.map((value) => (Number.isFinite(value) && value > 0 ? value : null));
        const norms = seen(norm);
        const where = (flags) => norms.map((value, i) => (flags[i] ? value : null));
        this.loss.setData([this.steps, seen(loss)]);
        this.norm.setData([this.steps, norms, where(clipped), where(out), seen(threshold)]);
        this.place.querySelector('.facts').innerHTML = this.facts();
    }

    facts() {
        const { loss, norm, clipped, out } = this.columns;
        const count = (flags) => flags.reduce((sum, flag) => sum + flag, 0);
        const last = loss.slice(-20);
        const mean = last.reduce((sum, value) => sum + value, 0) / last.length;
        const broken = loss.findIndex((value) => !Number.isFinite(value));
        if (loss.length === 0) return '';
        const words = [`loss <b>${short(mean)}</b>, at first ${short(loss[0])}`];
        words.push(`largest norm ${short(norm.reduce((a, b) => (b > a ? b : a), 0))}`);
        words.push(`${count(clipped)} steps clipped, ${count(out)} left out`);
        if (broken >= 0) words.push(`<span class="bad">not finite since step ${broken + 1}</span>`);
        return words.join('; ');
    }
}

// One range for both runs, of what they have shown.
function shared(shown, fields) {
    return () => {
        let [low, high] = [Infinity, -Infinity];
        for (const { columns } of shown) {
            for (const field of fields) {
                for (const value of columns[field]) {
                    if (value > 0 && value < Infinity) [low, high] = [Math.min(low, value), Math.max(high, value)];
                }
            }
        }
        return low > high ? [0.1, 10] : [low / 1.2, high * 1.2];
    };
}

class Train {
    constructor(address) {
        this.address = address;
        this.remote = new Remote();
        // Not `elements` itself, which has a `length` of its own.
        this.controls = Object.fromEntries([...find('controls').elements].map((control) => [control.name, control]));
        this.shown = [];
        const ranges = { loss: shared(this.shown, ['loss']), norm: shared(this.shown, ['norm', 'threshold']) };
        for (const name of ['clipped', 'free']) this.shown.push(new Shown(name, ranges));
        // Whether both runs are prepared, go, and are on their way.
        [this.ready, this.going, this.busy] = [false, false, false];
        // Counts the beginnings: what an earlier one still brings is not shown.
        this.run = 0;
        this.count = 1;
    }

    async begin() {
        this.plain = await (await fetch('text.txt')).text();
        for (const [name, value] of Object.entries(DEFAULTS)) this.controls[name].value = this.address.get(name) ?? value;
        if (!this.controls.rule.value) this.controls.rule.value = DEFAULTS.rule;
        if (!this.address.get('threshold')) this.controls.threshold.value = THRESHOLDS[this.controls.rule.value];
        const given = this.address.get('text');
        this.controls.text.value = (given && (await unpacked(given))) ?? this.plain;
        this.listen();
    }

    listen() {
        const { rule, threshold } = this.controls;
        rule.addEventListener('change', () => (threshold.value = THRESHOLDS[rule.value]));
        find('controls').addEventListener('change', () => this.changed());
        find('controls').addEventListener('submit', (event) => event.preventDefault());
        find('go').addEventListener('click', () => (this.going ? this.pause() : this.go()));
        find('one').addEventListener('click', () => this.step());
        find('again').addEventListener('click', () => this.reset(this.going));
        find('link').addEventListener('click', () => this.copyLink());
        find('lose').addEventListener('click', () => this.remote.call('lose'));
        find('resume').addEventListener('click', () => this.resume());
        document.addEventListener('keydown', (event) => {
            const typing = event.target.closest('input, select, textarea');
            if (find('train').hidden || typing || event.ctrlKey || event.altKey || event.metaKey) return;
            const does = { p: 'go', s: 'one', r: 'again' }[event.key.toLowerCase()];
            if (does) find(does).click();
        });
        // What is not seen does not go on.
        addEventListener('tab', ({ detail }) => detail !== 'train' && this.going && this.pause());
    }

    settings() {
        const { rule, threshold, rate, length, seed } = this.controls;
        const numbers = { threshold: threshold.valueAsNumber, rate: rate.valueAsNumber, length: length.valueAsNumber, seed: seed.valueAsNumber };
        return { rule: rule.value, ...numbers };
    }

    // The same run for whoever opens the address.
    async remember() {
        const { rule, threshold, rate, length, seed, text } = this.controls;
        const own = text.value === this.plain ? null : await packed(text.value);
        this.address.set({ rule: rule.value, threshold: threshold.value, rate: rate.value, length: length.value, seed: seed.value, text: own });
    }

    async changed() {
        await this.remember();
        if (find('controls').checkValidity()) await this.reset(this.going);
        else this.pause('a control has no number that it may have');
    }

    say(words, bad = false) {
        find('state').textContent = words;
        find('state').classList.toggle('bad', bad);
    }

    // Prepares both runs from their beginning.
    async reset(going) {
        const run = ++this.run;
        [this.ready, this.going] = [false, going];
        find('lost').hidden = true;
        this.buttons();
        this.say('preparing …');
        this.shown.forEach((shown) => shown.clear());
        this.draw();
        try {
            const { device } = await this.remote.call('start', JSON.stringify(this.settings()), this.controls.text.value);
            if (run !== this.run) return;
            this.device = device;
            this.ready = true;
            this.say(`ready on ${device}`);
            if (this.going) this.loop();
        } catch (error) {
            if (run === this.run) this.failed(error);
        }
    }

    buttons() {
        find('go').textContent = this.going ? 'Pause' : 'Start';
    }

    pause(words = 'paused') {
        this.going = false;
        this.buttons();
        this.say(`${words} at step ${this.shown[0].steps.length}${this.device ? `, on ${this.device}` : ''}`);
    }

    async go() {
        this.going = true;
        this.buttons();
        if (!this.ready) await this.reset(true);
        else this.loop();
    }

    async step() {
        if (this.going) this.pause();
        if (!this.ready) await this.reset(false);
        if (this.ready && !this.busy) await this.some(1, this.run);
    }

    // Steps for as long as nobody pauses.
    async loop() {
        if (this.busy) return;
        const run = this.run;
        let saved = performance.now();
        [this.since, this.from] = [performance.now(), this.shown[0].steps.length];
        while (this.going && this.ready && run === this.run) {
            const begun = performance.now();
            if (!(await this.some(this.count, run))) return;
            const took = performance.now() - begun;
            this.count = Math.max(1, Math.min(MOST_STEPS, Math.round((this.count * CALL_MS) / took), 2 * this.count));
            if (performance.now() - saved > SAVE_MS) {
                saved = performance.now();
                if (!(await this.asked(run, 'save'))) return;
            }
            if (this.shown[0].steps.length >= MOST_KEPT) this.pause('enough:');
        }
        // Another beginning while these steps were on their way.
        if (this.going && this.ready && run !== this.run) this.loop();
    }

    // A call of the worker; null where it failed.
    async asked(run, ...call) {
        this.busy = true;
        try {
            return (await this.remote.call(...call)) ?? true;
        } catch (error) {
            if (run === this.run) this.failed(error);
            return null;
        } finally {
            this.busy = false;
        }
    }

    async some(count, run) {
        const numbers = await this.asked(run, 'steps', count);
        if (!numbers || run !== this.run) return numbers !== null;
        const each = numbers.length / 2 / FIELDS.length;
        this.shown.forEach((shown, i) => {
            for (let step = 0; step < each; step++) {
                const at = (i * each + step) * FIELDS.length;
                shown.add(numbers.subarray(at, at + FIELDS.length));
            }
        });
        const steps = this.shown[0].steps.length;
        const rate = ((steps - this.from) * 1000) / (performance.now() - this.since);
        this.say(this.going ? `step ${steps}, ${short(rate)} steps a second, on ${this.device}` : `paused at step ${steps}, on ${this.device}`);
        await this.draw();
        return true;
    }

    // Draws with the next frame, each plot in a task of its own.
    async draw() {
        await new Promise((resolve) => {
            requestAnimationFrame(resolve);
            // Frames do not come to what is hidden.
            setTimeout(resolve, 100);
        });
        for (const shown of this.shown) {
            shown.draw();
            await new Promise((resolve) => setTimeout(resolve));
        }
    }

    failed(error) {
        [this.going, this.ready] = [false, false];
        this.buttons();
        this.say(error.message, true);
        if (error.name === 'Lost') {
            find('lost').hidden = false;
            find('lost-words').textContent = `${error.message}. Both runs can go on from where they were last remembered.`;
            find('resume').focus();
        }
    }

    async resume() {
        const run = ++this.run;
        find('lost').hidden = true;
        this.say('opening another device …');
        try {
            const { device, steps } = await this.remote.call('resume');
            if (run !== this.run) return;
            this.device = device;
            this.shown.forEach((shown) => shown.cut(Math.min(steps, shown.steps.length)));
            [this.ready, this.going] = [true, true];
            this.buttons();
            await this.loop();
        } catch (error) {
            if (run === this.run) this.failed(error);
        }
    }

    async copyLink() {
        await this.remember();
        try {
            await navigator.clipboard.writeText(location.href);
            this.say('the link is copied');
        } catch {
            this.say('the link is in the address bar');
        }
    }
}

export async function train(address, there) {
    const tab = new Train(address);
    await tab.begin();
    for (const button of find('train').querySelectorAll('.buttons button')) button.disabled = !there;
}
