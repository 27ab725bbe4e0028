// Plots of a run, drawn by uPlot.

import uPlot from './uPlot.esm.js';

const HEIGHT = 190;

export function colour(name) {
    const probe = document.createElement('span');
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
}

// A number in few characters.
export function short(value) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : '∞';
    if (value === 0) return '0';
    const magnitude = Math.abs(value);
    if (magnitude < 1e5 && magnitude >= 1e-3) return String(Number(value.toPrecision(3)));
    return value.toExponential(1).replace('.0e', 'e').replace('e+', 'e');
}

// Lines of a logarithmic scale: powers of ten alone where there are many.
function decades(_, splits) {
    const many = splits.at(-1) / splits[0] > 1e3;
    return splits.map((split) => (many && Math.abs(Math.log10(split) % 1) > 1e-9 ? null : split));
}

function axes(x) {
    const [stroke, line] = [colour('quiet'), colour('line')];
    const axis = { stroke, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: '12px system-ui' };
    const values = (_, ticks) => ticks.map((tick) => (tick === null ? '' : short(tick)));
    const lines = { stroke: line, width: 1, filter: decades };
    return [{ ...axis, label: x, labelSize: 18, size: 34 }, { ...axis, size: 58, values, grid: lines, ticks: lines }];
}

// A plot with a logarithmic scale, of `series` over steps, as wide as its place.
function plot(place, title, series, range) {
    const options = {
        title,
        width: place.clientWidth || 400,
        height: HEIGHT,
        cursor: { show: false },
        legend: { show: false },
        scales: { x: { time: false, range: (_, low, high) => [low ?? 1, Math.max(high ?? 1, (low ?? 1) + 10)] }, y: { distr: 3, range } },
        axes: axes('step'),
        series: [{}, ...series],
    };
    const made = new uPlot(options, [[], ...series.map(() => [])], place);
    new ResizeObserver(() => {
        if (place.clientWidth > 0 && place.clientWidth !== made.width) made.setSize({ width: place.clientWidth, height: HEIGHT });
    }).observe(place);
    return made;
}

const marks = (stroke, size) => ({ stroke, paths: () => null, points: { show: true, size, stroke, fill: stroke } });

// `range` gives the smallest and largest value of both runs, so that they can be compared.
export function lossPlot(place, range) {
    return plot(place, 'loss (nats a character)', [{ stroke: colour('blue'), width: 1.5, points: { show: false } }], range);
}

export function normPlot(place, range) {
    const series = [
        { stroke: colour('blue'), width: 1, points: { show: false } },
        marks(colour('orange'), 4),
        marks(colour('red'), 7),
        { stroke: colour('green'), width: 1.5, dash: [6, 4], points: { show: false } },
    ];
    return plot(place, 'norm of the gradients', series, range);
}

// Milliseconds over elements, both logarithmic.
export function benchPlot(place, title, names) {
    const colours = ['blue', 'orange'];
    const options = {
        title,
        width: place.clientWidth || 400,
        height: 260,
        cursor: { show: false },
        scales: { x: { time: false, distr: 3 }, y: { distr: 3 } },
        axes: axes('elements'),
        series: [{}, ...names.map((label, i) => ({ label, stroke: colour(colours[i]), width: 2, points: { show: true, size: 6 } }))],
    };
    options.axes[0].values = options.axes[1].values;
    return new uPlot(options, [[], ...names.map(() => [])], place);
}
