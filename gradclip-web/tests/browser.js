// Debian's Chromium with WebGPU on SwiftShader, without a window.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
    '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
];

// Opens a browser with a profile of its own.
export async function open({ without = [], besides = [] } = {}) {
    const profile = mkdtempSync(join(tmpdir(), 'gradclip-page-'));
    const context = await chromium.launchPersistentContext(profile, {
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        headless: true,
        args: [...FLAGS.filter((flag) => !without.includes(flag)), ...besides],
        viewport: { width: 1200, height: 1000 },
        acceptDownloads: true,
    });
    const close = async () => {
        await context.close();
        rmSync(profile, { recursive: true, force: true });
    };
    return { context, close };
}

// A page, and what its console and that of its workers say that nobody wants to read.
export async function visit(context, address) {
    const page = await context.newPage();
    const said = [];
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && said.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => said.push(`uncaught: ${error.message}`));
    await page.goto(address);
    await page.waitForSelector('body[data-ready]', { timeout: 60000 });
    return { page, said };
}

// A picture of the page, where SHOTS names a folder for them.
export async function picture(page, name) {
    if (process.env.SHOTS) await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`), fullPage: true });
}
